"""Real HTTP servers on a free port that speak chat completions as OpenAI-compatible servers and as Mistral do.

Each answers from a script: a list of replies, one a request, and remembers the requests. A reply is a dict with
`text`, `calls`, `finish_reason`, `usage`; or one of the strange ones of `Strange`.
"""

from __future__ import annotations

import json
import threading
import time
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


class Strange(Enum):
    """Replies that no client hopes for."""

    NEVER = "no answer"
    HANG_UP = "the connection closes in the middle of a stream"
    NO_CHOICES = "an answer without choices"
    GARBAGE = "not JSON"


class ChatServer:
    """Serves while its `with` lasts. `mistral` selects whose shapes it speaks."""

    def __init__(self, *replies: dict[str, Any] | Strange | int, mistral: bool = False) -> None:
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self._replies = list(replies)
        self._mistral = mistral
        self._released = threading.Event()
        chat = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_arguments: object) -> None:
                """Keep the tests' output clean."""

            def do_GET(self) -> None:
                chat._send(self, 200, {"object": "list", "data": [{"id": "first-model"}, {"id": "second"}]})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                chat.requests.append(body)
                chat.keys.append(self.headers.get("authorization", ""))
                chat._reply(self, body)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    @property
    def port(self) -> int:
        return self._server.server_address[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._released.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _reply(self, handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        reply = self._replies.pop(0) if self._replies else 500
        if reply is Strange.NEVER:
            self._released.wait(30)
            handler.close_connection = True
        elif isinstance(reply, int):
            message = {"message": f"refused with {reply}", "type": "test", "param": None, "code": "1"}
            self._send(handler, reply, {"object": "error", **message} if self._mistral else {"error": message})
        elif reply is Strange.NO_CHOICES:
            self._send(handler, 200, {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [],
                                      "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}})  # fmt: skip
        elif reply is Strange.GARBAGE:
            self._send_bytes(handler, 200, b"<html>proxy says hello</html>", "application/json")
        elif body.get("stream"):
            self._stream(
                handler, {"text": "Hel"} if reply is Strange.HANG_UP else reply, whole=reply is not Strange.HANG_UP
            )
        else:
            self._send(handler, 200, self._completion(reply if isinstance(reply, dict) else {}))

    def _completion(self, reply: dict[str, Any]) -> dict[str, Any]:
        message = {"role": "assistant", "content": reply.get("text"), "tool_calls": _calls(reply) or None}
        choice = {"index": 0, "message": message, "finish_reason": _reason(reply)}
        usage = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
        answer = {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
        return answer if reply.get("usage") is False and not self._mistral else {**answer, "usage": usage}

    def _stream(self, handler: BaseHTTPRequestHandler, reply: Any, *, whole: bool) -> None:
        handler.send_response(200)
        handler.send_header("content-type", "text/event-stream")
        handler.send_header("connection", "close")
        if not whole:
            handler.send_header("content-length", "100000")
        handler.end_headers()
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": piece} for piece in _pieces(reply.get("text"))]
        if self._mistral:
            deltas += [{"content": "", "tool_calls": _calls(reply)}] if _calls(reply) else []
        else:
            deltas += _call_deltas(reply)
        data = b"".join(self._event({"index": 0, "delta": delta, "finish_reason": None}) for delta in deltas)
        if whole:
            data += self._event({"index": 0, "delta": {"content": ""}, "finish_reason": _reason(reply)}, last=True)
            data += b"data: [DONE]\n\n"
        # Cut anywhere, inside of characters too.
        for start in range(0, len(data), 37):
            handler.wfile.write(data[start : start + 37])
            handler.wfile.flush()
        time.sleep(0.01)
        handler.close_connection = True

    def _event(self, choice: dict[str, Any], *, last: bool = False) -> bytes:
        chunk: dict[str, Any] = {
            "id": "1",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": "m",
            "choices": [choice],
        }
        if last:
            chunk["usage"] = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
        return b"data: " + json.dumps(chunk, ensure_ascii=False).encode() + b"\n\n"

    @staticmethod
    def _send(handler: BaseHTTPRequestHandler, status: int, value: object) -> None:
        ChatServer._send_bytes(handler, status, json.dumps(value).encode(), "application/json")

    @staticmethod
    def _send_bytes(handler: BaseHTTPRequestHandler, status: int, data: bytes, kind: str) -> None:
        handler.send_response(status)
        handler.send_header("content-type", kind)
        handler.send_header("content-length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)


def _reason(reply: dict[str, Any]) -> str:
    return str(reply.get("finish_reason") or ("tool_calls" if reply.get("calls") else "stop"))


def _calls(reply: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "id": call.get("id", f"call{index:05}"),
            "index": index,
            "type": "function",
            "function": {"name": call["name"], "arguments": call["arguments"]},
        }
        for index, call in enumerate(reply.get("calls", ()))
    ]


def _call_deltas(reply: dict[str, Any]) -> list[dict[str, Any]]:
    deltas = []
    for call in _calls(reply):
        text = call["function"]["arguments"]
        head = {**call, "function": {"name": call["function"]["name"], "arguments": ""}}
        deltas.append({"tool_calls": [head]})
        deltas += [
            {"tool_calls": [{"index": call["index"], "function": {"arguments": piece}}]} for piece in _pieces(text)
        ]
    return deltas


def _pieces(text: object) -> list[str]:
    return [text[start : start + 5] for start in range(0, len(text), 5)] if isinstance(text, str) else []
