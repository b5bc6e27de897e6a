// The evidence file that a client kept of one answer (docs/formats/evidence-file.md), judged at its own time as far as a browser can.
//
// What the hardware signed binds the keyset; the keyset's key signed the receipt; the bundle shows that the log has the machine's
// measurement, and with a policy that pins owners also by whom. An attestation document alone (docs/formats/attestation.md) is
// judged now; who has just asked for it (web/enclave) gives nonce and receipt beside it. What takes the vendor's further documents,
// a row's other rules and floors are rows that say "not checked".

import { checkBundle, sheet } from "./bundle.js";
import { Malformed, array, base64, demand, hexOf, integer, isObject, object, parseDocument, seconds } from "./documents.js";
import { checkDevices } from "./devices.js";
import { readPolicy } from "./owners.js";
import { checkQuote, idOf, rootsOf } from "./quote.js";
import { parseReceipt, verifyOrigin, verifySignature } from "./receipt.js";
import { measurementId, parseStatement, utf8 } from "./statements.js";
import { NotHere, Refused, Rejected, concat, fromBase64, hex, leafHash, parseNote, quorumTime, rootFromPath, sha256, verdictOf } from "./verify.js";

const decoded = (bytes) => new TextDecoder("utf-8", { fatal: true }).decode(bytes);
const NOT_CHECKED = [
  ["the row's other rules", "attributes, configuration, RTMR0 and RTMR3: quotary verify"],
  ["TCB floor", "quotary verify"],
  ["map auditor, rebuilders", "quotary verify"],
];

/**
 * @param {string} text an evidence file or an attestation document @param {string} policyText @param {number} now seconds since 1970
 * @param {{nonce?: Uint8Array, receipt?: Uint8Array|null}} own what the reader itself has beside a document
 * @returns what was checked, and of the machine its keyset and measurement id, null where it did not come to that
 */
export async function checkKept(text, policyText, now, own = {}) {
  const { results, check } = sheet(), ended = (said = [], machine = {}) => ({ verdict: verdictOf(results), results, said, keyset: null, measurement: null, ...machine });
  const file = await check("the file can be read", async () => ({ ...await readFile(text, now), ...own }));
  if (!file) return ended();
  const { document, at } = file, policy = await check("the policy can be read", async () => ({ ...readPolicy(policyText), roots: rootsOf(policyText), text: "keys, and whom evidence may be signed by" }));
  if (!policy) return ended();
  const { quote, root, results: rows } = await checkQuote(fromBase64(document.cpu.evidence), { pem: document.cpu.collateral?.chain ?? "", now: at, roots: policy.roots });
  results.push(...rows.filter(({ name }) => name !== "freshness"));
  if (!root || verdictOf(rows) !== "could-not-check") return ended();
  const keyset = await check("binding", () => bound(document, quote.reportData, at, policy.tlog));
  await check("nonce", () => answers(document.nonce, file.nonce, quote.reportData.slice(32)));
  const measurement = await idOf(quote, root.platform);
  const row = file.bundle ? await bundleHolds(file, policyText, measurement, keyset, results, check) : null;
  if (!file.bundle) results.push({ name: "log", outcome: "not checked", detail: "no bundle is in the file" });
  await check("receipt", () => receiptHolds(file.receipt, keyset, measurement, row));
  if (document.devices !== "none") results.push(...await checkDevices(base64(document.devices), { now: at, roots: policy.roots, nonceOf: keyset && ((index) => nonceOf(keyset.digest, index)) }));
  for (const [name, detail] of NOT_CHECKED) results.push({ name, outcome: "not checked", detail });
  const said = [["measurement id", measurement], ["platform", root.platform], ["judged at", new Date(at * 1000).toISOString()], ...(keyset ? [["service", keyset.service]] : [])];
  return ended(said, { keyset, measurement });
}

async function readFile(text, now) {
  let found;
  try { found = JSON.parse(text); } catch { throw new Malformed("not JSON"); }
  demand(isObject(found), "not an object");
  const whole = found.type === "quotary/evidence/v1", document = whole ? JSON.parse(decoded(base64(found.document))) : found;
  demand(isObject(document?.cpu) && typeof document.cpu.evidence === "string" && isObject(document.nonce) && document.v === 1, "not an attestation document of version 1");
  if (found.nonce !== undefined && whole) hexOf(found.nonce, 32);
  const bundle = whole ? found.bundle : document.bundle;
  return {
    document, at: whole ? seconds(found.judged_at) : now, nonce: whole && found.nonce ? Uint8Array.from(found.nonce.match(/../g), (pair) => parseInt(pair, 16)) : null,
    bundle: bundle ? decoded(base64(bundle)) : null, receipt: whole && found.receipt ? base64(found.receipt) : null,
    text: whole ? `an evidence file, judged at its own time, ${found.judged_at}` : "an attestation document, judged now",
  };
}

/** The first half of the report data binds keyset, devices and log; gives the keyset. */
async function bound({ binding, keyset, devices }, reportData, at, tlog) {
  const bytes = base64(binding), said = parseDocument(bytes), keys = base64(keyset), digest = `sha256:${hex(await sha256(keys))}`;
  const wanted = hex(await sha256(concat(utf8.encode("quotary-binding/v1\n"), bytes)));
  if (hex(reportData.slice(0, 32)) !== wanted) throw new Rejected(`the hardware signed ${hex(reportData.slice(0, 32))}, the binding is ${wanted}`);
  if (said.purpose !== "quotary/binding/v1" || said.keyset !== digest) throw new Rejected(`the binding names the keyset ${said.keyset}, found ${digest}`);
  const shown = devices === "none" ? "none" : `sha256:${hex(await sha256(base64(devices)))}`;
  if (said.devices !== shown) throw new Rejected(`the binding names the devices ${said.devices}, found ${shown}`);
  if (!tlog.split("\n").some((line) => line.startsWith(`log ${said.log.origin}+`))) throw new Rejected(`a machine that watches ${said.log.origin}, which is not the policy's log`);
  const found = parseDocument(keys);
  if (at < seconds(found.not_before) || at >= seconds(found.not_after)) throw new Refused(`the keyset is in force from ${found.not_before} to ${found.not_after}`);
  return { ...found, digest, text: `the hardware signed the keyset ${digest.slice(7, 23)}… of ${found.service}` };
}

/** What the device at a place is asked with, so that its report is as fresh as the keyset. */
function nonceOf(keyset, index) {
  const digest = Uint8Array.from(keyset.slice("sha256:".length).match(/../g), (pair) => parseInt(pair, 16));
  return sha256(concat(utf8.encode("quotary-gpu-nonce/v1\n"), digest, Uint8Array.of(0, 0, 0, index)));
}

/** The second half answers the client's nonce, perhaps with those of others. */
async function answers({ index, size, path }, nonce, root) {
  if (nonce === null) throw new NotHere("the file has none: freshness is not proven");
  integer(index, 0);
  integer(size, 0);
  const found = await rootFromPath(BigInt(index), BigInt(size), await leafHash(nonce), array(path, 0, 63).map((item) => base64(item, 32)));
  if (hex(found) !== hex(root)) throw new Rejected(`the hardware answered ${hex(root)}, the client's nonce gives ${hex(found)}`);
  return "the evidence answers the nonce that the client sent";
}

/** The log's side; gives the release's predicate where it has the machine's measurement. */
async function bundleHolds({ bundle, at }, policyText, measurement, keyset, results, check) {
  const { results: rows } = await checkBundle(bundle, policyText, at);
  results.push(...rows.filter(({ name }) => !name.startsWith("age,")).map((row) => ({ ...row, name: `log: ${row.name}` })));
  await check("age of the checkpoint", () => youngEnough(bundle, policyText, at));
  return check("row", async () => {
    const { release, records } = parseDocument(utf8.encode(bundle));
    if (!release) throw new Refused("the log has no release of this measurement");
    const { predicate } = await parseStatement(base64(release.entry)), ids = await Promise.all(predicate.rows.map(measurementId));
    if (!ids.includes(measurement)) throw new Rejected(`the machine measures ${measurement}, the release has ${ids.join(", ")}`);
    if (keyset && keyset.service !== predicate.service) throw new Rejected(`keys for ${keyset.service}, the release is of ${predicate.service}`);
    const record = records.map((item) => parseDocument(base64(item.record))).find(({ id, service }) => id === measurement && service === predicate.service);
    if (!record) throw new Rejected("the bundle has no record of this measurement");
    return { ...predicate, text: `${measurement.slice(0, 16)}… is a row of the release, and its record is ${record.status}` };
  });
}

/** By the witnesses: a log's own word of its time is no proof of it. */
async function youngEnough(bundle, policyText, at) {
  const { pinned } = readPolicy(policyText), note = decoded(base64(parseDocument(utf8.encode(bundle)).checkpoint));
  if (pinned === null) throw new NotHere("this takes a policy that says how old it may be: paste one instead of the tlog policy, or use quotary verify");
  const seen = await quorumTime(parseNote(note), policyText, at);
  if (seen === null) throw new NotHere("no quorum of witnesses whose times this browser can check");
  if (!(at - seen <= pinned.max_age_seconds)) throw new Refused(`found ${at - seen} s, wanted at most ${pinned.max_age_seconds} s`);
  return `${at - seen} s by the witnesses, at most ${pinned.max_age_seconds} s`;
}

async function receiptHolds(bytes, keyset, measurement, release) {
  if (bytes === null) throw new NotHere("the file has none");
  if (!keyset || !release) throw new NotHere("needs the keyset and the release, which did not hold");
  const receipt = await parseReceipt(bytes), keys = keyset.keys.filter(({ role, alg }) => role === "receipt" && alg === "ed25519");
  await verifySignature(receipt, Object.fromEntries(keys.map(({ id, pub }) => [id, base64(pub, 32)])));
  verifyOrigin(receipt, { service: keyset.service, measurement, keyset: keyset.digest.slice("sha256:".length), weights: release.weights_sha256 });
  if (receipt.served.start < seconds(keyset.not_before) || receipt.served.end < receipt.served.start) throw new Rejected(`served from ${receipt.served.start}, before its keys`);
  return `signed by the attested keyset, for this measurement and these weights; complete: ${receipt.complete}`;
}

/** Whether a text looks like one of both. @param {string} text */
export const looksKept = (text) => /^\s*\{/.test(text) && (text.includes('"quotary/evidence/v1"') || (text.includes('"binding"') && text.includes('"cpu"')));
