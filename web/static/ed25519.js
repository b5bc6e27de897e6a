// Ed25519 as strictly as docs/formats/statements.md wants it ("Envelope").
//
// WebCrypto checks the equation, without cofactor. Libraries differ in what they let through before it, so canonical
// encodings, small order, the curve and S are checked here, with integers; nothing here is secret, so time does not matter.

/** This machine cannot check Ed25519: a fact about it, never about the signature. */
export class NotHere extends Error {}

const P = 2n ** 255n - 19n;
const ORDER = 2n ** 252n + 27742317777372353535851937790883648493n;
const SPKI_HEADER = Uint8Array.of(0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00);
const SPKI_LENGTH = SPKI_HEADER.length + 32;

/** @param {bigint} n */
const mod = (n) => ((n % P) + P) % P;

/** @param {bigint} base @param {bigint} exponent */
function power(base, exponent) {
  let result = 1n;
  for (let square = mod(base), left = exponent; left > 0n; left >>= 1n, square = (square * square) % P) {
    if (left & 1n) result = (result * square) % P;
  }
  return result;
}

const D = mod(-121665n * power(121666n, P - 2n));

/** @param {Uint8Array} bytes little-endian */
const integer = (bytes) => bytes.reduceRight((sum, byte) => (sum << 8n) | BigInt(byte), 0n);

/** The y of an encoded point; the top bit is the sign of x. @param {Uint8Array} point 32 bytes */
const yOf = (point) => integer(point) & (2n ** 255n - 1n);

/** y < p, and the point's order does not divide 8. @param {Uint8Array} point 32 bytes */
function isCanonicalAndLarge(point) {
  const y = yOf(point), yy = mod(y * y);
  // x y = 0 holds for the points of order 1, 2 and 4. Doubling one of order 8 gives y = 0, so x^2 + y^2 = 0. With
  // x^2 = (y^2 - 1) / (d y^2 + 1) these become equations in y alone.
  return y < P && mod(y * (yy - 1n)) !== 0n && mod(D * yy * yy + 2n * yy - 1n) !== 0n;
}

/** @param {Uint8Array} point 32 bytes */
function isOnCurve(point) {
  const yy = mod(yOf(point) ** 2n);
  // x^2 = u / v has a root where u v is a square.
  return power((yy - 1n) * (D * yy + 1n), (P - 1n) / 2n) !== P - 1n;
}

/** @param {Uint8Array} key 32 bytes: is it a public key that may sign? */
export const isPublicKey = (key) => isCanonicalAndLarge(key) && isOnCurve(key);

/** @param {Uint8Array} der @returns {Uint8Array|null} the key of a SubjectPublicKeyInfo, null where these bytes are none */
export function keyOfSpki(der) {
  const isSpki = der.length === SPKI_LENGTH && SPKI_HEADER.every((byte, i) => der[i] === byte);
  return isSpki ? der.slice(SPKI_HEADER.length) : null;
}

/**
 * @param {Uint8Array} key 32 bytes @param {Uint8Array} signature 64 bytes @param {Uint8Array} message
 * @returns {Promise<boolean>}
 */
export async function holds(key, signature, message) {
  if (!isPublicKey(key) || !isCanonicalAndLarge(signature.slice(0, 32)) || integer(signature.slice(32)) >= ORDER) return false;
  let imported;
  try {
    imported = await crypto.subtle.importKey("raw", key, "Ed25519", false, ["verify"]);
  } catch {
    throw new NotHere("Ed25519 is not in this browser");
  }
  return crypto.subtle.verify("Ed25519", imported, signature, message);
}
