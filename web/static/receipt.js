// Receipts: what an enclave signed about one answer, held to what this client sent and received.
//
// Specification: docs/formats/receipt.md. Written from that page; tests/vectors/receipt is judged alike by
// quotary.client.receipt. Whether the keys are an enclave's, and which one's, is decided by its evidence, never here.

import { array, base64, canonical, demand, hexOf, integer, members, name, object, parseDocument, text } from "./documents.js";
import { holds } from "./ed25519.js";

const CONTEXT = "quotary-receipt/v1\n";
const MAX_RECEIPT = 8192;
const MEMBERS = [
  "v", "seq", "prev?", "receipt_id", "chat_id", "endpoint", "channel", "served", "complete", "finish_reason", "tokens", "model",
  "params", "code", "platform", "log", "keyset", "request", "response", "sigs", "commit_salt?",
];
const FINISHED = ["stop", "length", "error", "cancelled", "revoked", "followed"];

/** A check decided against the receipt. */
export class Rejection extends Error {
  /** @param {string} check @param {string} found @param {string} wanted */
  constructor(check, found, wanted) {
    super(`${check}: found ${found}, wanted ${wanted}`);
    this.check = check;
  }
}

const utf8 = (/** @type {string} */ value) => new TextEncoder().encode(value);
const hex = (/** @type {Uint8Array} */ bytes) => [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
const joined = (/** @type {Uint8Array[]} */ ...parts) => Uint8Array.from(parts.flatMap((part) => [...part]));
const sha256 = async (/** @type {Uint8Array} */ bytes) => new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
const digest = (value) => {
  demand(typeof value === "string" && value.startsWith("sha256:"), "not a sha256 digest");
  hexOf(value.slice(7), 32);
};

/** Read a receipt, or throw `Malformed`. @param {Uint8Array} bytes */
export async function parseReceipt(bytes) {
  demand(bytes.length <= MAX_RECEIPT, `more than ${MAX_RECEIPT} bytes`);
  const found = object(parseDocument(bytes), MEMBERS);
  demand(found.v === 1, "not version 1");
  for (const count of [found.seq]) integer(count, 0);
  if (found.prev !== undefined) digest(found.prev);
  hexOf(found.receipt_id, 16);
  text(found.chat_id, 64);
  text(found.endpoint, 1024);
  demand(FINISHED.includes(found.finish_reason) && typeof found.complete === "boolean", "not an end of an answer");
  const { start, end } = object(found.served, ["start", "end"]);
  const tokens = object(found.tokens, ["in", "out", "prompt_ids", "output_ids"]);
  const log = object(found.log, ["origin", "size_at_admit", "size_at_end"]);
  for (const count of [start, end, tokens.in, tokens.out, log.size_at_admit, log.size_at_end]) integer(count, 0);
  text(log.origin, 256);
  const model = object(found.model, ["id", "weights"]), code = object(found.code, ["service", "measurement"]);
  text(model.id, 128);
  name(code.service);
  hexOf(code.measurement, 32);
  const platform = object(found.platform, ["type", "evidence"]);
  name(platform.type);
  const { request, response } = checkChannel(found);
  for (const value of [tokens.prompt_ids, tokens.output_ids, model.weights, platform.evidence, found.keyset, request.inner, response.inner]) digest(value);
  if (found.commit_salt !== undefined) base64(found.commit_salt, 32);
  for (const one of array(found.sigs, 1, 4)) {
    object(one, ["alg", "key_id", "sig"]);
    demand(one.alg === "ed25519", "a signature of another kind");
    text(one.key_id, 128);
    base64(one.sig, 64);
  }
  await checkParameters(found.params);
  return found;
}

function checkChannel(found) {
  demand(["plain", "sealed"].includes(found.channel), "not a channel");
  const sealed = found.channel === "sealed";
  const request = object(found.request, sealed ? ["inner", "wire"] : ["inner"]);
  const response = object(found.response, sealed ? ["inner", "frames", "chain"] : ["inner"]);
  if (sealed) {
    digest(request.wire);
    digest(response.chain);
    integer(response.frames, 0);
  }
  return { request, response };
}

async function checkParameters(params) {
  const { values, digest: said } = object(params, ["values", "digest"]);
  digest(said);
  for (const [, value] of members(values, 32)) {
    demand(typeof value === "string" || Number.isSafeInteger(value), "a parameter is neither an integer nor a string");
  }
  demand(said === `sha256:${hex(await sha256(utf8(canonical(values))))}`, "parameters without the digest beside them");
}

/** Every signature must hold, by a key of the keyset. @param {Record<string, Uint8Array>} keys by key id */
export async function verifySignature(receipt, keys) {
  const { sigs, commit_salt: _, ...signed } = receipt;
  for (const { key_id: id, sig } of sigs) {
    if (!Object.hasOwn(keys, id)) throw new Rejection("signature", id, "a key of the keyset");
    const message = utf8(CONTEXT + canonical(signed));
    if (!(await holds(keys[id], base64(sig, 64), message))) throw new Rejection("signature", "one that does not hold", "one that does");
  }
}

const same = (/** @type {string} */ check, found, wanted) => {
  if (found !== wanted) throw new Rejection(check, String(found), String(wanted));
};

/** The receipt names what was judged. @param {{service: string, measurement: string, keyset: string, weights: string}} judged digests in hex */
export function verifyOrigin(receipt, judged) {
  same("receipt service", receipt.code.service, judged.service);
  same("receipt measurement", receipt.code.measurement, judged.measurement);
  same("receipt keyset", receipt.keyset, `sha256:${judged.keyset}`);
  same("receipt weights", receipt.model.weights, `sha256:${judged.weights}`);
}

/** @param {"request"|"response"} label @param {Uint8Array} salt @param {Uint8Array} data */
export const commitment = async (label, salt, data) => `sha256:${hex(await sha256(joined(utf8(`${CONTEXT}${label}\n`), salt, data)))}`;

/**
 * The receipt is about this exchange, complete, and by an enclave that knew this client's log.
 * @param {{requestWire: string, request: Uint8Array, response: Uint8Array, chains: string[], minLogSize: number}} sent
 *   requestWire: SHA-256 of the request as posted; chains: chain values after 0, 1, 2 ... frames; both in hex
 */
export async function verifyExchange(receipt, sent) {
  if (receipt.channel !== "sealed" || receipt.commit_salt === undefined) {
    throw new Rejection("receipt channel", "no sealed channel or no salt", "the client's copy of a sealed exchange");
  }
  const salt = base64(receipt.commit_salt, 32), { request, response, log } = receipt;
  same("receipt request wire", request.wire, `sha256:${sent.requestWire}`);
  same("receipt request", request.inner, await commitment("request", salt, sent.request));
  if (response.frames >= sent.chains.length) throw new Rejection("receipt frames", `${response.frames}`, `at most ${sent.chains.length - 1}`);
  same("receipt chain", response.chain, `sha256:${sent.chains[response.frames]}`);
  same("receipt response", response.inner, await commitment("response", salt, sent.response));
  if (!(sent.minLogSize <= log.size_at_admit && log.size_at_admit <= log.size_at_end)) {
    throw new Rejection("receipt log", `${log.size_at_admit} then ${log.size_at_end}`, `${sent.minLogSize} or more`);
  }
  if (!receipt.complete) throw new Rejection("receipt complete", `false (${receipt.finish_reason})`, "true");
}

/** All of it, in order; gives the receipt. @param {Uint8Array} bytes */
export async function verifyReceipt(bytes, keys, judged, sent) {
  const receipt = await parseReceipt(bytes);
  await verifySignature(receipt, keys);
  verifyOrigin(receipt, judged);
  await verifyExchange(receipt, sent);
  return receipt;
}
