// What an entry of a Quotary log may be: canonical JSON, the envelope, every kind of statement, the state entry.
//
// Specification: docs/formats/statements.md, and nothing else: this was written without the registry's code beside it, so
// that two readings of one text are compared. Everything is strict; what the page does not allow is `Malformed`.

import { concat, hex, sha256 } from "./trie.js";
import { array, ascending, base64, canonical, demand, distinct, free, hexOf, identity, integer, isObject, matches,
  members, name, object, parseDocument, service, set, text, textSet, time } from "./documents.js";
import { holds, isPublicKey, keyOfSpki } from "./ed25519.js";

/** A sound statement of a kind that is not ours; it has an id all the same. */
export class UnknownKind extends Error {
  statementId = "";
}

/** @typedef {{log: string, service: string, sequence: number, issued: string} & Record<string, any>} Predicate */
/** @typedef {{keyid: string, sig: Uint8Array}} Signature */
/** @typedef {{id: string, kind: string, predicate: Predicate, payload: Uint8Array, signatures: Signature[]}} Statement */

const ENTRY_LENGTH = 65_535;
const TS_LIMIT = 253_370_764_800;
const ENDS = ["freeze", "shard-closed"];
const PAYLOAD_TYPE = "application/vnd.in-toto+json";
const STATEMENT_TYPE = "https://in-toto.io/Statement/v1";
const NOTICES = ["keyset", "receipt-root", "issuer-key", "key-release", "location", "artefact"];

export const utf8 = new TextEncoder();

// --- Entries --------------------------------------------------------------------------------------------------------

/**
 * A reserved record, which only the log makes; null where the entry is something else.
 * @param {Uint8Array} entry
 */
export function parseReserved(entry) {
  let value;
  try { value = parseDocument(entry); } catch { return null; }
  return isObject(value) && Object.hasOwn(value, "type") && !Object.hasOwn(value, "payload") ? value : null;
}

/**
 * Check that a reserved record of type `state` is the state entry that belongs here.
 * @param {any} record @param {number} index @param {{size: number, ts: number, end?: string}|null} before the state entry before
 */
export function checkState(record, index, before) {
  object(record, ["type", "v", "size", "maps", "ts", "end?", ...(before ? ["prev"] : [])]);
  demand(record.v === 1 && record.size === index, `size ${record.size}, version ${record.v} at index ${index}`);
  members(record.maps, Infinity);
  hexOf(record.maps.F1, 32);
  integer(record.ts, before ? before.ts : 0, TS_LIMIT);
  demand(!before || record.prev === before.size, "prev is not the state entry before");
  demand(record.end === undefined || ENDS.includes(record.end), "an end that does not exist");
  demand(before?.end === undefined, `an entry after the ${before?.end}`);
  return record;
}

/** Parse an entry by every rule but those of signatures. @param {Uint8Array} entry @returns {Promise<Statement>} */
export async function parseStatement(entry) {
  demand(entry.length <= ENTRY_LENGTH, `found ${entry.length} bytes, wanted at most ${ENTRY_LENGTH}`);
  const envelope = object(parseDocument(entry), ["payload", "payloadType", "signatures"]);
  demand(envelope.payloadType === PAYLOAD_TYPE, "not the payload type of a statement");
  const signatures = array(envelope.signatures, 1, 32).map((item) => {
    object(item, ["keyid", "sig"]);
    identity(item.keyid);
    return { keyid: item.keyid, sig: base64(item.sig, 64) };
  });
  ascending(signatures.map(({ keyid }) => keyid));
  const payload = base64(envelope.payload);
  demand(payload.length > 0, "an empty payload");
  const id = `sha256:${hex(await sha256(payload))}`;
  try { return { id, ...await checkPayload(parseDocument(payload)), payload, signatures }; }
  catch (error) {
    if (error instanceof UnknownKind) error.statementId = id;
    throw error;
  }
}

async function checkPayload(value) {
  const { predicate, subject, ...types } = object(value, ["_type", "predicateType", "predicate", "subject"]);
  demand(types._type === STATEMENT_TYPE, "not an in-toto statement");
  text(types.predicateType, 256);
  demand(isObject(predicate), "a predicate that is no object");
  const kind = Object.keys(KINDS).find((known) => types.predicateType === `https://quotary.dev/${known}/v1`);
  if (kind === undefined) throw new UnknownKind(types.predicateType);
  object(predicate, ["log", "service", "sequence", "issued", ...KINDS[kind].members]);
  name(predicate.log);
  service(predicate.service);
  integer(predicate.sequence, 1);
  time(predicate.issued);
  const about = await KINDS[kind].check(predicate);
  const wanted = about.map(([of, sha256]) => ({ digest: { sha256 }, name: of }));
  demand(canonical(subject) === canonical(wanted), "a subject that the predicate is not about");
  return { kind, predicate };
}

/**
 * Check one signature over a statement with a key of a delegation.
 * @param {Statement} statement @param {Signature} signature @param {string} spki base64 of the key's SPKI DER
 */
export async function signatureHolds(statement, signature, spki) {
  const header = `DSSEv1 ${PAYLOAD_TYPE.length} ${PAYLOAD_TYPE} ${statement.payload.length} `;
  return holds(keyOfSpki(base64(spki)), signature.sig, concat(utf8.encode(header), statement.payload));
}

// --- Kinds: each check returns the subject as pairs of name and SHA-256 -----------------------------------------------

const KINDS = {
  delegation: { members: ["previous?", "expires", "keys", "roles", "compromised?", "predecessor?"], check: delegation },
  release: {
    members: ["not_after", "source", "lock_sha256", "weights_sha256", "policy_sha256", "outputs", "rows", "material"],
    check: release,
  },
  rebuild: { members: ["release", "organisation", "tool", "verdict", "rows", "detail?"], check: rebuild },
  revocation: {
    members: ["action", "until?", "release?", "measurements?", "reason", "advisory?", "replacement?"], check: revocation,
  },
  "tcb-floor": { members: ["expires", "platform", "product", "floor"], check: tcbFloor },
  ...Object.fromEntries(NOTICES.map((kind) => [kind, { members: ["items", "uri?", "data?"], check: notice }])),
};

/** @param {string} kind */
export const isNotice = (kind) => NOTICES.includes(kind);

/** The key of a record in the status map. @param {string} kind @param {string[]} names @returns {Promise<string>} hex */
export async function mapKey(kind, names) {
  return hex(await sha256(utf8.encode([`quotary-map/${kind}/v1`, ...names].join("\n"))));
}

/** @param {{platform: string, registers: Record<string, string>}} row @returns {Promise<string>} hex */
export async function measurementId({ platform, registers }) {
  return hex(await sha256(utf8.encode(`quotary-measurement/v1\n${canonical({ platform, registers })}`)));
}

async function delegation(predicate) {
  const { service, sequence, previous, expires, keys, roles, compromised } = predicate;
  demand((previous === undefined) === (sequence === 1), "previous is absent exactly when sequence is 1");
  if (previous !== undefined) identity(previous);
  time(expires);
  for (const [id, spki] of members(keys, 64)) await checkKey(id, spki);
  checkRoles(roles, keys, service, sequence);
  if (predicate.predecessor !== undefined) {
    demand(service === "log" && sequence === 1, "only a genesis has a predecessor");
    checkPredecessor(predicate.predecessor, predicate.log);
  }
  if (compromised !== undefined) {
    demand(sequence > 1, "the first delegation knows no compromised keys");
    for (const item of array(compromised, 1, 64)) {
      object(item, ["key", "from_index"]);
      identity(item.key);
      integer(item.from_index, 0);
      demand(!Object.hasOwn(keys, item.key), "a compromised key stands in keys");
    }
    ascending(compromised.map(({ key }) => key));
  }
  return [[service, await mapKey("service", [service])]];
}

function checkPredecessor(predecessor, log) {
  object(predecessor, ["origin", "size", "root", "map"]);
  name(predecessor.origin);
  demand(predecessor.origin !== log, "its own predecessor");
  integer(predecessor.size, 1);
  hexOf(predecessor.root, 32);
  hexOf(predecessor.map, 32);
}

async function checkKey(id, spki) {
  identity(id);
  const der = base64(spki), key = keyOfSpki(der);
  demand(key !== null && isPublicKey(key), "not the SPKI of an Ed25519 key");
  demand(id === `sha256:${hex(await sha256(der))}`, "a key id that is another key's");
}

function checkRoles(roles, keys, service, sequence) {
  const isLog = service === "log", must = isLog ? "root" : "owner";
  const known = isLog ? ["root", "tcb", "security", "rebuilder", ...NOTICES]
    : sequence === 1 ? ["owner"] : ["owner", "builder", ...NOTICES];
  const used = new Set();
  for (const [role, value] of members(roles, known.length)) {
    demand(known.includes(role), `a role that does not exist here: ${role}`);
    object(value, ["keys", "threshold"]);
    set(value.keys, 1, 64, (id) => demand(typeof id === "string" && Object.hasOwn(keys, id), "a role's key is not in keys"));
    integer(value.threshold, 1, value.keys.length);
    value.keys.forEach((id) => used.add(id));
  }
  demand(Object.hasOwn(roles, must), `role ${must} is missing`);
  demand(used.size === Object.keys(keys).length, "a key without a role");
}

async function release(predicate) {
  demand(predicate.service !== "log", "the log has no releases");
  time(predicate.not_after);
  object(predicate.source, ["uri", "revision"]);
  text(predicate.source.uri, 1024);
  text(predicate.source.revision, 128);
  for (const member of ["lock_sha256", "weights_sha256", "policy_sha256"]) hexOf(predicate[member], 32);
  const outputs = array(predicate.outputs, 1, 64);
  for (const output of outputs) {
    namedDigest(output, ["name", "sha256", "size", "nar_sha256?"]);
    if (output.nar_sha256 !== undefined) hexOf(output.nar_sha256, 32);
  }
  distinct(outputs.map((output) => output.name));
  const rows = array(predicate.rows, 1, 256);
  rows.forEach(checkRow);
  distinct(await Promise.all(rows.map(measurementId)));
  free(predicate.material, 256);
  return outputs.map((output) => [output.name, output.sha256]);
}

function namedDigest(item, allowed) {
  object(item, allowed);
  name(item.name);
  hexOf(item.sha256, 32);
  if (item.size !== undefined) integer(item.size, 0);
}

/** For each hardware: its registers, their bytes, and the bytes of its configuration field. */
const PLATFORMS = {
  tdx: { registers: ["mrtd", "rtmr1", "rtmr2"], length: 48, configuration: 48, require: ["rtmr0?", "td_attributes?", "xfam?"] },
  snp: { registers: ["measurement"], length: 48, configuration: 32, require: ["guest_policy?"] },
  nitro: { registers: ["pcr0", "pcr1", "pcr2"], length: 48, configuration: null, require: [] },
  sgx: { registers: ["mrenclave"], length: 32, configuration: 64, require: [] },
};

const hardwareOf = (platform) => platform.replace(/^sim-/, "");

function checkRow(row) {
  object(row, ["platform", "profile", "profile_sha256", "registers", "require", "shape?"]);
  matches(row.platform, /^(sim-)?(tdx|snp|nitro|sgx)$/, "a platform");
  const hardware = PLATFORMS[hardwareOf(row.platform)];
  name(row.profile, 128);
  hexOf(row.profile_sha256, 32);
  object(row.registers, hardware.registers);
  Object.values(row.registers).forEach((value) => hexOf(value, hardware.length));
  checkRequire(row.require, hardware);
  if (row.shape !== undefined) free(row.shape, 32);
}

function checkRequire(value, hardware) {
  object(value, ["configuration", "guest?", "devices?", ...hardware.require]);
  if (value.configuration !== "none") {
    demand(hardware.configuration !== null, "this platform has no configuration field");
    set(value.configuration, 1, 16, (item) => hexOf(item, hardware.configuration));
  }
  if (value.rtmr0 !== undefined) checkRtmr0(value.rtmr0, value.guest);
  for (const member of ["td_attributes", "xfam", "guest_policy"]) if (value[member] !== undefined) checkMask(value[member]);
  if (value.guest !== undefined) demand(canonical(value.guest) === '["acpi-sandbox"]', "unknown guest requirement");
  if (value.devices !== undefined) checkDevices(value.devices);
}

function checkRtmr0(value, guest) {
  if (isObject(value) && Object.hasOwn(value, "exact")) {
    object(value, ["exact"]);
    return set(value.exact, 1, 64, (item) => hexOf(item, 48));
  }
  object(value, ["replay"]);
  const { free: slots } = object(value.replay, ["free"]);
  textSet(slots, 1, 16, 64);
  demand(guest !== undefined || !slots.some((slot) => slot.startsWith("acpi")), "free acpi slots need the guest's sandbox");
}

function checkMask(value) {
  object(value, ["mask", "value"]);
  hexOf(value.mask, 8);
  hexOf(value.value, 8);
  demand((BigInt(`0x${value.value}`) & ~BigInt(`0x${value.mask}`)) === 0n, "a value outside its mask");
}

function checkDevices(value) {
  for (const device of array(value, 1, 4)) {
    object(device, ["architecture", "count", "drivers", "vbios"]);
    name(device.architecture, 64);
    integer(device.count, 1, 64);
    textSet(device.drivers, 1, 16, 64);
    textSet(device.vbios, 1, 16, 64);
  }
  ascending(value.map(({ architecture }) => architecture));
}

function rebuild(predicate) {
  demand(predicate.service !== "log", "the log has no releases");
  identity(predicate.release);
  text(predicate.organisation, 256);
  text(predicate.tool, 256);
  if (predicate.detail !== undefined) text(predicate.detail, 1024);
  const rows = array(predicate.rows, 0, 256);
  for (const row of rows) {
    object(row, ["measurement", "match", "found?"]);
    hexOf(row.measurement, 32);
    demand(typeof row.match === "boolean", "match is no boolean");
    if (row.found !== undefined) checkFound(row);
  }
  ascending(rows.map(({ measurement }) => measurement));
  const verdict = rows.length === 0 ? "failed" : rows.every(({ match }) => match) ? "match" : "mismatch";
  demand(predicate.verdict === verdict, `a verdict that its rows do not give: wanted ${verdict}`);
  return [["release", predicate.release.slice("sha256:".length)]];
}

function checkFound(row) {
  demand(!row.match, "a row that matches found something else");
  const registers = members(row.found, 16);
  demand(registers.length > 0, "found names no register");
  for (const [, value] of registers) matches(value, /^([0-9a-f]{2}){1,64}$/, "hex of 1 to 64 bytes");
}

function revocation(predicate) {
  const { action, until, release, measurements } = predicate;
  demand(action === "revoke" || action === "suspend", "an unknown action");
  demand((until !== undefined) === (action === "suspend"), "until stands exactly in a suspension");
  if (until !== undefined) time(until);
  demand((release === undefined) !== (measurements === undefined), "wanted exactly one of release and measurements");
  if (measurements !== undefined) set(measurements, 1, 256, (item) => hexOf(item, 32));
  if (release !== undefined) identity(release);
  text(predicate.reason, 512);
  if (predicate.advisory !== undefined) text(predicate.advisory, 1024);
  if (predicate.replacement !== undefined) identity(predicate.replacement);
  return release ? [["release", release.slice("sha256:".length)]] : measurements.map((id) => ["measurement", id]);
}

async function tcbFloor(predicate) {
  const { platform, product, floor } = predicate;
  demand(predicate.service === "log", "floors are the log's");
  time(predicate.expires);
  name(platform, 64);
  name(product, 128);
  const hardware = hardwareOf(platform);
  if (hardware === "tdx" || hardware === "sgx") hexOf(product, 6);
  object(floor, ["minimum", "evaluation_number", "accepted_status", "grace_seconds",
    "denied_advisories", "denied_families", "denied_chips"]);
  checkMinimum(floor.minimum, hardware);
  integer(floor.evaluation_number, 0);
  textSet(floor.accepted_status, 1, 16, 64);
  integer(floor.grace_seconds, 0, 31_622_400);
  textSet(floor.denied_advisories, 0, 256, 64);
  textSet(floor.denied_families, 0, 256, 64);
  textSet(floor.denied_chips, 0, 256, 128);
  return [[`${platform}/${product}`, await mapKey("tcb", [platform, product])]];
}

/** Components of the platforms that we know: hex of so many bytes, or (0) an integer of 16 bits. */
const COMPONENTS = {
  tdx: { tee_tcb_svn: 16, sgx_tcb_svn: 16, pce_svn: 0 },
  sgx: { sgx_tcb_svn: 16, pce_svn: 0 },
  snp: { bootloader: 0, tee: 0, snp: 0, microcode: 0, fmc: 0 },
};

function checkMinimum(minimum, hardware) {
  const known = Object.hasOwn(COMPONENTS, hardware) ? COMPONENTS[hardware] : null;
  if (known) object(minimum, Object.keys(known));
  for (const [component, value] of members(minimum, 32)) {
    if (known && known[component] > 0) hexOf(value, known[component]);
    else if (known) integer(value, 0, 65_535);
    else if (typeof value === "string") matches(value, /^([0-9a-f]{2}){1,128}$/, "hex of 1 to 128 bytes");
    else integer(value, 0);
  }
}

function notice(predicate) {
  const items = array(predicate.items, 1, 256);
  for (const item of items) namedDigest(item, ["name", "sha256", "size?"]);
  distinct(items.map((item) => item.name));
  if (predicate.uri !== undefined) text(predicate.uri, 1024);
  if (predicate.data !== undefined) free(predicate.data, 256);
  return items.map((item) => [item.name, item.sha256]);
}
