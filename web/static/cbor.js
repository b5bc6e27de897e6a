// A strict CBOR reader (RFC 8949) for Nitro's documents; the rules are those of quotary/attestation/cbor.py.
//
// Integers, byte and text strings, arrays, maps, booleans and null, each in its shortest form; maps may be of indefinite length,
// because AWS writes them so. Refused are duplicate keys, tags, floats, strings in chunks, bytes behind the end, anything deep.

import { Malformed } from "./documents.js";

const MAX_DEPTH = 8, MAX_ITEMS = 4096, INDEFINITE = 31, BREAK = 0xff;
const SIMPLE = { 20: false, 21: true, 22: null };
const [UNSIGNED, NEGATIVE, BYTES, TEXT, ARRAY, MAP, TAG, OTHER] = Array(8).keys();

/** Read one item that fills the bytes: numbers, strings, Uint8Array, arrays, Map. @param {Uint8Array} data @param {number} limit in bytes */
export function decode(data, limit) {
  if (data.length > limit) throw new Malformed(`CBOR has ${data.length} bytes, at most ${limit} are allowed`);
  const reader = new Reader(data), value = reader.item(0);
  if (reader.at !== data.length) throw new Malformed(`CBOR has ${data.length - reader.at} bytes behind its end`);
  return value;
}

/** A position in the bytes and the number of items that may still be read. */
class Reader {
  constructor(data) { Object.assign(this, { data, at: 0, left: MAX_ITEMS }); }

  item(depth) {
    this.left -= 1;
    if (depth > MAX_DEPTH || this.left < 0) throw new Malformed(`CBOR is deeper than ${MAX_DEPTH} or has more than ${MAX_ITEMS} items`);
    const [initial] = this.take(1), major = initial >> 5, info = initial & 31;
    if (major === MAP) return this.map(info, depth);
    if (major === OTHER) {
      if (!(info in SIMPLE)) throw new Malformed("CBOR has a float, a break or a simple value that is not allowed");
      return SIMPLE[info];
    }
    const number = this.number(info);
    switch (major) {
      case UNSIGNED: return number;
      case NEGATIVE: return -1 - number;
      case BYTES: return this.take(number);
      case TEXT: return this.text(number);
      case ARRAY: return Array.from({ length: this.fitting(number) }, () => this.item(depth + 1));
      default: throw new Malformed(`CBOR has the tag ${number}, none is allowed (${TAG})`);
    }
  }

  take(length) {
    const found = this.data.slice(this.at, this.at + length);
    if (found.length !== length) throw new Malformed(`CBOR ends ${length - found.length} bytes early`);
    this.at += length;
    return found;
  }

  number(info) {
    if (info < 24) return info;
    if (info > 27) throw new Malformed("CBOR has an indefinite or reserved length where none is allowed");
    const length = 1 << (info - 24), number = this.take(length).reduce((sum, byte) => sum * 256 + byte, 0);
    if (number < 24 || (length > 1 && number < 256 ** (length / 2))) throw new Malformed("CBOR has a number in another than its shortest form");
    // Beyond 2^53 a number here is not exact; nothing in a document comes near it.
    if (!Number.isSafeInteger(number)) throw new Malformed(`CBOR has the number ${number}, which no document needs`);
    return number;
  }

  /** Every item has a byte at least, so that a false count cannot make us wait. */
  fitting(count) {
    if (count > this.data.length - this.at) throw new Malformed(`CBOR says ${count} items, ${this.data.length - this.at} bytes are left`);
    return count;
  }

  text(length) {
    try { return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(this.take(length)); }
    catch (error) { throw error instanceof Malformed ? error : new Malformed("CBOR has text that is not UTF-8"); }
  }

  map(info, depth) {
    const found = new Map(), count = info === INDEFINITE ? Infinity : this.fitting(this.number(info));
    for (let read = 0; read < count; read += 1) {
      if (count === Infinity && this.data[this.at] === BREAK) { this.at += 1; break; }
      const key = this.item(depth + 1);
      if (!["number", "string"].includes(typeof key) || found.has(key)) throw new Malformed("CBOR has a map key that is neither a number nor text, or has it twice");
      found.set(key, this.item(depth + 1));
    }
    return found;
  }
}
