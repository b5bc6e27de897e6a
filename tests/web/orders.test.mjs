// Orders in JavaScript, written from docs/formats alone, against tests/vectors/orders: `node --test tests/web`.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { Contradiction } from "../../web/static/f1.js";
import { audit } from "../../web/static/orders.js";

const folder = new URL("../vectors/orders/", import.meta.url);
const bytes = (text) => Uint8Array.from(Buffer.from(text, "base64"));
const cases = (name) => JSON.parse(readFileSync(new URL(name, folder), "utf8")).cases;

for (const { about, origin, log } of cases("holding.json")) {
  test(`holding: ${about}`, async () => {
    const { closings } = await audit(origin, log.map(bytes));
    assert.equal(closings.at(-1).state, log.length - 1);
  });
}

for (const { about, origin, log, breaks_at } of cases("breaking.json")) {
  test(`breaking: ${about}`, async () => {
    await assert.rejects(audit(origin, log.map(bytes)), Contradiction);
    const before = log.slice(0, breaks_at - 1).map(bytes);
    await audit(origin, before);
  });
}

test("the orders of a log are given with their state entries", async () => {
  const { origin, log } = cases("holding.json")[0];
  const { orders } = await audit(origin, log.map(bytes));
  assert.deepEqual(orders.map(({ state, order }) => [state, order.type]), [[6, "key-rotation"], [10, "freeze"]]);
  assert.equal(orders[1].order.reason, "the log's key was stolen");
});
