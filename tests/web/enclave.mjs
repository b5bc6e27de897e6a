// What web/enclave/evidence.js says: standard input is a list of {document, policy, nonce, now} or {receipt, request, response, salt},
// bytes in base64; the answer is what was said of each.

const { checkDocument, checkExchange } = await import("../../web/enclave/evidence.js");
const bytes = (text) => Uint8Array.from(Buffer.from(text, "base64"));

async function said({ document, policy, nonce, now, receipt, request, response, salt }) {
  if (request) return checkExchange(bytes(receipt), { request: bytes(request), response: bytes(response), salt: bytes(salt) });
  return checkDocument({ evidence: bytes(document), policy: JSON.stringify(policy), nonce: bytes(nonce) }, receipt ? bytes(receipt) : null, now);
}

const chunks = [], found = [];
for await (const chunk of process.stdin) chunks.push(chunk);
for (const question of JSON.parse(Buffer.concat(chunks).toString())) found.push(await said(question));
console.log(JSON.stringify(found));
