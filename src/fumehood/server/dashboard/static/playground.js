// The playground: code, sessions and their copies, files, and one program at a time.

import { call, events, json } from "./api.js";
import { element } from "./guest.js";
import { Shown } from "./output.js";

const at = (id) => document.getElementById(id);
const form = at("bench");
const mayRead = Boolean(document.querySelector(".bench").dataset.mayRead);
const sessions = new Map(); // id to {id, language, name, status, cells}
const onceFiles = new Map(); // path to Blob: what a fresh sandbox is given
const onceCells = [];
let current = null; // the chosen session's id
let running = null; // what ends the program that runs in a fresh sandbox
let busy = 0;

const inSession = () => form.elements.where.value === "session";
const chosen = () => (inSession() ? sessions.get(current) : undefined);

form.addEventListener("submit", (event) => {
  event.preventDefault();
  guarded(() => (inSession() ? runCell() : runOnce()));
});
at("interrupt").addEventListener("click", () => guarded(async () => {
  if (inSession()) await json("POST", `/v1/sessions/${current}/interrupt`);
  else running?.abort();
}));
at("restart").addEventListener("click", () => guarded(async () => {
  learn(await json("POST", `/v1/sessions/${current}/restart`));
  note("It began anew.");
  await showFiles();
}));
at("fork").addEventListener("click", () => guarded(fork));
at("fresh").addEventListener("click", () => guarded(async () => {
  form.elements.where.value = "session";
  choose(await begin());
  at("code").focus();
}));
at("upload").addEventListener("change", () => guarded(upload));
at("language").addEventListener("change", () => {
  if (chosen() && chosen().language !== at("language").value) choose(null);
});
at("hosts").addEventListener("change", () => guarded(async () => {
  if (chosen()) learn(await json("PUT", `/v1/sessions/${current}/network`, { allow: hosts() }));
}));
for (const each of form.elements.where) each.addEventListener("change", () => { refresh(); showCells(); guarded(showFiles); });

await guarded(async () => {
  if (!mayRead) return;
  const living = (await json("GET", "/v1/sessions")).sessions.filter((each) => each.status !== "dead");
  for (const each of living) learn(each);
  if (living.length) choose(living.at(-1).id);
});
refresh();

async function runCell() {
  const code = at("code").value;
  if (!code.trim() || chosen()?.status === "busy") return;
  if (!chosen()) choose(await begin());
  const session = chosen();
  const shown = begun(code, session.name, session.cells);
  session.status = "busy";
  refresh();
  try {
    const answer = await call("POST", `/v1/sessions/${session.id}/cells`, { code }, { headers: { accept: "text/event-stream" } });
    for await (const { kind, value } of events(answer)) {
      if (kind === "result") {
        shown.traffic(value);
        shown.end(value.ok, value.ended === "finished" ? (value.ok ? "ok" : "error") : value.ended.replace("_", " "));
      } else if (kind === "error" && value.traceback === undefined) shown.fault(new Error(value.message));
      else shown.event(kind, value);
    }
  } catch (error) {
    shown.fault(error);
  }
  await look(session);
  if (session.id === current) await showFiles();
}

async function runOnce() {
  const code = at("code").value;
  if (!code.trim() || running) return;
  const shown = begun(code, at("language").selectedOptions[0].textContent, onceCells);
  running = new AbortController();
  refresh();
  try {
    const body = { code, language: at("language").value, network: { allow: hosts() }, files: await filesAsJson() };
    const answer = await call("POST", "/v1/executions", body,
      { headers: { accept: "text/event-stream" }, signal: running.signal });
    for await (const { kind, value } of events(answer)) {
      if (kind === "output") shown.event(kind, value);
      else if (kind === "error") shown.fault(new Error(value.message));
      else {
        for (const file of value.files ?? []) shown.out.append(download(file.path, () => blobOf(file)));
        shown.traffic(value);
        if (value.detail) shown.print("stderr", value.detail);
        shown.end(value.exit_code === 0 && value.reason === "exited",
          value.reason === "exited" ? `exit ${value.exit_code}` : value.reason.replaceAll("_", " "));
      }
    }
  } catch (error) {
    shown.fault(error);
  } finally {
    running = null;
    refresh();
  }
}

async function begin() {
  const network = hosts().length ? { allow: hosts() } : null;
  const made = await json("POST", "/v1/sessions", { language: at("language").value, network });
  return learn(made).id;
}

async function fork() {
  const parent = chosen();
  const answer = await json("POST", `/v1/sessions/${parent.id}/fork`, { count: 1 });
  for (const each of answer.sessions) {
    const copy = learn(each, `${tag(each)}, copy of ${tag(parent)}`);
    copy.cells.push(element("p", { className: "note", textContent: `Begins with all that ${parent.name} held.` }));
    choose(copy.id);
  }
  const lost = answer.session.lost ?? [];
  if (lost.length) note(`Not in the copy: ${lost.join(", ")}`);
}

async function end(session) {
  await json("DELETE", `/v1/sessions/${session.id}`);
  sessions.delete(session.id);
  choose(current === session.id ? ([...sessions.keys()].at(-1) ?? null) : current);
}

function tag(session) {
  return session.id.slice(-4);
}

// Take what the server says of a session.
function learn(said, name) {
  const known = sessions.get(said.id) ?? { id: said.id, cells: [], name: name ?? `${tag(said)}, ${said.language}` };
  Object.assign(known, { language: said.language, status: said.status, death: said.death });
  sessions.set(said.id, known);
  refresh();
  return known;
}

async function look(session) {
  if (!mayRead) session.status = "idle";
  else if (sessions.has(session.id)) learn(await json("GET", `/v1/sessions/${session.id}`));
  refresh();
}

function choose(id) {
  current = id;
  const session = sessions.get(id);
  const names = [...at("language").options].map((each) => each.value);
  if (session && names.includes(session.language)) at("language").value = session.language;
  refresh();
  showCells();
  guarded(showFiles);
}

// Bring buttons and the list of sessions to what is so.
function refresh() {
  const session = chosen();
  const isBusy = inSession() ? session?.status === "busy" : Boolean(running);
  at("run").disabled = isBusy;
  at("interrupt").disabled = !isBusy;
  at("fork").disabled = !session || isBusy || session.status === "dead";
  at("restart").disabled = !session || isBusy;
  at("no-session").hidden = sessions.size > 0;
  const rows = [...sessions.values()].map(row);
  const focused = document.activeElement?.dataset?.key;
  at("sessions").replaceChildren(at("sessions").firstElementChild, ...rows);
  if (focused) at("sessions").querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
}

function row(session) {
  const pick = element("input", { type: "radio", name: "session", value: session.id, checked: session.id === current });
  pick.dataset.key = `pick-${session.id}`;
  pick.addEventListener("change", () => { form.elements.where.value = "session"; choose(session.id); });
  const words = session.status === "dead" ? `ended: ${session.death?.reason ?? ""}`.replaceAll("_", " ") : session.status;
  const state = element("span", { className: `badge ${{ busy: "busy", dead: "bad" }[session.status] ?? ""}`, textContent: words });
  const drop = element("button", { type: "button", className: "link danger", textContent: "End", ariaLabel: `End ${session.name}` });
  drop.dataset.key = `end-${session.id}`;
  drop.addEventListener("click", () => guarded(() => end(session)));
  return element("div", { className: "session" }, element("label", {}, pick, element("span", { textContent: session.name })), state, drop);
}

function begun(code, title, cells) {
  const shown = new Shown(code, title);
  cells.unshift(shown.element);
  showCells();
  return shown;
}

function showCells() {
  const cells = inSession() ? (sessions.get(current)?.cells ?? []) : onceCells;
  at("output").replaceChildren(...cells);
  at("nothing").hidden = cells.length > 0;
}

function note(words) {
  sessions.get(current)?.cells.unshift(element("p", { className: "note", textContent: words }));
  showCells();
}

// Files

async function showFiles() {
  const session = chosen();
  let rows = [];
  if (!inSession()) rows = [...onceFiles].map(([path, blob]) => element("li", {}, download(path, () => blob)));
  else if (session && mayRead && session.status === "idle") {
    const listed = (await json("GET", `/v1/sessions/${session.id}/files`)).files;
    rows = listed.map(({ path, size }) => element("li", {},
      download(path, async () => (await call("GET", fileAt(session, path))).blob()), element("span", { className: "muted", textContent: amount(size) })));
  }
  if (session?.id !== chosen()?.id) return;
  at("files").replaceChildren(...rows);
  at("no-files").hidden = rows.length > 0;
}

async function upload() {
  for (const file of [...at("upload").files]) {
    if (!inSession()) onceFiles.set(file.name, file);
    else {
      if (!chosen()) choose(await begin());
      await call("PUT", fileAt(chosen(), file.name), new Blob([file]));
    }
  }
  at("upload").value = "";
  await showFiles();
}

function fileAt(session, path) {
  return `/v1/sessions/${session.id}/files/${path.split("/").map(encodeURIComponent).join("/")}`;
}

function download(path, content) {
  const button = element("button", { type: "button", className: "link breaks", textContent: path, ariaLabel: `Download ${path}` });
  button.addEventListener("click", () => guarded(async () => {
    // As bytes and nothing else, whatever is in it.
    const url = URL.createObjectURL(new Blob([await content()], { type: "application/octet-stream" }));
    element("a", { href: url, download: path.split("/").at(-1) }).click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
  }));
  return button;
}

async function filesAsJson() {
  const files = {};
  for (const [path, blob] of onceFiles) {
    const bytes = new Uint8Array(await blob.arrayBuffer());
    let binary = "";
    for (let start = 0; start < bytes.length; start += 0x8000) binary += String.fromCharCode(...bytes.subarray(start, start + 0x8000));
    files[path] = { base64: btoa(binary) };
  }
  return files;
}

function blobOf(file) {
  if (file.base64 === undefined) return new Blob([file.text ?? ""]);
  return new Blob([Uint8Array.from(atob(file.base64), (each) => each.charCodeAt(0))]);
}

function amount(size) {
  return size < 1024 ? `${size} B` : size < 1 << 20 ? `${(size / 1024).toFixed(1)} KiB` : `${(size / (1 << 20)).toFixed(1)} MiB`;
}

function hosts() {
  return at("hosts").value.split(/[\s,]+/).filter(Boolean);
}

// Do something, and say what went wrong where that is so.
async function guarded(work) {
  at("says").hidden = true;
  busy += 1;
  document.body.classList.add("waiting");
  try {
    await work();
  } catch (error) {
    at("says").textContent = error.message;
    at("says").hidden = false;
  } finally {
    busy -= 1;
    document.body.classList.toggle("waiting", busy > 0);
    refresh();
  }
}
