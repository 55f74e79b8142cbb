"""The engine over HTTP, as OpenAI's chat completions: whole answers and streams, models, errors in OpenAI's shape.

Promised: a caller that hangs up frees its place; a request beyond its bounds is refused before it costs anything; every
stream ends with a finish reason and `[DONE]`, or with an error. A body is taken as JSON alone, so that no page in a browser
can send one across origins without being asked about it first; without a key this machine's own names alone are answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import time
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from ..errors import ChatRequestInvalid, EngineBusy, FumehoodError
from ..protocol.loopback import is_loopback
from .answering import Ended, Event
from .asking import read
from .chunks import Chunks, whole

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request

    from .engine import Answer, Engine

_BODY_BYTES = 64 << 20
_MOST_MARKS = 1_000_000  # less than 0.1 s; no sensible prompt of 393,216 tokens has as many
_LAST = b"data: [DONE]\n\n"


def make(engine: Engine, *, name: str, key: str | None = None) -> Starlette:
    """Return the application. With a `key` every request must carry it, as `Authorization: Bearer …`."""
    api = _Api(engine, name, key)
    return Starlette(
        routes=[
            Route("/v1/models", api.models),
            Route("/v1/models/{name:path}", api.model),
            Route("/v1/chat/completions", api.chat, methods=["POST"]),
            Route("/health", api.health),
        ],
        # What no one foresaw is raised again once it was answered: the server logs it.
        exception_handlers={FumehoodError: _refused, HTTPException: _no_route, Exception: _broke},
    )


class _Api:
    """Answers requests with one engine."""

    def __init__(self, engine: Engine, name: str, key: str | None) -> None:
        self._engine, self._name, self._key = engine, name, key
        self._began = int(time.time())

    async def health(self, _request: Request) -> Response:
        """Say that the model is loaded."""
        return Response(status_code=200)

    async def models(self, request: Request) -> Response:
        """List the one model."""
        self._let_in(request)
        return JSONResponse({"object": "list", "data": [self._described()]})

    async def model(self, request: Request) -> Response:
        """Describe the one model."""
        self._let_in(request)
        self._check_name(request.path_params["name"])
        return JSONResponse(self._described())

    async def chat(self, request: Request) -> Response:
        """Answer a conversation."""
        self._let_in(request)
        body = _parsed(await _body(request))
        self._check_name(body.get("model"))
        options = body.get("stream_options")
        tells_usage = isinstance(options, dict) and options.get("include_usage") is True
        heard = _Heard()
        answer = await run_in_threadpool(lambda: self._engine.submit(read(body), heard.hear))
        if body.get("stream"):
            chunks = Chunks(self._name, tells_usage=tells_usage)
            return StreamingResponse(_streamed(request, answer, heard, chunks), media_type="text/event-stream")
        return await _whole(request, answer, heard, self._name)

    def _described(self) -> dict[str, Any]:
        return {
            "id": self._name, "object": "model", "created": self._began, "owned_by": "fumehood",
            "max_model_len": self._engine.model.context,
        }  # fmt: skip

    def _let_in(self, request: Request) -> None:
        # A page in a browser can have its own name point here, and would then be of the same origin.
        if self._key is None and not is_loopback(request.url.hostname or ""):
            raise HTTPException(403, "ask by localhost or 127.0.0.1, or have the server started with a key")
        given = request.headers.get("authorization", "").removeprefix("Bearer ").encode()
        if self._key is not None and not hmac.compare_digest(given, self._key.encode()):
            raise HTTPException(401, "the key is missing or wrong: send it as Authorization: Bearer KEY")

    def _check_name(self, name: object) -> None:
        if name != self._name:
            raise HTTPException(404, f"there is no model {ascii(name)[:100]} here; there is {self._name!r}")


class _Heard:
    """Events on their way from the engine's thread to this loop. None stands for a caller who has hung up."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Event | FumehoodError | None] = asyncio.Queue()

    def hear(self, event: Event | FumehoodError | None) -> None:
        """Take one more; any thread may call."""
        # The loop may have ended before the engine does: then nobody listens.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)

    async def next(self) -> list[Event]:
        """Wait for the next event and return all that have come; raises an error that came; empty where nobody listens."""
        got = [await self._events.get()]
        while not self._events.empty():
            got.append(self._events.get_nowait())
        events: list[Event] = []
        for event in got:
            if event is None:
                return []
            if isinstance(event, FumehoodError):
                raise event
            events.append(event)
        return events


@contextlib.asynccontextmanager
async def _watched(request: Request, answer: Answer, heard: _Heard) -> AsyncIterator[None]:
    """Cancel the answer when the caller hangs up, and at the end in any case."""

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        answer.cancel()
        heard.hear(None)

    watching = asyncio.create_task(watch())
    try:
        yield
    finally:
        watching.cancel()
        answer.cancel()


async def _whole(request: Request, answer: Answer, heard: _Heard, name: str) -> Response:
    events: list[Event] = []
    async with _watched(request, answer, heard):
        while not events or not isinstance(events[-1], Ended):
            more = await heard.next()
            if not more:
                return Response(status_code=499)  # to nobody
            events += more
    return JSONResponse(whole(events, name))


async def _streamed(request: Request, answer: Answer, heard: _Heard, chunks: Chunks) -> AsyncIterator[bytes]:
    async with _watched(request, answer, heard):
        yield _event(chunks.first())
        while True:
            try:
                events = await heard.next()
            except FumehoodError as error:
                yield _event(_error(str(error), "server_error"))
                return
            if not events:
                return
            # All that has come in one piece: a write a token costs more than the token's own handling.
            yield b"".join(_event(chunk) for event in events for chunk in chunks.of(event))
            if isinstance(events[-1], Ended):
                yield _LAST
                return


def _event(value: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"


async def _body(request: Request) -> bytes:
    # Nothing but the type itself: a page may send `text/plain; x=application/json` without being asked about.
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise HTTPException(415, "send JSON, with the header Content-Type: application/json")
    pieces: list[bytes] = []
    size = 0
    async for piece in request.stream():
        size += len(piece)
        if size > _BODY_BYTES:
            raise HTTPException(413, f"the request is larger than {_BODY_BYTES >> 20} MiB")
        pieces.append(piece)
    return b"".join(pieces)


def _parsed(data: bytes) -> dict[str, Any]:
    # Counted first: nobody else is heard while it is parsed, in a thread neither, and millions of values take seconds.
    if sum(data.count(mark) for mark in (b",", b"[", b"{")) > _MOST_MARKS:
        raise HTTPException(413, f"the request has more than {_MOST_MARKS} commas and brackets: send less")
    try:
        body = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ChatRequestInvalid(f"the body is no JSON: {error}", code="invalid_json") from error
    if not isinstance(body, dict):
        raise ChatRequestInvalid("the body is no JSON object", code="invalid_json")
    return body


async def _refused(_request: Request, error: Exception) -> Response:
    if isinstance(error, ChatRequestInvalid):
        value = _error(str(error), "invalid_request_error", param=error.param, code=error.code)
        return JSONResponse(value, status_code=400)
    if isinstance(error, EngineBusy):
        value = _error(str(error), "rate_limit_error", code="busy")
        return JSONResponse(value, status_code=429, headers={"Retry-After": "1"})
    return JSONResponse(_error(str(error), "server_error"), status_code=500)


async def _no_route(_request: Request, error: Exception) -> Response:
    status, said = (error.status_code, error.detail) if isinstance(error, HTTPException) else (500, str(error))
    code = {401: "invalid_api_key", 404: "model_not_found" if "model" in said else "not_found"}.get(status)
    return JSONResponse(_error(said, "invalid_request_error", code=code), status_code=status)


async def _broke(_request: Request, error: Exception) -> Response:
    return JSONResponse(
        _error(f"the server made a mistake ({type(error).__name__}): it is in its log", "server_error"), 500
    )


def _error(message: str, kind: str, *, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    # Words of a request come back in it, and half a character in them would be no UTF-8.
    message = message.encode("utf-8", "backslashreplace").decode()
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}
