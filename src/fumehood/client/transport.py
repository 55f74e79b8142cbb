"""Requests to one server, and what it refuses as errors of ours.

Promised: the key goes to that server and nowhere else, no redirect is followed; nothing is sent a second time that may have been
done already; no more is read than was asked for. Where a server on this machine is meant, no proxy is asked for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx

from .. import errors
from ..errors import ConfigurationError, InvalidRequest, ServerMisbehaved, ServerRefused, ServerUnreachable
from ..protocol.loopback import leads_here
from .events import Decoder, as_json
from .portal import Portal

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator, Mapping
    from typing import TypeVar

    from .events import ServerEvent
    from .portal import Work

    Piece = TypeVar("Piece")
    Result = TypeVar("Result")

#: What an answer may hold that is no output and no file.
PLAIN_BYTES = 64 << 20
_CONNECT_SECONDS = 10.0
# Shorter than the five seconds of uvicorn and many proxies: a request must not meet a connection that is being closed.
_KEEP_SECONDS = 3.0
# A stream says that it is there every 15 seconds.
_SILENCE_SECONDS = 60.0
_WORDS_CHARACTERS = 2000
# The errors that a server's engine raises, by name, for this side to raise again. No other is the server's to choose.
_KINDS: dict[str, type[errors.FumehoodError]] = {
    kind.__name__: kind
    for kind in (
        errors.InvalidRequest, errors.UnknownLanguage, errors.InvalidFilePath, errors.RuntimeUnavailable,
        errors.SandboxUnavailable, errors.SandboxFailed, errors.ZygoteDied, errors.EgressFailed, errors.SessionDead,
        errors.SessionBusy, errors.ForkRefused, errors.StoreUnavailable,
    )
}  # fmt: skip
_NEXT_STEPS = {
    401: "set FUMEHOOD_API_KEY, or give key=, to a key that the server knows",
    413: "send less, or have the server's owner allow more",
    500: "its log says more",
}


class Transport:
    """One server, the key for it, and the connections to it. Any thread may call."""

    def __init__(self, url: str, key: str, timeout_seconds: float) -> None:
        self.url = _checked_url(url)
        self._key, self._timeout_seconds = _checked_key(key), timeout_seconds
        self._client, self._portal = self._opened()
        # A process that was forked from this one leaves its loop alone: the kernel's half of it is shared.
        self._left: list[object] = []

    def begin(self, make: Callable[[Callable[[Piece], None]], Coroutine[Any, Any, Result]]) -> Work[Piece, Result]:
        """See `Portal.begin`."""
        if self._portal.pid != os.getpid():
            self._left += [self._client, self._portal]
            self._client, self._portal = self._opened()
        return self._portal.begin(make)

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Send JSON, and return the JSON that is answered. Raises errors of `fumehood.errors`."""
        headers = {} if body is None else {"content-type": "application/json"}
        return as_json(self.fetch(method, path, b"" if body is None else as_bytes(body), headers))

    def fetch(
        self, method: str, path: str, content: bytes = b"", headers: Mapping[str, str] | None = None,
        most_bytes: int = PLAIN_BYTES,
    ) -> bytes:  # fmt: skip
        """Send bytes, and return those that are answered. Raises errors of `fumehood.errors`."""

        async def fetch(_say: Callable[[None], None]) -> bytes:
            async with self._answer(method, path, content, headers or {}) as answer:
                return await _read(answer, most_bytes)

        work: Work[None, bytes] = self.begin(fetch)
        try:
            return work.result(lambda _nothing: None)
        except asyncio.CancelledError as error:
            raise self.closed() from error
        except BaseException:
            work.cancel()
            raise

    async def events(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None, *, most_bytes: int
    ) -> AsyncGenerator[ServerEvent]:
        """Give the events of a stream as they come; close it to give it up. Raises errors of `fumehood.errors`."""
        sent = {"accept": "text/event-stream", **(headers or {})}
        if body is not None:
            sent["content-type"] = "application/json"
        async with self._answer(method, path, b"" if body is None else as_bytes(body), sent) as answer:
            if not answer.headers.get("content-type", "").startswith("text/event-stream"):
                raise ServerMisbehaved(f"{self.url} sent no stream of events: is it the address of a `fumehood serve`?")
            decoder, pieces = Decoder(most_bytes), answer.aiter_raw()
            while True:
                async with asyncio.timeout(min(_SILENCE_SECONDS, self._timeout_seconds)):
                    piece = await anext(pieces, None)
                if piece is None:
                    return
                for event in decoder.feed(piece):
                    yield event

    def refusal(self, body: Any, status: int, retry_after: str = "") -> errors.FumehoodError:
        """Return the error that an error's body stands for."""
        if not isinstance(body, dict) or not isinstance(words := body.get("message"), str):
            return ServerMisbehaved(
                f"{self.url} answered {status} and nothing of ours: is it the address of a `fumehood serve`?"
            )
        words = " ".join(words.split())[:_WORDS_CHARACTERS]
        if len(self._key) >= 8:
            words = words.replace(self._key, "[the key]")
        kind = body.get("kind")
        if isinstance(kind, str) and kind in _KINDS:
            return _KINDS[kind](words)
        step = _NEXT_STEPS.get(status, "")
        if retry_after.isdecimal() and int(retry_after):
            step = f"come again in {retry_after} seconds"
        return ServerRefused(f"{self.url} answered {status}: {words}{f': {step}' if step else ''}", status)

    def closed(self) -> ServerUnreachable:
        """Return what is raised where this was closed meanwhile."""
        return ServerUnreachable(f"the executor for {self.url} was closed before there was an answer")

    def close(self) -> None:
        """End all that is under way, and the connections."""
        if self._portal.pid == os.getpid():
            self._portal.close()

    def _opened(self) -> tuple[httpx.AsyncClient, Portal]:
        timeout = httpx.Timeout(self._timeout_seconds, connect=min(_CONNECT_SECONDS, self._timeout_seconds), pool=None)
        headers = {"accept-encoding": "identity", "user-agent": "fumehood"}
        if self._key:
            headers["authorization"] = f"Bearer {self._key}"
        try:
            client = httpx.AsyncClient(
                base_url=self.url, headers=headers, timeout=timeout, trust_env=not leads_here(self.url),
                limits=httpx.Limits(max_connections=None, keepalive_expiry=_KEEP_SECONDS),
            )  # fmt: skip
        except httpx.InvalidURL as error:
            raise InvalidRequest(f"the server's address is {self.url!r}: {error}") from error
        except (OSError, ValueError) as error:
            raise ConfigurationError(
                f"no connection to {self.url} can be made ready: {error}: look at SSL_CERT_FILE and the proxies' variables"
            ) from error
        return client, Portal(client)

    @contextlib.asynccontextmanager
    async def _answer(
        self, method: str, path: str, content: bytes, headers: Mapping[str, str]
    ) -> AsyncIterator[httpx.Response]:
        with self._told():
            async with self._client.stream(method, path, content=content or None, headers=headers) as answer:
                if not answer.is_success:
                    raise await self._refused(answer)
                yield answer

    async def _refused(self, answer: httpx.Response) -> errors.FumehoodError:
        if answer.is_redirect:
            return ServerMisbehaved(f"{self.url} leads elsewhere: give the server's own address")
        body: Any = None
        with contextlib.suppress(ServerMisbehaved):
            body = as_json(await _read(answer, 1 << 20))
        return self.refusal(body, answer.status_code, answer.headers.get("retry-after", ""))

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (TimeoutError, httpx.TimeoutException) as error:
            kind = "connection" if isinstance(error, httpx.ConnectTimeout) else "word"
            raise ServerUnreachable(f"no {kind} from {self.url} in time") from error
        except httpx.ConnectError as error:
            raise ServerUnreachable(
                f"{self.url} cannot be reached: {str(error) or 'no connection'}: is it up?"
            ) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ServerUnreachable(
                f"the connection to {self.url} broke: {str(error) or type(error).__name__}"
            ) from error


def as_bytes(value: Any) -> bytes:
    """Return a value as JSON, in ASCII: texts may hold halves of characters, which UTF-8 has no place for."""
    return json.dumps(value, separators=(",", ":")).encode("ascii")


async def _read(answer: httpx.Response, most_bytes: int) -> bytes:
    pieces, left = [], most_bytes
    async for piece in answer.aiter_raw():
        left -= len(piece)
        if left < 0:
            raise ServerMisbehaved(f"the server sent more than {most_bytes} bytes")
        pieces.append(piece)
    return b"".join(pieces)


def _checked_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        whole = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except (ValueError, AttributeError):
        raise InvalidRequest("the server's address is no URL: write one like http://127.0.0.1:3003") from None
    if parts.username is not None or parts.password is not None:
        raise InvalidRequest("the server's address has a user in it: give the key apart, as key= or FUMEHOOD_API_KEY")
    if not whole or parts.query or parts.fragment or not url.isprintable() or " " in url:
        raise InvalidRequest(f"the server's address is {url!r}: write one like http://127.0.0.1:3003")
    return url.rstrip("/")


def _checked_key(key: str) -> str:
    # Without the key, which is not to be shown.
    if not key.isascii() or not (key.isprintable() or not key) or key != key.strip():
        raise InvalidRequest("the key does not fit into a header: take visible ASCII characters")
    return key
