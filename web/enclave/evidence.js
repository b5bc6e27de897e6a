// What a live enclave shows, recomputed in this browser: hardware evidence, keyset, the log's checkpoint, release and status.
//
// The order is the one of the command line (docs/architecture.md); what this page cannot do is a row that says not checked.
// Formats: docs/formats/attestation.md, bundle.md, keyset.md; Intel TDX DCAP Quoting Library API, appendix 3.

import { NotHere, checkPasted, fromBase64, leafHash, parseCheckpoint, parseNote, parsePolicyKeys, rootFromPath, verifySignature } from "../static/verify.js";
import { canonical } from "../static/documents.js";
import { parseReceipt, verifyOrigin, verifySignature as verifyReceiptSignature } from "../static/receipt.js";
import { verifyPresence } from "../static/trie.js";
import { verifyChain } from "./certificates.js";
import { Rejected, concat, fromHex, hex, sha256 } from "./layout.js";

const INTEL_ROOT = "44a0196b2b99f889b8e149e95b807a350e7424964399e885a7cbb8ccfab674d3";
const HEADER = 48, BODY = 584, REGISTERS = { mrtd: 136, rtmr1: 376, rtmr2: 424 }, ATTRIBUTES = 120, REPORT_DATA = 520;
const utf8 = (text) => new TextEncoder().encode(text);
const json = (bytes) => JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
const same = (found, wanted, what) => {
  if (hex(found) !== hex(wanted)) throw new Rejected(`${what}: found ${hex(found)}, wanted ${hex(wanted)}`);
};

/** Run one named check after the other; a failure stops what builds on it. */
export class Checks {
  constructor() { this.rows = []; }

  async make(name, work) {
    try { this.rows.push({ name, outcome: "passed", detail: await work() }); }
    catch (error) {
      this.rows.push({ name, outcome: error instanceof NotHere ? "not checked" : "failed", detail: String(error.message ?? error) });
      if (!(error instanceof NotHere)) throw new Stopped();
    }
  }

  skip(name, detail) { this.rows.push({ name, outcome: "not checked", detail }); }
}

/** A check failed, and its row says which. */
export class Stopped extends Error {}

/** The platform that the policy admits under one root. */
function anchor(policy) {
  const simulated = policy.environment === "simulation", platform = simulated ? "sim-tdx" : "tdx";
  const rules = policy.platforms[platform];
  if (!rules) throw new NotHere(`this page reads TDX evidence, and the policy admits ${Object.keys(policy.platforms).join(", ")}`);
  return { platform, root: simulated ? rules.simulator_root_sha256 : INTEL_ROOT };
}

/** Split a quote of version 4 (bytes are little endian). */
function parseQuote(quote) {
  const view = new DataView(quote.buffer, quote.byteOffset, quote.length);
  if (quote.length < HEADER + BODY + 4 + 134 || view.getUint16(0, true) !== 4 || view.getUint32(4, true) !== 0x81) throw new NotHere("the evidence is no TDX quote of version 4");
  const at = HEADER + BODY + 4, report = at + 134, auth = report + 450, length = view.getUint16(report + 448, true);
  return {
    signed: quote.slice(0, HEADER + BODY), body: quote.slice(HEADER, HEADER + BODY), signature: quote.slice(at, at + 64), key: quote.slice(at + 64, at + 128),
    report: quote.slice(report, report + 384), reportSignature: quote.slice(report + 384, report + 448), auth: quote.slice(auth, auth + length),
    chain: new TextDecoder().decode(quote.slice(auth + length + 6)),
  };
}

const p256 = async (key, signature, data) => crypto.subtle.verify({ name: "ECDSA", hash: "SHA-256" }, key, signature, data);

/** Hardware: chain, quoting enclave, quote; gives its body and the platform. */
async function checkHardware(checks, document, policy, now) {
  const found = {};
  await checks.make("hardware root", async () => {
    Object.assign(found, anchor(policy), parseQuote(fromBase64(document.cpu.evidence)));
    found.pck = await verifyChain(found.chain, found.root, now);
    return `${found.platform}: a certificate chain in force, ending in ${found.root.slice(0, 16)}…`;
  });
  if (!found.body) throw new Stopped();
  await checks.make("quoting enclave", async () => {
    if (!await p256(found.pck, found.reportSignature, found.report)) throw new Rejected("the report of the quoting enclave is not signed by the machine's key");
    same(found.report.slice(320, 352), await sha256(concat(found.key, found.auth)), "the attestation key in its report");
    return "its report is signed by the machine's key and names the attestation key";
  });
  await checks.make("quote signature", async () => {
    const key = await crypto.subtle.importKey("raw", concat(Uint8Array.of(4), found.key), { name: "ECDSA", namedCurve: "P-256" }, false, ["verify"]);
    if (!await p256(key, found.signature, found.signed)) throw new Rejected("the quote is not signed by the attestation key");
    return "header and body are signed by the attestation key";
  });
  await checks.make("no debugger", () => {
    if (found.body[ATTRIBUTES] & 1) throw new Rejected("the guest may be debugged");
    return "the debug attribute is off";
  });
  checks.skip("firmware", "revocation lists, TCB level and the quoting enclave's identity: quotary verify looks at them");
  return found;
}

/** Keys: the report data binds this page's nonce and the keyset. */
async function checkBinding(checks, document, body, nonce, now) {
  let keyset;
  await checks.make("keys and nonce", async () => {
    const [binding, bytes] = [fromBase64(document.binding), fromBase64(document.keyset)];
    if (document.nonce.size !== 1 || document.nonce.path.length) throw new NotHere("the quote answers several nonces at once");
    const wanted = concat(await sha256(concat(utf8("quotary-binding/v1\n"), binding)), await leafHash(nonce));
    same(body.slice(REPORT_DATA, REPORT_DATA + 64), wanted, "report data");
    const digest = `sha256:${hex(await sha256(bytes))}`;
    if (json(binding).keyset !== digest) throw new Rejected("the binding names another keyset");
    keyset = { ...json(bytes), digest };
    return `the hardware signed this page's nonce and the keyset ${digest.slice(7, 23)}…`;
  });
  if (!keyset) throw new Stopped();
  await checks.make("keyset in force", () => {
    if (now < Date.parse(keyset.not_before) / 1000 || now >= Date.parse(keyset.not_after) / 1000) throw new Rejected(`valid from ${keyset.not_before} to ${keyset.not_after}`);
    return `until ${keyset.not_after}`;
  });
  return keyset;
}

/** The log: signatures, witnesses, age. */
async function checkCheckpoint(checks, text, policy, now) {
  let checkpoint;
  const { verdict, results } = await checkPasted(text, null, policy.tlog_policy);
  for (const row of results) checks.rows.push({ ...row, name: `checkpoint: ${row.name}` });
  if (!["passed", "could-not-check"].includes(verdict)) throw new Stopped();
  await checks.make("age of the checkpoint", async () => {
    const note = parseNote(text), times = [];
    checkpoint = parseCheckpoint(note.text);
    for (const { role, key } of await parsePolicyKeys(policy.tlog_policy)) {
      for (const line of role === "witness" ? note.signatures.filter((s) => s.name === key.name && s.id === key.id) : []) {
        try { times.push(Number(await verifySignature(key, line, note))); } catch (error) { if (!(error instanceof NotHere)) throw error; }
      }
    }
    if (!times.length) throw new NotHere("no witness whose time this browser can check");
    // The oldest of the witnesses' times: no quorum proves a later one than it may.
    const age = now - Math.min(...times);
    if (age > policy.max_age_seconds) throw new Rejected(`found ${age} s, wanted at most ${policy.max_age_seconds} s`);
    return `${age} s, at most ${policy.max_age_seconds} s`;
  });
  return checkpoint;
}

async function included(part, checkpoint, what) {
  const entry = fromBase64(part.entry), path = part.path.map((text) => fromBase64(text, 32));
  same(await rootFromPath(BigInt(part.index), checkpoint.size, await leafHash(entry), path), checkpoint.root, `root over ${what}`);
  return json(entry);
}

/** The release that stands in the log has this measurement, and the status map calls it active. */
async function checkRelease(checks, bundle, checkpoint, measurement, service, now) {
  let map, release, statement;
  await checks.make("state of the log", async () => {
    const state = await included(bundle.state, checkpoint, "the state entry");
    if (BigInt(bundle.state.index) !== checkpoint.size - 1n || state.type !== "state" || "payload" in state || state.end !== undefined) throw new Rejected("the last entry is no state entry of a log that goes on");
    map = fromHex(state.maps.F1, 32);
    return `map ${state.maps.F1.slice(0, 16)}…, the last of ${checkpoint.size} entries`;
  });
  await checks.make("inclusion of the release", async () => {
    const entry = await included(bundle.release, checkpoint, "the release"), payload = fromBase64(entry.payload);
    release = json(payload);
    statement = `sha256:${hex(await sha256(payload))}`;
    if (release.predicateType !== "https://quotary.dev/release/v1" || release.predicate.service !== service) throw new Rejected(`not a release of ${service}`);
    return `${statement.slice(0, 23)}… is entry ${bundle.release.index} of ${checkpoint.size}`;
  });
  await checks.make("measurement", async () => {
    const ids = await Promise.all(release.predicate.rows.map(({ platform, registers }) => measurementId(platform, registers)));
    if (!ids.includes(hex(measurement))) throw new Rejected(`found ${hex(measurement)}, the release has ${ids.join(", ")}`);
    return `${hex(measurement)} is a row of the release`;
  });
  await checks.make("status", async () => {
    const key = await sha256(utf8(`quotary-map/measurement/v1\n${service}\n${hex(measurement)}`));
    const shown = bundle.records.find(({ record }) => json(fromBase64(record)).key === hex(key));
    if (!shown) throw new Rejected("the bundle has no record of this measurement");
    const bytes = fromBase64(shown.record), record = json(bytes);
    await verifyPresence(map, key, await sha256(bytes), fromBase64(shown.proof));
    if (record.status !== "active" || record.release !== statement) throw new Rejected(`found ${record.status}, release ${record.release}`);
    if (record.suspended_until !== undefined && Date.parse(record.suspended_until) / 1000 > now) throw new Rejected(`suspended until ${record.suspended_until}`);
    if (Date.parse(record.not_after) / 1000 <= now) throw new Rejected(`ended at ${record.not_after}`);
    return `active until ${record.not_after}`;
  });
  checks.skip("who may release", "delegations, rebuilders, floors and configuration: quotary verify looks at them");
  return release.predicate.weights_sha256;
}

async function measurementId(platform, registers) {
  return hex(await sha256(concat(utf8("quotary-measurement/v1\n"), utf8(canonical({ platform, registers })))));
}

/**
 * Judge an attestation document as far as a browser can. Throws ``Stopped`` at the check that fails.
 * @param {Uint8Array} bytes @param {object} policy @param {Uint8Array} nonce 32 bytes @param {Checks} checks
 * @param {number} now seconds since 1970
 * @returns {Promise<{measurement: Uint8Array, keyset: object, weights: string}>}
 */
export async function checkDocument(bytes, policy, nonce, checks, now) {
  const document = json(bytes);
  const { body, platform } = await checkHardware(checks, document, policy, now);
  const keyset = await checkBinding(checks, document, body, nonce, now);
  const registers = Object.fromEntries(Object.entries(REGISTERS).map(([name, at]) => [name, hex(body.slice(at, at + 48))]));
  const measurement = fromHex(await measurementId(platform, registers), 32);
  const bundle = json(fromBase64(document.bundle));
  const checkpoint = await checkCheckpoint(checks, new TextDecoder().decode(fromBase64(bundle.checkpoint)), policy, now);
  await checks.make("service", () => {
    if (!(keyset.service in policy.services)) throw new Rejected(`found ${keyset.service}, the policy names ${Object.keys(policy.services).join(", ")}`);
    return keyset.service;
  });
  const weights = await checkRelease(checks, bundle, checkpoint, measurement, keyset.service, now);
  return { measurement, keyset, weights };
}

/** The native receipt's public copy: signed by the attested keyset, about this machine, its weights and this answer. */
export async function checkReceipt(bytes, { keyset, measurement, weights }, chatId, checks) {
  await checks.make("receipt of the enclave", async () => {
    const receipt = await parseReceipt(bytes);
    const keys = keyset.keys.filter(({ role, alg }) => role === "receipt" && alg === "ed25519").map(({ id, pub }) => [id, fromBase64(pub, 32)]);
    await verifyReceiptSignature(receipt, Object.fromEntries(keys));
    verifyOrigin(receipt, { service: keyset.service, measurement: hex(measurement), keyset: keyset.digest.slice("sha256:".length), weights });
    if (receipt.chat_id !== chatId) throw new Rejected(`the receipt is about ${receipt.chat_id}, wanted ${chatId}`);
    if (!receipt.complete) throw new Rejected("the receipt is about an answer that broke off");
    return `complete, ${receipt.tokens.out} tokens, weights ${weights.slice(0, 16)}…, log of ${receipt.log.size_at_end} entries`;
  });
  checks.skip("commitments of the receipt", "their salt is in the sealed copy, which the proxy has verified");
}
