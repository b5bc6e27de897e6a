// "Would this boot?": a policy and a bundle, rule by rule, as far as a browser can say without a machine's evidence.
//
// A rule that is not decided here says "not checked"; so nothing is ever called good, only refused or not refused.

import { NotHere, Refused, hex, leafHash, parseCheckpoint, parseNote } from "./verify.js";
import { showResults } from "./panel.js";
import { base64, parseDocument } from "./documents.js";
import { checkBundle, outcomeOf } from "./bundle.js";
import { parseStatement, utf8 } from "./statements.js";

/**
 * @param {string} policyText policy/v1 @param {string} bundleText @param {number} now seconds since 1970
 * @returns {Promise<{verdict: "refused"|"not-refused", results: object[]}>}
 */
export async function wouldBoot(policyText, bundleText, now) {
  const results = [];
  const check = async (name, work) => {
    try { const found = await work(); results.push({ name, outcome: "passed", detail: found.text ?? found }); return found; }
    catch (error) { results.push({ name, outcome: outcomeOf(error), detail: String(error.message ?? error) }); return null; }
  };
  const given = await check("policy and bundle can be read", async () => read(policyText, bundleText));
  if (!given) return { verdict: "refused", results };
  const { policy, release, record, bundle } = given;
  results.push(...(await checkBundle(bundleText, policyText, now)).results);
  await check("entry 0", async () => {
    const found = hex(await leafHash(base64(bundle.authority[0].entry)));
    if (found !== policy.genesis) throw new Refused(`found leaf hash ${found}, the policy wants ${policy.genesis}`);
    return "the log is the policy's, by its first entry";
  });
  await check("minimum size", async () => {
    const { size } = parseCheckpoint(parseNote(given.note).text);
    if (size < BigInt(policy.minimum.size)) throw new Refused(`found ${size} entries, the policy wants ${policy.minimum.size}`);
    return `${size} entries, at least ${policy.minimum.size}`;
  });
  await check("service", async () => {
    if (!Object.hasOwn(policy.services, record.service)) throw new Refused(`the policy does not name ${record.service}`);
    return `the policy names ${record.service}`;
  });
  await check("platform", async () => platformsOf(policy, release, record));
  await check("rebuilders", async () => rebuilders(policy.rebuilders, record.rebuilders ?? []));
  for (const name of ["age of the checkpoint, map auditor", "TCB floor", "evidence of a machine"]) {
    await check(name, async () => { throw new NotHere("judged by quotary verify, with the machine's evidence"); });
  }
  const refused = results.some(({ outcome }) => outcome === "refused" || outcome === "failed");
  return { verdict: refused ? "refused" : "not-refused", results };
}

async function read(policyText, bundleText) {
  let policy;
  try { policy = JSON.parse(policyText); } catch { throw new Refused("the policy is not JSON"); }
  const bundle = parseDocument(utf8.encode(bundleText.trim()));
  if (!bundle.release || !bundle.records) throw new Refused("the bundle has no release: this log knows no such measurement, or only that it is revoked");
  const records = bundle.records.map(({ record }) => parseDocument(base64(record)));
  const record = records.find(({ kind }) => kind === "measurement");
  if (policy?.v !== 1 || !policy.services || !policy.platforms || !policy.minimum || !record) throw new Refused("not a policy of version 1, or a bundle without a measurement");
  const note = new TextDecoder().decode(base64(bundle.checkpoint));
  return { policy, bundle, record, note, release: await parseStatement(base64(bundle.release.entry)), text: "a policy and a bundle of version 1" };
}

async function platformsOf(policy, release, record) {
  const rows = release.predicate.rows.filter(({ platform }) => Object.hasOwn(policy.platforms, platform));
  const found = release.predicate.rows.map(({ platform }) => platform);
  if (!rows.length) throw new Refused(`the release is for ${[...new Set(found)].join(", ")}; the policy admits ${Object.keys(policy.platforms).join(", ")}`);
  return `${[...new Set(rows.map(({ platform }) => platform))].join(", ")} of ${record.service}`;
}

function rebuilders(wanted, marks) {
  if (wanted === "none") return "the policy demands none";
  const counted = marks.filter(({ key }) => Object.hasOwn(wanted.keys, key));
  const against = counted.filter(({ verdict }) => verdict !== "match" && verdict !== "failed");
  if (against.length) throw new Refused(`${against.length} rebuilder(s) of the policy got something else`);
  const matched = counted.filter(({ verdict }) => verdict === "match").length;
  if (matched < wanted.k) throw new Refused(`${matched} rebuilder(s) of the policy got the same, ${wanted.k} must`);
  if (wanted.organisations) throw new NotHere("whether they are of different organisations is judged by quotary verify");
  return `${matched} of ${wanted.k} that must have got the same`;
}

const SAID = {
  refused: "▲ Refused. A rule of this policy, or a proof, is against it: see the rows.",
  "not-refused": "No rule that this browser can check refuses it. The rows that say “not checked” are decided with a machine's evidence.",
};

if (typeof document !== "undefined") {
  for (const section of document.querySelectorAll("section[data-boot]")) {
    section.querySelector("button").addEventListener("click", async () => {
      delete section.dataset.verdict;
      const [policy, bundle] = ["policy", "bundle"].map((id) => section.querySelector(`#${id}`).value);
      const { verdict, results } = await wouldBoot(policy, bundle, Date.now() / 1000);
      showResults(section, results, verdict === "refused" ? "refused" : "could-not-check", SAID[verdict]);
      section.dataset.verdict = verdict;
    });
  }
}
