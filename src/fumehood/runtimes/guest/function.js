
;(async () => {
  const fs = await import("node:fs");
  const input = JSON.parse(fs.readFileSync("function-input.json", "utf8"));
  if (typeof execute !== "function") throw new Error("the code defines no function execute(input)");
  const output = await execute(input);
  let text, status = "valid";
  try { text = output === undefined ? "null" : JSON.stringify(output); } catch { text = undefined; }
  if (text === undefined) { text = "null"; status = "json_serialization_error"; }
  fs.writeFileSync("function-output.json", `{"status":"${status}","output":${text}}`);
})().catch((error) => { console.error(error); process.exitCode = 1; });
