// Canonical JSON, and the shapes that the members of Quotary's documents have.
//
// Specification: docs/formats/statements.md, "Canonical JSON". What the page does not allow is `Malformed`.

export class Malformed extends Error {}

const DEPTH = 16;
const NO_TEXT = /[\u0000-\u001f\u007f-\u009f]|\p{Cs}/u;
const MEMBER_NAME = /^[A-Za-z0-9._:/-]{1,256}$/;
const IDENTITY = /^sha256:[0-9a-f]{64}$/;
const TIME = /^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$/;
const SEGMENT = "[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?";
const SERVICE = new RegExp(`^${SEGMENT}(?:/${SEGMENT})*$`);

/** @param {boolean} sound @param {string} what */
export function demand(sound, what) {
  if (!sound) throw new Malformed(what);
}

// --- Canonical JSON -------------------------------------------------------------------------------------------------

/** Write a document. A member whose value is undefined is absent. @returns {string} */
export function canonical(value) {
  if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`;
  if (typeof value !== "object") return JSON.stringify(value);
  const names = Object.keys(value).filter((name) => value[name] !== undefined).sort();
  return `{${names.map((name) => `${JSON.stringify(name)}:${canonical(value[name])}`).join(",")}}`;
}

/** Read a document: parse, check, write again, compare. @param {Uint8Array} bytes */
export function parseDocument(bytes) {
  let text, value;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    value = JSON.parse(text);
  } catch { throw new Malformed("not JSON"); }
  checkValue(value, 1);
  demand(canonical(value) === text, "not canonical JSON");
  return value;
}

/** @param {unknown} value @param {number} depth of this value, should it be an object or array; the outermost has 1 */
function checkValue(value, depth) {
  if (typeof value === "boolean" || Number.isSafeInteger(value)) return;
  if (typeof value === "string") return demand(!NO_TEXT.test(value), "a string holds control characters or surrogates");
  demand(typeof value === "object" && value !== null, "a value that is no object, array, string, boolean or integer");
  demand(depth <= DEPTH, `nested deeper than ${DEPTH}`);
  if (!Array.isArray(value)) Object.keys(value).forEach((name) => demand(MEMBER_NAME.test(name), "not a member name"));
  for (const item of Object.values(value)) checkValue(item, depth + 1);
}

// --- Texts and shapes -----------------------------------------------------------------------------------------------

export const isObject = (value) => typeof value === "object" && !Array.isArray(value);
/** In code points, as lengths of strings are counted. @param {string} text */
const lengthOf = (text) => [...text].length;

/** An object with these members; a name that ends in `?` may be absent. @param {string[]} members */
export function object(value, members) {
  demand(isObject(value), "not an object");
  const allowed = members.map((name) => name.replace("?", ""));
  for (const name of Object.keys(value)) demand(allowed.includes(name), `unknown member ${name}`);
  for (const name of members) demand(name.endsWith("?") || Object.hasOwn(value, name), `member ${name} is missing`);
  return value;
}

export function array(value, least, most) {
  demand(Array.isArray(value) && value.length >= least && value.length <= most, `not an array of ${least} to ${most} items`);
  return value;
}

/** An object whose member names are free. @returns {[string, any][]} */
export function members(value, most) {
  demand(isObject(value) && Object.keys(value).length <= most, `not an object of at most ${most} members`);
  return Object.entries(value);
}

export function text(value, most) {
  const length = typeof value === "string" ? lengthOf(value) : 0;
  demand(length >= 1 && length <= most, `not a text of 1 to ${most} characters`);
}

export function matches(value, pattern, what) {
  demand(typeof value === "string" && pattern.test(value), `not ${what}`);
}

export const name = (value, most = 256) => matches(value, new RegExp(`^[a-z0-9._:/-]{1,${most}}$`), `a name of at most ${most}`);
export const identity = (value) => matches(value, IDENTITY, "an identity");
export const hexOf = (value, length) => matches(value, new RegExp(`^[0-9a-f]{${2 * length}}$`), `hex of ${length} bytes`);

export function integer(value, least, most = Number.MAX_SAFE_INTEGER) {
  demand(Number.isSafeInteger(value) && value >= least && value <= most, `not an integer from ${least} to ${most}`);
}

export function service(value) {
  matches(value, SERVICE, "a service");
  demand(value.length <= 100, "a service of more than 100 characters");
}

export function time(value) {
  matches(value, TIME, "a time");
  const at = new Date(value);
  demand(at.getTime() >= 0 && at.toISOString() === value.replace("Z", ".000Z"), "a time that does not exist");
}

/** @param {string} value a time @returns {number} since 1970 */
export const seconds = (value) => Date.parse(value) / 1000;
/** @param {number} at seconds since 1970 */
export const timeText = (at) => new Date(at * 1000).toISOString().replace(".000Z", "Z");

/** Order by code points; JavaScript's own order is by UTF-16 units. @param {string} a @param {string} b */
function comesBefore(a, b) {
  const left = [...a], right = [...b];
  const i = left.findIndex((c, at) => c !== right[at]);
  return i < 0 ? left.length < right.length : i < right.length && left[i].codePointAt(0) < right[i].codePointAt(0);
}

/** Strictly ascending, so each once. @param {string[]} keys */
export function ascending(keys) {
  keys.forEach((key, i) => demand(i === 0 || comesBefore(keys[i - 1], key), "not in ascending order"));
}

export function set(value, least, most, check) {
  array(value, least, most).forEach(check);
  ascending(value);
}

export const textSet = (value, least, most, length) => set(value, least, most, (item) => text(item, length));
export const distinct = (keys) => demand(new Set(keys).size === keys.length, "an item stands twice");

/** Padded base64 that encodes again to the same text. @param {unknown} value @param {number=} length in bytes */
export function base64(value, length) {
  let binary;
  try { binary = atob(value); } catch { throw new Malformed("not base64"); }
  demand(btoa(binary) === value, "base64 is not canonical");
  demand(length === undefined || binary.length === length, `found ${binary.length} bytes, wanted ${length}`);
  return Uint8Array.from(binary, (c) => c.charCodeAt(0));
}

export function free(value, most) {
  members(value, most);
  const check = (item) => {
    if (typeof item !== "object") return;
    if (!Array.isArray(item)) Object.keys(item).forEach((key) => name(key));
    Object.values(item).forEach(check);
  };
  check(value);
}
