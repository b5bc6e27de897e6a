// What the browser's code says of each document: standard input is a JSON list of {kind, data}, the answer a list of verdicts.

const BASE = globalThis.QUOTARY_STATIC ?? "../../web/static/";

export async function verdicts(cases) {
  const [documents, statements, verify] = await Promise.all(["documents", "statements", "verify"].map((name) => import(`${BASE}${name}.js`)));
  const malformed = [documents.Malformed, verify.Malformed];
  const text = (data) => {
    try { return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(data); }
    catch { throw new verify.Malformed("not UTF-8"); }
  };
  const readers = {
    json: (data) => documents.parseDocument(data),
    entry: (data) => statements.parseStatement(data),
    note: (data) => verify.parseNote(text(data)),
    checkpoint: (data) => verify.parseCheckpoint(text(data)),
    proof: (data) => verify.parseProof(text(data)),
    vkey: (data) => verify.parseVerifierKey(text(data)),
  };
  const found = [];
  for (const { kind, data } of cases) {
    try {
      await readers[kind](Uint8Array.from(atob(data), (c) => c.charCodeAt(0)));
      found.push("accepted");
    } catch (error) {
      if (error instanceof statements.UnknownKind) found.push("unsupported");
      else if (malformed.some((kind) => error instanceof kind)) found.push("malformed");
      else found.push(`${error?.name}: ${error?.message}`);
    }
  }
  return found;
}

if (globalThis.process?.argv?.[2] === "run") {
  const chunks = [];
  for await (const chunk of process.stdin) chunks.push(chunk);
  console.log(JSON.stringify(await verdicts(JSON.parse(Buffer.concat(chunks).toString()))));
}
