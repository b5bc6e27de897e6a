// What web/static/verify.js and bundle.js say: standard input is a list of {call, arguments}, the answer a list of what the calls gave.

const { checkEntry, checkPasted } = await import("../../web/static/verify.js");
const { checkBundle, checkStatement } = await import("../../web/static/bundle.js");
const { checkDeviceList } = await import("../../web/static/devices.js");
const { checkKept } = await import("../../web/static/kept.js");
const { checkEvidence, checkReceipt } = await import("../../web/static/pasted.js");
const { rootsOf } = await import("../../web/static/quote.js");
const { wouldBoot } = await import("../../web/static/boot.js");
const calls = { checkDeviceList, checkKept, checkReceipt, checkEvidence, rootsOf, wouldBoot, checkEntry, checkPasted, checkBundle, checkStatement };
// Bytes are written {"bytes": base64}, wherever they stand.
const read = (value) => {
  if (value === null || typeof value !== "object") return value;
  if (typeof value.bytes === "string") return Uint8Array.from(atob(value.bytes), (c) => c.charCodeAt(0));
  return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, read(item)]));
};

const chunks = [];
for await (const chunk of process.stdin) chunks.push(chunk);
const found = [];
for (const { call, arguments: given } of JSON.parse(Buffer.concat(chunks).toString())) found.push(await calls[call](...given.map(read)));
console.log(JSON.stringify(found));
