// What web/static/quote.js says of evidence: standard input is a list of {evidence, pem, now, roots?}, evidence in base64.

const { VENDOR_ROOTS, checkQuote, idOf, parseQuote, simulatorRoot } = await import("../../web/static/quote.js");
const { LAYOUTS, Unsupported } = await import("../../web/static/layouts.js");
const { Malformed } = await import("../../web/static/documents.js");
const hex = (bytes) => Buffer.from(bytes).toString("hex");
const texts = (found) => Object.fromEntries(Object.entries(found).map(([name, value]) => [name, hex(value)]));

async function said({ evidence, pem, now, simulator }) {
  const data = Uint8Array.from(Buffer.from(evidence, "base64"));
  let quote;
  try { quote = parseQuote(data, pem); }
  catch (error) {
    if (error instanceof Malformed || error instanceof Unsupported) return { word: error instanceof Malformed ? "malformed" : "unsupported", detail: error.message };
    throw error;
  }
  const roots = simulator ? [simulatorRoot(quote.kind.split(" ")[0], simulator)] : VENDOR_ROOTS;
  const { results } = await checkQuote(data, { pem, now, roots }), failed = results.find(({ outcome }) => outcome === "failed" || outcome === "refused");
  const { kind, debug, reportData } = quote;
  // The rows of what is never checked here end with this one; without it, the last row is where the judgement stopped.
  const ended = results.at(-1).name === "freshness" ? (quote.chain ? "accepted" : "no chain") : results.at(-1).name;
  return { word: failed?.name ?? ended, detail: failed?.detail, results, kind, debug, reportData: hex(reportData), registers: texts(quote.registers),
    configuration: texts(quote.configuration), attributes: texts(quote.attributes), id: await idOf(quote) };
}

const chunks = [];
for await (const chunk of process.stdin) chunks.push(chunk);
const answers = [];
for (const question of JSON.parse(Buffer.concat(chunks).toString())) answers.push(await said(question));
console.log(JSON.stringify({ answers, roots: VENDOR_ROOTS, layouts: LAYOUTS }));
