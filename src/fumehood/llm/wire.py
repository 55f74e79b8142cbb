"""Asks a server for a chat completion over HTTP, and fills an `Answer` with what comes.

The body decides how it is read, not what was asked for: JSON is a whole answer, anything else a stream. Bounded: the time
without anything new, the bytes of an answer, the waits that a busy server may ask for. Of our own, by `httpx` alone:
docs/decisions/0023-wire.md has the reasons.
"""

from __future__ import annotations

import itertools
import json
import time
from typing import TYPE_CHECKING, Any

from ..errors import ConfigurationError, ModelBusy, ModelMisbehaved, ModelRefused, ModelStalled, ModelUnreachable
from .patience import Patience, retry_after_seconds
from .port import Quirk, is_loopback, server_words, well_formed
from .reading import Malformed, Refusal, add_piece, add_whole, error_words, object_in
from .server_events import event_data

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator

    import httpx

    from .answers import Answer

#: A model's longest answers are a few MiB.
_ANSWER_BYTES = 64 << 20
_ERROR_BYTES = 1 << 20


class Wire:
    """The way to one server. Each question has a connection of its own: none is found dead that lay idle between two."""

    def __init__(self, name: str, *, url: str, key: str, timeout_seconds: float) -> None:
        self._name = name
        self._url = url
        self._key = key
        self._timeout_seconds = timeout_seconds
        self._certificates: ssl.SSLContext | None = None

    def ask(self, request: dict[str, Any], answer: Answer) -> None:
        """Send `request` and fill `answer`. Raises `ModelError`s."""
        import httpx  # noqa: PLC0415 - 60 ms to load

        try:
            self._ask(request, answer)
        except httpx.TimeoutException as error:
            raise self._silence(answer) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            what = "broke off in the middle of its answer" if answer.begun else "cannot be reached or broke off"
            raise ModelUnreachable(f"{self._name} {what}: {self._words(str(error))}") from error
        except Malformed as error:
            raise ModelMisbehaved(f"{self._name} sent what is no chat completion: {self._words(str(error))}") from error
        except Refusal as error:
            what = "gave up in the middle of its answer" if answer.begun else "refused"
            raise ModelRefused(f"{self._name} {what}: {self._words(str(error))}") from error

    def _ask(self, request: dict[str, Any], answer: Answer) -> None:
        body, patience = _encoded(request), Patience()
        with self._client() as client:
            while (refused := self._once(client, body, answer, stream="stream" in request)) is not None:
                if not (isinstance(refused, ModelBusy) and patience.wait(refused.retry_after_seconds)):
                    raise refused
        for note in patience.notes:
            answer.note(note.quirk, note.words)

    def _client(self) -> httpx.Client:
        import httpx  # noqa: PLC0415 - see above

        trust_environment = not is_loopback(self._url)
        if self._certificates is None:
            # 17 ms to read: once a model, not once a question.
            self._certificates = httpx.create_ssl_context(trust_env=trust_environment)
        return httpx.Client(
            follow_redirects=True,
            timeout=self._timeout_seconds,
            trust_env=trust_environment,
            verify=self._certificates,
        )

    def _headers(self, *, stream: bool) -> dict[str, str]:
        if not (self._key.isascii() and self._key.isprintable()):
            raise ConfigurationError(f"the key for {self._name} holds characters that no key has: copy it anew")
        headers = {
            "accept": "text/event-stream, application/json" if stream else "application/json",
            # Some proxies hold a stream back to compress it.
            "accept-encoding": "identity",
            "content-type": "application/json",
            "user-agent": "fumehood",
        }
        return {**headers, "authorization": f"Bearer {self._key.strip()}"} if self._key.strip() else headers

    def _once(self, client: httpx.Client, body: bytes, answer: Answer, *, stream: bool) -> ModelRefused | None:
        """Ask once; return a refusal."""
        with client.stream("POST", self._url, content=body, headers=self._headers(stream=stream)) as response:
            if response.is_success:
                self._take(response, answer, stream=stream)
                return None
            return self._refused(response)

    def _refused(self, response: httpx.Response) -> ModelRefused:
        data = b""
        for chunk in _watched(response, _Watch(self._timeout_seconds)):
            data += chunk
            if len(data) > _ERROR_BYTES:
                break
        try:
            words = error_words(object_in(data))
        except Malformed:
            words = data.decode(errors="replace")
        status = response.status_code
        said = f"{self._name} answered {status}: {self._words(words) or response.reason_phrase}"
        seconds = retry_after_seconds(status, response.headers)
        if seconds is None:
            return ModelRefused(said)
        return ModelBusy(f"{said} (it says to come back in {seconds:g} seconds)", retry_after_seconds=seconds)

    def _take(self, response: httpx.Response, answer: Answer, *, stream: bool) -> None:
        watch = _Watch(self._timeout_seconds)
        chunks = _watched(response, watch)
        head = b""
        while not head and (chunk := next(chunks, b"")):
            head = chunk.lstrip()
        body = itertools.chain((head,), chunks)
        if head.startswith((b"{", b"[")):
            add_whole(object_in(b"".join(body)), answer)
            if stream:
                answer.note(Quirk.CAME_WHOLE, "a stream was asked for, and the answer came whole")
            return
        if not self._add_stream(body, answer, watch):
            shown = head[:100].decode(errors="replace")
            raise Malformed(f"{shown!r}. Is its address the one that ends in /v1?" if head else "nothing at all")
        if not stream:
            answer.note(Quirk.CAME_STREAMED, "a whole answer was asked for, and a stream came")

    def _add_stream(self, body: Iterator[bytes], answer: Answer, watch: _Watch) -> bool:
        """Add what a stream brings; return whether it was one."""
        import httpx  # noqa: PLC0415 - see above

        came = False
        try:
            for data in event_data(body):
                came = True
                if data.startswith(b"[DONE]"):
                    answer.ended = True
                    break
                if add_piece(object_in(data), answer):
                    watch.progress()
                elif answer.ended and answer.reason:
                    break
        except httpx.HTTPError as error:
            # What still was to come after a finish reason is the count of tokens.
            if not answer.reason:
                raise
            words = f"the connection failed after the finish reason: {self._words(str(error))}"
            answer.note(Quirk.BROKE_OFF_AT_ITS_END, words)
        return came

    def _silence(self, answer: Answer) -> ModelUnreachable:
        if answer.begun:
            what = "stalled in the middle of its answer: nothing new came in"
            return ModelStalled(f"{self._name} {what} {self._timeout_seconds:g} seconds")
        return ModelUnreachable(f"{self._name} did not answer in {self._timeout_seconds:g} seconds")

    def _words(self, words: str) -> str:
        return server_words(words, key=self._key)


class _Watch:
    """Ends an answer in which nothing new comes, though the connection is kept busy: by comments, blanks, empty pieces.

    A timeout of reading sees only silence.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._since = time.monotonic()

    def progress(self) -> None:
        """Hear that something new has come."""
        self._since = time.monotonic()

    @property
    def is_over(self) -> bool:
        """Whether nothing new has come for too long."""
        return time.monotonic() - self._since > self._seconds


def _watched(response: httpx.Response, watch: _Watch) -> Iterator[bytes]:
    """Yield the body's chunks, none of them empty. Raises the HTTP client's own error where nothing new comes."""
    import httpx  # noqa: PLC0415 - see above

    size = 0
    for chunk in response.iter_bytes():
        if watch.is_over:
            raise httpx.ReadTimeout("nothing new")
        size += len(chunk)
        if size > _ANSWER_BYTES:
            raise Malformed(f"more than {_ANSWER_BYTES >> 20} MiB")
        if chunk:
            yield chunk


def _encoded(request: dict[str, Any]) -> bytes:
    text = json.dumps(request, ensure_ascii=False, separators=(",", ":"))
    try:
        return text.encode()
    except UnicodeEncodeError:
        return well_formed(text).encode()
