// F1 in JavaScript, written from docs/formats alone, against tests/vectors/f1: `node --test tests/web`.

import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import { test } from "node:test";

import { Contradiction, StatusMap, replay } from "../../web/static/f1.js";
import { walk } from "./walks.mjs";

const folder = new URL("../vectors/f1/", import.meta.url);
const bytes = (text) => Uint8Array.from(Buffer.from(text, "base64"));

for (const file of readdirSync(folder).filter((name) => name.endsWith(".json"))) {
  for (const { about, origin, log, outcomes, closings, notes } of JSON.parse(readFileSync(new URL(file, folder), "utf8")).cases) {
    test(`${file}: ${about}`, async () => {
      const found = await replay(origin, log.map(bytes));
      assert.equal(found.outcomes.length, outcomes.length);
      for (const [i, wanted] of outcomes.entries()) {
        assert.deepEqual(found.outcomes[i], wanted, `entry ${wanted.index}: ${notes[wanted.index]}`);
      }
      assert.deepEqual(found.closings, closings);
    });
  }
}

const readJSON = (name) => JSON.parse(readFileSync(new URL(name, folder), "utf8"));

test("a state entry that says otherwise than the entries is shown", async () => {
  const { origin, log, closings } = readJSON("times.json").cases[0];
  const last = closings.at(-1).state;
  const states = { "another root": (state) => { state.maps.F1 = "0".repeat(64); }, "a time before": (state) => { state.ts = 0; },
    "another size": (state) => { state.size += 1; }, "another before": (state) => { state.prev = 0; },
    "more members": (state) => { state.more = 1; } };
  for (const [name, change] of Object.entries(states)) {
    const state = JSON.parse(Buffer.from(log[last], "base64"));
    change(state);
    // Sorted members are all that is left to make these integers and texts canonical.
    const sorted = Object.fromEntries(Object.entries(state).sort(([a], [b]) => (a < b ? -1 : 1)));
    const changed = log.with(last, Buffer.from(JSON.stringify(sorted)).toString("base64"));
    await assert.rejects(replay(origin, changed.map(bytes)), Contradiction, name);
  }
});

test("entries after the last state entry are not decided", async () => {
  const { origin, log, outcomes, closings } = readJSON("times.json").cases[0];
  const { state } = closings.at(-2);
  const found = await replay(origin, log.slice(0, -1).map(bytes));
  assert.deepEqual(found.outcomes, outcomes.filter(({ index }) => index < state));
  assert.deepEqual(found.closings, closings.slice(0, -1));
});

for (const seed of [1, 2, 3, 4]) {
  test(`walk ${seed}: nothing leaves revoked, and nothing of an entry without effect stays`, async () => {
    const { origin, log, outcomes, closings } = await walk(seed, 120);
    assert.deepEqual(await replay(origin, log.map(bytes)), { outcomes, closings });
    const revoked = new Set();
    for (const { records } of closings) {
      for (const [key, text] of Object.entries(records)) {
        const { status, count } = JSON.parse(text);
        assert.ok(count > 0);
        assert.ok(!revoked.has(key) || status === "revoked");
        if (status === "revoked") revoked.add(key);
      }
    }
    await effectiveAlone(origin, log, outcomes, closings);
  });
}

/** Entries without effect can be left out, and every root stays. */
async function effectiveAlone(origin, log, outcomes, closings) {
  const map = new StatusMap(origin);
  let at = 0;
  for (const { state, ts, root } of closings) {
    for (; at < state; at += 1) {
      if (outcomes.find(({ index }) => index === at)?.effect) await map.decide(at, bytes(log[at]), ts);
    }
    assert.equal((await map.close()).root, root);
  }
}
