// Certificates as far as evidence needs them: a chain, leaf first, whose last certificate is one of pinned roots (RFC 5280).
//
// The rules are those of quotary/attestation/certificates.py: everything critical and unknown is refused, each issuer may sign
// certificates, each is in force. Revocation lists are not looked at here; who calls says so. Signatures are WebCrypto's.

import { Malformed, demand } from "./documents.js";
import { Rejected, concat, hex, sha256 } from "./verify.js";

const BOOLEAN = 1, INTEGER = 2, BIT_STRING = 3, OCTETS = 4, OID = 6, SEQUENCE = 0x30, SET = 0x31, UTC_TIME = 0x17, GENERALIZED_TIME = 0x18;
const MAX_ITEMS = 64, MAX_SERIAL_LENGTH = 20, MAX_RSA_LENGTH = 512;
const COMMON_NAME = "550403", ORGANISATION = "55040a", BASIC_CONSTRAINTS = "551d13", KEY_USAGE = "551d0f";
const EC_KEY = "2a8648ce3d0201", RSA_KEY = "2a864886f70d010101";
const CURVES = { "2a8648ce3d030107": "P-256", "2b81040022": "P-384" }, COORDINATE_LENGTHS = { "P-256": 32, "P-384": 48 };
const ECDSA = { "300a06082a8648ce3d040302": "SHA-256", "300a06082a8648ce3d040303": "SHA-384" };
// RSASSA-PSS with SHA-384, MGF1 with SHA-384 and 48 bytes of salt, with and without the trailer field that is the default.
const PSS = "06092a864886f70d01010a";
const PSS_PARAMETERS = "a00f300d06096086480165030402020500a11c301a06092a864886f70d010108300d06096086480165030402020500a203020130";
const RSA_PSS = [`3041${PSS}3034${PSS_PARAMETERS}`, `3046${PSS}3039${PSS_PARAMETERS}a303020101`];
// How a simulator marks what it signs: an extension 1.3.6.1.4.1.99999.7411.1 and the name of its organisation.
const SIMULATOR_EXTENSION = "2b06010401868d1fb97301", SIMULATOR_ORGANISATION = "SIMULATED";

const text = (bytes) => new TextDecoder().decode(bytes);

/** Cut DER into its items, at most 64 that fill it exactly. @param {Uint8Array} data @returns {{tag: number, content: Uint8Array, whole: Uint8Array}[]} */
export function items(data) {
  const found = [];
  for (let at = 0; at < data.length;) {
    demand(found.length < MAX_ITEMS, `DER has more than ${MAX_ITEMS} items in a row`);
    const tag = data[at];
    let length = data[at + 1], start = at + 2;
    demand(length !== undefined && (tag & 0x1f) !== 0x1f, "not DER: no tag and length");
    if (length & 0x80) {
      const bytes = length & 0x7f;
      start += bytes;
      length = data.slice(at + 2, start).reduce((sum, byte) => sum * 256 + byte, 0);
      demand(bytes <= 2 && length >= (bytes === 2 ? 0x100 : 0x80), "not DER: a length in another than its shortest form");
    }
    demand(start + length <= data.length, "not DER: shorter than it says");
    found.push({ tag, content: data.slice(start, start + length), whole: data.slice(at, start + length) });
    at = start + length;
  }
  return found;
}

/** The items of one item that has this tag, at least so many. */
export function inside(item, tag, what, least = 1) {
  demand(item?.tag === tag, `not DER: ${what} is of another kind`);
  const found = items(item.content);
  demand(found.length >= least, `not DER: ${what} lacks a part`);
  return found;
}

function wholeBytes(item, what) {
  demand(item?.tag === BIT_STRING && item.content[0] === 0, `${what} does not end with a whole byte`);
  return item.content.slice(1);
}

/** UTCTime or GeneralizedTime, in seconds since 1970. */
function time({ tag, content }) {
  const said = text(content), full = tag === UTC_TIME ? (said < "5" ? "20" : "19") + said : said;
  const parts = /^(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)Z$/.exec(full);
  demand([UTC_TIME, GENERALIZED_TIME].includes(tag) && parts, `a certificate with the time ${said}`);
  return Date.UTC(parts[1], parts[2] - 1, ...parts.slice(3)) / 1000;
}

/** The texts of one attribute of a name. */
function named(name, wanted) {
  const pairs = inside(name, SEQUENCE, "a name").flatMap((set) => inside(set, SET, "a name")).map((pair) => inside(pair, SEQUENCE, "a name", 2));
  return pairs.filter(([oid]) => hex(oid.content) === wanted).map(([, value]) => text(value.content));
}

/** What is critical in an extension and what it says, by its object identifier in hex. */
function extensionsOf(last) {
  const found = new Map();
  if (last?.tag !== 0xa3) return found;
  for (const extension of inside(items(last.content)[0], SEQUENCE, "the list of extensions")) {
    const parts = inside(extension, SEQUENCE, "an extension", 2), value = parts.at(-1), oid = hex(parts[0].content);
    const flag = parts.length === 3 ? parts[1] : null;
    demand(parts.length <= 3 && parts[0].tag === OID && value.tag === OCTETS && !found.has(oid), "an extension stands twice or is none");
    demand(!flag || (flag.tag === BOOLEAN && hex(flag.content) === "ff"), "an extension is neither critical nor not");
    found.set(oid, { critical: flag !== null, value: value.content });
  }
  return found;
}

function constraintsOf(extensions) {
  const basic = extensions.get(BASIC_CONSTRAINTS), usage = extensions.get(KEY_USAGE);
  const [ca, length] = basic ? inside(items(basic.value)[0], SEQUENCE, "the basic constraints", 0) : [];
  demand(!length || (length.tag === INTEGER && length.content.length === 1 && length.content[0] < 0x80), "a path length is no small number");
  const bits = usage ? items(usage.value)[0] : null;
  demand(!usage || bits?.tag === BIT_STRING, "the key usage is no string of bits");
  return { authority: ca?.tag === BOOLEAN && ca.content[0] === 0xff, pathLength: length ? length.content[0] : Infinity, signsCertificates: ((bits?.content[1] ?? 0) & 0x04) !== 0 };
}

/** Which kind of key stands in a SubjectPublicKeyInfo. */
function keyOf(spki) {
  const [algorithm, bits] = inside(spki, SEQUENCE, "a public key", 2), [oid, curve] = inside(algorithm, SEQUENCE, "a public key", 2);
  if (hex(oid.content) === EC_KEY && hex(curve.content) in CURVES) return { curve: CURVES[hex(curve.content)], spki: spki.whole };
  demand(hex(oid.content) === RSA_KEY, "a certificate's key is neither EC (P-256, P-384) nor RSA");
  const [modulus] = inside(items(wholeBytes(bits, "a key"))[0], SEQUENCE, "an RSA key");
  demand(modulus.content.length <= MAX_RSA_LENGTH + 1, `a certificate's RSA key has more than ${8 * MAX_RSA_LENGTH} bits`);
  return { curve: null, spki: spki.whole };
}

/** Read one certificate; nothing in it is believed yet. @param {Uint8Array} der */
export function parseCertificate(der) {
  const outer = items(der);
  demand(outer.length === 1, "not one certificate");
  const [signed, algorithm, signature] = inside(outer[0], SEQUENCE, "a certificate", 3), parts = inside(signed, SEQUENCE, "a certificate", 7);
  demand(hex(parts[0].whole) === "a003020102", "not a certificate of version 3");
  const [, serial, inner, issuer, validity, subject, key] = parts;
  demand(serial.tag === INTEGER && serial.content.length <= MAX_SERIAL_LENGTH + 1, "a certificate's serial number is too long");
  demand(hex(inner.whole) === hex(algorithm.whole), "a certificate names two algorithms for its signature");
  const [from, until] = inside(validity, SEQUENCE, "a validity", 2).map(time), extensions = extensionsOf(parts[7]);
  const known = named(subject, COMMON_NAME);
  return {
    der, signed: signed.whole, algorithm: hex(algorithm.whole), signature: wholeBytes(signature, "a signature"), serial: serial.content,
    issuer: hex(issuer.whole), subject: hex(subject.whole), commonName: known.length === 1 ? known[0] : "", from, until, key: keyOf(key), extensions,
    organisations: [...named(subject, ORGANISATION), ...named(issuer, ORGANISATION)], ...constraintsOf(extensions),
  };
}

/** Read exactly this many PEM certificates, leaf first, and nothing between them. @param {string} pem @param {number} length */
export function parseChain(pem, length) {
  const blocks = pem.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? [];
  const bodies = blocks.map((block) => block.replace(/-----[A-Z ]+-----|\s/g, ""));
  const again = bodies.map((body) => `-----BEGINCERTIFICATE-----${body}-----ENDCERTIFICATE-----`).join("");
  demand(again === pem.replace(/\0+$/, "").replace(/\s/g, ""), "a chain of PEM certificates has something else before, between or behind them");
  demand(blocks.length === length, `chain has ${blocks.length} certificates, ${length} are needed`);
  return bodies.map((body) => parseCertificate(bytesOf(body)));
}

function bytesOf(base64) {
  let binary;
  try { binary = atob(base64); } catch { throw new Malformed("not PEM: its body is not base64"); }
  demand(btoa(binary) === base64, "not PEM: its base64 is not canonical");
  return Uint8Array.from(binary, (letter) => letter.charCodeAt(0));
}

/** Whether a simulator marked any of these as its own. */
export const simulated = (chain) => chain.some(({ extensions, organisations }) =>
  extensions.has(SIMULATOR_EXTENSION) || organisations.some((name) => name.startsWith(SIMULATOR_ORGANISATION)));

/**
 * Require a path from the first certificate to the root with this fingerprint, each in force.
 * @param {object[]} chain @param {string} root SHA-256 of its DER in hex @param {number} now seconds since 1970
 */
export async function verifyChain(chain, root, now) {
  const found = hex(await sha256(chain.at(-1).der));
  if (found !== root) throw new Rejected(`found the root ${found}, wanted ${root}`);
  for (const { commonName, from, until, extensions } of chain) {
    if (now < from || now > until) throw new Rejected(`${commonName} is in force from ${iso(from)} to ${iso(until)}, judged at ${iso(now)}`);
    for (const [oid, { critical }] of extensions) if (critical && oid !== BASIC_CONSTRAINTS && oid !== KEY_USAGE) throw new Rejected(`${commonName} has the unknown critical extension ${oid}`);
  }
  for (const [depth, child] of chain.entries()) await requireIssuer(child, chain[depth + 1] ?? child, chain[depth + 1] ? depth : 0);
}

const iso = (seconds) => new Date(seconds * 1000).toISOString();

async function requireIssuer(child, issuer, below) {
  if (!issuer.authority || !issuer.signsCertificates) throw new Rejected(`${issuer.commonName} may not sign certificates`);
  if (below > issuer.pathLength) throw new Rejected(`${below} authorities below ${issuer.commonName}, at most ${issuer.pathLength} may be`);
  if (child.issuer !== issuer.subject || !await signedBy(child, issuer.key)) throw new Rejected(`${child.commonName} is not signed by ${issuer.commonName}`);
}

async function signedBy({ algorithm, signature, signed }, key) {
  if (key.curve === null) {
    if (!RSA_PSS.includes(algorithm)) return false;
    const imported = await crypto.subtle.importKey("spki", key.spki, { name: "RSA-PSS", hash: "SHA-384" }, false, ["verify"]);
    return crypto.subtle.verify({ name: "RSA-PSS", saltLength: 48 }, imported, signature, signed);
  }
  return algorithm in ECDSA && holdsEcdsa(key, ECDSA[algorithm], fixedLength(signature, COORDINATE_LENGTHS[key.curve]), signed);
}

/** r and s of a DER signature, each as long as the curve's numbers. */
function fixedLength(der, length) {
  const numbers = inside(items(der)[0], SEQUENCE, "a signature", 2);
  demand(numbers.length === 2 && numbers.every(({ tag, content }) => tag === INTEGER && content.length > 0 && content[0] < 0x80), "a signature that is not two numbers");
  return concat(...numbers.map(({ content }) => {
    const digits = content[0] === 0 ? content.slice(1) : content;
    demand(digits.length <= length, "a signature that is too long for its curve");
    return concat(new Uint8Array(length - digits.length), digits);
  }));
}

/** Whether r | s is the signature of a certificate's key. @param {{curve: string, spki: Uint8Array}} key */
export async function holdsEcdsa(key, hash, signature, data) {
  const imported = await crypto.subtle.importKey("spki", key.spki, { name: "ECDSA", namedCurve: key.curve }, false, ["verify"]);
  return crypto.subtle.verify({ name: "ECDSA", hash }, imported, signature, data);
}
