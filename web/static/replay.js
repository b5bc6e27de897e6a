// A log replayed in a browser: every entry from its tiles, the tree's root, and the status map by F1 (docs/formats/f1.md).
//
// It runs in a Worker, reads from the same origin that serves it, and trusts nobody about entries, statuses or who may sign: what
// it needs from outside is a policy, and what this browser remembers of the log. c2sp.org/tlog-tiles for paths and bundles.
// A log that is too long is replayed as far as a limit, and a row says how far; its other hashes come from its tiles.

import { sheet } from "./bundle.js";
import { Malformed, base64, demand } from "./documents.js";
import { audit } from "./orders.js";
import { checkOwners, readPolicy } from "./owners.js";
import { parseStatement } from "./statements.js";
import { NotHere, Refused, Rejected, checkPasted, hex, leafHash, nodeHash, parseCheckpoint, parseNote, quorumTime, verdictOf } from "./verify.js";

const BLOCK = 256, HASH = 32, MAX_AGE_SECONDS = 900;
/** What is replayed where nobody says otherwise: a minute or so of a laptop. */
export const LIMIT = 20_000;

/**
 * @typedef {{read: (path: string) => Promise<Uint8Array>, policy: string, limit: number, remembered: string|null, elsewhere: string, now: number}} Given
 *   remembered: the newest checkpoint that this browser has accepted; elsewhere: one that somebody else was shown, or ""
 */

/**
 * Replay a log and hold it to its checkpoint, to what this browser remembers, and to what somebody else was shown.
 * @param {Given} given @param {(what: string, done: number, of: number) => void} progress
 * @returns {Promise<{verdict: string, results: object[], note: string|null}>} note: to remember; null where it is not to be believed
 */
export async function auditLog(given, progress) {
  const { results, check } = sheet(), ended = (note = null) => ({ verdict: verdictOf(results), results, note });
  const shown = await check("checkpoint can be read", async () => {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(await given.read("checkpoint"));
    const { pinned } = readPolicy(given.policy), checkpoint = parseCheckpoint(parseNote(text).text);
    return { note: text, pinned, ...checkpoint, size: Number(checkpoint.size), text: `${checkpoint.origin}, ${checkpoint.size} entries` };
  });
  if (!shown) return ended();
  const { verdict, results: signed } = await checkPasted(shown.note, null, given.policy);
  results.push(...signed.map((row) => ({ ...row, name: `checkpoint: ${row.name}` })));
  if (["mismatch", "refused"].includes(verdict)) return ended();
  await check("age of the checkpoint", () => ageOf(shown, given));
  await check("not older than what this browser has seen", () => remembers(shown, given.remembered));
  const tree = await check("every entry leads to the root", () => readTree(shown, given, progress));
  if (!tree) return ended();
  if (tree.entries.length < shown.size) results.push({ name: `entries from ${tree.entries.length} on`, outcome: "not checked", detail: `${shown.size - tree.entries.length} of ${shown.size} were not replayed: their hashes are the log's. Raise the limit, or run quotary audit` });
  if (given.remembered) await check("continues what this browser has seen", () => continues(tree, given.remembered, "this browser has accepted"));
  await check("what somebody else was shown", () => comparedWith(tree, shown, given));
  await checkStates(tree, shown, check, progress);
  return ended(["passed", "could-not-check"].includes(verdictOf(results)) ? shown.note : null);
}

async function ageOf({ note, pinned }, { policy, now }) {
  const at = await quorumTime(parseNote(note), policy, now), most = pinned?.max_age_seconds ?? MAX_AGE_SECONDS;
  if (at === null) throw new NotHere("no witness of the policy says a time that this browser can check");
  const age = Math.round(now - at);
  if (age > most) throw new Refused(`the witnesses last saw this log ${age} s ago, wanted at most ${most} s: it stands still, or newer checkpoints are held back from you`);
  return `${age} s, by the witnesses' times`;
}

async function remembers({ size, root }, remembered) {
  if (!remembered) throw new NotHere("this browser has seen nothing of this log before");
  const before = parseCheckpoint(parseNote(remembered).text), seen = Number(before.size);
  if (seen > size) throw new Rejected(`rollback: this browser has accepted ${seen} entries, and is shown ${size}`);
  if (seen === size && hex(before.root) !== hex(root)) throw new Rejected(`split view: two roots for ${size} entries, ${hex(before.root)} before and ${hex(root)} now`);
  return `it has accepted ${seen} entries, and is shown ${size}`;
}

// --- The tree -------------------------------------------------------------------------------------------------------

/** x001/x234/067 for 1234067. */
function numberPath(n) {
  const groups = String(n).padStart(Math.ceil(String(n).length / 3) * 3, "0").match(/.../g);
  return groups.map((group, at) => (at < groups.length - 1 ? `x${group}` : group)).join("/");
}

const pathOf = (kind, n, width) => `tile/${kind}/${numberPath(n)}${width < BLOCK ? `.p/${width}` : ""}`;
/** How many of its 256 places a tile has, where there are so many things in all. */
const widthOf = (n, count) => Math.min(BLOCK, count - n * BLOCK);

/** Entries up to the limit, and the hash of each block of 256: computed from entries as far as these go, else from the log's tiles. */
async function readTree({ size, root }, { read, limit }, progress) {
  const blocks = [], leaves = [], entries = [], count = Math.ceil(size / BLOCK), replayed = Math.min(count, Math.ceil(limit / BLOCK));
  for (let n = 0; n < replayed; n += 1) {
    const width = widthOf(n, size), found = parseBundle(await read(pathOf("entries", n, width)), width);
    leaves.push(await Promise.all(found.map(leafHash)));
    blocks.push(await rootOf(leaves[n]));
    for (const entry of found) entries.push(entry);
    progress("entries read and hashed", entries.length, size);
  }
  await readRest(blocks, size, read);
  const found = hex(await rootOf(blocks));
  if (found !== hex(root)) throw new Rejected(`found the root ${found}, the checkpoint has ${hex(root)}`);
  return { blocks, leaves, entries, text: `${entries.length} of ${size} entries read and hashed here; together they have the root ${found.slice(0, 16)}…` };
}

async function readRest(blocks, size, read) {
  const full = Math.floor(size / BLOCK);
  for (let n = blocks.length; n < full; n = blocks.length) {
    const tile = Math.floor(n / BLOCK), hashes = parseTile(await read(pathOf("1", tile, widthOf(tile, full))), widthOf(tile, full));
    for (const hash of hashes.slice(n - tile * BLOCK)) blocks.push(hash);
  }
  const tail = size - full * BLOCK;
  if (tail && blocks.length === full) blocks.push(await rootOf(parseTile(await read(pathOf("0", full, tail)), tail)));
}

/** An entry bundle: so many entries, each behind its length of two bytes. */
function parseBundle(data, count) {
  const found = [], view = new DataView(data.buffer, data.byteOffset, data.length);
  let at = 0;
  for (; found.length < count; at += 2 + found.at(-1).length) {
    demand(at + 2 <= data.length && at + 2 + view.getUint16(at) <= data.length, `an entry bundle ends after ${found.length} entries, wanted ${count}`);
    found.push(data.slice(at + 2, at + 2 + view.getUint16(at)));
  }
  demand(at === data.length, `an entry bundle has ${data.length - at} bytes behind its end`);
  return found;
}

function parseTile(data, count) {
  demand(data.length === count * HASH, `a tile has ${data.length} bytes, wanted ${count * HASH}`);
  return Array.from({ length: count }, (_, at) => data.slice(at * HASH, at * HASH + HASH));
}

/** The root over hashes (RFC 9162 section 2.1.1); blocks of 256 and a shorter last one count as leaves of the tree above them. */
async function rootOf(hashes) {
  if (hashes.length === 1) return hashes[0];
  const half = 2 ** Math.ceil(Math.log2(hashes.length) - 1);
  return nodeHash(await rootOf(hashes.slice(0, half)), await rootOf(hashes.slice(half)));
}

async function rootAt({ blocks, leaves }, size) {
  const full = Math.floor(size / BLOCK), tail = leaves[full]?.slice(0, size - full * BLOCK) ?? [];
  return rootOf([...blocks.slice(0, full), ...(tail.length ? [await rootOf(tail)] : [])]);
}

/** An older checkpoint's root is that of the first entries of this tree. */
async function continues(tree, note, whose) {
  const { size: wanted, root } = parseCheckpoint(parseNote(note).text), size = Number(wanted);
  if (size === 0) return "an empty log";
  if (size > tree.entries.length) throw new NotHere(`${size} entries, of which only ${tree.entries.length} were replayed`);
  const found = hex(await rootAt(tree, size));
  if (found !== hex(root)) throw new Rejected(`split view: the first ${size} entries have the root ${found} here, ${whose} ${hex(root)}: keep both checkpoints`);
  return `the first ${size} entries have the root that ${whose}`;
}

async function comparedWith(tree, { origin, size }, { elsewhere, policy }) {
  if (!elsewhere.trim()) throw new NotHere("a split view or a withheld entry cannot be seen from here alone: paste a checkpoint of somebody else, or run quotary monitor with peers");
  const note = `${elsewhere.trim()}\n`, other = parseCheckpoint(parseNote(note).text), { results } = await checkPasted(note, null, policy);
  const keys = results.filter(({ name }) => name.startsWith("log key"));
  if (other.origin !== origin || !keys.some(({ outcome }) => outcome === "passed") || keys.some(({ outcome }) => outcome === "failed" || outcome === "refused")) throw new NotHere("that checkpoint is not signed by this log's keys, so it says nothing about it");
  if (Number(other.size) > size) throw new Refused(`withheld: the log has shown ${other.size} entries elsewhere and ${size} here. Ask again; if it stays, keep that checkpoint`);
  return continues(tree, note, "somebody else was shown");
}

// --- Statuses and signers -------------------------------------------------------------------------------------------

async function checkStates(tree, { origin, size, pinned }, check, progress) {
  const replayed = await check("status map, by every entry replayed", async () => {
    const found = await audit(origin, tree.entries, (index) => progress("entries decided", index + 1, tree.entries.length)), last = found.closings.at(-1);
    if (!last) throw new NotHere("no state entry among the entries replayed");
    if (tree.entries.length === size && last.state !== size - 1) throw new Rejected(`the last entry, ${size - 1}, is no state entry`);
    return { ...found, text: `${found.closings.length} state entries commit the maps that their entries give; the last is entry ${last.state}, map ${last.root.slice(0, 16)}…` };
  });
  if (!replayed) return;
  await check("the log goes on", async () => {
    const end = replayed.orders.map(({ order }) => order.type).find((type) => type !== "key-rotation");
    if (end) throw new Refused(`this log ended with the ${end}: nothing is believed on its word any more`);
    return "no order among its entries ends it";
  });
  await check("genesis", async () => {
    if (!pinned) throw new NotHere("this takes a policy that pins it: paste one instead of the tlog policy");
    const found = hex(await leafHash(tree.entries[0]));
    if (found !== pinned.genesis) throw new Rejected(`entry 0 has the leaf hash ${found}, the policy wants ${pinned.genesis}`);
    return "entry 0 is the one that the policy pins";
  });
  for (const service of Object.keys(pinned?.services ?? {})) await check(`who may sign for ${service}`, () => checkService(service, tree, origin, pinned, replayed));
}

/** Each release that an active measurement rests on was signed by builders whom the pinned owners appointed. */
async function checkService(service, { entries }, origin, pinned, { outcomes, closings }) {
  const records = Object.values(Object.assign({}, ...closings.map(({ records: touched }) => touched))).map((text) => JSON.parse(text));
  const wanted = new Set(records.filter((record) => record.kind === "measurement" && record.service === service && record.status === "active").map(({ release }) => release));
  const effective = outcomes.filter(({ effect }) => effect), shown = ({ index }) => ({ index, entry: toBase64(entries[index]) });
  const delegations = [];
  for (const outcome of effective.filter(({ kind }) => kind === "delegation")) {
    if ((await parseStatement(entries[outcome.index])).predicate.service === service) delegations.push(outcome);
  }
  const releases = effective.filter(({ statement_id: id }) => wanted.has(id)), authority = [{ index: 0 }, ...delegations].map(shown);
  for (const release of releases) await checkOwners({ authority, release: shown(release) }, origin, pinned);
  if (!releases.length) throw new NotHere("no release of it is active");
  return `${releases.length} active release(s), each signed by builders whom the pinned owners appointed in ${delegations.length} delegation(s)`;
}

const toBase64 = (bytes) => btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));

// --- The Worker -----------------------------------------------------------------------------------------------------

async function read(path) {
  const answer = await fetch(`/${path}`, path === "checkpoint" ? { cache: "no-store" } : {});
  if (!answer.ok) throw new Malformed(`/${path} answered ${answer.status}`);
  return new Uint8Array(await answer.arrayBuffer());
}

if (typeof WorkerGlobalScope !== "undefined" && globalThis instanceof WorkerGlobalScope) {
  globalThis.addEventListener("message", async ({ data }) => {
    try { postMessage({ done: await auditLog({ ...data, read }, (...progress) => postMessage({ progress })) }); }
    catch (error) { postMessage({ done: { verdict: "could-not-check", results: [{ name: "this page", outcome: "not checked", detail: String(error.message ?? error) }], note: null } }); }
  });
}
