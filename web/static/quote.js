// Evidence by itself, in this browser: which platform's it is, what it says, and whether its vendor signed that.
//
// Intel TDX (quotes of versions 4 and 5), Intel SGX (3), AMD SEV-SNP (reports of versions 2 to 5), AWS Nitro and the reports of
// NVIDIA's devices. Checked are the signature, what stands between it and the vendor's certificates, and their chain to a pinned
// root. Everything that takes more documents of the vendor (TCB levels, revocation) is a row that says "not checked", by name.
// The rules are those of quotary/attestation, and tests hold both to the same real evidence. Nothing is fetched or sent.

import { sheet } from "./bundle.js";
import { decode } from "./cbor.js";
import { Malformed, demand } from "./documents.js";
import { OPAQUE, Unsupported, little, parseDevice, parseSGX, parseSNP, parseTDX, read } from "./layouts.js";
import { readPolicy } from "./owners.js";
import { measurementId } from "./statements.js";
import { Refused, Rejected, concat, fromBase64, hex, sha256 } from "./verify.js";
import { holdsEcdsa, inside, items, parseCertificate, parseChain, simulated, verifyChain } from "./x509.js";

/** Whom evidence may be signed by: SHA-256 of each root's DER. The same constants as quotary/attestation/roots.py. */
export const VENDOR_ROOTS = [
  { platform: "tdx", fingerprint: "44a0196b2b99f889b8e149e95b807a350e7424964399e885a7cbb8ccfab674d3", name: "Intel SGX Root CA" },
  { platform: "sgx", fingerprint: "44a0196b2b99f889b8e149e95b807a350e7424964399e885a7cbb8ccfab674d3", name: "Intel SGX Root CA" },
  { platform: "snp", fingerprint: "69d063b45344d26a2e94e1f4210de49ef555308287d4c174445c95639a540bcd", name: "AMD ARK-Milan" },
  { platform: "snp", fingerprint: "4c6598d19c18719c5dfd4a7d335f674e5bfe1d8f800cea2cf270c10d103db2f1", name: "AMD ARK-Genoa" },
  { platform: "snp", fingerprint: "1f084161a44bb6d93778a904877d4819cafa5d05ef4193b2ded9dd9c73dd3f6a", name: "AMD ARK-Turin" },
  { platform: "nitro", fingerprint: "641a0321a3e244efe456463195d606317ed7cdcc3c1756e09893f3c68f79bb5b", name: "AWS Nitro Enclaves Root-G1" },
  { platform: "nvidia", fingerprint: "102bf659d5419614c9d8e6aecebc80454eb26b1df6a769ac720b9a690b167b48", name: "NVIDIA Device Identity CA" },
];

/** The one root of a simulator; evidence under it is never a vendor's. @param {string} platform @param {string} fingerprint in hex */
export function simulatorRoot(platform, fingerprint) {
  demand(/^[0-9a-f]{64}$/.test(fingerprint), "a root's fingerprint has 32 bytes in hex");
  demand(VENDOR_ROOTS.every((root) => root.fingerprint !== fingerprint), "a vendor's root cannot stand for a simulator");
  return { platform: `sim-${platform}`, fingerprint, name: `simulator ${fingerprint.slice(0, 16)}` };
}

/** The roots that evidence may end in: those of the platforms that a policy admits, or of the one simulator that a policy for simulation names. */
export function rootsOf(policyText) {
  const { pinned } = readPolicy(policyText);
  if (pinned === null) return VENDOR_ROOTS;
  if (pinned.environment !== "simulation") return VENDOR_ROOTS.filter(({ platform }) => platform in pinned.platforms || (platform === "nvidia" && pinned.devices));
  const devices = pinned.devices ? [simulatorRoot("nvidia", pinned.devices.simulator_root_sha256)] : [];
  return [...Object.entries(pinned.platforms).map(([platform, rules]) => simulatorRoot(platform.replace(/^sim-/, ""), rules.simulator_root_sha256)), ...devices];
}

const INTEL_EXTENSION = "2a864886f84d010d01", FMSPC = "2a864886f84d010d0104", AMD_EXTENSION = "2b060104019c7801";
const IA5_STRING = 0x16, SEQUENCE = 0x30, OCTETS = 4, OID = 6, INTEGER = 2;
const P256 = { name: "ECDSA", namedCurve: "P-256" }, SHA256_ECDSA = { name: "ECDSA", hash: "SHA-256" };
const utf8 = (text) => new TextEncoder().encode(text);
const pick = (found, ...names) => Object.fromEntries(names.filter((name) => name in found).map((name) => [name, found[name]]));
const must = (good, what) => { if (!good) throw new Rejected(what); };
const equal = (found, wanted) => must(hex(found) === hex(wanted), `found ${hex(found)}, wanted ${hex(wanted)}`);
const short = (fingerprint) => `${fingerprint.slice(0, 16)}…`;

/** Name the format of some evidence by its first bytes. @param {Uint8Array} data */
export function recognise(data) {
  const head = new TextDecoder("latin1").decode(data.slice(0, 64)).trimStart();
  if (head.startsWith("HCLA")) throw new Unsupported("Azure's wrapper around a hardware report: quotary quote verify reads it");
  if (hex(data.slice(0, 2)) === "11e0") return "nvidia report";
  if (/^\[\s*\[\s*"JWT"/.test(head)) throw new Unsupported("a token of NVIDIA's service: quotary quote verify reads it");
  if (["8444", "d284"].includes(hex(data.slice(0, 2)))) return "nitro";
  const version = little(data.slice(0, 2)), key = little(data.slice(2, 4)), tee = little(data.slice(4, 8));
  if (key === 0 && version >= 2 && version <= 5) return "snp";
  if (tee === 0 && [2, 3].includes(key) && version >= 3 && version <= 5) return "sgx";
  if (tee === 0x81 || [2, 3].includes(key)) return "tdx";
  throw new Malformed("no evidence of a known kind (TDX, SGX, SEV-SNP, Nitro, NVIDIA)");
}

/**
 * What some evidence says, before anybody believes it.
 * @param {Uint8Array} data @param {string} pem the certificates of a SEV-SNP report (three) or an NVIDIA report (five), leaf first
 */
export function parseQuote(data, pem = "") {
  const kind = recognise(data);
  return { kind, ...READERS[kind](data, pem) };
}

/**
 * Everything about some evidence that a browser can check, row by row; the first that fails is the last that is made.
 * @param {Uint8Array} data @param {{pem?: string, now: number, roots?: object[]}} terms now in seconds since 1970
 * @returns {Promise<{quote: object|null, root: object|null, results: {name: string, outcome: string, detail: string}[]}>}
 */
export async function checkQuote(data, { pem = "", now, roots = VENDOR_ROOTS }) {
  const { results, check } = sheet(), found = { quote: null, root: null, results };
  const made = (name, work) => check(name, async () => ({ text: await work() }));
  const readable = await made("evidence can be read", async () => {
    found.quote = parseQuote(data, pem);
    return `${found.quote.title}: ${data.length} bytes`;
  });
  if (!readable) return found;
  const { quote } = found;
  if (quote.chain) {
    for (const [name, work] of [["root", async () => (found.root = await selectRoot(roots, quote)).text], ...CHECKS[quote.kind]]) {
      if (!await made(name, () => decided(() => work(quote, found.root, now)))) return found;
    }
  } else results.push({ name: "signature and chain", outcome: "not checked", detail: "the certificates of this report are not here: give them as PEM, leaf first" });
  if (quote.debug) await made("debug", async () => { throw new Refused(quote.debug); });
  for (const [name, detail] of NOT_CHECKED[quote.kind]) results.push({ name, outcome: "not checked", detail });
  return found;
}

/** What cannot be read in something that ought to be signed is no gap of this browser's: it does not hold. */
async function decided(work) {
  try { return await work(); }
  catch (error) { throw error instanceof Malformed ? new Rejected(error.message) : error; }
}

// --- What it says ---------------------------------------------------------------------------------------------------

function tdx(data) {
  const quote = parseTDX(data), { body, version } = quote;
  return {
    ...quote, title: `Intel TDX quote, version ${version}`, registers: { mrtd: body.mr_td, ...pick(body, "rtmr0", "rtmr1", "rtmr2", "rtmr3") }, reportData: body.report_data,
    configuration: pick(body, "mr_config_id", "mr_owner", "mr_owner_config"),
    attributes: pick(body, "td_attributes", "xfam", "mr_seam", "mr_signer_seam", "seam_attributes", "tee_tcb_svn", "tee_tcb_svn2", "mr_service_td"),
    debug: body.td_attributes[0] & 1 ? "the debug attribute is on: the host can read this guest" : null, measured: ["mrtd", "rtmr1", "rtmr2"],
  };
}

function sgx(data) {
  const quote = parseSGX(data), { body, version } = quote;
  return {
    ...quote, title: `Intel SGX quote, version ${version}`, registers: { mrenclave: body.mr_enclave }, reportData: body.report_data, configuration: pick(body, "config_id", "config_svn"),
    attributes: pick(body, "attributes", "misc_select", "mr_signer", "isv_prod_id", "isv_svn", "isv_ext_prod_id", "isv_family_id", "cpu_svn"),
    debug: body.attributes[0] & 2 ? "the debug attribute is on: the host can read this enclave" : null, measured: ["mrenclave"],
  };
}

function snp(data, pem) {
  const report = parseSNP(data), { body, version } = report;
  return {
    ...report, title: `AMD SEV-SNP report, version ${version}`, registers: { measurement: body.measurement }, reportData: body.report_data, chain: pem ? parseChain(pem, 3) : null,
    configuration: pick(body, "host_data", "family_id", "image_id", "guest_svn", "id_key_digest", "author_key_digest"),
    attributes: pick(body, "policy", "platform_info", "vmpl", "flags", "report_id", "report_id_ma", "current_version", "committed_version", "launch_mitigations", "current_mitigations"),
    debug: body.policy[2] & 8 ? "the guest's policy allows debugging" : null, measured: ["measurement"],
  };
}

const NITRO_PROTECTED = "a1013822", NITRO_MEMBERS = ["module_id", "digest", "timestamp", "pcrs", "certificate", "cabundle"];
const NITRO_OPTIONAL = { public_key: 1024, user_data: 512, nonce: 512 };

function nitro(data) {
  const outer = decode(data[0] === 0xd2 ? data.slice(1) : data, 32 * 1024);
  demand(Array.isArray(outer) && outer.length === 4, "not a COSE_Sign1: an array of four is needed");
  const [head, unprotected, payload, signature] = outer;
  const shaped = unprotected instanceof Map && unprotected.size === 0 && payload instanceof Uint8Array && signature instanceof Uint8Array;
  demand(shaped, "not a COSE_Sign1: headers, payload or signature are of another kind");
  if (!(head instanceof Uint8Array) || hex(head) !== NITRO_PROTECTED) throw new Unsupported("the protected header is not {1: -35}, ES384");
  demand(signature.length === 96, `signature has ${signature.length} bytes, 96 are needed`);
  const members = nitroMembers(payload), at = members.get("timestamp"), registers = pcrsOf(members.get("pcrs"));
  demand(Number.isSafeInteger(at) && at > 0 && at <= 253402300799000, "timestamp is not a number of milliseconds since 1970");
  const chosen = Object.fromEntries(Object.entries(NITRO_OPTIONAL).map(([name, most]) => [name, chosenBytes(members.get(name) ?? null, name, most)]));
  const zero = [0, 1, 2].find((number) => registers[`pcr${number}`].every((byte) => byte === 0));
  return {
    title: `AWS Nitro document of ${new Date(at).toISOString()}`, at: at / 1000, registers, reportData: chosen.user_data, configuration: {}, chain: nitroChain(members), signature,
    attributes: { module_id: utf8(members.get("module_id")), ...chosen }, debug: zero === undefined ? null : `PCR${zero} is zero: a debug enclave`, measured: ["pcr0", "pcr1", "pcr2"],
    // Sig_structure of RFC 9052 section 4.4; the payload's length takes two bytes.
    signed: concat(Uint8Array.of(0x84, 0x6a), utf8("Signature1"), Uint8Array.of(0x44), head, Uint8Array.of(0x40, 0x59, payload.length >> 8, payload.length & 255), payload),
  };
}

function nitroMembers(payload) {
  const members = decode(payload, 32 * 1024), known = [...NITRO_MEMBERS, ...Object.keys(NITRO_OPTIONAL)];
  const exact = members instanceof Map && NITRO_MEMBERS.every((name) => members.has(name)) && [...members.keys()].every((name) => known.includes(name));
  demand(exact, "the document has not exactly the members that AWS names");
  if (members.get("digest") !== "SHA384") throw new Unsupported("the document's PCRs are of another digest than SHA384");
  demand(/^[\x20-\x7e]{1,128}$/.test(members.get("module_id")) && typeof members.get("module_id") === "string", "module_id is not a short text");
  return members;
}

function pcrsOf(found) {
  demand(found instanceof Map, "PCR0, PCR1 or PCR2 is missing");
  for (const [number, value] of found) {
    demand(Number.isInteger(number) && number >= 0 && number <= 31, `PCR ${number}; PCRs have the numbers 0 to 31`);
    demand(value instanceof Uint8Array && value.length === 48, `PCR${number} has not 48 bytes`);
  }
  demand([0, 1, 2].every((number) => found.has(number)), "PCR0, PCR1 or PCR2 is missing");
  return Object.fromEntries([...found].sort(([a], [b]) => a - b).map(([number, value]) => [`pcr${number}`, value]));
}

function nitroChain(members) {
  const bundle = members.get("cabundle");
  demand(Array.isArray(bundle) && bundle.length >= 1 && bundle.length <= 8, "cabundle has not 1 to 8 certificates");
  return [members.get("certificate"), ...bundle.reverse()].map((der) => {
    demand(der instanceof Uint8Array && der.length >= 1 && der.length <= 2048, "a certificate is not of 1 to 2048 bytes");
    return parseCertificate(der);
  });
}

function chosenBytes(found, name, most) {
  demand(found === null || (found instanceof Uint8Array && found.length <= most), `${name} is not of at most ${most} bytes`);
  return found ?? new Uint8Array();
}

function device(data, pem) {
  const report = parseDevice(data), text = (kind) => new TextDecoder("latin1").decode(report.opaque.get(kind) ?? new Uint8Array()).replace(/\0+$/, "");
  return {
    ...report, title: `NVIDIA device report, driver ${text(OPAQUE.driver) || "none"}`, registers: Object.fromEntries(report.blocks.map((block, at) => [`block${at}`, block])), reportData: report.nonce,
    configuration: {}, attributes: { nonce: report.nonce, ...(report.opaque.has(OPAQUE.fwid) ? { firmware_id: report.opaque.get(OPAQUE.fwid) } : {}) },
    chain: pem ? parseChain(pem, 5) : null, debug: null, measured: [],
  };
}

const READERS = { tdx, sgx, snp, nitro, "nvidia report": device };

// --- Who signed it --------------------------------------------------------------------------------------------------

async function selectRoot(roots, { kind, chain }) {
  const platform = kind.split(" ")[0], simulation = roots.every((root) => root.platform.startsWith("sim-"));
  demand(roots.length > 0 && (simulation || roots.every((root) => !root.platform.startsWith("sim-"))), "roots are all vendors' or all simulators', and at least one");
  if (!simulation && simulated(chain)) throw new Refused("simulated evidence: a simulator marked a certificate as its own");
  const found = hex(await sha256(chain.at(-1).der)), admitted = roots.filter((root) => [platform, `sim-${platform}`].includes(root.platform));
  const root = admitted.find(({ fingerprint }) => fingerprint === found);
  must(root, `found the root ${found}, wanted ${admitted.map(({ fingerprint }) => fingerprint).join(", ") || `one for ${platform}`}`);
  return { ...root, text: `${root.name}, ${short(found)}${simulation ? " (SIMULATED: proves nothing about hardware)" : ""}` };
}

async function chainHolds({ chain }, root, now) {
  await verifyChain(chain, root.fingerprint, now);
  must(!chain[0].authority, "the leaf is an authority, wanted an end certificate");
  return `${chain[0].commonName} and ${chain.length - 1} above it, in force at ${new Date(now * 1000).toISOString()}`;
}

async function holdsP384({ chain, signature, signed }) {
  must(chain[0].key.curve === "P-384", "a key of another kind, wanted P-384");
  must(await holdsEcdsa(chain[0].key, "SHA-384", signature, signed), "the signature does not hold");
  return `holds over ${signed.length} bytes, by ${chain[0].commonName}`;
}

async function quotingEnclave({ chain, qeReport, qeSignature }) {
  must(chain[0].key.curve === "P-256", "a key of another kind, wanted P-256");
  must(await holdsEcdsa(chain[0].key, "SHA-256", qeSignature, qeReport), "the signature does not hold");
  return "the machine's key signed the report of its quoting enclave";
}

async function boundKey({ qeReport, attestationKey, qeAuth }) {
  equal(read("sgxReport", qeReport).report_data, concat(await sha256(concat(attestationKey, qeAuth)), new Uint8Array(32)));
  return "the report names the attestation key";
}

async function pointOf({ attestationKey }) {
  try { return await crypto.subtle.importKey("raw", concat(Uint8Array.of(4), attestationKey), P256, false, ["verify"]); }
  catch { throw new Rejected("the attestation key is not a point on the curve"); }
}

async function quoteSigned(quote) {
  const { signature, signed } = quote, key = await pointOf(quote);
  must(await crypto.subtle.verify(SHA256_ECDSA, key, signature, signed), "the signature does not hold");
  return "the attestation key signed header and body";
}

/** The family, model and stepping that Intel wrote into the machine's certificate. */
function fmspcOf({ chain }) {
  const extension = chain[0].extensions.get(INTEL_EXTENSION);
  must(extension, "the machine's certificate has no SGX extension");
  const parts = inside(items(extension.value)[0], SEQUENCE, "the SGX extension").map((part) => inside(part, SEQUENCE, "the SGX extension", 2));
  const [, value] = parts.find(([oid]) => oid.tag === OID && hex(oid.content) === FMSPC) ?? [];
  demand(value?.tag === OCTETS && value.content.length === 6, "the machine's certificate names no FMSPC");
  return hex(value.content);
}

const INTEL = [
  ["pck chain", chainHolds],
  ["qe report signature", quotingEnclave],
  ["qe report data", boundKey],
  ["qe debug", ({ qeReport }) => { must(!(read("sgxReport", qeReport).attributes[0] & 2), "a debuggable quoting enclave"); return "the quoting enclave is in production mode"; }],
  ["attestation key", async (quote) => { await pointOf(quote); return "a point on P-256"; }],
  ["quote signature", quoteSigned],
  ["machine", (quote) => `FMSPC ${fmspcOf(quote)}, by its certificate`],
];

const PRODUCTS = {
  Milan: { root: VENDOR_ROOTS[2], tcb: [1, 2, 4, 5, 6, 7, 3, 8], structure: 0, chipLength: 64 },
  Genoa: { root: VENDOR_ROOTS[3], tcb: [1, 2, 4, 5, 6, 7, 3, 8], structure: 0, chipLength: 64 },
  Turin: { root: VENDOR_ROOTS[4], tcb: [9, 1, 2, 3, 5, 6, 7, 8], structure: 1, chipLength: 8 },
};

/** What AMD wrote into a VCEK (one chip) or VLEK (one cloud). */
function endorsement({ chain: [{ extensions }] }) {
  const value = (name) => {
    const found = items(extensions.get(AMD_EXTENSION + name)?.value ?? new Uint8Array());
    demand(found.length === 1, `certificate has no extension ${AMD_EXTENSION}${name}`);
    return found[0];
  };
  const text = (name) => { const { tag, content } = value(name); demand(tag === IA5_STRING, "an extension is no text"); return new TextDecoder("latin1").decode(content); };
  const number = (name) => { const { tag, content } = value(name); demand(tag === INTEGER && content.length <= 2 && content[0] < 0x80, "an extension is no number to 255"); return content.at(-1); };
  const title = text("02").replace(/^(Milan)-B[01]$/, "$1"), product = PRODUCTS[title], cloud = extensions.has(`${AMD_EXTENSION}05`);
  if (!Object.hasOwn(PRODUCTS, title)) throw new Unsupported(`no product is known by the name ${title}`);
  const hwid = extensions.get(`${AMD_EXTENSION}04`)?.value ?? new Uint8Array(), tcb = Uint8Array.from(product.tcb, (place) => number(`030${place}`));
  demand(number("01") === product.structure && hwid.length === (cloud ? 0 : product.chipLength), "the certificate is not of its product's structure");
  return { title, product, kind: cloud ? "vlek" : "vcek", hwid, tcb };
}

const AMD = [
  ["endorsement chain", (report, root, now) => chainHolds(report, root, now)],
  ["product root", (report, root) => {
    const { title, product } = endorsement(report);
    must(root.platform.startsWith("sim-") || root.fingerprint === product.root.fingerprint, `found ${root.name}, wanted ${product.root.name}`);
    return `the root of ${title}`;
  }],
  ["endorsement kind", ({ chain: [leaf, issuer] }) => {
    const { kind, title } = endorsement({ chain: [leaf] }), wanted = `SEV-${kind.toUpperCase()} by SEV-${kind === "vlek" ? "VLEK-" : ""}${title}`;
    must(`${leaf.commonName} by ${issuer.commonName}` === wanted, `found ${leaf.commonName} by ${issuer.commonName}, wanted ${wanted}`);
    return wanted;
  }],
  ["signing key", (report) => { const { kind } = endorsement(report); must(report.signingKey === kind, `found ${report.signingKey}, the certificate is a ${kind}`); return kind; }],
  ["product", (report) => {
    const { title } = endorsement(report), said = report.product ?? (title === "Turin" ? "a version 2 report" : title);
    must(said === title, `found ${said}, the certificate is for ${title}`);
    return title;
  }],
  ["reported tcb", (report) => { equal(report.body.reported_tcb, endorsement(report).tcb); return `${hex(report.body.reported_tcb)}, as the certificate says; held against no floor here`; }],
  ["chip id", (report) => { const { hwid } = endorsement(report); equal(report.body.chip_id, concat(hwid, new Uint8Array(64 - hwid.length))); return hwid.length ? `${hex(hwid).slice(0, 16)}…` : "none: a cloud's key"; }],
  ["report signature", (report) => holdsP384(report)],
];

const NITRO = [
  // A leaf lives for three hours, so the chain is judged at the document's own time.
  ["nitro chain", (document, root) => chainHolds(document, root, document.at)],
  ["document signature", (document) => holdsP384(document)],
];

const BOOT_ROM = /^([A-Z]{2}_?[0-9]{2,3}) [A-Z][0-9]{2} (GSP|FSP) BROM$/, ARCHITECTURES = { GH100: "Hopper GPU", GB100: "Blackwell GPU", LS_10: "NVSwitch" };
const FWID_HOPPER = "678105050401", FWID_INFO = "67810505040101", FWIDS_TAG = 0xa6, SHA384_OID = "608648016503040202";

function architecture({ chain }) {
  const [leaf, brom, provisioner] = chain.map(({ commonName }) => commonName), found = BOOT_ROM.exec(brom);
  if (!found || !Object.hasOwn(ARCHITECTURES, found[1])) throw new Unsupported(`no architecture is known for the boot ROM ${brom}`);
  const wanted = [brom.replace(/BROM$/, "FMC LF"), `NVIDIA ${found[1]} Provisioner ICA`], said = [leaf, provisioner.split(" ").slice(0, 4).join(" ")];
  must(said.join() === wanted.join(), `found ${said.join(" by ")}, wanted ${wanted.join(" by ")}`);
  return ARCHITECTURES[found[1]];
}

function certifiedFirmware({ chain: [{ extensions }] }) {
  const hopper = extensions.get(FWID_HOPPER), parts = inside(items((hopper ?? extensions.get(FWID_INFO))?.value ?? new Uint8Array())[0], SEQUENCE, "a firmware id");
  const pair = hopper ? inside(parts.at(-1), SEQUENCE, "a firmware id") : inside(items(parts.find(({ tag }) => tag === FWIDS_TAG)?.content ?? new Uint8Array())[0], SEQUENCE, "a firmware id");
  demand(pair.length === 2 && hex(pair[0].content) === SHA384_OID && pair[1].content.length === 48, "the leaf certificate's firmware id is not a SHA-384 digest");
  return pair[1].content;
}

const NVIDIA = [
  ["device chain", async (report, root, now) => { const said = await chainHolds(report, root, now); return `${architecture(report)}: ${said}`; }],
  ["device signature", (report) => holdsP384(report)],
  ["firmware id", (report) => {
    const found = report.opaque.get(OPAQUE.fwid), wanted = certifiedFirmware(report);
    if (!found) return "not in the report (older drivers and switches): nothing to compare";
    equal(found, wanted);
    return `${short(hex(wanted))}, as the certificate says`;
  }],
];

const CHECKS = { tdx: INTEL, sgx: INTEL, snp: AMD, nitro: NITRO, "nvidia report": NVIDIA };

const WITH_DOCUMENTS = "needs the vendor's documents: quotary quote verify --fetch";
const INTEL_NOT = [["revocation of certificates", WITH_DOCUMENTS], ["identity of the quoting enclave", WITH_DOCUMENTS], ["TCB level", WITH_DOCUMENTS]];
const FRESH = ["freshness", "only a nonce of yours in the report data proves that it is not an old one"];
const NOT_CHECKED = {
  tdx: [...INTEL_NOT, ["TDX module", WITH_DOCUMENTS], FRESH],
  sgx: [...INTEL_NOT, FRESH],
  snp: [["revocation of certificates", WITH_DOCUMENTS], ["TCB floor", "AMD publishes no levels: a floor of the log or of a policy says what is enough"], FRESH],
  nitro: [["TCB level", "AWS attests no version of its firmware"], FRESH],
  "nvidia report": [["revocation of certificates", "needs answers of NVIDIA's OCSP service: quotary quote verify --fetch"], ["golden values", "needs NVIDIA's signed manifests: quotary quote verify --fetch"],
    ["confidential mode", "no signed field of a device says that it is on"], FRESH],
};

/**
 * The id that the log knows a machine's registers by; null for devices, which have none.
 * @param {object} quote @param {string=} platform of the root that verified it, such as sim-tdx
 */
export async function idOf({ kind, registers, measured }, platform = kind) {
  return measured.length ? measurementId({ platform, registers: Object.fromEntries(measured.map((name) => [name, hex(registers[name])])) }) : null;
}

/** Evidence as people hold it: hex, base64, or the bytes themselves. @param {string} text */
export function bytesOfText(text) {
  const dense = text.replace(/\s/g, "").replace(/^0x/, "");
  if (/^([0-9a-fA-F]{2})+$/.test(dense)) return Uint8Array.from(dense.match(/../g), (pair) => parseInt(pair, 16));
  return fromBase64(dense);
}
