// What a reader pastes besides a log's own texts: a machine's evidence, and a receipt with what belongs to it.
//
// Beside a report stand its certificates (PEM); beside a receipt its keyset, its place under a root of receipts, the statement
// that logs the root, and that statement's proof (docs/formats/receipt.md, "Roots"). What is not beside it is "not checked".

import { sheet } from "./bundle.js";
import { checkDeviceList } from "./devices.js";
import { array, base64, canonical, demand, hexOf, integer, object, parseDocument } from "./documents.js";
import { checkKept, looksKept } from "./kept.js";
import { bytesOfText, checkQuote, idOf, rootsOf } from "./quote.js";
import { parseReceipt, verifySignature } from "./receipt.js";
import { parseStatement, utf8 } from "./statements.js";
import { NotHere, Rejected, checkPasted, hex, kinds, leafHash, rootFromPath, sha256, verdictOf } from "./verify.js";

const PROOF = "c2sp.org/tlog-proof@v1", LINE = /^\{.*\}$/;
const HOLDS = "✓ What this browser can check of this evidence holds: its signature, and the certificates up to a root that stands in this page. The rows that say “not checked” are left to quotary quote verify; nothing here is about a log or a release.";

/** What stands beside a subject: PEM, JSON documents of one line each, and a proof. @param {string} text */
export function partsOf(text) {
  const at = text.indexOf(PROOF), lines = text.split("\n").map((line) => line.trim()), pem = text.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----\s*/g) ?? [];
  const signed = at < 0 ? [] : text.slice(at).split("\n"), last = signed.findLastIndex((line) => line.startsWith("— "));
  return { pem: pem.join(""), proof: at < 0 ? null : `${signed.slice(0, last + 1).join("\n")}\n`, documents: lines.filter((line) => LINE.test(line)) };
}

/** @param {string} text evidence in hex or base64 @param {string} policyText @param {string} beside @param {number} now */
export async function checkEvidence(text, policyText, beside, now) {
  const { results, check } = sheet();
  const given = await check("evidence and policy can be read", async () => ({ data: bytesOfText(text), roots: rootsOf(policyText), text: "hex or base64, and whom it may be signed by" }));
  if (!given) return { verdict: verdictOf(results), results };
  const { quote, root, results: rows } = await checkQuote(given.data, { pem: partsOf(beside).pem, now, roots: given.roots });
  const all = [...results, ...rows], found = verdictOf(all);
  const said = quote ? [["what it is", quote.title], ...await factsOf(quote, root)] : [];
  return { verdict: found, results: all, said, ...(found === "could-not-check" && root ? { words: HOLDS } : {}) };
}

async function factsOf(quote, root) {
  const { registers, reportData, configuration, attributes } = quote, id = await idOf(quote, root?.platform);
  const texts = (group) => Object.entries(group).map(([name, value]) => [name, name === "module_id" ? new TextDecoder().decode(value) : hex(value)]);
  return [...(id ? [["measurement id", id]] : []), ...texts(registers), ["report data", hex(reportData)], ...texts(configuration), ...texts(attributes)];
}

/** @param {string} text a receipt @param {string} policyText @param {string} beside */
export async function checkReceipt(text, policyText, beside) {
  const { results, check } = sheet(), { documents, proof } = partsOf(beside);
  const readable = await check("the receipt can be read", async () => {
    const receipt = await parseReceipt(utf8.encode(text.trim()));
    return { receipt, text: `receipt ${receipt.receipt_id} of ${receipt.code.service}, ${receipt.finish_reason}, complete: ${receipt.complete}` };
  });
  if (!readable) return { verdict: verdictOf(results), results };
  const { receipt } = readable;
  const parts = documents.map((line) => ({ line, value: parseDocument(utf8.encode(line)) })), withMember = (name) => parts.find(({ value }) => name in value);
  await check("signature", () => signatureOf(receipt, withMember("capabilities")));
  const place = withMember("root"), entry = withMember("payload");
  const root = await check("place under a root of receipts", () => placeOf(receipt, place?.value));
  if (root) await check("the root is the service's word", () => loggedRoot(place.value, receipt.code.service, entry?.line));
  if (root && entry && proof) results.push(...(await checkPasted(proof, utf8.encode(entry.line), policyText)).results);
  else results.push({ name: "the root is in a log", outcome: "not checked", detail: "needs the place, the receipt-root statement and its tlog-proof beside the receipt" });
  for (const [name, detail] of [["whose keyset it is", "a machine's evidence binds it: quotary verify, with the evidence file"], ["question and answer", "their bytes are not here: quotary receipt verify"]]) {
    results.push({ name, outcome: "not checked", detail });
  }
  return { verdict: verdictOf(results), results };
}

async function signatureOf(receipt, keyset) {
  if (!keyset) throw new NotHere("the keyset is not beside the receipt");
  const digest = `sha256:${hex(await sha256(utf8.encode(keyset.line)))}`;
  if (digest !== receipt.keyset) throw new Rejected(`the receipt is of the keyset ${receipt.keyset}, found ${digest}`);
  const keys = keyset.value.keys.filter(({ role, alg }) => role === "receipt" && alg === "ed25519").map(({ id, pub }) => [id, base64(pub, 32)]);
  await verifySignature(receipt, Object.fromEntries(keys));
  return `holds, by a receipt key of ${digest.slice(0, 23)}…`;
}

/** Either copy of a receipt stands under the root: the salt of the client's is left out. */
async function placeOf(receipt, place) {
  if (!place) throw new NotHere("its place is not beside it (GET /v1/receipts/ID/place)");
  const { first, size, root, index, path, v } = object(place, ["v", "first", "size", "root", "index", "path"]);
  for (const number of [first, size, index]) integer(number, 0);
  hexOf(root, 32);
  demand(v === 1, "not a place of version 1");
  if (index !== receipt.seq - first) throw new Rejected(`index ${index}, wanted ${receipt.seq - first} by the receipt's sequence`);
  const { commit_salt: _, ...copy } = receipt, leaf = await leafHash(utf8.encode(canonical(copy)));
  const found = hex(await rootFromPath(BigInt(index), BigInt(size), leaf, array(path, 0, 32).map((item) => base64(item, 32))));
  if (found !== root) throw new Rejected(`found the root ${found}, wanted ${root}`);
  return `receipt ${index} of ${size} under ${root.slice(0, 16)}…`;
}

async function loggedRoot({ first, size, root }, service, entry) {
  if (!entry) throw new NotHere("the statement that names the root is not beside the receipt");
  const { kind, predicate } = await parseStatement(utf8.encode(entry));
  if (kind !== "receipt-root" || predicate.service !== service) throw new Rejected(`a ${kind} of ${predicate.service}, wanted a receipt-root of ${service}`);
  const named = predicate.items.some((item) => item.name === `receipts/${first}` && item.sha256 === root && item.size === size);
  if (!named) throw new Rejected(`${predicate.items.length} other root(s), wanted ${root} of receipts/${first}`);
  return `a receipt-root statement of ${service} names it; who signed it is not checked here`;
}

const now = () => Date.now() / 1000;
kinds.push({ matches: looksKept, check: (text, policy) => checkKept(text, policy, now()) });
kinds.push({ matches: (text) => /^\s*\[\s*\{/.test(text), check: (text, policy) => checkDeviceList(text, policy, now()) });
kinds.push({ matches: (text) => /^\s*\{.*"receipt_id"/s.test(text), check: checkReceipt });
kinds.push({ matches: (text) => /^\s*(0x)?[0-9a-fA-F\s]{200,}$/.test(text) || /^\s*[A-Za-z0-9+/\s]{200,}=*\s*$/.test(text), check: (text, policy, beside) => checkEvidence(text, policy, beside, now()) });
