// The quote and the receipt, byte for byte, for the page and for the enclave in its Worker (docs/formats/doors.md, "Browser").
//
//   quote    measurement (32) | public key (65, uncompressed) | time (8)
//   receipt  SHA-256 of the request (32) | SHA-256 of the response (32) | time (8)
//
// P-256 with SHA-256, signatures r | s (64 bytes), times u64 big endian in seconds since 1970. The two differ in length, so
// one is never the other.

/** A check that did not hold; its message says found and wanted. */
export class Rejected extends Error {}

const P256 = { name: "ECDSA", namedCurve: "P-256" }, SIGNED = { name: "ECDSA", hash: "SHA-256" };

/** @param {...Uint8Array} parts */
export function concat(...parts) {
  const all = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let at = 0;
  for (const part of parts) { all.set(part, at); at += part.length; }
  return all;
}

export const sha256 = async (data) => new Uint8Array(await crypto.subtle.digest("SHA-256", data));
export const hex = (data) => Array.from(data, (byte) => byte.toString(16).padStart(2, "0")).join("");
export const toBase64 = (data) => btoa(String.fromCharCode(...data));

/** @param {string} text @param {number} length in bytes */
export function fromHex(text, length) {
  if (typeof text !== "string" || !new RegExp(`^[0-9a-f]{${2 * length}}$`).test(text)) throw new Rejected(`not ${length} bytes in hex`);
  return Uint8Array.from(text.match(/../g), (pair) => parseInt(pair, 16));
}

/** @param {string} text @param {number} length in bytes */
export function fromBase64(text, length) {
  let binary;
  try { binary = atob(text); } catch { throw new Rejected("not base64"); }
  if (btoa(binary) !== text || binary.length !== length) throw new Rejected(`found ${binary.length} bytes in base64, wanted ${length}`);
  return Uint8Array.from(binary, (letter) => letter.charCodeAt(0));
}

/** @param {number} time seconds since 1970 */
export function u64(time) {
  if (!Number.isSafeInteger(time) || time < 0) throw new Rejected(`not a time: ${time}`);
  const out = new Uint8Array(8);
  new DataView(out.buffer).setBigUint64(0, BigInt(time));
  return out;
}

export const quoteBytes = (measurement, key, time) => concat(measurement, key, u64(time));
export const receiptBytes = (request, response, time) => concat(request, response, u64(time));

/** @returns {Promise<{pair: CryptoKeyPair, public: Uint8Array}>} a key that cannot leave this script */
export async function newKey() {
  const pair = await crypto.subtle.generateKey(P256, false, ["sign", "verify"]);
  return { pair, public: new Uint8Array(await crypto.subtle.exportKey("raw", pair.publicKey)) };
}

export const sign = async (key, data) => new Uint8Array(await crypto.subtle.sign(SIGNED, key, data));

/** @param {Uint8Array} key 65 bytes */
export async function holds(key, signature, data) {
  return crypto.subtle.verify(SIGNED, await crypto.subtle.importKey("raw", key, P256, false, ["verify"]), signature, data);
}

/** The quote of an enclave, as text members. */
export async function makeQuote(key, measurement, time) {
  const signature = await sign(key.pair.privateKey, quoteBytes(measurement, key.public, time));
  return { v: 1, measurement: hex(measurement), key: toBase64(key.public), time, signature: toBase64(signature) };
}

/** The receipt of one answer, as text members. */
export async function makeReceipt(key, request, response, time) {
  const digests = [await sha256(request), await sha256(response)];
  const signature = await sign(key.pair.privateKey, receiptBytes(...digests, time));
  return { v: 1, request: hex(digests[0]), response: hex(digests[1]), time, signature: toBase64(signature) };
}

/** Hold a quote against the measurement that is wanted; gives the key that it names. */
export async function verifyQuote(quote, wanted) {
  const measurement = fromHex(quote.measurement, 32), key = fromBase64(quote.key, 65);
  if (quote.v !== 1) throw new Rejected(`found version ${quote.v}, wanted 1`);
  if (hex(measurement) !== hex(wanted)) throw new Rejected(`found measurement ${hex(measurement)}, wanted ${hex(wanted)}`);
  if (!await holds(key, fromBase64(quote.signature, 64), quoteBytes(measurement, key, quote.time))) throw new Rejected("the signature of the quote does not hold");
  return key;
}

/** Hold a receipt against what this page sent and received, and against the attested key. */
export async function verifyReceipt(receipt, key, request, response) {
  if (receipt.v !== 1) throw new Rejected(`found version ${receipt.v}, wanted 1`);
  const found = [fromHex(receipt.request, 32), fromHex(receipt.response, 32)];
  if (!await holds(key, fromBase64(receipt.signature, 64), receiptBytes(...found, receipt.time))) throw new Rejected("the signature of the receipt does not hold under the attested key");
  const wanted = [await sha256(request), await sha256(response)];
  if (hex(found[0]) !== hex(wanted[0])) throw new Rejected(`the receipt is about the request ${hex(found[0])}, this page sent ${hex(wanted[0])}`);
  if (hex(found[1]) !== hex(wanted[1])) throw new Rejected(`the receipt is about the response ${hex(found[1])}, this page received ${hex(wanted[1])}`);
}
