// Quotary's checks, in the reader's own browser: this module and ed25519.js, served as they are written.
//
// It recomputes what an entry page claims from three things: the entry's bytes, a C2SP tlog-proof and the log's policy.
// Formats: c2sp.org/tlog-proof, c2sp.org/signed-note, c2sp.org/tlog-checkpoint, c2sp.org/tlog-cosignature, RFC 9162
// section 2.1. Hashes and signatures come from WebCrypto; nothing is sent anywhere.
//
// What it cannot do: code served by a log cannot convict that log. The command line and other people's tools can.

import { NotHere, holds, isPublicKey } from "./ed25519.js";

export class Malformed extends Error {}
export class Rejected extends Error {}
/** A check that this browser cannot make; never shown as passed. */
export { NotHere };
/** Sound, and still not to be believed: a signature or a quorum that the policy demands is missing, or the log has ended. */
export class Refused extends Error {}

const utf8 = new TextEncoder();
const NOTE_LENGTH = 1_000_000, NOTE_SIGNATURES = 100, PATH_LENGTH = 63, SIZE = 2n ** 63n - 1n;
const CONTROL = /[\u0000-\u0009\u000b-\u001f]/;
const KEY_NAME = /^[^+\u0000-\u001f\p{White_Space}]+$/u;
const ED25519 = 0x01, ECDSA = 0x02, COSIGNATURE = 0x04, ML_DSA_44 = 0x06;
const KEY_LENGTHS = { [ED25519]: 32, [COSIGNATURE]: 32, [ML_DSA_44]: 1312 };
const SIGNATURE_LENGTHS = { [ED25519]: 64, [COSIGNATURE]: 64, [ML_DSA_44]: 2420 };
const CURVES = ["P-256", "P-384", "P-521"];

/** @param {Uint8Array[]} parts @returns {Uint8Array} */
export function concat(...parts) {
  const all = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let at = 0;
  for (const part of parts) { all.set(part, at); at += part.length; }
  return all;
}

/** @param {Uint8Array} data @returns {Promise<Uint8Array>} 32 bytes */
export async function sha256(data) {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", data));
}

/** Padded standard base64 that re-encodes to the same text. @param {string} text @param {number=} length in bytes */
export function fromBase64(text, length) {
  let binary;
  try { binary = atob(text); } catch { throw new Malformed(`not base64: ${text.slice(0, 20)}`); }
  if (btoa(binary) !== text) throw new Malformed("base64 is not canonical");
  if (length !== undefined && binary.length !== length) throw new Malformed(`found ${binary.length} bytes, wanted ${length}`);
  return Uint8Array.from(binary, (c) => c.charCodeAt(0));
}

/** @param {Uint8Array} data */
export const hex = (data) => Array.from(data, (b) => b.toString(16).padStart(2, "0")).join("");

/** @param {Uint8Array} a @param {Uint8Array} b */
const same = (a, b) => hex(a) === hex(b);

/** @param {bigint} value */
function u64(value) {
  const out = new Uint8Array(8);
  new DataView(out.buffer).setBigUint64(0, value);
  return out;
}

/** A decimal without sign or leading zeros. @param {string} text @param {string} what */
function decimal(text, what) {
  if (!/^(0|[1-9][0-9]{0,18})$/.test(text) || BigInt(text) > SIZE) throw new Malformed(`${what} is not a number: ${text.slice(0, 20)}`);
  return BigInt(text);
}

// --- Merkle tree ----------------------------------------------------------------------------------------------------

/** @param {Uint8Array} entry */
export const leafHash = (entry) => sha256(concat(Uint8Array.of(0), entry));
/** @param {Uint8Array} left @param {Uint8Array} right */
export const nodeHash = (left, right) => sha256(concat(Uint8Array.of(1), left, right));

/**
 * The root that a path leads to (RFC 9162 section 2.1.3.2).
 * @param {bigint} index @param {bigint} size @param {Uint8Array} leaf @param {Uint8Array[]} path
 */
export async function rootFromPath(index, size, leaf, path) {
  if (index >= size) throw new Rejected(`index ${index} is not below size ${size}`);
  let fn = index, sn = size - 1n, root = leaf;
  for (const sibling of path) {
    if (sn === 0n) throw new Rejected("the path is too long");
    if ((fn & 1n) === 1n || fn === sn) {
      root = await nodeHash(sibling, root);
      while ((fn & 1n) === 0n && fn !== 0n) { fn >>= 1n; sn >>= 1n; }
    } else {
      root = await nodeHash(root, sibling);
    }
    fn >>= 1n; sn >>= 1n;
  }
  if (sn !== 0n) throw new Rejected("the path is too short");
  return root;
}

// --- Signed notes ---------------------------------------------------------------------------------------------------

/** @param {string} text a vkey: name+hash+base64(type || key) */
export async function parseVerifierKey(text) {
  const [name, hash, ...rest] = text.split("+");
  const key = fromBase64(rest.join("+"));
  if (!KEY_NAME.test(name) || !/^[0-9a-f]{8}$/.test(hash ?? "") || key.length < 2) throw new Malformed("not a verifier key");
  // A key of a type that is not ours can be read and compared; how its id is made, and what it signs, we do not know.
  if (!(key[0] in KEY_LENGTHS) && key[0] !== ECDSA) return { name, id: hash, algorithm: key[0], key: key.slice(1) };
  if (key[0] !== ECDSA && key.length - 1 !== KEY_LENGTHS[key[0]]) throw new Malformed(`found a key of ${key.length - 1} bytes, wanted ${KEY_LENGTHS[key[0]]}`);
  const id = (await sha256(key[0] === ECDSA ? key.slice(1) : concat(utf8.encode(name + "\n"), key))).slice(0, 4);
  if (hex(id) !== hash) throw new Malformed(`key id of ${name}: found ${hash}, wanted ${hex(id)}`);
  if (KEY_LENGTHS[key[0]] === 32 && !isPublicKey(key.slice(1))) throw new Malformed(`${name}: not a canonical Ed25519 key that can prove anything`);
  if (key[0] === ECDSA && !await isEcdsaKey(key.slice(1))) throw new Malformed(`${name}: not the canonical DER of an ECDSA key`);
  return { name, id: hash, algorithm: key[0], key: key.slice(1) };
}

/** The one SPKI of a point on a NIST curve. @param {Uint8Array} der */
async function isEcdsaKey(der) {
  for (const namedCurve of CURVES) {
    try {
      const key = await crypto.subtle.importKey("spki", der, { name: "ECDSA", namedCurve }, true, ["verify"]);
      return same(new Uint8Array(await crypto.subtle.exportKey("spki", key)), der);
    } catch { /* Another curve, or none: the next one says. */ }
  }
  return false;
}

/** @param {string} text @returns {{text: string, signatures: {name: string, id: string, bytes: Uint8Array}[]}} */
export function parseNote(text) {
  const cut = text.lastIndexOf("\n\n");
  if (cut < 0 || !text.endsWith("\n") || CONTROL.test(text)) throw new Malformed("not a signed note");
  if (utf8.encode(text).length > NOTE_LENGTH) throw new Malformed(`a note of more than ${NOTE_LENGTH} bytes`);
  const lines = text.slice(cut + 2, -1).split("\n");
  if (lines.length > NOTE_SIGNATURES) throw new Malformed(`found ${lines.length} signatures, wanted at most ${NOTE_SIGNATURES}`);
  const signatures = lines.map((line) => {
    const match = /^— ([^ ]+) ([A-Za-z0-9+/=]+)$/.exec(line);
    const bytes = match ? fromBase64(match[2]) : new Uint8Array();
    if (!match || !KEY_NAME.test(match[1]) || bytes.length < 5) throw new Malformed("not a signature line");
    return { name: match[1], id: hex(bytes.slice(0, 4)), bytes: bytes.slice(4) };
  });
  return { text: text.slice(0, cut + 1), signatures };
}

/** @param {string} text the note's text: origin, size, root */
export function parseCheckpoint(text) {
  const lines = text.split("\n");
  if (lines.length !== 4 || lines[3] !== "" || !lines[0]) throw new Malformed("not a checkpoint");
  return { origin: lines[0], size: decimal(lines[1], "size"), root: fromBase64(lines[2], 32) };
}

/** What a cosigner signs with ML-DSA-44 over a whole tree (tlog-cosignature, type 0x06). */
function subtreeMessage(name, time, checkpoint) {
  const cosigner = utf8.encode(name), origin = utf8.encode(checkpoint.origin);
  return concat(utf8.encode("subtree/v1\n\0"), Uint8Array.of(cosigner.length), cosigner, u64(time),
    Uint8Array.of(origin.length), origin, u64(0n), u64(checkpoint.size), checkpoint.root);
}

/**
 * Check one signature line with one key. Returns the time it states (0 for a log's plain signature), or throws.
 * @returns {Promise<bigint>}
 */
export async function verifySignature(key, signature, note) {
  if (!(key.algorithm in KEY_LENGTHS)) throw new NotHere(`keys of type ${key.algorithm} are not ours to use`);
  const timed = key.algorithm !== ED25519, ours = `signature of ${key.name}`;
  if (signature.bytes.length !== SIGNATURE_LENGTHS[key.algorithm] + (timed ? 8 : 0)) throw new Rejected(`${ours} has ${signature.bytes.length} bytes`);
  const time = timed ? new DataView(signature.bytes.buffer, signature.bytes.byteOffset).getBigUint64(0) : 0n;
  if (time > SIZE) throw new Rejected(`${ours} has no time`);
  const bytes = timed ? signature.bytes.slice(8) : signature.bytes;
  const text = key.algorithm === COSIGNATURE ? `cosignature/v1\ntime ${time}\n${note.text}` : note.text;
  const good = key.algorithm === ML_DSA_44
    ? await mlDsaHolds(key.key, bytes, subtreeMessage(key.name, time, parseCheckpoint(note.text)))
    : await holds(key.key, bytes, utf8.encode(text));
  if (!good) throw new Rejected(`${ours} does not hold`);
  return time;
}

async function mlDsaHolds(key, signature, message) {
  let imported;
  try { imported = await crypto.subtle.importKey("raw-public", key, "ML-DSA-44", false, ["verify"]); }
  catch { throw new NotHere("ML-DSA-44 is not in this browser"); }
  return crypto.subtle.verify("ML-DSA-44", imported, signature, message);
}

// --- A proof file ---------------------------------------------------------------------------------------------------

/** @param {string} text c2sp.org/tlog-proof@v1 */
export function parseProof(text) {
  const cut = text.indexOf("\n\n");
  if (cut < 0) throw new Malformed("not a tlog-proof");
  const lines = text.slice(0, cut).split("\n");
  if (lines.shift() !== "c2sp.org/tlog-proof@v1") throw new Malformed("not a tlog-proof of version 1");
  if (lines[0]?.startsWith("extra ")) fromBase64(lines.shift().slice("extra ".length));
  const index = /^index (.*)$/.exec(lines.shift() ?? "");
  if (!index) throw new Malformed("the proof has no index");
  if (lines.length > PATH_LENGTH) throw new Malformed(`found a path of ${lines.length} hashes, wanted at most ${PATH_LENGTH}`);
  return { index: decimal(index[1], "index"), path: lines.map((line) => fromBase64(line, 32)), note: parseNote(text.slice(cut + 2)) };
}

/** The tlog policy in what a reader pastes: all of it, or a member of a policy/v1. @param {string} text */
function tlogPolicyOf(text) {
  if (!text.trimStart().startsWith("{")) return text;
  try { return String(JSON.parse(text).tlog_policy); } catch { throw new Malformed("the policy is not JSON"); }
}

/** @param {string} text a C2SP tlog-policy, or a policy/v1 with one: the keys of its log and witness lines */
export async function parsePolicyKeys(text) {
  const keys = [];
  for (const line of tlogPolicyOf(text).split("\n")) {
    const words = line.split(/[ \t]+/).filter(Boolean);
    if (words[0] === "log") keys.push({ role: "log", key: await parseVerifierKey(words[1]) });
    if (words[0] === "witness") keys.push({ role: "witness", key: await parseVerifierKey(words[2]) });
  }
  return keys;
}

/** @param {Uint8Array} entry the log's last; throws where it ends the log, or is no state entry */
function goesOn(entry) {
  let text, state;
  try { text = new TextDecoder("utf-8", { fatal: true }).decode(entry); state = JSON.parse(text); } catch { state = null; }
  // Written again it is the same text: no member stands there twice.
  if (state?.type !== "state" || "payload" in state || JSON.stringify(state) !== text) throw new Rejected("the last entry is no state entry");
  if (state.end !== undefined) throw new Refused(`this log ended with the ${String(state.end).slice(0, 40)}: nothing is believed on its word any more`);
  return `its last entry, ${state.size}, names no end`;
}

/**
 * Every check of an entry page, in order. Each result says what was found, wanted and against which anchor.
 * @param {Uint8Array} entry @param {string} proofText @param {string} policyText
 * @param {{entry: Uint8Array, proof: string}=} last the log's last entry, under the same checkpoint
 * @returns {Promise<{name: string, outcome: "passed"|"failed"|"not checked"|"refused", detail: string}[]>}
 */
export async function checkEntry(entry, proofText, policyText, last) {
  const results = [];
  const check = async (name, work) => {
    try { results.push({ name, outcome: "passed", detail: await work() }); }
    catch (error) {
      const outcome = error instanceof NotHere ? "not checked" : error instanceof Refused ? "refused" : "failed";
      results.push({ name, outcome, detail: String(error.message ?? error) });
    }
  };
  let proof, checkpoint;
  await check("proof parses", async () => {
    proof = parseProof(proofText);
    checkpoint = parseCheckpoint(proof.note.text);
    return `index ${proof.index}, ${proof.path.length} hashes, checkpoint of size ${checkpoint.size}`;
  });
  if (!checkpoint) return results;
  await check("inclusion", async () => {
    const leaf = await leafHash(entry);
    const root = await rootFromPath(proof.index, checkpoint.size, leaf, proof.path);
    if (!same(root, checkpoint.root)) throw new Rejected(`found root ${hex(root)}, wanted ${hex(checkpoint.root)}`);
    return `leaf ${hex(leaf).slice(0, 16)}… leads to root ${hex(root).slice(0, 16)}… of size ${checkpoint.size}`;
  });
  await check("the log goes on", async () => {
    const proofOfLast = last && parseProof(last.proof);
    if (proofOfLast?.note.text !== proof.note.text) throw new NotHere("the last entry of this checkpoint is not at hand; check again");
    const root = await rootFromPath(proofOfLast.index, checkpoint.size, await leafHash(last.entry), proofOfLast.path);
    if (proofOfLast.index !== checkpoint.size - 1n || !same(root, checkpoint.root)) throw new Rejected("the last entry is not proven");
    return goesOn(last.entry);
  });
  for (const { role, key } of await parsePolicyKeys(policyText)) {
    const kind = { [ED25519]: "Ed25519", [COSIGNATURE]: "Ed25519", [ML_DSA_44]: "ML-DSA-44" }[key.algorithm] ?? "unknown";
    await check(`${role} signature (${kind})`, async () => {
      const line = proof.note.signatures.find((s) => s.name === key.name && s.id === key.id);
      if (!line) throw role === "log" ? new Rejected(`no signature by ${key.name}`) : new NotHere(`${key.name} has not cosigned this checkpoint`);
      const time = await verifySignature(key, line, proof.note);
      return `${key.name} (key ${key.id})` + (time ? `, ${role === "log" ? "signed" : "witnessed"} at ${new Date(Number(time) * 1000).toISOString()}` : "");
    });
  }
  return results;
}

// --- What a reader pastes -------------------------------------------------------------------------------------------

/** A proof without an entry, or an entry without a proof: nothing to find. */
export class NotFound extends Error {}

/** @param {string} text a C2SP tlog-policy: which witnesses must have signed */
function parseQuorum(text) {
  const groups = new Map(), witnesses = new Map();
  let quorum;
  for (const line of tlogPolicyOf(text).split("\n")) {
    const words = line.split(/[ \t]+/).filter(Boolean);
    if (words[0] === "witness") witnesses.set(words[1], words[2]);
    if (words[0] === "quorum") quorum = words[1];
    if (words[0] !== "group") continue;
    const members = words.slice(3);
    const least = words[2] === "all" ? members.length : words[2] === "any" ? 1 : Number(decimal(words[2] ?? "", "threshold"));
    if (groups.has(words[1]) || least < 1 || least > members.length || members.some((name) => !groups.has(name) && !witnesses.has(name))) throw new Malformed(`group ${words[1]}`);
    groups.set(words[1], { least, members });
  }
  if (quorum !== "none" && !groups.has(quorum) && !witnesses.has(quorum)) throw new Malformed("the policy names no quorum");
  const holds = (name, signed) => groups.has(name)
    ? groups.get(name).members.filter((member) => holds(member, signed)).length >= groups.get(name).least
    : signed.has(witnesses.get(name));
  const timeOf = (name, times) => groups.has(name)
    ? groups.get(name).members.map((member) => timeOf(member, times)).sort((a, b) => b - a)[groups.get(name).least - 1]
    : times.get(witnesses.get(name)) ?? -Infinity;
  return { quorum, holds, timeOf };
}

const vkeyOf = ({ name, id, algorithm, key }) => `${name}+${id}+${btoa(String.fromCharCode(algorithm, ...key))}`;
/** Every signature line of one key. @returns {Promise<bigint|undefined>} the newest time; undefined: it has not signed */
async function newestTime(key, note) {
  const times = [];
  for (const line of note.signatures.filter((s) => s.name === key.name && s.id === key.id)) times.push(await verifySignature(key, line, note));
  return times.sort((a, b) => Number(a - b)).at(-1);
}

const AHEAD_SECONDS = 300;

/**
 * Until when the quorum of a policy has seen a checkpoint: of k witnesses of n, the k-th newest time.
 * @param {object} note @param {string} policyText @param {number} now seconds since 1970; what is too far ahead of it counts as absent
 * @returns {Promise<number|null>} null where the policy demands no witness, or this browser cannot check enough of them
 */
export async function quorumTime(note, policyText, now) {
  const times = new Map(), { quorum, timeOf } = parseQuorum(policyText);
  for (const { role, key } of await parsePolicyKeys(policyText)) {
    if (role !== "witness") continue;
    try {
      const time = Number(await newestTime(key, note) ?? 0n);
      if (time > 0 && time <= now + AHEAD_SECONDS) times.set(vkeyOf(key), time);
    } catch (error) { if (!(error instanceof NotHere)) throw error; }
  }
  const at = quorum === "none" ? -Infinity : timeOf(quorum, times);
  return at === -Infinity ? null : at;
}

const OUTCOMES = [[NotHere, "not checked"], [Malformed, "not checked"], [Refused, "refused"], [NotFound, "not found"]];

/**
 * A checkpoint, or a proof with its entry, under a policy. Nothing is fetched and nothing is sent.
 * @param {string} text @param {Uint8Array|null} entry @param {string} policyText
 * @returns {Promise<{verdict: "passed"|"mismatch"|"could-not-check"|"not-found"|"refused", results: object[]}>}
 */
export async function checkPasted(text, entry, policyText) {
  const results = [];
  const check = async (name, work) => {
    try { results.push({ name, outcome: "passed", detail: await work() }); return true; }
    catch (error) {
      const outcome = OUTCOMES.find(([kind]) => error instanceof kind)?.[1] ?? "failed";
      results.push({ name, outcome, detail: String(error.message ?? error) });
      return false;
    }
  };
  let proof = null, note, checkpoint, keys, rule;
  const subject = text.trim() + "\n";
  const readable = await check("the text can be read", async () => {
    if (!text.trim() && entry) throw new NotFound("an entry without a proof: nothing here says that a log holds it");
    if (subject.startsWith("c2sp.org/tlog-proof")) proof = parseProof(subject);
    note = proof ? proof.note : parseNote(subject);
    checkpoint = parseCheckpoint(note.text);
    return `${proof ? `proof of entry ${proof.index} under a` : "a"} checkpoint of ${checkpoint.origin} with ${checkpoint.size} entries`;
  }) && await check("the policy can be read", async () => {
    [keys, rule] = [await parsePolicyKeys(policyText), parseQuorum(policyText)];
    return `${keys.length} keys, quorum ${rule.quorum}`;
  });
  if (!readable) return { verdict: verdictOf(results), results };
  if (proof) await check("inclusion", async () => {
    if (!entry) throw new NotFound("the proof's entry is not here; paste its bytes as well");
    const root = await rootFromPath(proof.index, checkpoint.size, await leafHash(entry), proof.path);
    if (!same(root, checkpoint.root)) throw new Rejected(`found root ${hex(root)}, wanted ${hex(checkpoint.root)}`);
    return `the entry stands at index ${proof.index} of ${checkpoint.size}`;
  });
  if (proof && entry && proof.index === checkpoint.size - 1n) await check("the log goes on", async () => goesOn(entry));
  const logs = keys.filter(({ role, key }) => role === "log" && key.name === checkpoint.origin);
  if (!logs.length) await check("log keys", async () => { throw new Refused(`the policy has no key of ${checkpoint.origin}`); });
  for (const { key } of logs) await check(`log key ${key.id}`, async () => {
    if (await newestTime(key, note) === undefined) throw new Refused(`${key.name} has not signed with the key ${key.id}`);
    return `${key.name} signed with the key ${key.id}`;
  });
  await checkQuorum(keys.filter(({ role }) => role === "witness"), rule, note, check);
  return { verdict: verdictOf(results), results };
}

async function checkQuorum(witnesses, rule, note, check) {
  const signed = new Set(), unclear = new Set();
  for (const { key } of witnesses) {
    if (!note.signatures.some((s) => s.name === key.name && s.id === key.id)) continue;
    const vkey = vkeyOf(key);
    unclear.add(vkey);
    try {
      const time = await newestTime(key, note);
      if (time > 0n) signed.add(vkey);
      unclear.delete(vkey);
    } catch (error) {
      if (!(error instanceof NotHere)) await check(`witness ${key.name}`, async () => { throw error; });
    }
  }
  await check("witness quorum", async () => {
    if (rule.quorum === "none") return "the policy demands no witness";
    if (rule.holds(rule.quorum, signed)) return `${signed.size} of ${witnesses.length} witness(es) signed; ${rule.quorum} is satisfied`;
    if (rule.holds(rule.quorum, new Set([...signed, ...unclear]))) throw new NotHere("this browser cannot check the algorithm of a witness");
    throw new Refused(`${signed.size} of ${witnesses.length} witness(es) signed; the policy demands ${rule.quorum}`);
  });
}

const VERDICTS = [["failed", "mismatch"], ["refused", "refused"], ["not found", "not-found"], ["not checked", "could-not-check"]];
export const verdictOf = (results) => VERDICTS.find(([outcome]) => results.some((found) => found.outcome === outcome))?.[1] ?? "passed";

/** Other kinds of text that can be pasted: modules that read them add `{matches(text), check(text, policy, beside)}`. */
export const kinds = [];
