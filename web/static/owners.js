// Who may have signed a release: from the owner keys that a policy pins, delegation by delegation, to its builders.
//
// Step 8 of the verification order; quotary/client/authority.py has the same rules. The chain begins at keys that the reader
// brings, so a log that invents a delegation, or a root that would appoint a builder, convinces nobody.

import { Malformed, base64, canonical, demand, isObject, seconds } from "./documents.js";
import { parseStatement, signatureHolds } from "./statements.js";
import { NotHere, Refused, Rejected, hex, leafHash } from "./verify.js";

const AHEAD_SECONDS = 300;

/**
 * A policy as people paste it: a tlog policy (c2sp.org/tlog-policy), or a policy/v1 that has one in it and pins owners.
 * @param {string} text @returns {{tlog: string, pinned: any}} pinned: the policy, null where only a tlog policy was given
 */
export function readPolicy(text) {
  if (!text.trimStart().startsWith("{")) return { tlog: text, pinned: null };
  let pinned;
  try { pinned = JSON.parse(text); } catch { throw new Malformed("the policy is not JSON"); }
  const whole = pinned?.v === 1 && typeof pinned.tlog_policy === "string" && isObject(pinned.services) && isObject(pinned.platforms);
  demand(whole, "not a policy of version 1");
  return { tlog: pinned.tlog_policy, pinned };
}

/**
 * Require that builders signed the release whom the pinned owners appointed; gives what was found, in words.
 * @param {{authority: object[], release: object}} bundle whose entries are included already
 * @param {string} origin of the log @param {any} pinned the policy, null where there is none
 */
export async function checkOwners({ authority, release }, origin, pinned) {
  if (pinned === null) throw new NotHere("this takes a policy that pins its owners: paste one instead of the tlog policy, or use quotary verify");
  const statement = await parseStatement(base64(release.entry)), { service } = statement.predicate;
  if (!Object.hasOwn(pinned.services, service)) throw new Refused(`the policy does not name ${service}`);
  const genesis = hex(await leafHash(base64(authority[0].entry)));
  if (authority[0].index !== 0 || genesis !== pinned.genesis) throw new Rejected(`entry ${authority[0].index} has the leaf hash ${genesis}, the policy wants the genesis ${pinned.genesis}`);
  const chain = await Promise.all(authority.slice(1).map((item) => linkOf(item, origin, service)));
  const builders = await buildersOf(chain, pinned.services[service].owner, release.index);
  if (builders) requireUnexpired(builders, statement.predicate, "release");
  const role = builders?.roles.builder ?? { keys: [], threshold: 1 }, lost = lostKeys(chain, release.index);
  const counted = Object.fromEntries(role.keys.filter((key) => !lost.has(key)).map((key) => [key, builders.keys[key]]));
  const signed = await signers(statement, counted);
  if (signed.length < role.threshold) throw new Rejected(`${signed.length} builder(s) appointed by the pinned owners signed, ${role.threshold} must`);
  return `${signed.length} builder(s), whom the owners that the policy pins appointed in ${chain.length} delegation(s), signed it`;
}

async function linkOf({ index, entry }, origin, service) {
  const statement = await parseStatement(base64(entry)), { kind, predicate } = statement;
  const named = `${kind} of ${predicate.service} for ${predicate.log}`, wanted = `delegation of ${service} for ${origin}`;
  if (named !== wanted) throw new Rejected(`found a ${named}, wanted a ${wanted}`);
  return { index, statement, predicate };
}

/** Walk the chain; gives the delegation whose builders could sign at the release's index, or null. */
async function buildersOf(chain, pinned, releaseIndex) {
  let owners = null, before = null, builders = null;
  for (const link of chain) {
    requireNext(link, before);
    const byOwners = owners !== null;
    if (byOwners) {
      const signed = await signers(link.statement, owners.keys);
      if (signed.length < owners.threshold) throw new Rejected(`${signed.length} owner(s) signed delegation ${link.predicate.sequence}, ${owners.threshold} must`);
      requireUnexpired(before.predicate, link.predicate, "delegation");
    }
    const named = ownersOf(link.predicate);
    if (byOwners || canonical(named) === canonical({ keys: pinned.keys, threshold: pinned.threshold })) owners = named;
    if (link.index < releaseIndex) builders = byOwners && link.predicate.roles.builder ? link.predicate : null;
    before = link;
  }
  if (owners === null) throw new Rejected("no delegation names exactly the owners that the policy pins");
  return builders;
}

function requireNext({ index, predicate: { sequence, previous } }, before) {
  const next = before === null
    ? sequence === 1 && previous === undefined
    : sequence === before.predicate.sequence + 1 && previous === before.statement.id && index > before.index;
  if (!next) throw new Rejected(`delegation ${sequence} at index ${index} does not follow the one before it`);
}

function ownersOf({ keys, roles: { owner } }) {
  return { keys: Object.fromEntries(owner.keys.map((key) => [key, keys[key]])), threshold: owner.threshold };
}

/** Whoever acts under a delegation after its end says so: F1 allows clocks that are 300 seconds ahead. */
function requireUnexpired(delegation, { issued }, what) {
  if (seconds(issued) >= seconds(delegation.expires) + AHEAD_SECONDS) throw new Rejected(`a ${what} issued at ${issued}, under a delegation that ended at ${delegation.expires}`);
}

/** Keys that a later delegation declares compromised from the release's index or before. */
function lostKeys(chain, releaseIndex) {
  const items = chain.flatMap(({ predicate }) => predicate.compromised ?? []);
  return new Set(items.filter(({ from_index: from }) => from <= releaseIndex).map(({ key }) => key));
}

/** Those of these keys that signed; one whose signature does not hold is a contradiction. */
async function signers(statement, keys) {
  const found = [];
  for (const signature of statement.signatures) {
    if (!Object.hasOwn(keys, signature.keyid)) continue;
    if (!await signatureHolds(statement, signature, keys[signature.keyid])) throw new Rejected(`the signature of ${signature.keyid} does not hold`);
    found.push(signature.keyid);
  }
  return found;
}
