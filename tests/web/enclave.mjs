// What web/enclave/evidence.js says of attestation documents: standard input is a list of {document, policy, nonce, now}, the answer
// a list of rows for each.

const { Checks, Stopped, checkDocument } = await import("../../web/enclave/evidence.js");
const bytes = (text) => Uint8Array.from(Buffer.from(text, "base64"));

const chunks = [], found = [];
for await (const chunk of process.stdin) chunks.push(chunk);
for (const { document, policy, nonce, now } of JSON.parse(Buffer.concat(chunks).toString())) {
  const checks = new Checks();
  try { await checkDocument(bytes(document), policy, bytes(nonce), checks, now); } catch (error) { if (!(error instanceof Stopped)) throw error; }
  found.push(checks.rows);
}
console.log(JSON.stringify(found));
