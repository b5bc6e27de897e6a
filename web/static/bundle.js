// What a reader pastes as JSON: a bundle (docs/formats/bundle.md) with every proof in it, or a signed statement.
//
// Each proof is recomputed here, and with a policy that pins a service's owners also who may sign for it. What is left to the
// command line: how old a checkpoint may be, floors, and whether a machine's evidence fits. Those rows say "not checked".

import { NotFound, NotHere, Refused, Rejected, checkPasted, hex, kinds, leafHash, parseCheckpoint, parseNote,
  rootFromPath, verdictOf } from "./verify.js";
import { Malformed, base64, isObject, parseDocument } from "./documents.js";
import { checkOwners, readPolicy } from "./owners.js";
import { InvalidProof, sha256, verifyAbsence, verifyPresence } from "./trie.js";
import { checkState, mapKey, measurementId, parseStatement, signatureHolds, utf8 } from "./statements.js";

const KEYS_OF = {
  measurement: (record) => mapKey("measurement", [record.service, record.id]),
  service: (record) => mapKey("service", [record.service]),
  tcb: (record) => mapKey("tcb", [record.platform, record.product]),
};
const bytesOf = (text) => Uint8Array.from(text.match(/../g) ?? [], (pair) => parseInt(pair, 16));

/** Collects rows; a check returns what it found, or throws. */
export function sheet() {
  const results = [];
  const check = async (name, work) => {
    try { const found = await work(); results.push({ name, outcome: "passed", detail: found.text ?? found }); return found; }
    catch (error) { results.push({ name, outcome: outcomeOf(error), detail: String(error.message ?? error) }); return null; }
  };
  return { results, check };
}

/** How an error is shown. @param {Error} error */
export function outcomeOf(error) {
  if (error instanceof Refused) return "refused";
  if (error instanceof NotFound) return "not found";
  if (error instanceof Malformed || error instanceof NotHere) return "not checked";
  return "failed";
}

/** An included entry stands in the tree of the checkpoint. */
async function included({ index, entry, path }, checkpoint) {
  const root = await rootFromPath(BigInt(index), checkpoint.size, await leafHash(base64(entry)), path.map((hash) => base64(hash, 32)));
  if (hex(root) !== hex(checkpoint.root)) throw new Rejected(`entry ${index}: found root ${hex(root)}, wanted ${hex(checkpoint.root)}`);
}

/**
 * Every proof of a bundle under a tlog policy, or under a policy/v1, which pins owners besides. Nothing is fetched and nothing is sent.
 * @param {string} text @param {string} policyText @param {number} now seconds since 1970
 * @returns {Promise<{verdict: string, results: object[]}>}
 */
export async function checkBundle(text, policyText, now) {
  const { results, check } = sheet();
  const bundle = await check("the bundle can be read", async () => {
    const found = parseDocument(utf8.encode(text.trim()));
    if (!isObject(found) || found.v !== 1 || !isObject(found.state)) throw new Malformed("not a bundle of version 1");
    const note = new TextDecoder("utf-8", { fatal: true }).decode(base64(found.checkpoint));
    return { ...found, note, checkpoint: parseCheckpoint(parseNote(note).text), text: "a bundle of version 1" };
  });
  if (!bundle) return { verdict: verdictOf(results), results };
  results.push(...(await checkPasted(bundle.note, null, policyText)).results);
  const state = await check("state entry", () => lastState(bundle));
  if (!state) return { verdict: verdictOf(results), results };
  const root = bytesOf(state.maps.F1);
  if (bundle.absence) await check("absence", async () => {
    await verifyAbsence(root, bytesOf(bundle.absence.key), base64(bundle.absence.proof));
    throw new NotFound(`proven: the map has nothing under the key ${bundle.absence.key}, in the state of ${state.size} entries`);
  });
  else await checkHeld(bundle, root, now, policyText, check);
  return { verdict: verdictOf(results), results };
}

async function lastState({ state, checkpoint }) {
  if (BigInt(state.index) !== checkpoint.size - 1n) throw new Rejected(`index ${state.index} is not the last of ${checkpoint.size}`);
  await included(state, checkpoint);
  const { prev: _, ...found } = parseDocument(base64(state.entry));
  checkState(found, state.index, null);
  if (found.end !== undefined) throw new Refused(`this log ended with the ${found.end}: nothing is believed on its word any more`);
  return { ...found, text: `entry ${state.index} is the last, and commits the map ${found.maps.F1}` };
}

async function checkHeld({ authority, release, records, checkpoint }, root, now, policyText, check) {
  for (const one of [...authority, ...(release ? [release] : [])]) {
    await check(`entry ${one.index} is in the log`, async () => { await included(one, checkpoint); return "its path leads to the root"; });
  }
  if (release) await check("release signature", () => checkRelease(release, authority.at(-1)));
  for (const { record, proof } of records) await check("record", async () => {
    const bytes = base64(record), found = parseDocument(bytes);
    if (!Object.hasOwn(KEYS_OF, found.kind)) throw new Malformed(`a record of kind ${found.kind}`);
    await verifyPresence(root, bytesOf(await KEYS_OF[found.kind](found)), await sha256(bytes), base64(proof));
    if (found.kind === "measurement" && release) await requireRelease(found, release);
    return statusOf(found, now);
  });
  if (release) await check("who may sign for the service", () => checkOwners({ authority, release }, checkpoint.origin, readPolicy(policyText).pinned));
  await check("age, floors, evidence of a machine", async () => { throw new NotHere("judged by quotary verify"); });
}

/** By the keys that the newest delegation of the bundle names; whether that one counts is not decided here. */
async function checkRelease(release, delegation) {
  const statement = await parseStatement(base64(release.entry)), { predicate } = await parseStatement(base64(delegation.entry));
  const builders = predicate.roles.builder ?? { keys: [], threshold: 1 }, signed = [];
  for (const signature of statement.signatures) {
    if (!builders.keys.includes(signature.keyid)) continue;
    if (!await signatureHolds(statement, signature, predicate.keys[signature.keyid])) throw new Rejected(`the signature of ${signature.keyid} does not hold`);
    signed.push(signature.keyid);
  }
  if (signed.length < builders.threshold) throw new Refused(`${signed.length} builder(s) of the delegation signed, ${builders.threshold} must`);
  return `${signed.length} builder(s) that entry ${delegation.index} names signed ${statement.id}`;
}

/** A measurement's record names its newest release; that one is shown, and has a row for it. */
async function requireRelease(record, release) {
  const { id, kind, predicate } = await parseStatement(base64(release.entry));
  if (kind !== "release" || record.release !== id) throw new Rejected(`its newest release is ${record.release}, the bundle shows ${id}`);
  const ids = await Promise.all(predicate.rows.map(measurementId));
  if (!ids.includes(record.id)) throw new Rejected(`the release has the measurements ${ids.join(", ")}, the record is of ${record.id}`);
}

function statusOf(record, now) {
  if (record.kind !== "measurement") return `the map has the ${record.kind} of ${record.service ?? record.product}`;
  const name = `measurement ${record.id} of ${record.service}`;
  if (record.status === "revoked") throw new Refused(`${name} is revoked: ${record.reason ?? "no reason given"}`);
  if (record.suspended_until && Date.parse(record.suspended_until) / 1000 > now) throw new Refused(`${name} is suspended until ${record.suspended_until}`);
  if (record.not_after && Date.parse(record.not_after) / 1000 <= now) throw new Refused(`${name} was to be believed until ${record.not_after}`);
  return `${name} is active`;
}

/** What a signed statement says of itself; whether anybody believes it stands in no statement. @param {string} text */
export async function checkStatement(text) {
  const { results, check } = sheet();
  const found = await check("the statement can be read", async () => {
    const statement = await parseStatement(utf8.encode(text.trim()));
    return { ...statement, text: `a ${statement.kind} of ${statement.predicate.service}, ${statement.id}` };
  });
  if (found) await check("signatures", async () => {
    throw new NotHere(`${found.signatures.length} signature(s) whose keys stand in the log: paste its bundle, or its proof with it`);
  });
  return { verdict: verdictOf(results), results };
}

const looksLike = (...members) => (text) => /^\s*\{/.test(text) && members.every((name) => text.includes(`"${name}"`));
kinds.push({ matches: looksLike("checkpoint", "state"), check: (text, policy) => checkBundle(text, policy, Date.now() / 1000) });
kinds.push({ matches: looksLike("payloadType", "signatures"), check: checkStatement });
