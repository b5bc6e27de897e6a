// The prefix trie in JavaScript against tests/vectors/trie: `node --test tests/web`.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { InvalidProof, Malformed, Trie, concat, hex, sha256, verifyAbsence, verifyPresence } from "../../web/static/trie.js";

const read = (name) => JSON.parse(readFileSync(new URL(`../vectors/trie/${name}`, import.meta.url), "utf8"));
const bytes = (text) => Uint8Array.from(Buffer.from(text, "hex"));
const utf8 = new TextEncoder();

function trieOf(pairs) {
  const trie = new Trie();
  for (const { key, value } of pairs) trie.set(bytes(key), bytes(value));
  return trie;
}

for (const map of read("maps.json")) {
  test(`map: ${map.name}`, async () => {
    const trie = trieOf(map.pairs), root = bytes(map.root);
    assert.equal(hex(await trie.root()), map.root);
    assert.equal(hex(await trieOf(map.pairs.toReversed()).root()), map.root, "the order of insertion changes the root");
    for (const { key, value, proof } of map.presence) {
      assert.equal(hex(await trie.provePresence(bytes(key))), proof);
      await verifyPresence(root, bytes(key), bytes(value), bytes(proof));
      await assert.rejects(trie.proveAbsence(bytes(key)), InvalidProof);
    }
    for (const { key, proof } of map.absence) {
      assert.equal(hex(await trie.proveAbsence(bytes(key))), proof);
      await verifyAbsence(root, bytes(key), bytes(proof));
      await assert.rejects(trie.provePresence(bytes(key)), InvalidProof);
    }
  });

  test(`map: ${map.name}: every truncation and every flipped bit of a proof is refused`, async () => {
    const root = bytes(map.root);
    const refused = (work) => assert.rejects(work, (error) => error instanceof Malformed || error instanceof InvalidProof);
    for (const { key, value, proof } of map.presence.slice(0, 1)) {
      for (const bad of broken(bytes(proof))) await refused(verifyPresence(root, bytes(key), bytes(value), bad));
    }
    for (const { key, proof } of map.absence.slice(0, 1)) {
      for (const bad of broken(bytes(proof))) await refused(verifyAbsence(root, bytes(key), bad));
    }
  });
}

for (const { name, kind, root, key, value, proof, error } of read("refused.json")) {
  test(`refused: ${name} (${kind})`, async () => {
    const wanted = { malformed: Malformed, "invalid-proof": InvalidProof }[error];
    const verified = kind === "presence"
      ? verifyPresence(bytes(root), bytes(key), bytes(value), bytes(proof))
      : verifyAbsence(bytes(root), bytes(key), bytes(proof));
    await assert.rejects(verified, wanted);
  });
}

test("pairs that are replaced one by one give the root of the definition", async () => {
  const trie = new Trie(), pairs = new Map();
  for (let i = 0; i < 120; i += 1) {
    // 80 keys, so some are set again; and every fifth shares its first 31 bytes with its neighbour.
    const key = await sha256(utf8.encode(`key ${i % 80}`)), value = await sha256(utf8.encode(`value ${i}`));
    if (i % 5 === 0) key.set((await sha256(utf8.encode("shared"))).slice(0, 31));
    trie.set(key, value);
    pairs.set(hex(key), value);
    assert.equal(hex(await trie.root()), hex(await defined([...pairs].map(([k, v]) => [bytes(k), v]))));
  }
});

/** root(S) as docs/formats/trie.md defines it, without a tree. @param {Uint8Array[][]} pairs */
async function defined(pairs, from = 0) {
  if (pairs.length === 0) return sha256(new Uint8Array());
  if (pairs.length === 1) return sha256(concat(Uint8Array.of(0, 32), pairs[0][0], Uint8Array.of(32), pairs[0][1]));
  const bit = ([key]) => (key[from >> 3] >> (7 - (from & 7))) & 1;
  const left = pairs.filter((pair) => bit(pair) === 0), right = pairs.filter((pair) => bit(pair) === 1);
  if (left.length === 0 || right.length === 0) return defined(pairs, from + 1);
  const number = from < 128 ? [from] : [from, 1];
  return sha256(concat(Uint8Array.of(1, ...number), await defined(left, from + 1), await defined(right, from + 1)));
}

/** Every truncation and every flipped bit; of long proofs some of them, spread over all positions. */
function* broken(proof) {
  const stride = proof.length < 200 ? 1 : 37;
  for (let length = 0; length < proof.length; length += stride) yield proof.slice(0, length);
  for (let i = 0; i < 8 * proof.length; i += stride) {
    const bad = proof.slice();
    bad[i >> 3] ^= 1 << (i & 7);
    yield bad;
  }
}
