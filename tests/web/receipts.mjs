// What web/static/receipt.js says of each case of tests/vectors/receipt, in node and in a browser.

const place = globalThis.QUOTARY_STATIC ?? "../../web/static/";
const { Rejection, verifyReceipt } = await import(`${place}receipt.js`);
const { Malformed } = await import(`${place}documents.js`);
const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));

export async function outcomes(cases) {
  const found = [];
  for (const { receipt, keys, judged, exchange: e } of cases) {
    const known = Object.fromEntries(Object.entries(keys).map(([id, key]) => [id, bytes(key)]));
    const sent = { requestWire: e.request_wire, request: bytes(e.request), response: bytes(e.response), chains: e.chains, minLogSize: e.min_log_size };
    try {
      await verifyReceipt(bytes(receipt), known, judged, sent);
      found.push("ok");
    } catch (error) {
      if (!(error instanceof Malformed) && !(error instanceof Rejection)) throw error;
      found.push(error instanceof Malformed ? "malformed" : error.check);
    }
  }
  return found;
}

if (globalThis.process?.argv?.[2] === "run") {
  const chunks = [];
  for await (const chunk of process.stdin) chunks.push(chunk);
  console.log(JSON.stringify(await outcomes(JSON.parse(Buffer.concat(chunks).toString()))));
}
