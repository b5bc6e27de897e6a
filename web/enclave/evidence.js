// What a live enclave shows, judged in this browser by the auditors' modules (web/static/kept.js), and held to what this page itself sent.
//
// What a browser leaves to quotary verify is a row that says "not checked", by name. Any other row that was not checked decides
// nothing: the page neither believes such a machine nor asks it.

import { sheet } from "../static/bundle.js";
import { checkKept } from "../static/kept.js";
import { commitment, parseReceipt } from "../static/receipt.js";
import { Rejected } from "../static/verify.js";

/** Rows that may stay open: the vendors' further documents, a policy's and a row's other rules, and algorithms that not every browser has. */
const LEFT = new Set([
  "revocation of certificates", "identity of the quoting enclave", "TCB level", "TDX module", "TCB floor", "the row's other rules", "map auditor, rebuilders",
  "age of the checkpoint", "log: witness quorum", "revocation of devices' certificates", "golden values", "one machine, modes, versions, confidential mode",
]);
const LOG_KEY = /^log: log key [0-9a-f]{8}$/;

/**
 * Judge an attestation document as far as a browser can, and the enclave's own receipt where there is one.
 * @param {{evidence: Uint8Array, policy: string, nonce: Uint8Array}} shown @param {Uint8Array|null} receipt @param {number} now seconds since 1970
 * @returns {Promise<{rows: object[], believed: boolean, keyset: object|null, measurement: string|null}>}
 */
export async function checkDocument({ evidence, policy, nonce }, receipt, now) {
  const { results, keyset, measurement } = await checkKept(new TextDecoder().decode(evidence), policy, now, { nonce, receipt });
  const rows = results.filter(({ name }) => receipt || name !== "receipt").map((row) => ({
    ...row, name: row.name === "receipt" ? "receipt of the enclave" : row.name,
    undecided: row.outcome === "not checked" && !LEFT.has(row.name) && !LOG_KEY.test(row.name),
  }));
  const believed = keyset !== null && rows.every(({ outcome, undecided }) => outcome === "passed" || (outcome === "not checked" && !undecided));
  return { rows, believed, keyset, measurement };
}

/**
 * The enclave's receipt is about this very exchange; that its keyset signed it is a row of ``checkDocument``.
 * @param {Uint8Array} bytes @param {{request: Uint8Array, response: Uint8Array, salt: Uint8Array}} exchange the salt is the page's own choice
 */
export async function checkExchange(bytes, { request, response, salt }) {
  const { results, check } = sheet(), receipt = await parseReceipt(bytes), { id } = JSON.parse(new TextDecoder().decode(response));
  await check("answer of the receipt", async () => {
    if (receipt.chat_id !== id) throw new Rejected(`the receipt is about ${receipt.chat_id}, wanted ${id}`);
    if (!receipt.complete) throw new Rejected("the receipt is about an answer that broke off");
    return `${id}, complete, ${receipt.tokens.out} tokens, log of ${receipt.log.size_at_end} entries`;
  });
  for (const [label, bytes] of [["request", request], ["response", response]]) await check(`${label} of the receipt`, async () => {
    const wanted = await commitment(label, salt, bytes);
    if (receipt[label].inner !== wanted) throw new Rejected(`the receipt commits to ${receipt[label].inner}, what this page has gives ${wanted}`);
    return `committed to under the salt that this page chose: ${bytes.length} bytes`;
  });
  results.push({ name: "sealed channel", outcome: "not checked", detail: "the request as it was sealed and the answer's frames are in the proxy: it has held the receipt to them" });
  results.push({ name: "tokens of the receipt", outcome: "not checked", detail: "committed to as numbers of the model's vocabulary, which is not here" });
  return results;
}
