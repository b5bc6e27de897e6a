// NVIDIA devices beside a CPU: a list of reports with their certificates (docs/formats/attestation.md, `devices`).
//
// Of each device its signature and chain are checked, and, where it is known what they were asked with, its nonce. Labels beside
// a report are not believed. What takes NVIDIA's further documents is named as not checked, and so is what only all of a machine's
// devices show together.

import { sheet } from "./bundle.js";
import { Malformed, base64, demand, isObject } from "./documents.js";
import { checkQuote, rootsOf } from "./quote.js";
import { NotHere, Rejected, hex, verdictOf } from "./verify.js";

const MAX_LENGTH = 1 << 20, MAX_DEVICES = 64, MEMBERS = "arch,certificate,evidence,nonce";
const NOT_CHECKED = [
  ["revocation of devices' certificates", "needs answers of NVIDIA's OCSP service: quotary quote verify --fetch"],
  ["golden values", "needs NVIDIA's signed manifests: quotary quote verify --fetch"],
  ["one machine, modes, versions, confidential mode", "a row, a policy and the devices' links say: quotary verify"],
];

/** @param {Uint8Array} bytes @returns {{evidence: Uint8Array, pem: string}[]} */
export function parseDevices(bytes) {
  demand(bytes.length <= MAX_LENGTH, `device evidence has ${bytes.length} bytes, at most ${MAX_LENGTH} are allowed`);
  let found;
  try { found = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes)); } catch { throw new Malformed("device evidence is not JSON"); }
  demand(Array.isArray(found) && found.length >= 1 && found.length <= MAX_DEVICES, `device evidence is not a list of 1 to ${MAX_DEVICES} devices`);
  return found.map((device) => {
    demand(isObject(device) && Object.keys(device).sort().join() === MEMBERS, `a device has not exactly the members ${MEMBERS}`);
    return { evidence: base64(device.evidence), pem: new TextDecoder().decode(base64(device.certificate)) };
  });
}

/**
 * A row for each device, and what is not checked of all of them.
 * @param {Uint8Array} bytes of the list @param {{now: number, roots: object[], nonceOf?: (index: number) => Promise<Uint8Array>}} terms
 */
export async function checkDevices(bytes, { now, roots, nonceOf }) {
  const { results, check } = sheet(), seen = new Map();
  const devices = await check("devices can be read", async () => Object.assign(parseDevices(bytes), { text: "a list of reports, each with its certificates" }));
  for (const [index, device] of (devices ?? []).entries()) await check(`device ${index}`, async () => deviceHolds(device, index, await nonceOf?.(index), { now, roots, seen }));
  if (devices) for (const [name, detail] of nonceOf ? NOT_CHECKED : [...NOT_CHECKED, ["nonces", "what the devices were asked with is not known here"]]) results.push({ name, outcome: "not checked", detail });
  return results;
}

async function deviceHolds({ evidence, pem }, index, nonce, { now, roots, seen }) {
  const { quote, results } = await checkQuote(evidence, { pem, now, roots }), bad = results.find(({ outcome }) => outcome === "failed" || outcome === "refused");
  if (bad) throw new Rejected(`${bad.name}: ${bad.detail}`);
  if (results.at(-1).name !== "freshness") throw new NotHere(results.at(-1).detail);
  if (nonce && hex(quote.nonce) !== hex(nonce)) throw new Rejected(`device nonce: found ${hex(quote.nonce)}, wanted ${hex(nonce)}`);
  for (const serial of [quote.chain[0].serial, quote.chain[1].serial].map(hex)) {
    if (seen.has(serial)) throw new Rejected(`device identity: ${serial} is that of device ${seen.get(serial)} too`);
    seen.set(serial, index);
  }
  return `${quote.chain[1].commonName}, ${quote.title}: signed, up to a pinned root${nonce ? ", over its nonce" : ""}`;
}

/** @param {string} text a list as it is pasted @param {string} policyText @param {number} now */
export async function checkDeviceList(text, policyText, now) {
  const { results, check } = sheet(), given = await check("the policy can be read", async () => ({ roots: rootsOf(policyText), text: "whom evidence may be signed by" }));
  const all = given ? [...results, ...await checkDevices(new TextEncoder().encode(text), { now, roots: given.roots })] : results;
  return { verdict: verdictOf(all), results: all };
}
