// Certificates as far as an attestation needs them: a chain of P-256 signatures from a leaf to a pinned root (RFC 5280).
//
// What is not looked at here is named by the caller as not checked: revocation lists, and the vendor's own extensions.

import { Rejected, concat, hex, sha256 } from "./layout.js";

const ECDSA_SHA256 = "2a8648ce3d040302", BASIC_CONSTRAINTS = "551d13";

/** One DER element. @param {Uint8Array} data @param {number} at */
function element(data, at = 0) {
  let length = data[at + 1], start = at + 2;
  if (length > 0x80 && length <= 0x83) {
    const bytes = length - 0x80;
    length = data.slice(start, start + bytes).reduce((sum, byte) => sum * 256 + byte, 0);
    start += bytes;
    if (length < 128) throw new Rejected("a certificate whose DER is not canonical");
  } else if (length >= 0x80) throw new Rejected("a certificate that is not DER");
  const end = start + length;
  if (!(end <= data.length)) throw new Rejected("a certificate that ends too early");
  return { tag: data[at], whole: data.slice(at, end), content: data.slice(start, end), end };
}

function children(data) {
  const found = [];
  for (let at = 0; at < data.length; at = found.at(-1).end) found.push(element(data, at));
  return found;
}

/** UTCTime or GeneralizedTime, in seconds since 1970. */
function time({ tag, content }) {
  const text = new TextDecoder().decode(content), parts = /^(\d{2,4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)Z$/.exec(tag === 0x17 ? (text < "5" ? "20" : "19") + text : text);
  if (!parts || parts[1].length !== 4) throw new Rejected(`a certificate with the time ${text}`);
  return Date.UTC(parts[1], parts[2] - 1, ...parts.slice(3)) / 1000;
}

/** An ECDSA signature in DER as r | s. */
function rawSignature(der) {
  const numbers = children(element(der).content);
  if (numbers.length !== 2) throw new Rejected("a signature that is not two numbers");
  return concat(...numbers.map(({ content }) => {
    const digits = content[0] === 0 ? content.slice(1) : content;
    if (digits.length > 32) throw new Rejected("a signature that is too long");
    return concat(new Uint8Array(32 - digits.length), digits);
  }));
}

function isAuthority(extensions) {
  return extensions.some((extension) => {
    const parts = children(extension.content);
    if (hex(parts[0].content) !== BASIC_CONSTRAINTS) return false;
    const [first] = children(element(parts.at(-1).content).content);
    return first?.tag === 1 && first.content[0] === 0xff;
  });
}

function parse(der) {
  const [signed, algorithm, signature] = children(element(der).content);
  const parts = children(signed.content);
  if (parts[0].tag !== 0xa0) throw new Rejected("a certificate without a version");
  const [, , , issuer, validity, subject, key] = parts;
  if (hex(children(algorithm.content)[0].content) !== ECDSA_SHA256) throw new Rejected("a certificate that is not signed with ECDSA and SHA-256");
  const [from, until] = children(validity.content).map(time);
  const last = parts.at(-1), extensions = last.tag === 0xa3 ? children(element(last.content).content) : [];
  return {
    der, signed: signed.whole, signature: rawSignature(signature.content.slice(1)), issuer: hex(issuer.whole), subject: hex(subject.whole), key: key.whole,
    from, until, authority: isAuthority(extensions),
  };
}

const importKey = (spki) => crypto.subtle.importKey("spki", spki, { name: "ECDSA", namedCurve: "P-256" }, false, ["verify"]);

/**
 * Believe a chain in PEM, leaf first, if its last certificate is the root. Gives the leaf's key.
 * @param {string} pem @param {string} root SHA-256 of the root's DER in hex @param {number} now seconds since 1970
 */
export async function verifyChain(pem, root, now) {
  const texts = pem.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? [];
  const chain = texts.map((text) => parse(Uint8Array.from(atob(text.replace(/-----[A-Z ]+-----|\s/g, "")), (letter) => letter.charCodeAt(0))));
  if (chain.length < 2 || chain.length > 4) throw new Rejected(`found a chain of ${chain.length} certificates`);
  const found = hex(await sha256(chain.at(-1).der));
  if (found !== root) throw new Rejected(`the chain ends in ${found}, wanted the root ${root}`);
  for (const [place, certificate] of chain.entries()) {
    const parent = chain[place + 1] ?? certificate;
    if (now < certificate.from || now >= certificate.until) throw new Rejected("a certificate is not in force now");
    if (certificate.issuer !== parent.subject || !parent.authority) throw new Rejected("a certificate is not its issuer's");
    if (!await crypto.subtle.verify({ name: "ECDSA", hash: "SHA-256" }, await importKey(parent.key), certificate.signature, certificate.signed)) throw new Rejected("the signature of a certificate does not hold");
  }
  return importKey(chain[0].key);
}
