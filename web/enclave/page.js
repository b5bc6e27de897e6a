// The page: boot, attest, ask, verify, once with a Worker that plays the enclave and once with a live one behind the proxy.

import { sheet } from "../static/bundle.js";
import { canonical } from "../static/documents.js";
import { checkDocument, checkExchange } from "./evidence.js";
import { Rejected, concat, fromHex, hex, makeQuote, newKey, sha256, toBase64, verifyQuote, verifyReceipt } from "./layout.js";

const SIGNS = { passed: "✓ passed", failed: "✗ failed", "not checked": "? not checked", refused: "▲ refused", "not found": "○ not found" };
const box = (id) => document.getElementById(id);
const utf8 = (text) => new TextEncoder().encode(text), json = (bytes) => JSON.parse(new TextDecoder().decode(bytes));

async function read(path, options) {
  const answer = await fetch(path, { cache: "no-store", ...options }), bytes = new Uint8Array(await answer.arrayBuffer());
  if (!answer.ok) throw new Rejected(`${path.split("?")[0]} answered ${answer.status}: ${new TextDecoder().decode(bytes).slice(0, 300)}`);
  return { bytes, headers: answer.headers };
}

/** The Worker that plays an enclave. What it must measure, this page reads for itself. */
class Simulated {
  label = "SIMULATED: a Web Worker in this browser plays the enclave. This proves nothing about any hardware.";

  async boot() {
    this.worker?.terminate();
    this.worker = new Worker("worker.js", { type: "module" });
    this.waiting = new Map();
    this.worker.addEventListener("message", ({ data }) => this.waiting.get(data.number)?.(data));
    await this.call("boot");
    return "the Worker has made its key and measured its own source";
  }

  call(call, argument) {
    const number = this.waiting.size;
    return new Promise((resolve, reject) => {
      this.waiting.set(number, ({ result, error }) => (error === undefined ? resolve(result) : reject(new Rejected(error))));
      this.worker.postMessage({ number, call, argument });
    });
  }

  attest() { return this.call("attest"); }

  async check() {
    const sources = await Promise.all(["worker.js", "layout.js"].map((name) => read(name)));
    const rows = [{ name: "hardware", outcome: "not checked", detail: "there is none: the Worker signs with a key of its own" }];
    return { rows, believed: true, measurement: await sha256(concat(...sources.map(({ bytes }) => bytes))), keys: null };
  }

  model() { return "two-dozen-words"; }

  ask(request) { return this.call("ask", request); }

  async checkMore() { return []; /* The Worker signs one receipt only. */ }
}

/** An enclave behind the proxy that serves this page; the proxy seals what is asked. */
class Live {
  async boot() {
    this.policy = new TextDecoder().decode((await read("/policy.json")).bytes);
    this.label = JSON.parse(this.policy).environment === "simulation"
      ? "SIMULATED: the evidence of this enclave comes from a simulator. It proves nothing about any hardware."
      : "Live: the evidence of this enclave is judged under its vendor's root.";
    const state = json((await read("/verdict.json")).bytes);
    return `the proxy has judged ${state.service}, release ${state.release}; this page judges again`;
  }

  async attest() {
    const nonce = crypto.getRandomValues(new Uint8Array(32));
    const evidence = (await read(`/v1/attestation?nonce=${hex(nonce)}`)).bytes;
    return { nonce, evidence, policy: this.policy, quote: json((await read("/v1/browser/quote")).bytes) };
  }

  async check(shown, answer) {
    const { rows, believed, keyset, measurement } = await checkDocument(shown, answer?.own ?? null, Math.floor(Date.now() / 1000));
    if (!believed) return { rows, believed };
    this.service = keyset.service;
    const keys = keyset.keys.filter(({ role, alg }) => role === "door" && alg === "p-256").map(({ pub }) => pub);
    return { rows, believed, measurement: fromHex(measurement, 32), keys };
  }

  model() { return this.service; }

  async ask(request) {
    const salt = crypto.getRandomValues(new Uint8Array(32)), said = { "content-type": "application/json", "receipt-salt": toBase64(salt) };
    const { bytes: response, headers } = await read("/v1/chat/completions", { method: "POST", body: request, headers: said });
    const id = json(response).id, receipt = json((await read(`/v1/browser/receipt/${id}`)).bytes);
    return { response, receipt, salt, own: (await read(`/v1/receipts/${headers.get("x-receipt-id")}`)).bytes };
  }

  async checkMore(request, { own, response, salt }) { return checkExchange(own, { request, response, salt }); }
}

const flip = (data, at) => data.map((byte, place) => (place === at ? byte ^ 1 : byte));
const flipText = (text) => toBase64(flip(Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)), 0));
/** What an attacker would do on the way; each gives changed copies. */
const TAMPER = {
  "tamper-measurement": ({ shown }) => ({ shown: { ...shown, quote: { ...shown.quote, measurement: hex(flip(fromHex(shown.quote.measurement, 32), 0)) } } }),
  "tamper-key": async ({ shown }) => {
    const { publicKey } = await crypto.subtle.generateKey({ name: "ECDSA", namedCurve: "P-256" }, false, ["sign", "verify"]);
    return { shown: { ...shown, quote: { ...shown.quote, key: toBase64(new Uint8Array(await crypto.subtle.exportKey("raw", publicKey))) } } };
  },
  // In the simulation nobody could tell before an answer comes: a quote that signs itself proves nothing of its key.
  "tamper-signer": async ({ shown }) => ({ shown: { ...shown, quote: await makeQuote(await newKey(), fromHex(shown.quote.measurement, 32), shown.quote.time) } }),
  "tamper-evidence": ({ shown }) => {
    const document = json(shown.evidence), quote = Uint8Array.from(atob(document.cpu.evidence), (letter) => letter.charCodeAt(0));
    document.cpu.evidence = toBase64(flip(quote, 48 + 136));
    return { shown: { ...shown, evidence: utf8(JSON.stringify(document)) } };
  },
  "tamper-log": ({ shown }) => {
    const document = json(shown.evidence), bundle = JSON.parse(atob(document.bundle));
    bundle.release.path[0] = flipText(bundle.release.path[0]);
    document.bundle = btoa(JSON.stringify(bundle));
    return { shown: { ...shown, evidence: utf8(JSON.stringify(document)) } };
  },
  "tamper-owner": ({ shown }) => {
    const policy = JSON.parse(shown.policy);
    for (const service of Object.values(policy.services)) service.owner.threshold += 1;
    return { shown: { ...shown, policy: JSON.stringify(policy) } };
  },
  "tamper-salt": ({ answer }) => ({ answer: { ...answer, salt: flip(answer.salt, 0) } }),
  "tamper-receipt": ({ answer }) => {
    const own = json(answer.own);
    own.tokens.out += 1;
    return { answer: { ...answer, own: utf8(canonical(own)) } };
  },
  "tamper-answer": ({ answer }) => ({ answer: { ...answer, response: utf8(new TextDecoder().decode(answer.response).replace(/"content":"/, '"content":"not ')) } }),
  "tamper-question": ({ request }) => ({ request: concat(request, utf8(" ")) }),
};

let enclave, session = {};

function tell(text) { box("status").textContent = text; }

function show(rows) {
  box("checks").replaceChildren(...rows.map((result) => {
    const row = document.createElement("tr");
    row.className = result.outcome.replace(" ", "-");
    for (const text of [SIGNS[result.outcome], result.name, result.detail]) row.insertCell().textContent = text;
    return row;
  }));
  const bad = rows.find(({ outcome }) => !["passed", "not checked"].includes(outcome)), open = rows.find(({ undecided }) => undecided), stop = bad ?? open;
  box("outcome").dataset.outcome = bad ? "failed" : open ? "undecided" : "passed";
  box("outcome").textContent = stop
    ? `${bad ? "✗ Not believed" : "? Not believed, it could not be checked here"}: ${stop.name}. ${stop.detail}`
    : `✓ ${rows.filter(({ outcome }) => outcome === "passed").length} checks passed in this browser; ${rows.filter(({ outcome }) => outcome === "not checked").length} were not made here.`;
}

/** Every check over what this page holds, or over changed copies of it. */
async function verify(changed = {}) {
  const { shown, answer, request } = { ...session, ...changed }, { results, check } = sheet();
  try {
    const wanted = await enclave.check(shown, answer);
    results.push(...wanted.rows);
    if (wanted.believed) await checkDoor(wanted, shown, answer, request, check);
    if (wanted.believed && answer) results.push(...await enclave.checkMore(request, answer));
  } catch (error) { results.push({ name: "page", outcome: "failed", detail: String(error.message ?? error) }); }
  show(results);
}

/** The quote and the receipt in P-256, which the Worker makes too. */
async function checkDoor({ measurement, keys }, { quote }, answer, request, check) {
  const named = await check("quote", async () => ({ key: await verifyQuote(quote, measurement), text: `measurement ${quote.measurement}, signed by the key that it names` }));
  if (!named) return;
  if (keys) await check("key of the quote", () => {
    if (!keys.includes(quote.key)) throw new Rejected("the key of the quote is not in the attested keyset");
    return "stands in the keyset that the hardware's evidence binds";
  });
  if (answer) await check("receipt", async () => {
    await verifyReceipt(answer.receipt, named.key, request, answer.response);
    return "signed by the attested key over this question and this answer";
  });
}

const STEPS = {
  async boot() {
    enclave = box("live").checked ? new Live() : new Simulated();
    session = {};
    const said = await enclave.boot();
    box("label").textContent = enclave.label;
    for (const button of document.querySelectorAll("[data-live]")) button.hidden = !(enclave instanceof Live);
    tell(`Booted: ${said}.`);
  },
  async attest() {
    session = { shown: await enclave.attest() };
    await verify();
    tell("Attested: see the checks.");
  },
  async ask() {
    const messages = [{ role: "user", content: box("question").value }];
    session.request = utf8(JSON.stringify({ model: enclave.model(), messages, max_tokens: 48 }));
    session.answer = await enclave.ask(session.request);
    const { shown: { quote }, answer: { receipt, response }, request } = session;
    box("kept").textContent = JSON.stringify({ type: "quotary/browser/v1", quote, receipt, request: toBase64(request), response: toBase64(response) }, null, 1);
    box("answer").textContent = json(session.answer.response).choices[0].message.content;
    await verify();
    tell("Answered: see the checks.");
  },
  verify: () => verify(),
};

/** Which buttons make sense now. */
function enable() {
  const passed = box("outcome").dataset.outcome === "passed";
  box("attest").disabled = !enclave;
  box("ask").disabled = !session.shown || !passed;
  box("verify").disabled = !session.shown;
  for (const name of Object.keys(TAMPER)) box(name).disabled = !(/-(answer|question|salt|receipt)$/.test(name) ? session.answer : session.shown);
}

async function run(work) {
  for (const button of document.querySelectorAll("button")) button.disabled = true;
  try { await work(); } catch (error) { tell(`Failed: ${error.message ?? error}`); box("outcome").dataset.outcome = "failed"; }
  box("boot").disabled = false;
  enable();
  document.body.dataset.idle = String(Number(document.body.dataset.idle ?? 0) + 1);
}

if (globalThis.crypto?.subtle) {
  for (const [name, step] of Object.entries(STEPS)) box(name).addEventListener("click", () => run(step));
  for (const [name, change] of Object.entries(TAMPER)) box(name).addEventListener("click", () => run(async () => verify(await change(session))));
  enable();
} else tell("Nothing can be checked: this page came over plain http from another machine, where browsers offer no cryptography.");
