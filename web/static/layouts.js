// Evidence as its vendors lay it out: bytes to a structure that nobody believes yet.
//
// Intel TDX DCAP Quoting Library API, appendix 3 (quotes of versions 4 and 5); Intel SGX ECDSA Quoting Library API, appendix A.4
// (version 3); AMD 56860, table ATTESTATION_REPORT (versions 2 to 5); DMTF DSP0274, MEASUREMENTS, as NVIDIA's devices answer.
// A table is `[name, offset, length]` in bytes; names that begin with "reserved" must be zero. They are those of
// quotary/attestation, and a test compares them.

import { demand } from "./documents.js";
import { NotHere, concat, hex } from "./verify.js";
import { parseChain } from "./x509.js";

/** Evidence of a kind or version that nobody here reads. */
export class Unsupported extends NotHere {}

const HEADER = [["version", 0, 2], ["attestation_key_type", 2, 2], ["tee_type", 4, 4], ["reserved1", 8, 2], ["reserved2", 10, 2], ["qe_vendor_id", 12, 16], ["user_data", 28, 20]];
const SGX_HEADER = HEADER.map(([name, at, length]) => [{ reserved1: "qe_svn", reserved2: "pce_svn" }[name] ?? name, at, length]);
const TD_10 = [
  ["tee_tcb_svn", 0, 16], ["mr_seam", 16, 48], ["mr_signer_seam", 64, 48], ["seam_attributes", 112, 8], ["td_attributes", 120, 8], ["xfam", 128, 8],
  ["mr_td", 136, 48], ["mr_config_id", 184, 48], ["mr_owner", 232, 48], ["mr_owner_config", 280, 48],
  ["rtmr0", 328, 48], ["rtmr1", 376, 48], ["rtmr2", 424, 48], ["rtmr3", 472, 48], ["report_data", 520, 64],
];
const SGX_REPORT = [
  ["cpu_svn", 0, 16], ["misc_select", 16, 4], ["reserved1", 20, 12], ["isv_ext_prod_id", 32, 16], ["attributes", 48, 16], ["mr_enclave", 64, 32],
  ["reserved2", 96, 32], ["mr_signer", 128, 32], ["reserved3", 160, 32], ["config_id", 192, 64], ["isv_prod_id", 256, 2], ["isv_svn", 258, 2],
  ["config_svn", 260, 2], ["reserved4", 262, 42], ["isv_family_id", 304, 16], ["report_data", 320, 64],
];
const SNP_HEAD = [
  ["version", 0x000, 4], ["guest_svn", 0x004, 4], ["policy", 0x008, 8], ["family_id", 0x010, 16], ["image_id", 0x020, 16], ["vmpl", 0x030, 4],
  ["signature_algorithm", 0x034, 4], ["current_tcb", 0x038, 8], ["platform_info", 0x040, 8], ["flags", 0x048, 4], ["reserved1", 0x04c, 4],
  ["report_data", 0x050, 64], ["measurement", 0x090, 48], ["host_data", 0x0c0, 32], ["id_key_digest", 0x0e0, 48], ["author_key_digest", 0x110, 48],
  ["report_id", 0x140, 32], ["report_id_ma", 0x160, 32], ["reported_tcb", 0x180, 8],
];
const SNP_CPUID = [["cpuid_family", 0x188, 1], ["cpuid_model", 0x189, 1], ["cpuid_stepping", 0x18a, 1], ["reserved2", 0x18b, 21]];
const SNP_TAIL = [
  ["chip_id", 0x1a0, 64], ["committed_tcb", 0x1e0, 8], ["current_version", 0x1e8, 3], ["reserved3", 0x1eb, 1], ["committed_version", 0x1ec, 3],
  ["reserved4", 0x1ef, 1], ["launch_tcb", 0x1f0, 8],
];
const SNP_OLD_END = [["reserved5", 0x1f8, 168]];
const SNP_MITIGATIONS = [["launch_mitigations", 0x1f8, 8], ["current_mitigations", 0x200, 8], ["reserved5", 0x208, 152]];
const SNP_SIGNATURE = [["signature_r", 0x2a0, 48], ["reserved6", 0x2d0, 24], ["signature_s", 0x2e8, 48], ["reserved7", 0x318, 24], ["reserved8", 0x330, 368]];
const SNP_V3 = [...SNP_HEAD, ...SNP_CPUID, ...SNP_TAIL, ...SNP_OLD_END, ...SNP_SIGNATURE];

/** Every table with the length of what it describes. */
export const LAYOUTS = {
  header: { length: 48, fields: HEADER },
  sgxHeader: { length: 48, fields: SGX_HEADER },
  bodyHead: { length: 6, fields: [["type", 0, 2], ["length", 2, 4]] },
  td10: { length: 584, fields: TD_10 },
  td15: { length: 648, fields: [...TD_10, ["tee_tcb_svn2", 584, 16], ["mr_service_td", 600, 48]] },
  sgxReport: { length: 384, fields: SGX_REPORT },
  signatureHead3: { length: 128, fields: [["signature", 0, 64], ["attestation_key", 64, 64]] },
  signatureHead: { length: 134, fields: [["signature", 0, 64], ["attestation_key", 64, 64], ["certification_type", 128, 2], ["certification_length", 130, 4]] },
  qeHead: { length: 450, fields: [["report", 0, 384], ["report_signature", 384, 64], ["auth_length", 448, 2]] },
  chainHead: { length: 6, fields: [["type", 0, 2], ["length", 2, 4]] },
  snp2: { length: 1184, fields: [...SNP_HEAD, ["reserved2", 0x188, 24], ...SNP_TAIL, ...SNP_OLD_END, ...SNP_SIGNATURE] },
  snp3: { length: 1184, fields: SNP_V3 },
  snp4: { length: 1184, fields: SNP_V3 },
  snp5: { length: 1184, fields: [...SNP_HEAD, ...SNP_CPUID, ...SNP_TAIL, ...SNP_MITIGATIONS, ...SNP_SIGNATURE] },
  spdmRequest: { length: 37, fields: [["version", 0, 1], ["code", 1, 1], ["param1", 2, 1], ["param2", 3, 1], ["nonce", 4, 32], ["slot", 36, 1]] },
  spdmResponse: { length: 8, fields: [["version", 0, 1], ["code", 1, 1], ["param1", 2, 1], ["param2", 3, 1], ["blocks", 4, 1], ["length", 5, 3]] },
  spdmBlock: { length: 55, fields: [["index", 0, 1], ["specification", 1, 1], ["length", 2, 2], ["type", 4, 1], ["value_length", 5, 2], ["value", 7, 48]] },
};

const MAX_QUOTE = 64 * 1024, MAX_DEVICE_REPORT = 16 * 1024, ECDSA_P256 = 2, ECDSA_P384 = 1, TEE_TDX = 0x81;
const INTEL_QE_VENDOR = "939a7233f79c4ca9940a0db3957f0607", QE_REPORT_CERTIFICATION = 6, PCK_CHAIN_CERTIFICATION = 5;
const SNP_SIGNED = 672, SNP_KEYS = { 0: "vcek", 1: "vlek", 7: "no key" };
const NONCE = 32, DIGEST = 48, PDI = 8, DEVICE_SIGNATURE = 96;
/** NVIDIA's opaque fields that are read, by their numbers. */
export const OPAQUE = { driver: 3, vbios: 6, nvdec0: 11, fwid: 20, protectedPCIe: 21, switchPDI: 22, switchGPUs: 26, feature: 36 };
const OPAQUE_LENGTHS = {
  [OPAQUE.nvdec0]: (n) => n === 1, [OPAQUE.fwid]: (n) => n === DIGEST, [OPAQUE.protectedPCIe]: (n) => n === 1, [OPAQUE.feature]: (n) => n === 2,
  [OPAQUE.switchPDI]: (n) => n >= PDI && n <= 64 * PDI && n % PDI === 0, [OPAQUE.switchGPUs]: (n) => n >= 8 * PDI && n <= 512,
};

/** An unsigned little-endian number of at most six bytes. @param {Uint8Array} bytes */
export const little = (bytes) => bytes.reduceRight((sum, byte) => sum * 256 + byte, 0);

/** Cut the fields out of exactly the layout's length. @param {string} name of a layout @param {Uint8Array} data */
export function read(name, data) {
  const { length, fields } = LAYOUTS[name], found = {};
  demand(data.length === length, `${name} has ${data.length} bytes, ${length} are needed`);
  for (const [field, at, size] of fields) {
    const value = data.slice(at, at + size);
    if (!field.startsWith("reserved")) found[field] = value;
    else demand(value.every((byte) => byte === 0), `${name} has non-zero reserved bytes at ${at}`);
  }
  return found;
}

/** @param {Uint8Array} data a TDX quote of version 4 or 5 */
export function parseTDX(data) {
  demand(data.length <= MAX_QUOTE, `quote has ${data.length} bytes, at most ${MAX_QUOTE} are allowed`);
  const header = read("header", data.slice(0, 48)), version = little(header.version), tee = little(header.tee_type);
  if (![4, 5].includes(version) || tee !== TEE_TDX) throw new Unsupported(`quote version ${version} for TEE 0x${tee.toString(16)}; versions 4 and 5 for TDX are known`);
  requireIntel(header);
  const { layout, start } = tdBody(data, version), end = start + LAYOUTS[layout].length;
  const body = read(layout, data.slice(start, end)), section = sectionOf(data, end);
  return { version, body, signed: data.slice(0, end), ...parseSection(section) };
}

/** @param {Uint8Array} data an SGX quote of version 3 */
export function parseSGX(data) {
  demand(data.length <= MAX_QUOTE, `quote has ${data.length} bytes, at most ${MAX_QUOTE} are allowed`);
  const header = read("sgxHeader", data.slice(0, 48)), version = little(header.version), tee = little(header.tee_type);
  if (version !== 3 || tee !== 0) throw new Unsupported(`quote version ${version} for TEE 0x${tee.toString(16)}; version 3 for SGX is known`);
  requireIntel(header);
  const end = 48 + 384, body = read("sgxReport", data.slice(48, end)), section = sectionOf(data, end);
  return { version, body, signed: data.slice(0, end), ...certified(read("signatureHead3", section.slice(0, 128)), section.slice(128)) };
}

function requireIntel(header) {
  if (little(header.attestation_key_type) !== ECDSA_P256) throw new Unsupported("attestation key is of another kind than ECDSA P-256");
  demand(hex(header.qe_vendor_id) === INTEL_QE_VENDOR, "the quoting enclave's vendor id is not Intel's");
}

function tdBody(data, version) {
  if (version === 4) return { layout: "td10", start: 48 };
  const head = read("bodyHead", data.slice(48, 54)), kind = little(head.type), layout = { 2: "td10", 3: "td15" }[kind];
  if (!layout) throw new Unsupported(`quote body of type ${kind}; types 2 and 3 are known`);
  demand(little(head.length) === LAYOUTS[layout].length, `quote body says ${little(head.length)} bytes, its type has ${LAYOUTS[layout].length}`);
  return { layout, start: 54 };
}

/** The signature data behind a body; behind it only zeros may follow (configfs pads on some clouds). */
function sectionOf(data, end) {
  const behind = end + 4 + little(data.slice(end, end + 4));
  demand(data.length >= behind && data.slice(behind).every((byte) => byte === 0), `quote has ${data.length} bytes, ${behind} and zeros are needed`);
  return data.slice(end + 4, behind);
}

function parseSection(data) {
  const head = read("signatureHead", data.slice(0, 134)), rest = data.slice(134);
  demand(little(head.certification_type) === QE_REPORT_CERTIFICATION, `certification data is of type ${little(head.certification_type)}, ${QE_REPORT_CERTIFICATION} is needed`);
  demand(rest.length === little(head.certification_length), `QE certification data has ${rest.length} bytes and says ${little(head.certification_length)}`);
  return certified(head, rest);
}

function certified(head, data) {
  const qe = read("qeHead", data.slice(0, 450)), end = 450 + little(qe.auth_length), chain = read("chainHead", data.slice(end, end + 6)), pem = data.slice(end + 6);
  demand(little(chain.type) === PCK_CHAIN_CERTIFICATION, `certification data is of type ${little(chain.type)}, ${PCK_CHAIN_CERTIFICATION} is needed`);
  demand(pem.length === little(chain.length), `PCK chain has ${pem.length} bytes and says ${little(chain.length)}`);
  return {
    signature: head.signature, attestationKey: head.attestation_key, qeReport: qe.report, qeSignature: qe.report_signature, qeAuth: data.slice(450, end),
    chain: parseChain(new TextDecoder("latin1").decode(pem), 3),
  };
}

/** @param {Uint8Array} data a SEV-SNP report; its certificates come from elsewhere */
export function parseSNP(data) {
  demand(data.length === 1184, `report has ${data.length} bytes, 1184 are needed`);
  const version = little(data.slice(0, 4));
  if (!(`snp${version}` in LAYOUTS)) throw new Unsupported(`report version ${version}; versions 2 to 5 are known`);
  const body = read(`snp${version}`, data), flags = little(body.flags), key = (flags >> 2) & 7;
  if (little(body.signature_algorithm) !== ECDSA_P384) throw new Unsupported("the report's signature is of another kind than ECDSA P-384");
  const product = version > 2 ? productOf(body.cpuid_family[0], body.cpuid_model[0]) : null;
  demand(flags < 32 && key in SNP_KEYS, `report has the flags 0x${flags.toString(16)}, bits 0 and 1 and signing keys 0, 1, 7 are known`);
  return { version, body, signingKey: SNP_KEYS[key], product, signed: data.slice(0, SNP_SIGNED), signature: concat(body.signature_r.reverse(), body.signature_s.reverse()) };
}

function productOf(family, model) {
  if (family === 0x19 && model <= 0x0f) return "Milan";
  if (family === 0x19 && ((model >= 0x10 && model <= 0x1f) || (model >= 0xa0 && model <= 0xaf))) return "Genoa";
  if (family === 0x1a && model <= 0x11) return "Turin";
  throw new Unsupported(`no product is known with CPUID family ${family} model ${model}`);
}

/** @param {Uint8Array} data request and answer of an NVIDIA device; its certificates come from elsewhere */
export function parseDevice(data) {
  demand(data.length <= MAX_DEVICE_REPORT, `report has ${data.length} bytes, at most ${MAX_DEVICE_REPORT} are allowed`);
  const request = read("spdmRequest", data.slice(0, 37)), response = read("spdmResponse", data.slice(37, 45));
  const codes = hex(concat(request.version, request.code, response.version, response.code));
  demand(codes === "11e01160" && request.param2[0] === 0xff && request.slot[0] === 0, "not an SPDM 1.1 request for all measurements and its answer");
  const recordEnd = 45 + little(response.length), opaqueStart = recordEnd + NONCE + 2;
  const signedEnd = opaqueStart + little(data.slice(recordEnd + NONCE, opaqueStart));
  demand(data.length === signedEnd + DEVICE_SIGNATURE, `report has ${data.length} bytes, it says ${signedEnd + DEVICE_SIGNATURE}`);
  return {
    nonce: request.nonce, blocks: blocksOf(data.slice(45, recordEnd), response.blocks[0]), opaque: opaqueOf(data.slice(opaqueStart, signedEnd)),
    signed: data.slice(0, signedEnd), signature: data.slice(signedEnd),
  };
}

function blocksOf(record, count) {
  demand(record.length === count * 55, `measurement record has ${record.length} bytes, ${count} blocks have ${count * 55}`);
  return Array.from({ length: count }, (_, at) => {
    const block = read("spdmBlock", record.slice(at * 55, at * 55 + 55));
    const good = block.index[0] === at + 1 && block.specification[0] === 1 && little(block.length) === 51 && little(block.value_length) === DIGEST;
    demand(good, `measurement block ${at + 1} is not a DMTF digest of ${DIGEST} bytes in order`);
    return block.value;
  });
}

function opaqueOf(data) {
  const found = new Map();
  for (let at = 0; at < data.length;) {
    const kind = little(data.slice(at, at + 2)), length = little(data.slice(at + 2, at + 4)), value = data.slice(at + 4, at + 4 + length);
    demand(data.length >= at + 4 + length && !found.has(kind), `opaque field ${kind} is cut off or there twice`);
    demand(OPAQUE_LENGTHS[kind]?.(length) ?? true, `opaque field ${kind} has ${length} bytes`);
    found.set(kind, value);
    at += 4 + length;
  }
  return found;
}
