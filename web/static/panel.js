// What the pages show of the checks: rows, a verdict in words and in its own shape, and what a reader pastes or drops.
//
// The checks themselves are in verify.js and in the modules beside it, which touch no page.

import { NotHere, checkEntry, checkPasted, kinds, parseCheckpoint, parseProof } from "./verify.js";

const utf8 = new TextEncoder();
const SIGNS = { passed: "✓ passed", failed: "✗ failed", "not checked": "? not checked", refused: "▲ refused", "not found": "○ not found" };
const PANELS = {
  passed: "Every check passed in this browser, under the keys in the box. Whether the log has ended since does not stand in what was pasted.",
  mismatch: "✗ Mismatch. A hash or a signature contradicts another: see the failed row. Fetch the file again; if it stays, keep everything.",
  "could-not-check": "? Could not check. This says nothing about the log: see the row for what is missing, and use the command line.",
  "not-found": "○ Not found. A proof and its entry belong together; one of them is not here.",
  refused: "▲ Refused. The text may be sound, but it is not to be believed: the policy demands more, the log has ended, or a machine may be debugged. See the row.",
};

function rowOf(result) {
  const row = document.createElement("tr");
  row.className = result.outcome.replace(" ", "-");
  for (const text of [SIGNS[result.outcome], result.name, result.detail]) row.insertCell().textContent = text;
  return row;
}

/** Fill a section's table, and say the verdict in words and in its own shape. @param {HTMLElement} section */
export function showResults(section, results, verdict, words) {
  section.querySelector("tbody").replaceChildren(...results.map(rowOf));
  section.querySelector("table").hidden = false;
  const status = section.querySelector("[role=status]");
  status.className = `verdict ${verdict}`;
  status.textContent = words;
}

/** What the subject says, below the checks: nothing there is believed further than they go. */
function showFacts(section, said = []) {
  const table = section.querySelector("table[data-said]");
  table.hidden = said.length === 0;
  table.tBodies[0].replaceChildren(...said.map((cells) => {
    const row = document.createElement("tr");
    for (const text of cells) row.insertCell().textContent = text;
    return row;
  }));
}

/** A dropped file as text; evidence, which is none, in base64. @param {File} file */
async function textOf(file) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  try { return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes); }
  catch { return btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join("")); }
}

/** Which of several texts the others stand beside: a receipt, or whatever is neither JSON nor certificates. */
function subjectOf(texts) {
  return texts.find((text) => text.includes('"receipt_id"')) ?? texts.find((text) => !/^\s*(\{|-----BEGIN)/.test(text));
}

/** @param {HTMLElement} section of the page /verify */
function listen(section) {
  const box = (id) => section.querySelector(`#${id}`);
  const work = async () => {
    delete section.dataset.verdict;
    const file = box("file").files[0], typed = box("entry").value.replace(/\n+$/, "");
    const entry = typed ? utf8.encode(typed) : file ? new Uint8Array(await file.arrayBuffer()) : null;
    const subject = box("subject").value, kind = kinds.find(({ matches }) => matches(subject));
    const { verdict, results, said, words } = await (kind ? kind.check(subject, box("keys").value, typed) : checkPasted(subject, entry, box("keys").value));
    showResults(section, results, verdict, words ?? PANELS[verdict]);
    showFacts(section, said);
    section.dataset.verdict = verdict;
  };
  section.querySelector("button").addEventListener("click", work);
  section.addEventListener("dragover", (event) => event.preventDefault());
  section.addEventListener("drop", async (event) => {
    if (!event.dataTransfer.files.length) return;
    event.preventDefault();
    const texts = await Promise.all([...event.dataTransfer.files].map(textOf));
    const held = box("subject").value, subject = subjectOf(texts) ?? (held || texts[0]);
    const beside = texts.filter((text) => text !== subject), before = subject === held ? box("entry").value : "";
    box("subject").value = subject;
    box("entry").value = [before, ...beside].filter(Boolean).join("\n");
    await work();
  });
}

/** The last entry of a log of this size with its proof, where the server gives it. @param {bigint} size */
async function lastOf(size) {
  const [entry, proof] = await Promise.all(["entries", "proofs"].map((kind) => fetch(`/api/v1/${kind}/${size - 1n}`)));
  if (entry.ok && proof.ok) return { entry: new Uint8Array(await entry.arrayBuffer()), proof: await proof.text() };
}

/** @param {HTMLElement} section */
async function run(section) {
  const body = section.querySelector("tbody"), summary = section.querySelector("[role=status]");
  let results;
  try {
    const get = async (name) => {
      const answer = await fetch(section.dataset[name]);
      if (!answer.ok) throw new NotHere(`${section.dataset[name]} answered ${answer.status}`);
      return answer;
    };
    const entry = new Uint8Array(await (await get("entry")).arrayBuffer());
    const proof = await (await get("proof")).text(), { size } = parseCheckpoint(parseProof(proof).note.text);
    results = await checkEntry(entry, proof, section.querySelector("textarea").value, await lastOf(size));
  } catch (error) {
    results = [{ name: "fetch", outcome: "not checked", detail: String(error.message ?? error) }];
  }
  body.replaceChildren(...results.map(rowOf));
  const count = (outcome) => results.filter((result) => result.outcome === outcome).length;
  section.dataset.outcome = ["failed", "refused", "passed"].find(count) ?? "not-checked";
  summary.textContent = count("refused")
    ? "This browser found that the log has ended: what it says counts for nothing any more. See the row."
    : count("failed")
    ? `This browser found ${count("failed")} contradiction(s). Keep this page and compare with: quotary verify.`
    : `This browser checked ${count("passed")} of ${results.length} statements itself; ${count("not checked")} could not be checked here.`;
}

if (typeof document !== "undefined") {
  for (const section of document.querySelectorAll("section[data-proof]")) {
    section.querySelector("button").addEventListener("click", () => run(section));
    if (globalThis.crypto?.subtle) run(section);
    else section.querySelector("[role=status]").textContent = "Not checked: this page came over plain http from another machine, where browsers offer no cryptography.";
  }
  for (const section of document.querySelectorAll("section[data-paste]")) {
    if (globalThis.crypto?.subtle) listen(section);
    else section.querySelector("[role=status]").textContent = "Could not check: this page came over plain http from another machine, where browsers offer no cryptography.";
  }
}
