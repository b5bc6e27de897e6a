// A Web Worker that plays the enclave: it makes its key, measures its own source, signs a quote, answers and signs receipts.
//
// SIMULATED. It measures itself after it has started, its key is made by software, and whoever controls this browser can read
// its memory or replace this file. Hardware measures before the code runs and signs with a key of its vendor.

import { concat, makeQuote, makeReceipt, newKey, sha256 } from "./layout.js";

const SOURCES = ["./worker.js", "./layout.js"], WORDS = 24;
const seconds = () => Math.floor(Date.now() / 1000);
let key, measurement;

/** SHA-256 over the sources of this enclave, one after the other. */
async function measure() {
  const parts = [];
  for (const name of SOURCES) parts.push(new Uint8Array(await (await fetch(new URL(name, import.meta.url), { cache: "no-store" })).arrayBuffer()));
  return sha256(concat(...parts));
}

/** A model of two dozen words: each says which may come next. It is no language model, and nobody else sees the prompt. */
const AFTER = {
  "": ["the"], the: ["log", "enclave", "prompt"], log: ["remembers", "grows"], enclave: ["answers", "measures"], prompt: ["stays"],
  remembers: ["every"], every: ["release"], release: ["that"], that: ["the"], grows: ["and"], and: ["the"], answers: ["here"],
  here: ["and"], measures: ["itself"], itself: ["and"], stays: ["here"],
};

/** Choose by the digest of the prompt, so that the same question has the same answer. */
async function generate(prompt) {
  const dice = await sha256(new TextEncoder().encode(prompt)), words = [];
  for (let last = "", at = 0; at < WORDS; at += 1) {
    const choices = AFTER[last];
    words.push(last = choices[dice[at % dice.length] % choices.length]);
  }
  return `${words.join(" ")}.`;
}

/** An OpenAI chat request, and an answer in its shape. */
async function answer(body) {
  const asked = JSON.parse(new TextDecoder().decode(body));
  const content = await generate(asked.messages.map((message) => message.content).join("\n"));
  const id = `chatcmpl-${crypto.randomUUID()}`, message = { role: "assistant", content };
  return new TextEncoder().encode(JSON.stringify({
    id, object: "chat.completion", created: seconds(), model: asked.model, choices: [{ index: 0, message, finish_reason: "stop" }],
  }));
}

const CALLS = {
  async boot() { [key, measurement] = [await newKey(), await measure()]; return { booted: true }; },
  async attest() { return { quote: await makeQuote(key, measurement, seconds()) }; },
  async ask(request) {
    const response = await answer(request);
    return { response, receipt: await makeReceipt(key, request, response, seconds()) };
  },
};

addEventListener("message", async ({ data: { number, call, argument } }) => {
  try { postMessage({ number, result: await CALLS[call](argument) }); }
  catch (error) { postMessage({ number, error: String(error.message ?? error) }); }
});
