"""A real HTTP server on a free port that answers every request with bytes that a test wrote down.

For what no library would send: half a line, a field of another type, an error in the middle of a stream.
"""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


class RawServer:
    """Serves while its `with` lasts; the last body is given again when there are more requests than bodies.

    With `hold` the second half of each body is sent once that event is set.
    """

    def __init__(
        self, *bodies: bytes, status: int = 200, kind: str = "application/json", hold: threading.Event | None = None
    ) -> None:
        self.requests: list[dict[str, Any]] = []
        raw = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_arguments: object) -> None:
                """Keep the tests' output clean."""

            def do_POST(self) -> None:
                raw.requests.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                body = bodies[min(len(raw.requests), len(bodies)) - 1]
                self.send_response(status)
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                half = len(body) // 2
                self.wfile.write(body[:half])
                if hold is not None:
                    self.wfile.flush()
                    hold.wait(30)
                self.wfile.write(body[half:])

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def whole(message: dict[str, Any], **answer: Any) -> bytes:
    """Return a chat completion; `finish_reason` and fields of the answer may be given."""
    choice = {
        "index": 0,
        "message": {"role": "assistant", **message},
        "finish_reason": answer.pop("finish_reason", "stop"),
    }
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    value = {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage}
    return json.dumps({**value, **answer}).encode()


def events(*deltas: dict[str, Any], finish_reason: str | None = "stop") -> bytes:
    """Return a stream with one event a delta, then the finish reason."""
    choices: list[dict[str, Any]] = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    choices.append({"index": 0, "delta": {"content": ""}, "finish_reason": finish_reason})
    head = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    lines = [json.dumps({**head, "choices": [choice]}) for choice in choices]
    return "".join(f"data: {line}\n\n" for line in [*lines, "[DONE]"]).encode()
