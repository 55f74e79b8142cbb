// A cell, or a program, as it is shown: its code, what it prints while it prints it, and how it ended.

import { display, element, plain, text } from "./guest.js";

const MOST_CHARACTERS = 1_000_000;

export class Shown {
  constructor(code, title) {
    this.out = element("div", { className: "out" });
    this.state = element("span", { className: "muted", textContent: "running…" });
    const lines = code.split("\n");
    const head = element("summary", {}, element("code", { textContent: lines.find((each) => each.trim()) ?? "" }));
    const source = element("details", { className: "source" }, head, text(code, "code"));
    this.element = element("article", { className: "cell running" },
      element("header", {}, element("span", { className: "muted", textContent: title }), this.state), source, this.out);
    this.characters = 0;
    this.began = performance.now();
  }

  // Text to stdout or stderr; what follows on the same stream goes into the same element.
  print(stream, piece) {
    if (this.characters > MOST_CHARACTERS) return;
    this.characters += piece.length;
    if (this.characters > MOST_CHARACTERS) piece = "\n… more was printed than a page can show\n";
    let last = this.out.lastElementChild;
    if (last?.dataset.stream !== stream) {
      last = element("pre", { className: stream === "stderr" ? "text stderr" : "text" });
      last.dataset.stream = stream;
      this.out.append(last);
    }
    last.append(plain(piece));
    // A progress bar goes back to the beginning of its line.
    if (piece.includes("\r")) last.textContent = last.textContent.replace(/\r+\n/g, "\n").replace(/[^\n\r]*\r(?=[^\n])/g, "");
  }

  event(kind, value) {
    if (kind === "output") this.print(value.stream, value.text ?? atob(value.base64 ?? ""));
    else if (kind === "display") this.out.append(display(value.data));
    else if (kind === "cleared") this.out.replaceChildren();
    else if (kind === "error" && value.traceback !== undefined) this.out.append(text(value.traceback, "text stderr"));
  }

  end(ok, words) {
    const took = performance.now() - this.began;
    this.element.classList.remove("running");
    this.state.className = `badge ${ok ? "good" : "bad"}`;
    this.state.textContent = `${words} · ${took < 1000 ? `${took.toFixed(0)} ms` : `${(took / 1000).toFixed(2)} s`}`;
    if (!this.out.childElementCount) this.out.append(element("p", { className: "muted", textContent: "It showed nothing." }));
  }

  // What it reached and what it was kept from.
  traffic(result) {
    for (const each of result.refusals ?? [])
      this.out.append(element("p", { className: "hint", textContent: `refused: ${each.host}:${each.port} (${each.why})` }));
  }

  fault(error) {
    this.out.append(element("p", { className: "problem", textContent: error.message }));
    this.end(false, error.name === "AbortError" ? "ended" : "not run");
  }
}
