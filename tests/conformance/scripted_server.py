"""A well-behaved server of chat completions on a free port, which can be told to fail as real ones do.

It speaks OpenAI's shapes, or with `mistral` those of Mistral's API. Its model follows rules (`scripted_model`).
"""

from __future__ import annotations

import json
import re
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count, pairwise
from types import MappingProxyType
from typing import Any, Self

from .faults import Fault, Output
from .scripted_model import exact_length, prompt_length, rendered, think, tokens

MODEL = "devstral"
CONTEXT = 16_000
NOISE = "colourless green ideas sleep furiously"
ROLES = ("system", "user", "assistant", "tool")
FIELDS = frozenset(
    {"model", "messages", "temperature", "max_tokens", "stream", "stream_options", "tools", "tool_choice"}
    | {"parallel_tool_calls", "response_format", "seed"}
)
IN_STREAMS_ORDERED = (Fault.ENDS_STREAMS_IN_SILENCE, Fault.WRITES_STREAMED_ERRORS_AS_TEXT)
IN_STREAMS = frozenset(IN_STREAMS_ORDERED)
EXTRAS = ("name", "index", "reasoning_content")


class Refused(Exception):
    """The answer is an error with this status."""

    def __init__(self, status: int, message: str, *, after: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.headers = {"retry-after": after} if after else {}


class QuietServer(ThreadingHTTPServer):
    """Says nothing of clients that hung up: some checks do."""

    daemon_threads = True
    request_queue_size = 128  # five, the usual one, drops some of those that come at once

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class Spoken:
    """An answer after max_tokens: its content, its calls, and why it ended."""

    def __init__(self, output: Output, limit: int, faults: frozenset[Fault], *, stream: bool) -> None:
        pieces = [(-1, piece) for piece in tokens(output.content)]
        for index, (name, arguments) in enumerate(output.calls):
            pieces += [(index, "\0" + piece) for piece in tokens(name)] + [
                (index, piece) for piece in tokens(arguments)
            ]
        kept = pieces[:limit]
        self.completion_tokens = len(kept)
        self.content = "".join(piece for index, piece in kept if index < 0)
        self.calls = []
        for index, (name, arguments) in enumerate(output.calls):
            mine = [piece for number, piece in kept if number == index]
            got = "".join(piece for piece in mine if not piece.startswith("\0"))
            if mine and (got == arguments or (Fault.HIDES_TRUNCATION in faults and not stream)):
                self.calls.append(("".join(piece[1:] for piece in mine if piece.startswith("\0")) or name, got))
        cut = len(pieces) > limit
        self.reason = "length" if cut else "tool_calls" if self.calls else "stop"
        if cut and self.calls and Fault.HIDES_TRUNCATION in faults and not stream:
            self.reason = "tool_calls"


class ScriptedServer:
    """Serves while its `with` lasts.

    `exact`: prompts are counted by Mistral's own tokenizer. `late_errors`: what is wrong with a stream is said in it.
    `shows`: it has llama-server's /apply-template.
    `thinks`: contents are lists of parts, with a thought before the text, as Mistral's reasoning models have them.
    `noise`: its weights are random, so that only what a grammar holds is held; it says this and no more. `redirect`: everything is elsewhere.
    `at_most_each_second`: more requests are refused with 429, and counted in `refused`.
    """

    def __init__(
        self,
        *faults: Fault,
        mistral: bool = False,
        noise: str = "",
        exact: bool = False,
        late_errors: bool = False,
        thinks: bool = False,
        shows: bool = False,
        context: int = CONTEXT,
        redirect: str = "",
        at_most_each_second: int = 0,
        port: int = 0,
    ) -> None:
        self.refused = 0
        self._redirect = redirect
        self._exact = exact
        self._late_errors = late_errors
        self._thinks = thinks
        self._shows = shows or bool(
            {Fault.SHOWS_TOOLS_LATE, Fault.SHOWS_TOOLS_SORTED, Fault.SHOWS_RESULTS_SWAPPED} & frozenset(faults)
        )
        self._context = context
        if {Fault.REFUSES_WITHOUT_A_TIME, Fault.FAILS_WHEN_BUSY} & frozenset(faults):
            at_most_each_second = 8
        self._most = at_most_each_second
        self._times: deque[float] = deque(maxlen=at_most_each_second)
        self.faults = frozenset(faults)
        self.keys: set[str] = set()
        self.released = threading.Event()
        self.slots = threading.Semaphore(4)
        self._ids = count(1)
        self._last = b""
        self._mistral = mistral
        self._noise = noise
        chat = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = 1 << 16  # one packet for headers and body
            disable_nagle_algorithm = True

            def log_message(self, *_arguments: object) -> None:
                """Keep the tests' output clean."""

            def do_GET(self) -> None:
                name = "another" if Fault.HIDES_ITS_MODEL in chat.faults else MODEL
                send(self, 200, {"object": "list", "data": [{"id": name, "max_model_len": chat._context}]})

            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers["content-length"]))
                chat.keys.add(self.headers.get("authorization", ""))
                if chat._redirect:
                    self.send_response(307)
                    self.send_header("location", chat._redirect + "/chat/completions")
                    self.send_header("content-length", "0")
                    self.end_headers()
                    return
                try:
                    chat.limit()
                    with chat.slots:
                        chat.answer(self, raw)
                except Refused as error:
                    chat.refuse(self, error, streamed=b'"stream": true' in raw)

        self._server = QuietServer(("127.0.0.1", port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.released.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def limit(self) -> None:
        """Refuse what is too much."""
        if self._most and len(self._times) == self._most and time.monotonic() - self._times[0] < 1:
            self.refused += 1
            if Fault.FAILS_WHEN_BUSY in self.faults:
                raise Refused(500, "out of slots")
            raise Refused(429, "too many requests", after="" if Fault.REFUSES_WITHOUT_A_TIME in self.faults else "1")
        self._times.append(time.monotonic())

    def refuse(self, handler: BaseHTTPRequestHandler, error: Refused, *, streamed: bool) -> None:
        status = 500 if Fault.SERVER_ERRORS in self.faults else error.status
        code = "3230" if self._mistral and "role" in str(error) else None
        message = {"message": str(error), "type": "invalid_request_error", "param": None, "code": code}
        if streamed and (self._late_errors or {*self.faults} & IN_STREAMS):
            silent, text = (fault in self.faults for fault in IN_STREAMS_ORDERED)
            value: dict[str, Any] = {"object": "error", **message} if self._mistral else {"error": message}
            said = str(error).encode() if text else json.dumps(value).encode()
            data = b"data: [DONE]\n\n" if silent else b"data: " + said + b"\n\n"
            send_bytes(handler, 200, data, "text/event-stream")
        elif Fault.ERRORS_IN_HTML in self.faults:
            send_bytes(handler, status, b"<html>Something went wrong</html>", "text/html")
        elif self._mistral and status == 422:
            send(handler, status, {"detail": [{"loc": ["body"], "msg": str(error)}]})
        else:
            value = {"object": "error", **message} if self._mistral else {"error": message}
            send_bytes(handler, status, json.dumps(value).encode(), "application/json", error.headers)

    def answer(self, handler: BaseHTTPRequestHandler, raw: bytes) -> None:
        if handler.path == "/apply-template":
            if not self._shows:
                raise Refused(404, "there is nothing here")
            send(handler, 200, {"prompt": rendered(json.loads(raw), self.faults)})
            return
        body = self._checked(raw)
        length = self._length(body)
        if length > 4096 and Fault.CUTS_CONTEXT in self.faults:
            length = 4096
        if length > 6000 and Fault.CUTS_A_FEW_TOKENS in self.faults:
            length = 6001
        if length > self._context:
            raise Refused(400, f"the prompt has {length} tokens, the context {self._context}")
        limit = body.get("max_tokens", 1000)
        if limit > self._context and Fault.FAILS_ON_LARGE_MAX_TOKENS in self.faults:
            raise Refused(500, "out of memory")
        output = think(body, self.faults, noise=self._noise)
        stream = bool(body.get("stream"))
        if limit > self._context and Fault.HANGS_UP_ON_LARGE_MAX_TOKENS in self.faults:
            send_bytes(handler, 200, b"", "text/event-stream")
            return
        spoken = Spoken(output, min(limit, self._context - length), self.faults, stream=stream)
        spent = {"prompt_tokens": self._counted(length, raw), "completion_tokens": spoken.completion_tokens}
        usage = {**spent, "total_tokens": sum(spent.values())}
        self._spoil(spoken, stream=stream, offered=bool(body.get("tools")))
        if stream:
            wanted = self._mistral or (body.get("stream_options") or {}).get("include_usage")
            usage["completion_tokens"] *= self._times_counted()
            self._stream(handler, spoken, usage if wanted else None)
        else:
            send(handler, 200, self._whole(spoken, usage))

    def _times_counted(self) -> int:
        return (
            0
            if Fault.COUNTS_NO_STREAMED_ANSWER in self.faults
            else 1 + (Fault.COUNTS_STREAMED_ANSWERS_TWICE in self.faults)
        )

    def _length(self, body: dict[str, Any]) -> int:
        exact = self._exact or {Fault.CUTS_A_FEW_TOKENS, Fault.COMPACTS_TOOLS, Fault.CUTS_WORDS_OTHERWISE} & self.faults
        return exact_length(body, self.faults) if exact else prompt_length(body, self.faults)

    def _counted(self, length: int, raw: bytes) -> int:
        again, self._last = raw == self._last, raw
        if Fault.COUNTS_NOTHING in self.faults or (again and Fault.COUNTS_NEW_TOKENS_ALONE in self.faults):
            return 1
        return length

    # What is refused --------------------------------------------------------------------------------------------------

    def _checked(self, raw: bytes) -> dict[str, Any]:
        try:
            body = json.loads(raw)
        except ValueError:
            raise Refused(400, "the body is no JSON") from None
        messages = body.get("messages")
        if not isinstance(messages, list):
            raise Refused(422, "messages must be a list")
        if not messages and Fault.ANSWERS_TO_NOTHING in self.faults:
            body["messages"] = messages = [{"role": "user", "content": "hello"}]
        if not messages or any(message.get("role") not in ROLES for message in messages):
            raise Refused(400, "messages must have known roles")
        if body["model"] != MODEL and Fault.ANY_MODEL_NAME not in self.faults:
            raise Refused(404, f"there is no model {body['model']!r}")
        if body.keys() - FIELDS and Fault.FAILS_ON_UNKNOWN_FIELDS in self.faults:
            raise Refused(500, "KeyError")
        for name in ("stream_options", "seed") if self._mistral else ():
            if name in body:
                raise Refused(422, f"extra fields not permitted: {name}")
        self._check_tools(body)
        self._check_order(messages)
        for message in messages:
            self._check_message(message)
        return dict(body)

    def _check_tools(self, body: dict[str, Any]) -> None:
        if body.get("tool_choice") == "any" and Fault.FAILS_ON_ANY in self.faults:
            raise Refused(500, "ValueError: any")
        for tool in body.get("tools") or []:
            if not tool["function"].get("parameters") and Fault.REFUSES_EMPTY_PARAMETERS in self.faults:
                raise Refused(400, "parameters must not be empty")
        if body.get("tools") and "response_format" in body and Fault.FAILS_ON_JSON_BESIDE_TOOLS in self.faults:
            raise Refused(500, "two grammars")

    def _check_order(self, messages: list[dict[str, Any]]) -> None:
        known = {call["id"] for message in messages for call in message.get("tool_calls") or []}
        if any(message["role"] == "tool" and message["tool_call_id"] not in known for message in messages):
            raise Refused(400, "a result without its call")
        if Fault.REFUSES_ITS_IDS in self.faults and any(str(each).startswith("call") for each in known):
            raise Refused(400, "ids must have nine letters and digits")
        pairs = [(one["role"], other["role"]) for one, other in pairwise(messages)]
        if ("tool", "user") in pairs and (self._mistral or Fault.REFUSES_USER_AFTER_TOOL in self.faults):
            raise Refused(400, "Unexpected role 'user' after role 'tool'")
        if ("assistant", "system") in pairs:
            raise Refused(400, "Unexpected role 'system' after role 'assistant'")
        if ("user", "user") in pairs and Fault.REFUSES_TWO_USERS in self.faults:
            raise Refused(500, "roles must alternate")

    def _check_message(self, message: dict[str, Any]) -> None:
        calls = message.get("tool_calls")
        if message.get("content") is None and Fault.REFUSES_NULL_CONTENT in self.faults:
            raise Refused(400, "content must be text")
        if "tool_calls" in message and not calls and Fault.REFUSES_NULL_CALLS in self.faults:
            raise Refused(500, "NoneType is not iterable")
        extra = {*message, *(name for call in calls or [] for name in call)} & set(EXTRAS)
        if extra and Fault.REFUSES_EXTRA_FIELDS in self.faults:
            raise Refused(422, f"extra fields not permitted: {extra}")
        for call in calls or []:
            if Fault.FAILS_ON_BROKEN_ARGUMENTS in self.faults and not _is_json(call["function"]["arguments"]):
                raise Refused(500, "JSONDecodeError")

    # What is spoiled --------------------------------------------------------------------------------------------------

    def _spoil(self, spoken: Spoken, *, stream: bool, offered: bool) -> None:
        calls = spoken.calls
        if Fault.LEAKS_CALLS in self.faults and calls:
            spoken.content = "".join(f"[TOOL_CALLS]{name}[ARGS]{arguments}" for name, arguments in calls)
            spoken.calls, spoken.reason = [], "stop"
        if Fault.WRITES_BEYOND_ITS_LIMIT in self.faults and "Flask" in spoken.content:
            spoken.content += "```py" * 100_000
        if Fault.SAYS_LENGTH_ALWAYS in self.faults:
            spoken.reason = "length"
        if Fault.STOPS_FOR_CALLS in self.faults:
            spoken.reason = "stop"
        dropping = Fault.DROPS_CONTENT_BESIDE_CALLS_BOTH_WAYS if stream else Fault.DROPS_CONTENT_BESIDE_CALLS
        if calls and self.faults & {dropping, Fault.DROPS_CONTENT_BESIDE_CALLS_BOTH_WAYS}:
            spoken.content = ""
        if Fault.EMPTY_ARGUMENTS in self.faults:
            spoken.calls = [(name, "" if arguments == "{}" else arguments) for name, arguments in calls]
        if Fault.GLUES_CALLS in self.faults and len(calls) > 1:
            spoken.calls = [("".join(name for name, _ in calls), "".join(arguments for _, arguments in calls))]
        if Fault.LOSES_SECOND_CALL in self.faults and stream:
            spoken.calls = calls[:1]
        if Fault.BREAKS_INTEGERS in self.faults and stream:
            spoken.calls = [(name, re.sub(r": \d+,", ": ,", arguments)) for name, arguments in calls]
        if Fault.DIFFERS_IN_NESTING in self.faults and stream:
            spoken.calls = [(name, arguments.replace('{"deep": {}}', "{}")) for name, arguments in calls]
        if Fault.EATS_BRACKETS in self.faults and stream and offered:
            spoken.content = spoken.content.replace("]", "")
        self._spoil_with_phantoms(spoken, stream=stream)

    def _spoil_with_phantoms(self, spoken: Spoken, *, stream: bool) -> None:
        if Fault.PHANTOMS_IN_ARGUMENTS in self.faults and not stream:
            split = []
            for name, arguments in spoken.calls:
                before, mark, after = arguments.partition("[TOOL_CALLS]")
                split += [(name, before), (after.partition("[")[0], "{}")] if mark else [(name, arguments)]
            spoken.calls = split
        if Fault.LEAKS_CUT_CALLS in self.faults and spoken.reason == "length":
            spoken.content = spoken.content or "[TOOL_CALLS]"
        before, mark, after = spoken.content.partition("[TOOL_CALLS]")
        if Fault.PHANTOMS_IN_PROSE in self.faults and mark:
            spoken.content, spoken.calls, spoken.reason = before, [(after.strip(), "{}")], "tool_calls"

    # What is sent -----------------------------------------------------------------------------------------------------

    def _calls(self, spoken: Spoken) -> list[dict[str, Any]]:
        made = []
        for index, (name, arguments) in enumerate(spoken.calls):
            id_ = "call00000" if Fault.REPEATS_IDS in self.faults else f"call{next(self._ids):05}"
            value: Any = json.loads(arguments) if Fault.ARGUMENTS_AS_OBJECT in self.faults else arguments
            call = {"id": id_, "index": index, "type": "function", "function": {"name": name, "arguments": value}}
            if Fault.OMITS_IDS in self.faults:
                del call["id"]
            made.append(call)
        return made

    def _whole(self, spoken: Spoken, usage: dict[str, int]) -> dict[str, Any]:
        message = {
            "role": "assistant",
            "content": self._content(spoken.content) or None,
            "tool_calls": self._calls(spoken) or None,
        }
        choice = {"index": 0, "message": message, "finish_reason": spoken.reason}
        head = {"id": "1", "object": "chat.completion", "created": 1, "model": MODEL}
        return {**head, "choices": [choice], "usage": usage}

    def _stream(self, handler: BaseHTTPRequestHandler, spoken: Spoken, usage: dict[str, int] | None) -> None:
        handler.send_response(200)
        plain = Fault.WRONG_CONTENT_TYPE in self.faults
        handler.send_header("content-type", "text/plain" if plain else "text/event-stream")
        handler.send_header("connection", "close")
        if Fault.HANGS_UP in self.faults:
            handler.send_header("content-length", "1000000")
        handler.end_headers()
        handler.close_connection = True
        for data in self._events(spoken, usage):
            try:
                handler.wfile.write(b"data: " + data + b"\n\n")
                handler.wfile.flush()
            except OSError:
                break
        if Fault.KEEPS_WORKING in self.faults and spoken.completion_tokens > 1000:
            self.released.wait(30)

    def _events(self, spoken: Spoken, usage: dict[str, int] | None) -> list[bytes]:
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
        deltas += [{"content": self._content(piece), "tool_calls": None} for piece in self._pieces(spoken.content)]
        for call in self._calls(spoken):
            deltas += self._call_deltas(call)
        choices: list[dict[str, Any]] = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
        reason = None if Fault.OMITS_FINISH_REASON in self.faults else spoken.reason
        choices.append({"index": 0, "delta": {"content": ""}, "finish_reason": reason})
        head = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": MODEL}
        events: list[dict[str, Any]] = [{**head, "choices": [choice]} for choice in choices]
        if usage and Fault.OMITS_USAGE_IN_STREAMS not in self.faults:
            if self._mistral:
                events[-1]["usage"] = usage
            else:
                events.append({**head, "choices": [], "usage": usage})
        lines = [json.dumps(event, ensure_ascii=False).encode() for event in events]
        if Fault.CUTS_CHARACTERS_OF_EVENTS in self.faults:
            lines = [line.replace("東".encode(), "東".encode()[:2]) for line in lines]
        return lines if Fault.OMITS_DONE in self.faults else [*lines, b"[DONE]"]

    def _content(self, text: str) -> Any:
        if not self._thinks or not text:
            return text
        thought = {"type": "thinking", "thinking": [{"type": "text", "text": "[TOOL_CALLS] or not?"}]}
        return [thought, {"type": "text", "text": text}]

    def _pieces(self, text: str) -> list[str]:
        if Fault.CUTS_CHARACTERS in self.faults:
            data = text.encode()
            return [data[start : start + 4].decode("utf-8", "replace") for start in range(0, len(data), 4)]
        return tokens(text)

    def _call_deltas(self, call: dict[str, Any]) -> list[dict[str, Any]]:
        if self._mistral or not isinstance(call["function"]["arguments"], str):
            return [{"content": "", "tool_calls": [call]}]
        name, index = call["function"]["name"], call["index"]
        pieces = [{**call, "function": {"name": name, "arguments": ""}}]
        for text in tokens(call["function"]["arguments"]):
            again = {"name": name} if Fault.REPEATS_NAMES in self.faults else {}
            pieces.append({"index": index, "function": {**again, "arguments": text}})
        if Fault.LOSES_A_PIECE in self.faults:
            del pieces[2:3]
        for piece in pieces:
            if Fault.OMITS_INDEX in self.faults:
                del piece["index"]
            elif Fault.GLUES_STREAMED_CALLS in self.faults:
                piece["index"] = 0
        return [{"content": None, "tool_calls": [piece]} for piece in pieces]


def send(handler: BaseHTTPRequestHandler, status: int, value: object) -> None:
    send_bytes(handler, status, json.dumps(value, ensure_ascii=False).encode(), "application/json")


def send_bytes(
    handler: BaseHTTPRequestHandler,
    status: int,
    data: bytes,
    kind: str,
    headers: Mapping[str, str] = MappingProxyType({}),
) -> None:
    handler.send_response(status)
    handler.send_header("content-type", kind)
    handler.send_header("content-length", str(len(data)))
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(data)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
