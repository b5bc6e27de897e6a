// Orders: by which a log's roots change its keys or end it.
//
// Specification: docs/formats/orders.md, and nothing else: this was written without the registry's code beside it, so that
// two readings of one text are compared.

import { concat, hex, sha256 } from "./trie.js";
import { array, ascending, base64, canonical, demand, identity, integer, name, object, seconds, set, text, time }
  from "./documents.js";
import { utf8 } from "./statements.js";
import { Contradiction, replay } from "./f1.js";
import { holds, isPublicKey, keyOfSpki } from "./ed25519.js";

const ED25519 = 0x01, ML_DSA_44 = 0x06;
const KEY_LENGTHS = { [ED25519]: 32, [ML_DSA_44]: 1312 };
const AHEAD_SECONDS = 300, LIFETIME_SECONDS = 30 * 86_400;
const MEMBERS = { "key-rotation": ["add", "remove", "until"], freeze: ["reason"], "shard-closed": ["reason", "successor"] };
const ENDS = ["freeze", "shard-closed"];

/**
 * Replay a whole log, its orders included: like `replay`, and with `orders`, each with the index of its state entry.
 * @param {string} origin @param {Uint8Array[]} entries @param {(index: number) => void} progress is told each state entry
 */
export async function audit(origin, entries, progress = () => {}) {
  const orders = [];
  const found = await replay(origin, entries, async (reserved, count, state, log) => {
    let order;
    progress(state.size);
    try { order = await checkInterval(origin, reserved, count, state, log); }
    catch (error) { throw new Contradiction(`order before state entry ${state.size}: ${error.message}`); }
    if (order !== null) orders.push({ state: state.size, order });
  });
  return { ...found, orders };
}

const isOrder = ({ type }) => typeof type === "string" && Object.hasOwn(MEMBERS, type);

/**
 * Check the orders of one interval; throws what breaks a rule, returns the order or null.
 * @param {string} origin @param {any[]} reserved its reserved records @param {number} count of all its entries
 * @param {any} state the state entry that closes it
 * @param {{keys: Record<string, string>, roles: any, expires: string}|undefined} log the log's delegation before it
 */
async function checkInterval(origin, reserved, count, state, log) {
  const orders = reserved.filter(isOrder), order = orders[0] ?? null;
  for (const found of orders) await checkForm(found);
  demand(order === null || count === 1, "an order that is not alone in its interval");
  const end = order !== null && ENDS.includes(order.type) ? order.type : undefined;
  demand(state.end === end, `end ${state.end} in the state entry, wanted ${end}`);
  if (order !== null) await checkAuthority(origin, order, state.ts, log);
  return order;
}

async function checkForm(order) {
  object(order, ["type", "v", "log", "issued", "signatures", ...MEMBERS[order.type]]);
  demand(order.v === 1, "another version");
  name(order.log);
  time(order.issued);
  array(order.signatures, 1, 32).forEach((item) => {
    object(item, ["keyid", "sig"]);
    identity(item.keyid);
    base64(item.sig, 64);
  });
  ascending(order.signatures.map(({ keyid }) => keyid));
  if (order.type === "key-rotation") return checkRotation(order);
  text(order.reason, 512);
  if (order.type === "shard-closed") await checkSuccessor(order);
}

async function checkRotation(order) {
  time(order.until);
  const added = await vkeys(order.add, order.log), removed = await vkeys(order.remove, order.log);
  const types = (keys) => keys.map((key) => key[0]).sort().join();
  demand(types(added) === types(removed), "added keys of other types than the removed ones");
  const before = removed.map(hex);
  demand(!added.some((key) => before.includes(hex(key))), "a key is both added and removed");
}

async function checkSuccessor({ log, successor }) {
  object(successor, ["origin", "vkeys"]);
  name(successor.origin);
  demand(successor.origin !== log, "its own successor");
  await vkeys(successor.vkeys, successor.origin);
}

/** @returns {Promise<Uint8Array[]>} type byte and key of each */
async function vkeys(value, origin) {
  set(value, 1, 4, (item) => text(item, 4096));
  const keys = await Promise.all(value.map((vkey) => keyOf(vkey, origin)));
  demand(new Set(keys.map((key) => key[0])).size === keys.length, "two keys of one type");
  return keys;
}

async function keyOf(vkey, origin) {
  const [of, id, ...rest] = vkey.split("+");
  const key = base64(rest.join("+"));
  demand(of === origin, `a key of ${of}`);
  demand(key.length === 1 + KEY_LENGTHS[key[0]], "not a log's key");
  demand(key[0] !== ED25519 || isPublicKey(key.slice(1)), "an Ed25519 key that proves nothing");
  demand(id === hex((await sha256(concat(utf8.encode(`${of}\n`), key))).slice(0, 4)), "another key's id");
  return key;
}

async function checkAuthority(origin, order, ts, log) {
  integer(ts, 0);
  demand(order.log === origin, `an order for ${order.log}`);
  const issued = seconds(order.issued);
  demand(issued - AHEAD_SECONDS <= ts && ts < issued + LIFETIME_SECONDS, "issued in the future, or void");
  demand(log !== undefined, "a log without roots");
  const { signatures, ...signed } = order, root = log.roles.root;
  const message = utf8.encode(`quotary-order/v1\n${canonical(signed)}`);
  for (const { keyid, sig } of signatures) {
    demand(root.keys.includes(keyid), "a signature by somebody who is no root");
    demand(await holds(keyOfSpki(base64(log.keys[keyid])), base64(sig), message), "a signature that does not hold");
  }
  demand(signatures.length >= root.threshold, "too few roots");
  demand(ts < seconds(log.expires), "the roots' delegation has expired");
}
