// Calls of the API by this page's visitor: the cookie says who that is, the header that it is our page that asks.

const OURS = { "x-fumehood-dashboard": "1" };

export class Refused extends Error {
  constructor(status, body) {
    super(body.message || `the service answered ${status}`);
    this.status = status;
    this.kind = body.kind || "";
  }
}

export async function call(method, path, body, options = {}) {
  const headers = { ...OURS, ...options.headers };
  if (body !== undefined && !(body instanceof Blob)) {
    headers["content-type"] = "application/json";
    body = JSON.stringify(body);
  }
  const answer = await fetch(path, { method, headers, body, signal: options.signal });
  if (answer.status === 401) location.assign(`/login?next=${encodeURIComponent(location.pathname)}`);
  if (!answer.ok) throw new Refused(answer.status, await answer.json().catch(() => ({})));
  return answer;
}

export async function json(method, path, body) {
  return (await call(method, path, body)).json();
}

// Give each server-sent event of an answer, as it comes (WHATWG HTML, 9.2.6; ours have LF alone).
export async function* events(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let left = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      left += value;
      const blocks = left.split("\n\n");
      left = blocks.pop();
      for (const block of blocks) {
        const fields = {};
        for (const line of block.split("\n")) {
          const colon = line.indexOf(":");
          if (colon > 0) fields[line.slice(0, colon)] = line.slice(colon + 1).trimStart();
        }
        if (fields.event) yield { kind: fields.event, id: fields.id, value: JSON.parse(fields.data) };
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
