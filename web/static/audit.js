// The page /audit: starts the replay in a Worker, shows how far it is, and keeps the newest checkpoint that was accepted.
//
// What is kept stays in this browser's local storage, under the log's name, until the reader forgets it; nothing is sent.

import { showResults } from "./panel.js";

const POLICY = "quotary-audit";
const SAID = {
  passed: "✓ Everything was replayed in this browser: each entry leads to the root, and each status follows from the entries.",
  mismatch: "✗ Contradiction. The log says otherwise than its own entries, or than what it showed before or elsewhere: see the failed row. Keep both checkpoints and the entries: they are evidence.",
  refused: "▲ Refused. Nothing contradicts, and it is not to be believed now: it stands still, entries are held back, or it has ended. See the row.",
  "could-not-check": "? As far as this browser could look, nothing contradicts. The rows that say “not checked” are what it cannot see, or did not read: quotary audit and quotary monitor do.",
  "not-found": "○ Not found.",
};

/** Only this Worker may be started, whatever a script would like to. @param {string} address */
function workerAddress(address) {
  if (!globalThis.trustedTypes) return address;
  const policy = trustedTypes.createPolicy(POLICY, { createScriptURL: (asked) => { if (asked !== address) throw new TypeError(asked); return asked; } });
  return policy.createScriptURL(address);
}

/** @param {HTMLElement} section */
function listen(section) {
  const box = (name) => section.querySelector(`[name=${name}]`), bar = section.querySelector("progress"), far = section.querySelector("[data-far]");
  const place = `quotary checkpoint ${section.dataset.origin}`, address = workerAddress(section.dataset.worker);
  const showMemory = () => {
    const kept = localStorage.getItem(place);
    section.querySelector("[data-remembered]").textContent = kept ? `This browser has accepted ${kept.split("\n")[1]} entries of this log.` : "This browser remembers nothing of this log.";
    box("kept").value = kept ?? "";
    box("forget").disabled = !kept;
  };
  const finish = (worker, { verdict, results, note }) => {
    worker.terminate();
    showResults(section, results, verdict, SAID[verdict]);
    if (note) localStorage.setItem(place, note);
    showMemory();
    [bar.hidden, box("start").disabled, section.dataset.verdict] = [true, false, verdict];
    far.textContent = "";
  };
  box("start").addEventListener("click", () => {
    delete section.dataset.verdict;
    [bar.hidden, box("start").disabled] = [false, true];
    const worker = new Worker(address, { type: "module" });
    worker.addEventListener("message", ({ data }) => {
      if (data.done) return finish(worker, data.done);
      const [what, done, of] = data.progress;
      [bar.value, bar.max, far.textContent] = [done, of, `${done} of ${of} ${what}`];
    });
    worker.addEventListener("error", () => finish(worker, { verdict: "could-not-check", results: [{ name: "this page", outcome: "not checked", detail: "the Worker did not start" }], note: null }));
    worker.postMessage({ policy: box("policy").value, limit: Number(box("limit").value), remembered: localStorage.getItem(place), elsewhere: box("elsewhere").value, now: Date.now() / 1000 });
  });
  box("forget").addEventListener("click", () => { localStorage.removeItem(place); showMemory(); });
  showMemory();
}

for (const section of document.querySelectorAll("section[data-audit]")) {
  if (globalThis.crypto?.subtle) listen(section);
  else section.querySelector("[role=status]").textContent = "Could not check: this page came over plain http from another machine, where browsers offer no cryptography.";
}
