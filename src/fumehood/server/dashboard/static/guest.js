// What a program displayed. Its text is only ever set as text; its HTML goes into a frame of no origin, by a message.

const PICTURES = ["image/png", "image/jpeg"];
const BASE64 = /^[A-Za-z0-9+/\s]+={0,2}\s*$/;
const ANSI = /\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b./g;
const frames = new Map();
const MOST_PIXELS = 4000;

addEventListener("message", (message) => {
  const frame = frames.get(message.source);
  const height = Number(message.data?.height);
  // Any frame may say anything: of ours, a number counts, within bounds.
  if (frame?.isConnected && height >= 0) frame.height = Math.min(MOST_PIXELS, Math.max(24, Math.ceil(height)));
});

export function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

export function plain(text) {
  return String(text).replace(ANSI, "");
}

export function text(value, name = "text") {
  return element("pre", { className: name, textContent: plain(value) });
}

export function framed(html) {
  const box = element("div", { className: "guest" });
  box.append(frame(html, "/frame"));
  if (/<script/i.test(html)) {
    const run = element("button", { type: "button", className: "link", textContent: "Run them" });
    const hint = element("p", { className: "hint" }, "Scripts in it were left out. ", run,
      " They get no network and nothing of this page, but may keep it busy.");
    run.addEventListener("click", () => box.replaceChildren(frame(html, "/frame/scripts")));
    box.append(hint);
  }
  return box;
}

export function display(data) {
  if (typeof data["text/html"] === "string") return framed(data["text/html"]);
  for (const kind of PICTURES)
    if (typeof data[kind] === "string" && BASE64.test(data[kind]))
      return element("img", {
        className: "figure", alt: "A figure that the program displayed", src: `data:${kind};base64,${data[kind]}`,
      });
  if (typeof data["image/svg+xml"] === "string") return framed(data["image/svg+xml"]);
  const kind = ["text/plain", "text/markdown", "text/latex"].find((each) => each in data) ?? Object.keys(data)[0];
  const value = data[kind] ?? "";
  return text(typeof value === "string" ? value : JSON.stringify(value, null, 2));
}

function frame(html, path) {
  const made = element("iframe", { title: "HTML that the program displayed", height: 40, loading: "eager" });
  made.setAttribute("sandbox", "allow-scripts");
  made.addEventListener("load", () => {
    frames.set(made.contentWindow, made);
    // It has no origin to name. It was not elsewhere before: nothing of the guest's is in it yet.
    made.contentWindow.postMessage(html, "*");
  }, { once: true });
  made.src = path;
  return made;
}
