// The form of statements in JavaScript: every example of docs/formats/statements.md is accepted, and what is changed in it
// falls on the side where the text puts it.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { Malformed, canonical, parseDocument } from "../../web/static/documents.js";
import { isPublicKey } from "../../web/static/ed25519.js";
import { UnknownKind, checkState, mapKey, parseReserved, parseStatement } from "../../web/static/statements.js";

const page = readFileSync(new URL("../../docs/formats/statements.md", import.meta.url), "utf8");
const utf8 = new TextEncoder();
const examples = Object.fromEntries([...page.matchAll(/```json ([a-z-]+)\n([\s\S]*?)\n```/g)]
  .filter(([, kind]) => kind !== "envelope").map(([, kind, text]) => [kind, JSON.parse(text)]));

const item = (name, sha256) => ({ digest: { sha256 }, name });
const subjects = {
  delegation: async (p) => [item(p.service, await mapKey("service", [p.service]))],
  release: (p) => p.outputs.map((output) => item(output.name, output.sha256)),
  rebuild: (p) => [item("release", p.release.slice("sha256:".length))],
  revocation: (p) => p.measurements.map((id) => item("measurement", id)),
  "tcb-floor": async (p) => [item(`${p.platform}/${p.product}`, await mapKey("tcb", [p.platform, p.product]))],
  artefact: (p) => p.items.map(({ name, sha256 }) => item(name, sha256)),
};

/** An example with a change to its predicate, then one to the statement around it. */
async function statement(kind, change = () => {}, around = () => {}) {
  const predicate = structuredClone(examples[kind]);
  change(predicate);
  const whole = { _type: "https://in-toto.io/Statement/v1", predicateType: `https://quotary.dev/${kind}/v1`, predicate,
    subject: await subjects[kind](predicate) };
  around(whole);
  return canonical(whole);
}

function entry(payload, change = () => {}) {
  const signatures = [{ keyid: `sha256:${"0".repeat(64)}`, sig: Buffer.alloc(64).toString("base64") }];
  const envelope = { payload: Buffer.from(payload).toString("base64"), payloadType: "application/vnd.in-toto+json", signatures };
  change(envelope);
  return utf8.encode(canonical(envelope));
}

const accepted = async (...made) => parseStatement(entry(await statement(...made)));
const refused = async (...made) => {
  await assert.rejects(parseStatement(entry(await statement(...made))), Malformed, made.join(" "));
};

for (const kind of Object.keys(examples)) {
  test(`the example of ${kind} is accepted, and nothing may be missing from it or beside it`, async () => {
    assert.equal((await accepted(kind)).kind, kind);
    await refused(kind, (p) => { p.more = 1; });
    for (const member of ["log", "service", "sequence", "issued"]) await refused(kind, (p) => { delete p[member]; });
    await refused(kind, undefined, (whole) => { whole.subject.push(whole.subject[0]); });
    await refused(kind, undefined, (whole) => { whole.subject[0].more = 1; });
    await refused(kind, (p) => { p.sequence = 0; });
    await refused(kind, (p) => { p.sequence = true; });
  });
}

test("texts have at least one character and are counted in code points", async () => {
  await accepted("revocation", (p) => { p.reason = "😀".repeat(512); });
  for (const reason of ["", "a".repeat(513), "a\u0085", "a\u007f", "a\n"]) {
    await refused("revocation", (p) => { p.reason = reason; });
  }
  await refused("rebuild", (p) => { p.tool = ""; });
  await refused("tcb-floor", (p) => { p.floor.denied_chips = [""]; });
});

test("sets ascend by code points, not by UTF-16 units", async () => {
  await accepted("tcb-floor", (p) => { p.floor.denied_chips = ["\ufffd", "😀"]; });
  await refused("tcb-floor", (p) => { p.floor.denied_chips = ["😀", "\ufffd"]; });
  await refused("release", (p) => { p.rows[0].require.devices.push(p.rows[0].require.devices[0]); });
  await refused("rebuild", (p) => { p.rows.push(p.rows[0]); });
});

test("times exist", async () => {
  for (const at of ["1970-01-01T00:00:00Z", "2024-02-29T00:00:00Z", "9999-12-31T23:59:59Z"]) {
    await accepted("release", (p) => { p.issued = at; });
  }
  for (const at of ["1969-12-31T23:59:59Z", "2026-02-29T00:00:00Z", "2026-11-21T24:00:00Z", "2026-11-21T23:59:60Z",
    "2026-11-21T12:00:00.0Z"]) {
    await refused("release", (p) => { p.issued = at; });
  }
});

test("services are segments joined by slashes", async () => {
  for (const name of ["a/b", "a.b_c-d", "log/x", "a".repeat(100)]) await accepted("release", (p) => { p.service = name; });
  for (const name of ["log", "a-", "a//b", "a/", "A", "é", "", "a".repeat(101)]) {
    await refused("release", (p) => { p.service = name; });
  }
  await refused("rebuild", (p) => { p.service = "log"; });
  await refused("tcb-floor", (p) => { p.service = "chat"; });
});

test("a delegation lists only keys that may sign, and each has a role", async () => {
  const listing = (hex) => (p) => {
    const der = Buffer.concat([Buffer.from("302a300506032b6570032100", "hex"), Buffer.from(hex, "hex")]);
    const id = `sha256:${createHash("sha256").update(der).digest("hex")}`;
    p.keys[id] = der.toString("base64");
    p.roles.keyset = { keys: [id], threshold: 1 };
  };
  await accepted("delegation", listing(`03${"0".repeat(62)}`));
  const points = {
    "the neutral element": `01${"0".repeat(62)}`, "order 2": `ec${"f".repeat(60)}7f`, "order 4": "0".repeat(64),
    "order 8": "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a", "y of p + 3": `f0${"f".repeat(60)}7f`,
    "not on the curve": `02${"0".repeat(62)}`,
  };
  for (const point of Object.values(points)) await refused("delegation", listing(point));
  await refused("delegation", (p) => { delete p.roles.builder; delete p.roles.artefact; });
  await refused("delegation", (p) => { p.roles.root = p.roles.owner; });
  await refused("delegation", (p) => { p.roles.owner.threshold = 4; });
  await refused("delegation", (p) => { p.compromised = [{ key: Object.keys(p.keys)[0], from_index: 0 }]; });
  await refused("delegation", (p) => { p.sequence = 1; });
});

test("the fourteen keys that prove nothing are none", () => {
  const keys = JSON.parse(readFileSync(new URL("../vectors/ed25519/degenerate.json", import.meta.url), "utf8"));
  assert.equal(keys.length, 14);
  for (const { about, key } of keys) assert.ok(!isPublicKey(Buffer.from(key, "hex")), about);
});

test("only a genesis has a predecessor", async () => {
  const predecessor = { origin: "log0.example.org", size: 2, root: "0".repeat(64), map: "0".repeat(64) };
  const genesis = (of) => (p) => {
    const [id] = p.roles.owner.keys;
    Object.assign(p, { service: "log", sequence: 1, keys: { [id]: p.keys[id] }, roles: { root: { keys: [id], threshold: 1 } } });
    delete p.previous;
    delete p.compromised;
    p.predecessor = of;
  };
  await accepted("delegation", genesis(predecessor));
  await refused("delegation", (p) => { p.predecessor = predecessor; });
  for (const change of [{ size: 0 }, { root: "00" }, { map: 1 }, { origin: "A" }, { more: 1 }, { origin: examples.delegation.log }]) {
    await refused("delegation", genesis({ ...predecessor, ...change }));
  }
});

test("rows of a release have their platform's members", async () => {
  await refused("release", (p) => { p.rows[1].platform = "sim-sim-tdx"; });
  await refused("release", (p) => { delete p.rows[0].require.guest; });
  await refused("release", (p) => { delete p.rows[1].require.configuration; });
  await refused("release", (p) => { p.rows[0].require.guest_policy = { mask: "0".repeat(16), value: "0".repeat(16) }; });
  await refused("release", (p) => { p.rows[0].require.xfam = { mask: "0".repeat(16), value: "1".padStart(16, "0") }; });
  await refused("release", (p) => { p.rows.push({ ...p.rows[1], profile: "other/v1" }); });
});

test("free content has names at every depth, whatever they mean to JavaScript", async () => {
  await accepted("release", (p) => { p.material = JSON.parse('{"__proto__":{"constructor":[1,{"10":true,"9":"É"}]}}'); });
  await refused("release", (p) => { p.material = { a: [{ B: 1 }] }; });
});

test("a verdict is what its rows give", async () => {
  await accepted("rebuild", (p) => { Object.assign(p, { rows: [], verdict: "failed" }); });
  await accepted("rebuild", (p) => { Object.assign(p, { verdict: "mismatch" }); p.rows[0].match = false; });
  for (const verdict of ["mismatch", "failed"]) await refused("rebuild", (p) => { p.verdict = verdict; });
  await refused("rebuild", (p) => { p.rows[0].found = { mrtd: "00" }; });
});

test("components of a floor are the platform's, or anything where we know none", async () => {
  const floor = (platform, product, minimum) => (p) => { Object.assign(p, { platform, product }); p.floor.minimum = minimum; };
  await accepted("tcb-floor", floor("gh100", "x", JSON.parse('{"Driver":5,"__proto__":"00","constructor":1}')));
  await accepted("tcb-floor", floor("nitro", "x", {}));
  await refused("tcb-floor", floor("sim-snp", "milan", { bootloader: 1, tee: 0, snp: 1, microcode: 2 }));
  await refused("tcb-floor", floor("tdx", "50806F000000", examples["tcb-floor"].floor.minimum));
});

test("a kind that is not ours is told from what cannot be read", async () => {
  const ofKind = (predicateType, more) => async () => parseStatement(entry(await statement("artefact", undefined,
    (whole) => Object.assign(whole, { predicateType }, more))));
  for (const subject of [[], {}, "x", 1, false]) await assert.rejects(ofKind("https://example.org/x", { subject }), UnknownKind);
  await assert.rejects(ofKind("https://quotary.dev/constructor/v1"), UnknownKind);
  for (const type of ["", "a".repeat(257)]) await assert.rejects(ofKind(type), Malformed);
  await assert.rejects(ofKind("https://example.org/x", { more: 1 }), Malformed);
  await assert.rejects(ofKind("https://example.org/x", { predicate: [] }), Malformed);
});

test("envelopes are exact", async () => {
  const payload = await statement("revocation");
  const changes = [
    (e) => { e.signatures = []; }, (e) => { e.signatures.push(e.signatures[0]); }, (e) => { e.signatures[0].sig = "AA=="; },
    (e) => { e.payload = ""; }, (e) => { e.payload = e.payload.replace(/.$/, " "); }, (e) => { e.more = 1; },
    (e) => { e.payloadType = "application/json"; },
  ];
  for (const change of changes) await assert.rejects(parseStatement(entry(payload, change)), Malformed, String(change));
  await assert.rejects(parseStatement(entry("1".repeat(65_536))), Malformed);
});

test("documents are canonical, byte for byte", () => {
  const deep = (depth) => "[".repeat(depth) + "]".repeat(depth);
  for (const text of ['{"a":-9007199254740991,"b":true}', '"\u00a0\u2028\ufeff"', deep(16)]) parseDocument(utf8.encode(text));
  for (const text of ["", " 1", "1.0", "1e0", "-0", "9007199254740992", "null", "NaN",
    '{"b":1,"a":1}', '{"a":1,"a":1}', '{"":1}', '{"é":1}', '"\\/"', '"\\u0041"', '"\\ud800"', '"\\ud83d\\ude00"', '"\u007f"', "\ufeff1", deep(17)]) {
    assert.throws(() => parseDocument(utf8.encode(text)), Malformed, text);
  }
  assert.throws(() => parseDocument(Uint8Array.of(0x22, 0xc0, 0x80, 0x22)), Malformed);
});

test("a state entry follows the one before", () => {
  const first = { maps: { F1: "0".repeat(64), F2: "else" }, size: 3, ts: 5, type: "state", v: 1 };
  const second = { ...first, size: 7, prev: 3 };
  const read = (value) => parseReserved(utf8.encode(canonical(value)));
  checkState(read(first), 3, null);
  checkState(read(second), 7, first);
  for (const change of [{ v: 2 }, { size: 8 }, { ts: 4 }, { ts: 253_370_764_801 }, { prev: 2 }, { maps: {} }, { more: 1 },
    { end: "state" }]) {
    assert.throws(() => checkState(read({ ...second, ...change }), 7, first), Malformed, canonical(change));
  }
  assert.throws(() => checkState(read(second), 7, null), Malformed);
  const last = checkState(read({ ...second, end: "freeze" }), 7, first);
  assert.throws(() => checkState(read({ ...first, size: 9, prev: 7 }), 9, last), Malformed);
  assert.equal(read({ type: 1, payload: "" }), null);
  assert.deepEqual(read({ type: {} }), { type: {} });
});
