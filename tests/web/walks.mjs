// Random logs in the form of tests/vectors/f1, decided by the JavaScript F1: `node tests/web/walks.mjs SEED CASES ENTRIES`
// prints a file that any implementation of F1 can be held to. Most statements are nearly right, so that every code
// turns up, and every rule is reached by states that nobody thought of.

import { createHash, createPrivateKey, createPublicKey, sign } from "node:crypto";
import { fileURLToPath } from "node:url";

import { canonical, timeText } from "../../web/static/documents.js";
import { StatusMap } from "../../web/static/f1.js";
import { mapKey, measurementId } from "../../web/static/statements.js";

const ORIGIN = "log.example.org/simulation", START = 1795262400, HOUR = 3600, DAY = 24 * HOUR;
const PAYLOAD_TYPE = "application/vnd.in-toto+json", PKCS8_HEADER = "302e020100300506032b657004220420";
const NOBODY = `sha256:${"ab".repeat(32)}`, FOREIGN_ID = "ee".repeat(32);
const sha256 = (data) => createHash("sha256").update(data).digest("hex");

// Keys for tests: anybody can make them again.
const KEYS = Array.from({ length: 14 }, (_, i) => {
  const der = Buffer.concat([Buffer.from(PKCS8_HEADER, "hex"), Buffer.from(sha256(`walk ${i}`), "hex")]);
  const secret = createPrivateKey({ key: der, format: "der", type: "pkcs8" });
  const spki = createPublicKey(secret).export({ format: "der", type: "spki" });
  return { id: `sha256:${sha256(spki)}`, spki: spki.toString("base64"), secret };
});
const KEY_OF = new Map(KEYS.map((key) => [key.id, key]));
const [ROOTS, TCB, SECURITY, REBUILDERS, OWNERS, BUILDERS] = [[0, 3], [3, 5], [5, 7], [7, 10], [10, 12], [12, 14]]
  .map(([from, to]) => KEYS.slice(from, to));

const ROWS = Array.from({ length: 6 }, (_, i) => {
  const value = (i + 16).toString(16).repeat(48);
  const tdx = { mrtd: value, rtmr1: "00".repeat(48), rtmr2: "00".repeat(48) };
  return { platform: i % 2 ? "sim-snp" : "sim-tdx", profile: "x/v1", profile_sha256: "00".repeat(32),
    registers: i % 2 ? { measurement: value } : tdx, require: { configuration: "none" } };
});
const IDS = await Promise.all(ROWS.map(measurementId));

/** Numbers that one seed gives again: mulberry32. @param {number} seed */
function dice(seed) {
  let state = seed | 0;
  const next = () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
  const below = (n) => Math.floor(next() * n), pick = (list) => list[below(list.length)], chance = (p) => next() < p;
  const some = (list, least = 1) => {
    const found = list.filter(() => chance(0.6));
    while (found.length < least) found.push(...list.filter((item) => !found.includes(item)).slice(0, 1));
    return found;
  };
  return { below, pick, chance, some };
}

/** One log of at least so many entries. @param {number} seed @param {number} length */
export async function walk(seed, length) {
  const { below, pick, chance, some } = dice(seed);
  const map = new StatusMap(ORIGIN), log = [], outcomes = [], closings = [];
  const held = {}, newest = {}, releases = [], rebuilt = [], sent = [];
  const opening = ["log", "chat", "chat", "tools", "tools"];
  let ts = START + below(1000), before;

  // --- What statements are made of ---

  const time = (at) => timeText(Math.max(0, at));
  const role = (keys, threshold = 1 + below(keys.length)) => ({ keys: keys.map(({ id }) => id).sort(), threshold });
  const keysOf = (service, ...roles) => roles.flatMap((name) => held[service]?.roles[name]?.keys ?? []).map((id) => KEY_OF.get(id));
  const service = () => pick(["chat", "chat", "chat", "tools", "tools", "nobody"]);

  // A log without a genesis is soon told, so the first entry is nearly always good.
  const isCareful = () => log.length === 0 && chance(0.97);

  function sequence(of, kind) {
    const last = newest[`${of} ${kind}`] ?? 0;
    return isCareful() || chance(0.9) ? last + 1 : Math.max(1, pick([last - 1, last, last + 2, last + 2 ** 32, last + 2 ** 32 + 1]));
  }

  /** The members of every predicate; `at` is `issued` in seconds. */
  function common(of, kind) {
    const at = ts + (isCareful() || chance(0.9) ? -below(3 * DAY) : pick([0, 299, 300, 301]));
    return [{ log: isCareful() || chance(0.99) ? ORIGIN : "log.example.org/other", service: of, sequence: sequence(of, kind), issued: time(at) }, at];
  }

  const deadline = (at, limit) => time(chance(0.85) ? at + 1 + below(limit) : pick([at + limit, at + limit + 1, ts - 1, ts, ts + 1]));

  /** Mostly those who should sign; else some whose keys are known, and now and then a stranger. */
  function signers(right, of) {
    if (isCareful()) return right;
    const known = [...Object.keys(held.log?.keys ?? {}), ...Object.keys(held[of]?.keys ?? {})].map((id) => KEY_OF.get(id));
    const found = chance(0.9) && right.length ? (chance(0.8) ? right : some(right)) : some(known.length ? known : KEYS);
    return chance(0.03) ? [...found, pick(KEYS)] : found;
  }

  // --- Kinds: each gives service, predicate, and who signs ---

  function delegation(of = pick(["log", "chat", "chat", "tools", "tools", "nobody"])) {
    const [predicate] = common(of, "delegation"), isFirst = predicate.sequence === 1, isLog = of === "log";
    predicate.expires = time(isCareful() || chance(0.9) ? ts + 120 * DAY + below(600 * DAY) : pick([ts, ts + 1, ts + 5 * DAY]));
    if (!isFirst) predicate.previous = held[of] && chance(0.95) ? held[of].id : NOBODY;
    const roles = { [isLog ? "root" : "owner"]: role(some(isLog ? ROOTS : OWNERS), chance(0.8) ? 1 : undefined) };
    if (isLog && chance(0.95)) roles.tcb = role(some([...TCB, ROOTS[2]]), 1);
    if (isLog && chance(0.9)) roles.security = role(some(SECURITY), 1);
    if (isLog && chance(0.95)) roles.rebuilder = role(chance(0.7) ? REBUILDERS : some(REBUILDERS), 1);
    if (!isLog && !isFirst && chance(0.95)) roles.builder = role(some(BUILDERS), chance(0.8) ? 1 : undefined);
    const ids = new Set(Object.values(roles).flatMap(({ keys }) => keys));
    const out = isFirst || chance(0.75) ? [] : KEYS.filter(({ id }) => !ids.has(id) && chance(0.35)).map(({ id }) => id).sort();
    const marks = isLog ? rebuilt : releases.map(({ index }) => index);
    const since = () => (marks.length && chance(0.7) ? pick(marks) : chance(0.8) ? below(log.length + 3) : 2 ** 53 - 1);
    if (out.length) predicate.compromised = out.map((key) => ({ key, from_index: since() }));
    predicate.keys = Object.fromEntries([...ids].map((id) => [id, KEY_OF.get(id).spki]));
    const genesis = Object.values(roles)[0].keys.map((id) => KEY_OF.get(id));
    const right = !held.log ? genesis : isLog || isFirst ? keysOf("log", "root") : keysOf(of, "owner");
    return ["delegation", { ...predicate, roles }, signers(right, of)];
  }

  function release() {
    const of = service(), [predicate, at] = common(of, "release");
    const fixed = { lock_sha256: "01".repeat(32), weights_sha256: "02".repeat(32), policy_sha256: "03".repeat(32), material: {} };
    const outputs = [{ name: "image", sha256: "04".repeat(32), size: below(100) }];
    return ["release", { ...predicate, ...fixed, outputs, not_after: deadline(at, 180 * DAY), rows: some(ROWS).slice(0, 4),
      source: { uri: "git", revision: String(below(1e9)) } }, signers(keysOf(of, "builder"), of)];
  }

  function rebuild() {
    const about = releases.length ? pick(releases.slice(-6)) : { id: NOBODY, service: "chat", ids: [FOREIGN_ID] };
    const of = chance(0.93) ? about.service : service(), [predicate] = common(of, "rebuild");
    const ids = some(chance(0.93) ? about.ids : IDS, chance(0.15) ? 0 : 1).sort();
    const rows = ids.map((measurement) => ({ measurement, match: chance(0.7) }));
    const verdict = rows.length === 0 ? "failed" : rows.every(({ match }) => match) ? "match" : "mismatch";
    return ["rebuild", { ...predicate, release: chance(0.95) ? about.id : NOBODY, organisation: "o", tool: "t", verdict, rows },
      signers(keysOf("log", "rebuilder"), of)];
  }

  function revocation() {
    const of = chance(0.35) ? "log" : service(), [predicate, at] = common(of, "revocation");
    const isSuspension = chance(0.6);
    const about = chance(0.5) ? { release: releases.length && chance(0.95) ? pick(releases.slice(-12)).id : NOBODY }
      : { measurements: (chance(0.8) ? [pick(IDS)] : some([...IDS, FOREIGN_ID])).sort() };
    const how = isSuspension ? { action: "suspend", until: deadline(at, 72 * HOUR) } : { action: "revoke" };
    const reason = pick(["CVE é", 'a "quoted" one', "😀"]) + below(50);
    const right = pick([keysOf(of, "builder"), keysOf("log", "security"), keysOf("log", "root")]);
    return ["revocation", { ...predicate, ...about, ...how, reason }, signers(right, of)];
  }

  function floor() {
    const [predicate] = common("log", "tcb-floor"), one = () => 1 + below(2);
    const isTdx = chance(0.5), platform = isTdx ? "sim-tdx" : "gh100", product = isTdx ? "50806f000000" : "vbios";
    const tdx = { tee_tcb_svn: `0${one()}`.repeat(16), sgx_tcb_svn: "05".repeat(16), pce_svn: 12 + below(2) };
    const gpu = { a: chance(0.9) ? one() : "01", b: chance(0.8) ? `0${one()}0${one()}` : "01" };
    if (chance(0.2)) delete gpu.b;
    const value = { minimum: isTdx ? tdx : gpu, evaluation_number: 5 + below(2), grace_seconds: 9 + below(2),
      accepted_status: chance(0.8) ? ["UpToDate"] : ["SWHardeningNeeded", "UpToDate"], denied_families: [],
      denied_advisories: chance(0.2) ? [] : chance(0.5) ? ["A"] : ["A", "B"], denied_chips: chance(0.9) ? [] : ["chip"] };
    const expires = time(chance(0.9) ? ts + 1 + below(60 * DAY) : pick([ts - 1, ts, ts + 1]));
    return ["tcb-floor", { ...predicate, expires, platform, product, floor: value },
      signers(chance(0.5) ? keysOf("log", "tcb") : keysOf("log", "root", "tcb"), "log")];
  }

  function notice() {
    const [predicate] = common(service(), "keyset");
    return ["keyset", { ...predicate, items: [{ name: "x", sha256: "05".repeat(32) }] }, [pick(KEYS)]];
  }

  // --- Entries ---

  function envelope(payload, keys) {
    const message = Buffer.concat([Buffer.from(`DSSEv1 ${PAYLOAD_TYPE.length} ${PAYLOAD_TYPE} ${payload.length} `), payload]);
    const signatures = [...new Set(keys)].sort((a, b) => (a.id < b.id ? -1 : 1)).map(({ id, secret }) => {
      const sig = sign(null, message, secret);
      if (chance(0.01)) sig[below(64)] ^= 1 << below(8);
      return { keyid: id, sig: sig.toString("base64") };
    });
    return Buffer.from(canonical({ payload: payload.toString("base64"), payloadType: PAYLOAD_TYPE, signatures }));
  }

  async function entry() {
    if (sent.length && chance(0.03)) return envelope(pick(sent).payload, some(KEYS));
    if (log.length > 0 && chance(0.01)) return Buffer.from(pick(["", "{}", '{"type":"freeze"}', '{"type":{}}', '{"payload":"","type":"x"}']));
    const kinds = [delegation, release, release, rebuild, revocation, floor, chance(0.2) ? notice : release];
    const isOpening = opening.length > 0 && (isCareful() || chance(0.9));
    const [kind, predicate, keys] = isOpening ? delegation(opening[0]) : pick(kinds)();
    const predicateType = `https://quotary.dev/${kind}/v1`, subject = await subjectOf(kind, predicate);
    const payload = Buffer.from(canonical({ _type: "https://in-toto.io/Statement/v1", predicateType, predicate, subject }));
    sent.push({ payload, id: `sha256:${sha256(payload)}`, kind, predicate });
    return envelope(payload, keys);
  }

  async function remember(index, id) {
    const { kind, predicate } = sent.find((one) => one.id === id), of = predicate.service;
    newest[`${of} ${kind}`] = predicate.sequence;
    if (kind === "delegation") held[of] = { ...predicate, id };
    if (kind === "delegation" && of === opening[0]) opening.shift();
    if (kind === "rebuild") rebuilt.push(index);
    if (kind === "release") releases.push({ index, id, service: of, ids: await Promise.all(predicate.rows.map(measurementId)) });
  }

  async function close() {
    const size = log.length, { root, records } = await map.close();
    log.push(Buffer.from(canonical({ type: "state", v: 1, size, maps: { F1: root }, ts, prev: before })));
    closings.push({ state: size, ts, root, records });
    before = size;
    ts += pick([0, 1, 60, HOUR, DAY, 3 * DAY - 1, 3 * DAY, below(4 * DAY), chance(0.1) ? 150 * DAY : 5]);
  }

  while (log.length < length) {
    for (let left = 1 + below(7); left > 0; left -= 1) {
      const bytes = await entry(), index = log.push(bytes) - 1;
      if (bytes.toString().startsWith('{"type"')) continue;
      const outcome = await map.decide(index, bytes, ts);
      outcomes.push(outcome);
      if (outcome.effect) await remember(index, outcome.statement_id);
    }
    await close();
  }
  return { about: `walk ${seed}`, notes: {}, origin: ORIGIN, log: log.map((bytes) => bytes.toString("base64")), outcomes, closings };
}

async function subjectOf(kind, predicate) {
  const item = (name, digest) => ({ digest: { sha256: digest }, name });
  switch (kind) {
    case "delegation": return [item(predicate.service, await mapKey("service", [predicate.service]))];
    case "release": return predicate.outputs.map((output) => item(output.name, output.sha256));
    case "rebuild": return [item("release", predicate.release.slice("sha256:".length))];
    case "revocation": return predicate.release ? [item("release", predicate.release.slice("sha256:".length))]
      : predicate.measurements.map((id) => item("measurement", id));
    case "tcb-floor": {
      const { platform, product } = predicate;
      return [item(`${platform}/${product}`, await mapKey("tcb", [platform, product]))];
    }
    default: return predicate.items.map(({ name, sha256: digest }) => item(name, digest));
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [seed, count, length] = process.argv.slice(2).map(Number);
  const cases = [];
  for (let i = 0; i < count; i += 1) cases.push(await walk(seed + i, length));
  process.stdout.write(canonical({ about: "Random walks.", cases }));
}
