// F1: from a log's entries to the status map, with a code for every entry that has no effect.
//
// Specification: docs/formats/f1.md, statements.md and trie.md, and nothing else: this was written without the registry's code
// beside it, so that two readings of one text are compared. It runs in a browser and in Node.
//
// Whoever has the entries of a log needs to trust nobody about the map. What this cannot do: code served by a log cannot
// convict that log; keep this file, and run it elsewhere.

import { Trie, concat, hex, sha256 } from "./trie.js";
import { Malformed, canonical, seconds, timeText } from "./documents.js";
import { UnknownKind, checkState, isNotice, mapKey, measurementId, parseReserved, parseStatement, signatureHolds, utf8 }
  from "./statements.js";

/** The log says otherwise than its own entries: keep them. */
export class Contradiction extends Error {}

/** @typedef {import("./statements.js").Statement} Statement */
/** @typedef {{index: number, kind: string, statement_id: string, effect: boolean, code: string}} Outcome */
/** @typedef {{predicate: any, id: string, compromised: Map<string, number>}} Held  a delegation in force */
/** @typedef {{index: number, ts: number, statement: Statement, signers: Set<string>}} Entry */
/** @typedef {Record<string, any>} MapRecord */

const LOG = "log", GENESIS_INDEX = 0;
const AHEAD_SECONDS = 300, DAY_SECONDS = 86_400, HOUR_SECONDS = 3600;
const RELEASE_SECONDS = 180 * DAY_SECONDS, SUSPENSION_SECONDS = 72 * HOUR_SECONDS, LOWERING_SECONDS = 72 * HOUR_SECONDS;
const SEQUENCE_STEP = 2 ** 32;
const NEW_HIST = "00".repeat(32);

/** Ends the decision about one entry. */
class NoEffect extends Error {
  /** @param {string} code */
  constructor(code) { super(code); this.code = code; }
}

/** @param {boolean} met @param {string} code */
function demand(met, code) {
  if (!met) throw new NoEffect(code);
}

/**
 * Decide every entry up to the last state entry, and compare the map with each state entry on the way.
 * @param {string} origin of the log @param {Uint8Array[]} entries from index 0 on
 * @param {(reserved: any[], count: number, state: any, log: any) => Promise<any>} check is told, before its entries are decided,
 *   an interval's reserved records, the number of all its entries, its state entry and the log's delegation before it
 * @returns {Promise<{outcomes: Outcome[], closings: {state: number, ts: number, root: string, records: Record<string, string>}[]}>}
 */
export async function replay(origin, entries, check = async () => {}) {
  const map = new StatusMap(origin), outcomes = [], closings = [];
  let waiting = [], records = [], before = null;
  for (const [index, entry] of entries.entries()) {
    const reserved = parseReserved(entry);
    if (reserved === null) waiting.push([index, entry]);
    if (reserved?.type !== "state") { if (reserved !== null) records.push(reserved); continue; }
    before = stateEntry(reserved, index, before);
    await check(records, waiting.length + records.length, before, map.delegationOf(LOG));
    for (const [at, waited] of waiting) outcomes.push(await map.decide(at, waited, before.ts));
    [waiting, records] = [[], []];
    const closed = await map.close(), committed = before.maps.F1;
    if (closed.root !== committed) throw new Contradiction(`map of state entry ${index}: found ${committed}, wanted ${closed.root}`);
    closings.push({ state: index, ts: before.ts, ...closed });
  }
  return { outcomes, closings };
}

function stateEntry(reserved, index, before) {
  try { return checkState(reserved, index, before); }
  catch (error) { throw new Contradiction(`state entry ${index}: ${error.message}`); }
}

/** The state that entries leave behind. */
export class StatusMap {
  /** @type {Map<string, Held>} by service */
  #held = new Map();
  /** @type {Map<string, {service: string, index: number, signers: Set<string>, ids: string[]}>} by statement id */
  #releases = new Map();
  /** @type {Map<string, string>} measurement id to reason */
  #denied = new Map();
  /** @type {Map<string, number>} by service and kind */
  #sequences = new Map();
  #effective = new Set();
  /** @type {Map<string, MapRecord>} by map key in hex; a record is replaced, never changed */
  #records = new Map();
  /** @type {Map<string, Set<string>>} measurement id to the map keys of its records in all services */
  #keysOfId = new Map();
  #trie = new Trie();
  /** @type {Set<string>} map keys touched since the last closing */
  #touched = new Set();

  /** @param {string} origin F1's only parameter */
  constructor(origin) { this.origin = origin; }

  /**
   * Decide one entry that is not a reserved record. Changes are collected and made at the end, so that nothing of an entry
   * without effect stays.
   * @param {number} index @param {Uint8Array} bytes @param {number} ts log time @returns {Promise<Outcome>}
   */
  async decide(index, bytes, ts) {
    const outcome = { index, kind: "", statement_id: "", effect: false, code: "effective" };
    try {
      const statement = await read(bytes);
      Object.assign(outcome, { kind: statement.kind, statement_id: statement.id });
      const entry = { index, ts, statement, signers: new Set(statement.signatures.map(({ keyid }) => keyid)) };
      const changes = await this.#judge(entry);
      await this.#apply(entry, changes);
      outcome.effect = true;
    } catch (error) {
      if (!(error instanceof NoEffect)) throw error;
      outcome.code = error.code;
      if (error.statementId) outcome.statement_id = error.statementId;
    }
    return outcome;
  }

  /** The predicate of the delegation in force. @param {string} service */
  delegationOf(service) { return this.#held.get(service)?.predicate; }

  /** End an interval. @returns {Promise<{root: string, records: Record<string, string>}>} the records it touched, by map key */
  async close() {
    const records = {};
    for (const key of this.#touched) {
      records[key] = canonical(this.#records.get(key));
      this.#trie.set(fromHex(key), await sha256(utf8.encode(records[key])));
    }
    this.#touched.clear();
    return { root: hex(await this.#trie.root()), records };
  }

  // --- Steps 2 to 10 ------------------------------------------------------------------------------------------------

  /** @param {Entry} entry */
  async #judge(entry) {
    const { statement, signers, ts } = entry, { kind, predicate } = statement;
    demand(!isNotice(kind), "notice");
    demand(predicate.log === this.origin, "other-log");
    demand(!this.#effective.has(statement.id), "replay");
    const authority = this.#authority(entry);
    await this.#checkSignatures(entry);
    const reached = authority.filter(({ held, role }) => reaches(held, role, signers));
    demand(reached.length > 0, "threshold");
    demand(reached.some(({ held }) => inForce(held, ts)), "delegation-expired");
    demand(seconds(predicate.issued) <= ts + AHEAD_SECONDS, "issued-in-future");
    const newest = this.#sequences.get(`${predicate.service} ${kind}`) ?? 0;
    demand(kind === "delegation" ? predicate.sequence === newest + 1 : predicate.sequence > newest, "sequence");
    demand(predicate.sequence <= newest + SEQUENCE_STEP, "sequence-jump");
    const deadline = predicate.not_after ?? predicate.expires ?? predicate.until;
    demand(deadline === undefined || seconds(deadline) > ts, "expired");
    const rules = { delegation: this.#delegation, release: this.#release, rebuild: this.#rebuild,
      revocation: this.#revocation, "tcb-floor": this.#floor };
    return rules[kind].call(this, entry);
  }

  /** Which roles may make this statement; any one of them is enough. @param {Entry} entry */
  #authority({ index, statement: { kind, id, predicate } }) {
    const log = this.#held.get(LOG), held = this.#held.get(predicate.service);
    const isFirst = kind === "delegation" && predicate.sequence === 1;
    if (log === undefined) {
      demand(kind === "delegation" && predicate.service === LOG && index === GENESIS_INDEX, "no-genesis");
      return [{ held: { predicate, id, compromised: new Map() }, role: "root" }];
    }
    demand(held !== undefined || isFirst, "unknown-service");
    demand(held === undefined || !isFirst, "already-allocated");
    const byLog = (...roles) => roles.map((role) => ({ held: log, role }));
    switch (kind) {
      case "delegation": return predicate.service === LOG || isFirst ? byLog("root") : [{ held, role: "owner" }];
      case "release": return [{ held, role: "builder" }];
      case "rebuild": return byLog("rebuilder");
      case "revocation": return [{ held, role: "builder" }, ...byLog("security", "root")];
      default: return byLog("tcb", "root");
    }
  }

  /** Steps 6 and 7. @param {Entry} entry */
  async #checkSignatures({ statement }) {
    const { predicate, signatures } = statement;
    const log = this.#held.get(LOG);
    const known = log ? { ...log.predicate.keys, ...this.#held.get(predicate.service)?.predicate.keys } : predicate.keys;
    for (const { keyid } of signatures) demand(Object.hasOwn(known, keyid), "unknown-key");
    for (const signature of signatures) {
      demand(await signatureHolds(statement, signature, known[signature.keyid]), "invalid-signature");
    }
  }

  // --- Step 11: each rule returns the records to set, and what else to remember ---------------------------------------

  /** @param {Entry} entry */
  async #delegation({ index, statement: { id, predicate } }) {
    const { service } = predicate, before = this.#held.get(service);
    demand(predicate.previous === before?.id, "previous");
    const known = before?.compromised ?? new Map();
    const worse = new Map((predicate.compromised ?? []).map((item) => [item.key, item.from_index])
      .filter(([key, from]) => !known.has(key) || from < known.get(key)));
    const compromised = new Map([...known, ...worse]);
    demand(!Object.keys(predicate.keys).some((key) => compromised.has(key)), "compromised-key");
    const record = await this.#record("service", { service });
    const items = [...compromised].map(([key, from_index]) => ({ key, from_index })).sort(byKey);
    const renewed = { ...record, delegation: id, index, expires: predicate.expires, compromised: items.length ? items : undefined };
    const hit = service === LOG ? this.#withoutVerdicts(worse) : this.#revokedSince(service, worse);
    return { set: [renewed, ...hit], remember: () => this.#held.set(service, { predicate, id, compromised }) };
  }

  /** Measurement records that lose verdicts of compromised rebuilders. @param {Map<string, number>} worse */
  #withoutVerdicts(worse) {
    const lost = ({ key, index }) => worse.has(key) && index >= worse.get(key);
    return [...this.#records.values()]
      .filter((record) => record.kind === "measurement" && record.rebuilders.some(lost))
      .map((record) => ({ ...record, rebuilders: record.rebuilders.filter((item) => !lost(item)) }));
  }

  /**
   * Active records of the releases that a compromised key has signed.
   * @param {string} service @param {Map<string, number>} worse
   */
  #revokedSince(service, worse) {
    const ids = new Set();
    for (const release of this.#releases.values()) {
      const isHit = [...worse].some(([key, from]) => release.index >= from && release.signers.has(key));
      if (release.service === service && isHit) release.ids.forEach((id) => ids.add(id));
    }
    return this.#measurements([...ids], service).filter(isActive)
      .map((record) => ({ ...record, status: "revoked", reason: "key compromised" }));
  }

  /** @param {Entry} entry */
  async #release({ index, signers, statement: { id, predicate } }) {
    const { service, not_after } = predicate;
    demand(seconds(not_after) <= seconds(predicate.issued) + RELEASE_SECONDS, "release-too-long");
    const ids = await Promise.all(predicate.rows.map(measurementId));
    const set = [];
    for (const measurement of ids) {
      const reason = this.#denied.get(measurement);
      const fresh = { status: reason === undefined ? "active" : "revoked", reason };
      const record = await this.#record("measurement", { service, id: measurement }, fresh);
      set.push({ ...record, release: id, not_after, rebuilders: [] });
    }
    return { set, remember: () => this.#releases.set(id, { service, index, signers, ids }) };
  }

  /** @param {Entry} entry */
  async #rebuild({ index, signers, statement: { predicate } }) {
    const { service } = predicate, release = this.#releases.get(predicate.release);
    demand(release !== undefined && release.service === service, "unknown-release");
    const verdicts = new Map(predicate.rows.map((row) => [row.measurement, row.match ? "match" : "mismatch"]));
    for (const id of verdicts.keys()) demand(release.ids.includes(id), "foreign-row");
    if (verdicts.size === 0) release.ids.forEach((id) => verdicts.set(id, "failed"));
    const rebuilders = this.#held.get(LOG).predicate.roles.rebuilder.keys.filter((key) => signers.has(key));
    const set = this.#measurements([...verdicts.keys()], service)
      .filter((record) => record.release === predicate.release)
      .map((record) => {
        const others = record.rebuilders.filter(({ key }) => !rebuilders.includes(key));
        const mine = rebuilders.map((key) => ({ key, verdict: verdicts.get(record.id), index }));
        return { ...record, rebuilders: [...others, ...mine].sort(byKey) };
      });
    demand(set.length > 0, "superseded");
    return { set };
  }

  /** @param {Entry} entry */
  async #revocation({ statement: { predicate } }) {
    const { service, action } = predicate, release = this.#releases.get(predicate.release);
    demand(predicate.measurements !== undefined || release !== undefined, "unknown-release");
    demand(release === undefined || service === LOG || release.service === service, "unknown-release");
    const ids = predicate.measurements ?? release.ids;
    return action === "suspend" ? this.#suspend(ids, predicate) : this.#revoke(ids, predicate);
  }

  #suspend(ids, { service, issued, until, reason }) {
    demand(seconds(until) <= seconds(issued) + SUSPENSION_SECONDS, "suspension-too-long");
    const records = this.#measurements(ids, service === LOG ? null : service);
    demand(records.length > 0, "unknown-measurement");
    const set = records.filter(isActive).map((record) => {
      const isLater = record.suspended_until === undefined || seconds(until) > seconds(record.suspended_until);
      return { ...record, reason, suspended_until: isLater ? until : record.suspended_until };
    });
    demand(set.length > 0, "already-revoked");
    return { set };
  }

  async #revoke(ids, { service, reason }) {
    const set = this.#measurements(ids, service === LOG ? null : service).filter(isActive)
      .map((record) => ({ ...record, status: "revoked", reason }));
    for (const id of ids) {
      const record = await this.#record("measurement", { service, id }, { status: "revoked", reason, rebuilders: [] });
      if (record.count === 0) set.push(record);
    }
    demand(set.length > 0, "already-revoked");
    const deny = (id) => { if (!this.#denied.has(id)) this.#denied.set(id, reason); };
    return { set, remember: () => { if (service === LOG) ids.forEach(deny); } };
  }

  /** @param {Entry} entry */
  async #floor({ ts, signers, statement: { id, predicate } }) {
    const { platform, product, floor, expires } = predicate;
    const { next, ...found } = await this.#record("tcb", { platform, product });
    const isDue = next !== undefined && ts >= seconds(next.from);
    const current = isDue ? { ...found, floor: next.floor, expires: next.expires, statement: next.statement } : found;
    const coming = isDue ? undefined : next;
    const mine = { floor, expires, statement: id };
    if (current.count === 0) return { set: [{ ...current, ...mine }] };
    if (isAsStrict(floor, current.floor)) {
      return { set: [{ ...current, ...mine, next: isAsStrict(current.floor, floor) ? coming : undefined }] };
    }
    const log = this.#held.get(LOG);
    demand(reaches(log, "root", signers) && inForce(log, ts), "floor-lower");
    return { set: [{ ...current, next: { ...mine, from: timeText(ts + LOWERING_SECONDS) } }] };
  }

  // --- Records ------------------------------------------------------------------------------------------------------

  /** The record of these names, or a new one (count 0) that begins with `fresh`. */
  async #record(kind, names, fresh = {}) {
    const key = await mapKey(kind, Object.values(names));
    return this.#records.get(key) ?? { v: 1, key, kind, count: 0, hist: NEW_HIST, ...names, ...fresh };
  }

  /** Existing measurement records of these ids. @param {string[]} ids @param {string|null} service null for all services */
  #measurements(ids, service) {
    const keys = ids.flatMap((id) => [...(this.#keysOfId.get(id) ?? [])]);
    return keys.map((key) => this.#records.get(key)).filter((record) => service === null || record.service === service);
  }

  /** @param {Entry} entry @param {{set: MapRecord[], remember?: () => void}} changes */
  async #apply({ index, statement: { id, kind, predicate } }, { set, remember }) {
    const touched = await Promise.all(set.map((record) => touch(record, index)));
    for (const record of touched) {
      this.#records.set(record.key, record);
      this.#touched.add(record.key);
      if (record.kind !== "measurement") continue;
      if (!this.#keysOfId.has(record.id)) this.#keysOfId.set(record.id, new Set());
      this.#keysOfId.get(record.id).add(record.key);
    }
    remember?.();
    this.#effective.add(id);
    this.#sequences.set(`${predicate.service} ${kind}`, predicate.sequence);
  }
}

/** Step 1. @param {Uint8Array} bytes @returns {Promise<Statement>} */
async function read(bytes) {
  try { return await parseStatement(bytes); }
  catch (error) {
    if (error instanceof UnknownKind) throw Object.assign(new NoEffect("unknown-kind"), { statementId: error.statementId });
    if (error instanceof Malformed) throw new NoEffect("malformed");
    throw error;
  }
}

/** @param {Held} held @param {string} role @param {Set<string>} signers */
function reaches({ predicate: { roles } }, role, signers) {
  if (!Object.hasOwn(roles, role)) return false;
  return roles[role].keys.filter((key) => signers.has(key)).length >= roles[role].threshold;
}

/** @param {Held} held @param {number} ts */
const inForce = ({ predicate }, ts) => ts < seconds(predicate.expires);

/** @param {MapRecord} record */
const isActive = (record) => record.status === "active";

/** Key ids are ASCII, so JavaScript's order is that of code points. */
const byKey = (a, b) => (a.key < b.key ? -1 : 1);

/** @param {string} text */
const fromHex = (text) => Uint8Array.from(text.match(/../g), (pair) => parseInt(pair, 16));

/** @param {MapRecord} record with its new members @param {number} index of the entry that touches it */
async function touch(record, index) {
  const at = new Uint8Array(8);
  new DataView(at.buffer).setBigUint64(0, BigInt(index));
  const hist = hex(await sha256(concat(fromHex(record.hist), at)));
  const span = record.kind === "measurement" ? { first: record.first ?? index, last: index } : {};
  return { ...record, ...span, count: record.count + 1, hist };
}

/** Is a floor at least as strict as another in every field? (statements.md, tcb-floor) */
function isAsStrict(floor, other) {
  const holdsAll = (list, of) => of.every((item) => list.includes(item));
  return Object.entries(other.minimum).every(([name, least]) => (
    Object.hasOwn(floor.minimum, name) && isAtLeast(floor.minimum[name], least)))
    && floor.evaluation_number >= other.evaluation_number
    && floor.grace_seconds <= other.grace_seconds
    && holdsAll(other.accepted_status, floor.accepted_status)
    && ["denied_advisories", "denied_families", "denied_chips"].every((name) => holdsAll(floor[name], other[name]));
}

/** @param {number|string} value @param {number|string} least */
function isAtLeast(value, least) {
  if (typeof value !== typeof least) return false;
  if (typeof value === "number") return value >= least;
  const bytes = fromHex(value);
  return value.length === least.length && fromHex(least).every((byte, i) => bytes[i] >= byte);
}
