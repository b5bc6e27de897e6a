// What web/static/replay.js says of logs: standard input is a list of {files, ...given}, files in base64 by path.

const { auditLog } = await import("../../web/static/replay.js");

const chunks = [];
for await (const chunk of process.stdin) chunks.push(chunk);
const answers = [];
for (const { files, ...given } of JSON.parse(Buffer.concat(chunks).toString())) {
  const asked = [], read = async (path) => {
    asked.push(path);
    if (!(path in files)) throw new Error(`no ${path}`);
    return Uint8Array.from(Buffer.from(files[path], "base64"));
  };
  answers.push({ ...await auditLog({ ...given, read }, () => {}), asked });
}
console.log(JSON.stringify(answers));
