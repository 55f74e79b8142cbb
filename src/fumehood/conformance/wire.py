"""HTTP to a model server, whole and streamed, with every oddity kept: what is read here is judged elsewhere.

Promised: an answer is bounded in size, pieces and time, from the first byte of its headers on, and all answers of a run
together in size; redirects are not followed (they could lead the key elsewhere), and the key stands in no record of what was
said.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from ..errors import ConfigurationError, ModelUnreachable
from ..protocol.loopback import leads_here
from ..protocol.record import Record

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    import httpx

#: No answer that a check asks for is near this; a hostile server's may be without end.
MAX_ANSWER_BYTES = 4 << 20
#: Every answer of a run is kept for its reports.
MAX_RUN_BYTES = 128 << 20
#: More than ten times what the longest answer has.
MAX_EVENTS = 50_000


class Exchange(Record):
    """One request and what came back. `broken` says why the answer ended before its end; it is empty where it did not."""

    method: str
    path: str
    request: Any
    streamed: bool
    status: int
    headers: dict[str, str]
    body: bytes
    #: After how long the first of the body came, and its end; None where nothing came.
    first_byte_seconds: float | None
    seconds: float
    broken: str = ""
    #: Whether the time was up before its end.
    late: bool = False

    @property
    def text(self) -> str:
        """The body, with what is no UTF-8 made visible."""
        return self.body.decode("utf-8", "backslashreplace")

    def json(self) -> Any:
        """Return the body's value. Raises ValueError where it is no JSON, or JSON in another encoding than UTF-8."""
        return strict_json(self.body.decode("utf-8"))


def strict_json(text: str) -> Any:
    """Return the value of RFC 8259's JSON. Raises ValueError for all else: Python's own reader takes NaN and Infinity too."""
    try:
        return json.loads(text, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("JSON nested too deep to be read") from None


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


class Event(Record):
    """One server-sent event. `value` is its JSON; `problem` says what is wrong with it, if anything is."""

    raw: bytes
    data: str
    value: Any = None
    problem: str = ""

    @property
    def done(self) -> bool:
        """Whether this is the mark at the end."""
        return self.data == "[DONE]"


def events(body: bytes) -> list[Event]:
    """Return the events of a stream as the HTML standard's section 9.2.6 splits them, the last one too if nothing ends it.

    After `MAX_EVENTS` there is one more, whose `problem` says so.
    """
    found: list[Event] = []
    for block in re.split(rb"(?:\r\n|\n|\r(?!\n)){2,}", body):
        if len(found) == MAX_EVENTS:
            return [*found, Event(raw=b"", data="", problem=f"follows {MAX_EVENTS} others: no more are read")]
        fields = [line for line in re.split(rb"\r\n|\n|\r", block) if line and not line.startswith(b":")]
        pieces = [line[5:].removeprefix(b" ") for line in fields if line.startswith(b"data:")]
        if pieces:
            found.append(_event(block, b"\n".join(pieces)))
    return found


def _event(block: bytes, data: bytes) -> Event:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        return Event(raw=block, data=data.decode("utf-8", "backslashreplace"), problem=f"is not UTF-8: {error.reason}")
    if text == "[DONE]":
        return Event(raw=block, data=text)
    try:
        return Event(raw=block, data=text, value=strict_json(text))
    except ValueError:
        return Event(raw=block, data=text, problem="is not JSON")


def _has_port(url: str) -> bool:
    """Whether the port is a number that can be one, or left out."""
    try:
        return urlsplit(url).port != 0
    except ValueError:
        return False


class _Heard:
    """What has come of one answer so far: a deadline may end it at any byte."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        # Not a list of pieces: one of a byte takes two hundred times its size in it.
        self.body = bytearray()
        self.first_byte_seconds: float | None = None
        self.broken = ""
        self.late = False


class Wire:
    """Speaks to one server while its `with` lasts.

    `base_url` ends where `/chat/completions` begins, as in `http://127.0.0.1:8000/v1`. `timeout_seconds` bounds each answer as
    a whole. Raises `ConfigurationError` for a URL, key or time that is none, `ModelUnreachable` where no connection comes
    about, or not even the head of an answer.
    """

    def __init__(self, base_url: str, *, key: str = "", timeout_seconds: float = 60.0) -> None:
        if not re.fullmatch(r"https?://[^\s/?#@]+(/[^\s?#]*)?", base_url) or not _has_port(base_url):
            raise ConfigurationError(f"{base_url!r} is no base URL: write one like http://127.0.0.1:8000/v1")
        if not key.isascii() or not key.isprintable():
            raise ConfigurationError(
                "the key has characters that no HTTP header can carry: look at the variable's value"
            )
        if not 0 < timeout_seconds <= 7200:
            raise ConfigurationError(f"{timeout_seconds:g} seconds is no time to wait: write more than 0, at most 7200")
        self.base_url = base_url.rstrip("/")
        self._key = key
        self._timeout_seconds = timeout_seconds
        self._left_bytes = MAX_RUN_BYTES
        self._runner: asyncio.Runner | None = None
        self._client: httpx.AsyncClient | None = None

    def __enter__(self) -> Self:
        import httpx  # noqa: PLC0415 - 60 ms, for those who verify

        # The bytes as they are: what decodes them would be one more that forgives, and could be made to fill the memory.
        headers = {"accept-encoding": "identity"} | ({"authorization": f"Bearer {self._key}"} if self._key else {})
        self._runner = asyncio.Runner()
        # One deadline over the whole answer stands in the place of httpx's, which each byte of a header would begin anew.
        # Each request by a connection of its own: a server may close an idle one at any time, without a fault, and a request
        # that is on its way just then goes unanswered (RFC 9112, 9.3.1), which llama-server showed.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        self._client = httpx.AsyncClient(
            headers=headers,
            timeout=None,  # noqa: S113 - see above
            follow_redirects=False,
            limits=limits,
            # No proxy is asked for this machine: it would get the key, and answer in the server's place.
            trust_env=not leads_here(self.base_url),
        )
        return self

    def __exit__(self, *_error: object) -> None:
        if self._runner is not None and self._client is not None:
            self._runner.run(self._client.aclose())
            self._runner.close()
        self._runner = self._client = None

    def get(self, path: str) -> Exchange:
        """Ask for what is at this path."""
        return self._run([self._send("GET", path, None, None, enough=None)])[0]

    def post(self, path: str, request: Any, *, raw: bytes | None = None, enough: int | None = None) -> Exchange:
        """Send a JSON value, or these bytes as if they were one. With `enough`, leave once so many bytes have come."""
        # In ASCII: what a server said and gets back may hold halves of characters, which UTF-8 cannot carry.
        content = json.dumps(request).encode() if raw is None else raw
        shown = request if raw is None else raw.decode("utf-8", "backslashreplace")
        return self._run([self._send("POST", path, shown, content, enough=enough)])[0]

    def post_beside(self, path: str, request: dict[str, Any]) -> Exchange:
        """Send a JSON value to what is not below `/v1`, on the same server."""
        return self._run([self._send("POST", path, request, json.dumps(request).encode(), enough=None, beside=True)])[0]

    def post_at_once(self, path: str, requests: Sequence[dict[str, Any]]) -> list[Exchange]:
        """Send these side by side, each by a connection of its own."""
        return self._run([self._send("POST", path, each, json.dumps(each).encode(), enough=None) for each in requests])

    def without_key(self, text: str) -> str:
        """Return `text` with the key made unreadable: a server may well quote it. A short one is in many innocent texts."""
        if len(self._key) < 8:
            return text
        # Some writers of JSON escape the slash.
        return text.replace(self._key, "[key]").replace(self._key.replace("/", "\\/"), "[key]")

    def _run(self, sendings: list[Coroutine[Any, Any, Exchange]]) -> list[Exchange]:
        if self._runner is None:
            for sending in sendings:
                sending.close()
            raise RuntimeError("a Wire is used inside its `with`")
        return self._runner.run(_together(sendings))

    async def _send(
        self, method: str, path: str, shown: Any, content: bytes | None, *, enough: int | None, beside: bool = False
    ) -> Exchange:
        import httpx  # noqa: PLC0415 - as above

        heard = _Heard()
        begun = time.monotonic()
        url = (self.base_url.removesuffix("/v1") if beside else self.base_url) + path
        try:
            async with asyncio.timeout(self._timeout_seconds):
                await self._hear(heard, method, url, content, enough)
        except TimeoutError as error:
            if not heard.status:
                message = f"{url}: no answer in {self._timeout_seconds:g} seconds"
                raise ModelUnreachable(message) from error
            heard.late = True
            heard.broken = f"not at its end after {self._timeout_seconds:g} seconds"
        except httpx.InvalidURL as error:
            raise ConfigurationError(f"{self.base_url!r} is no base URL: {error}") from error
        except httpx.HTTPError as error:
            why = self.without_key(str(error)) or type(error).__name__
            if not heard.status:
                raise ModelUnreachable(f"{url} cannot be reached: {why}") from error
            heard.broken = f"the connection ended: {why}"
        return Exchange(
            method=method, path=path, request=shown, streamed=isinstance(shown, dict) and bool(shown.get("stream")),
            status=heard.status, headers={name: self.without_key(value) for name, value in heard.headers.items()},
            body=self.without_key(heard.body.decode("latin-1")).encode("latin-1"),
            first_byte_seconds=heard.first_byte_seconds, seconds=time.monotonic() - begun, broken=heard.broken,
            late=heard.late,
        )  # fmt: skip

    async def _hear(self, heard: _Heard, method: str, url: str, content: bytes | None, enough: int | None) -> None:
        if self._client is None:
            raise RuntimeError("a Wire is used inside its `with`")
        begun = time.monotonic()
        headers = {"content-type": "application/json"} if content is not None else {}
        async with self._client.stream(method, url, content=content, headers=headers) as response:
            heard.headers = {name.lower(): value for name, value in response.headers.items()}
            heard.status = response.status_code
            async for piece in response.aiter_raw():
                if heard.first_byte_seconds is None:
                    heard.first_byte_seconds = time.monotonic() - begun
                heard.body += piece
                self._left_bytes -= len(piece)
                if enough is not None and len(heard.body) >= enough:
                    return
                if len(heard.body) > MAX_ANSWER_BYTES:
                    heard.broken = f"longer than {MAX_ANSWER_BYTES} bytes: the rest was not read"
                    return
                if self._left_bytes < 0:
                    heard.broken = f"all answers together are longer than {MAX_RUN_BYTES} bytes: the rest was not read"
                    return


async def _together(sendings: list[Coroutine[Any, Any, Exchange]]) -> list[Exchange]:
    # In a group: where one fails for good, no other is left running.
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(sending) for sending in sendings]
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]
