// F1 in JavaScript, written from docs/formats alone, against tests/vectors/f1: `node --test tests/web`.

import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import { test } from "node:test";

import { Contradiction, replay } from "../../web/static/f1.js";

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
