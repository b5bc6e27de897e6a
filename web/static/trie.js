// The prefix trie of Quotary's status map: its root, and proofs that it has a pair or lacks a key.
//
// Specification: docs/formats/trie.md, and nothing else: this was written without the registry's code beside it. Keys and
// values are 32 bytes. It runs in a browser and in Node; hashes come from WebCrypto.

export class Malformed extends Error {}
export class InvalidProof extends Error {}

const HASH_LENGTH = 32;

/** @typedef {{key: Uint8Array, value: Uint8Array, hash: Uint8Array|null}} Leaf */
/** @typedef {{bit: number, children: Node[], hash: Uint8Array|null}} Inner  the keys with bit 0, then those with bit 1 */
/** @typedef {Leaf|Inner} Node */

/** @param {Uint8Array[]} parts @returns {Uint8Array} */
export function concat(...parts) {
  const all = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let at = 0;
  for (const part of parts) { all.set(part, at); at += part.length; }
  return all;
}

/** @param {Uint8Array} data @returns {Promise<Uint8Array>} 32 bytes */
export async function sha256(data) {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", data));
}

/** @param {Uint8Array} data */
export const hex = (data) => Array.from(data, (b) => b.toString(16).padStart(2, "0")).join("");

/** @param {Uint8Array} a @param {Uint8Array} b */
const same = (a, b) => a.length === b.length && a.every((byte, i) => byte === b[i]);

/** Bit 0 is the most significant of the first byte. @param {Uint8Array} key @param {number} number */
const bit = (key, number) => (key[number >> 3] >> (7 - (number & 7))) & 1;

/** A minimal unsigned varint of a number of at most 255. @param {number} n */
const varint = (n) => (n < 128 ? Uint8Array.of(n) : Uint8Array.of((n & 127) | 128, 1));

/** @param {Uint8Array[]} parts keys and values */
function checkLengths(...parts) {
  for (const { length } of parts) {
    if (length !== HASH_LENGTH) throw new Malformed(`found ${length} bytes, wanted ${HASH_LENGTH} for a key or value`);
  }
}

const leafBytes = (key, value) => concat(varint(key.length), key, varint(value.length), value);
const leafHash = (key, value) => sha256(concat(Uint8Array.of(0), leafBytes(key, value)));
const innerHash = (number, left, right) => sha256(concat(Uint8Array.of(1), varint(number), left, right));

// --- The map --------------------------------------------------------------------------------------------------------

/** A map that can prove what it holds. Hashes are computed when somebody asks for the root or a proof. */
export class Trie {
  /** @type {Node|null} */
  #top = null;

  /** Set or replace one pair. @param {Uint8Array} key 32 bytes @param {Uint8Array} value 32 bytes */
  set(key, value) {
    checkLengths(key, value);
    const leaf = { key, value, hash: null };
    const near = this.#walk(key).leaf;
    if (near === null) { this.#top = leaf; return; }
    const fork = firstDifference(key, near.key);
    this.#top = place(this.#top, leaf, fork);
  }

  /** @returns {Promise<Uint8Array>} the root over all pairs, 32 bytes */
  async root() {
    return this.#top === null ? sha256(new Uint8Array()) : hashOf(this.#top);
  }

  /** Prove that the map has this key. @param {Uint8Array} key @returns {Promise<Uint8Array>} the steps */
  async provePresence(key) {
    const { leaf, path } = this.#walk(key);
    if (leaf === null || !same(leaf.key, key)) throw new InvalidProof("the map does not have this key");
    return steps(path, key);
  }

  /** Prove that the map lacks this key. @param {Uint8Array} key @returns {Promise<Uint8Array>} the leaf on its way, the steps */
  async proveAbsence(key) {
    const { leaf, path } = this.#walk(key);
    if (leaf === null) return new Uint8Array();
    if (same(leaf.key, key)) throw new InvalidProof("the map has this key");
    return concat(leafBytes(leaf.key, leaf.value), await steps(path, leaf.key));
  }

  /** The leaf at which a walk by the bits of a key ends, and the inner nodes on the way. @param {Uint8Array} key */
  #walk(key) {
    const path = [];
    let node = this.#top;
    while (node !== null && "bit" in node) {
      path.push(node);
      node = node.children[bit(key, node.bit)];
    }
    return { leaf: node, path };
  }
}

/** @param {Uint8Array} a @param {Uint8Array} b @returns {number} the first bit in which they differ, 256 if in none */
function firstDifference(a, b) {
  let number = 0;
  while (number < 8 * HASH_LENGTH && bit(a, number) === bit(b, number)) number += 1;
  return number;
}

/** Put a leaf under a node: above the first node that parts keys later than `fork`, or in place of its own old leaf. */
function place(node, leaf, fork) {
  if (!("bit" in node) && fork === 8 * HASH_LENGTH) return leaf;
  if (!("bit" in node) || node.bit > fork) {
    return { bit: fork, children: bit(leaf.key, fork) ? [node, leaf] : [leaf, node], hash: null };
  }
  const side = bit(leaf.key, node.bit);
  node.children[side] = place(node.children[side], leaf, fork);
  node.hash = null;
  return node;
}

/** @param {Node} node @returns {Promise<Uint8Array>} */
async function hashOf(node) {
  if (node.hash === null) {
    node.hash = "bit" in node
      ? await innerHash(node.bit, await hashOf(node.children[0]), await hashOf(node.children[1]))
      : await leafHash(node.key, node.value);
  }
  return node.hash;
}

/** From the leaf to the root: the bit of each inner node and the hash of the child that is not on the way. */
async function steps(path, key) {
  const parts = [];
  for (const node of path.toReversed()) parts.push(varint(node.bit), await hashOf(node.children[1 - bit(key, node.bit)]));
  return concat(...parts);
}

// --- Verification ---------------------------------------------------------------------------------------------------

/**
 * Check that the map of this root has this pair, or throw.
 * @param {Uint8Array} root @param {Uint8Array} key @param {Uint8Array} value @param {Uint8Array} proof
 */
export async function verifyPresence(root, key, value, proof) {
  checkLengths(key, value);
  await leadsTo(root, key, value, readSteps(proof));
}

/**
 * Check that the map of this root lacks this key, or throw: the proof shows the leaf where a walk by the key's bits ends.
 * @param {Uint8Array} root @param {Uint8Array} key @param {Uint8Array} proof empty for the empty map
 */
export async function verifyAbsence(root, key, proof) {
  checkLengths(key);
  if (proof.length === 0) {
    if (!same(root, await sha256(proof))) throw new InvalidProof("an empty proof is for the empty map");
    return;
  }
  const found = readLeaf(proof);
  const path = readSteps(proof.slice(2 + 2 * HASH_LENGTH));
  if (same(found.key, key)) throw new InvalidProof("the proof shows this very key");
  for (const step of path) {
    if (bit(found.key, step.bit) !== bit(key, step.bit)) throw new InvalidProof(`another way from bit ${step.bit} on`);
  }
  await leadsTo(root, found.key, found.value, path);
}

/** @param {Uint8Array} proof @returns {{bit: number, sibling: Uint8Array}[]} */
function readSteps(proof) {
  const found = [];
  let at = 0, above = 256;
  while (at < proof.length) {
    let number = proof[at];
    at += 1;
    if (number > 127) {
      // Two bytes are minimal only from 128 on, and above 255 there is no bit: the second byte can only be 1.
      if (proof[at] !== 1) throw new Malformed("a step begins with no minimal varint of at most 255");
      at += 1;
    }
    const sibling = proof.slice(at, at + HASH_LENGTH);
    if (sibling.length !== HASH_LENGTH) throw new Malformed(`found ${sibling.length} bytes of hash, wanted ${HASH_LENGTH}`);
    if (number >= above) throw new Malformed(`bit ${number} comes after bit ${above}`);
    found.push({ bit: number, sibling });
    at += HASH_LENGTH;
    above = number;
  }
  return found;
}

/** @param {Uint8Array} proof */
function readLeaf(proof) {
  if (proof.length < 2 + 2 * HASH_LENGTH || proof[0] !== HASH_LENGTH || proof[1 + HASH_LENGTH] !== HASH_LENGTH) {
    throw new Malformed("the proof begins with no leaf of 32-byte key and value");
  }
  return { key: proof.slice(1, 1 + HASH_LENGTH), value: proof.slice(2 + HASH_LENGTH, 2 + 2 * HASH_LENGTH) };
}

/** Follow the steps up from a leaf to the root, or throw. */
async function leadsTo(root, key, value, path) {
  let node = await leafHash(key, value);
  for (const step of path) {
    const [left, right] = bit(key, step.bit) ? [step.sibling, node] : [node, step.sibling];
    node = await innerHash(step.bit, left, right);
  }
  if (!same(node, root)) throw new InvalidProof(`the steps lead to ${hex(node)}, wanted ${hex(root)}`);
}
