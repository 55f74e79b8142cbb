"""A real HTTP server on a free port whose answers a test times and ends as it likes: headers, pauses, broken lines."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from fumehood.llm.mistral import MistralModel
from fumehood.llm.openai_compatible import OpenAICompatible
from fumehood.llm.port import Completion, Message, ToolSchema, UserMessage
from fumehood.protocol.record import Record

EVENTS = "text/event-stream"
TOOL = ToolSchema(name="exec_python", description="Run.", parameters={"type": "object"})
QUESTION: list[Message] = [UserMessage(text="q")]


class Reply(Record):
    """One answer. `drip` is sent after the body again and again, each 20 ms, until the client hangs up or the test ends."""

    body: bytes = b""
    status: int = 200
    kind: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()
    drip: bytes = b""
    drip_seconds: float = 60
    #: Promise more bytes than come, so that the end is a broken line.
    broken: bool = False
    #: Say nothing more after the body, with the line open.
    silent: bool = False


class QuirkyServer:
    """Gives its replies in turn while its `with` lasts; remembers the requests and when they came."""

    def __init__(self, *replies: Reply) -> None:
        self.requests: list[dict[str, Any]] = []
        self.times: list[float] = []
        self.keys: list[str] = []
        self._replies = list(replies)
        self._ended = threading.Event()
        quirky = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_arguments: object) -> None:
                """Keep the tests' output clean."""

            def do_POST(self) -> None:
                quirky.times.append(time.monotonic())
                quirky.keys.append(self.headers.get("authorization", ""))
                quirky.requests.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                quirky._give(self, quirky._replies.pop(0))

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._ended.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _give(self, handler: BaseHTTPRequestHandler, reply: Reply) -> None:
        handler.send_response(reply.status)
        handler.send_header("content-type", reply.kind)
        for name, value in reply.headers:
            handler.send_header(name, value)
        if reply.broken:
            handler.send_header("content-length", str(len(reply.body) + 100))
        handler.end_headers()
        try:
            handler.wfile.write(reply.body)
            handler.wfile.flush()
            ends = time.monotonic() + reply.drip_seconds
            while reply.drip and time.monotonic() < ends and not self._ended.wait(0.02):
                handler.wfile.write(reply.drip)
                handler.wfile.flush()
        except (BrokenPipeError, ConnectionResetError):
            return  # the client gave up, as it should
        if reply.silent:
            self._ended.wait(30)


def stream(*choices: dict[str, Any] | None, done: bool = True) -> bytes:
    """Return a stream of choices, each as written; None is the piece that holds the count of tokens alone."""
    head = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    usage = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    chunks = [
        {**head, "choices": [], "usage": usage} if choice is None else {**head, "choices": [{"index": 0, **choice}]}
        for choice in choices
    ]
    lines: Sequence[str] = [json.dumps(chunk) for chunk in chunks] + (["[DONE]"] if done else [])
    return "".join(f"data: {line}\n\n" for line in lines).encode()


def piece(finish_reason: str | None = None, **delta: Any) -> dict[str, Any]:
    """Return a choice of a stream."""
    return {"delta": delta, "finish_reason": finish_reason}


def ask(
    kind: str, server: QuirkyServer, *, streamed: bool = False, seconds: float = 10, **options: Any
) -> tuple[Completion, list[str]]:
    """Ask once; return the answer and the pieces of text heard."""
    heard: list[str] = []
    on_text: Callable[[str], None] | None = heard.append if streamed else None
    model = (
        MistralModel("m", key="k", server_url=server.url, timeout_seconds=seconds)
        if kind == "mistral"
        else OpenAICompatible("m", base_url=f"{server.url}/v1", timeout_seconds=seconds)
    )
    return model.complete(options.pop("messages", QUESTION), tools=[TOOL], on_text=on_text, **options), heard
