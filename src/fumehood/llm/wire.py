"""Asks a server for a chat completion over HTTP, and fills an `Answer` with what comes.

The body decides how it is read, not what was asked for: JSON is a whole answer, anything else a stream. Bounded: the time
without anything new, the bytes of an answer, the waits that a busy server may ask for. A conversation goes to the server that
was named and to no other. Of our own, by `httpx` alone: docs/decisions/0023-wire.md has the reasons.
"""

from __future__ import annotations

import itertools
import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..errors import ConfigurationError, ModelBusy, ModelMisbehaved, ModelRefused, ModelStalled, ModelUnreachable
from ..protocol.loopback import leads_here
from .patience import Patience, retry_after_seconds
from .port import Quirk, server_words, well_formed
from .reading import Malformed, Refusal, add_piece, add_whole, error_words, object_in
from .server_events import event_data
from .watching import Watch, pieces

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator

    import httpx

    from .answers import Answer

_ERROR_BYTES = 1 << 20
_MOST_REDIRECTIONS = 5


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

        trust_environment = not leads_here(self._url)
        if self._certificates is None:
            # 17 ms to read: once a model, not once a question.
            self._certificates = httpx.create_ssl_context(trust_env=trust_environment)
        return httpx.Client(
            follow_redirects=False,
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
        import httpx  # noqa: PLC0415 - see above

        url = httpx.URL(self._url)
        for _time in range(_MOST_REDIRECTIONS + 1):
            with self._asked(client, url, body, stream=stream) as (response, watch):
                if response.is_success:
                    self._take(response, answer, watch, stream=stream)
                    return None
                if response.next_request is None:
                    return self._refused(response, watch)
                url = self._redirected(response.status_code, response.next_request)
        raise httpx.TooManyRedirects(f"more than {_MOST_REDIRECTIONS} redirects")

    @contextmanager
    def _asked(
        self, client: httpx.Client, url: httpx.URL, body: bytes, *, stream: bool
    ) -> Iterator[tuple[httpx.Response, Watch]]:
        import httpx  # noqa: PLC0415 - see above

        with Watch(self._timeout_seconds) as watch:
            headers, trace = self._headers(stream=stream), {"trace": watch.trace}
            try:
                with client.stream("POST", url, content=body, headers=headers, extensions=trace) as response:
                    watch.progress()
                    yield response, watch
            except httpx.HTTPError as error:
                if watch.has_ended_it:
                    raise httpx.ReadTimeout("nothing new") from error
                raise

    def _redirected(self, status: int, request: httpx.Request) -> httpx.URL:
        """Return where the same server wants the same question. Raises `ModelRefused` for another: it would read all of it."""
        import httpx  # noqa: PLC0415 - see above

        named, wanted = httpx.URL(self._url), request.url
        if request.method == "POST" and _origin(named) == _origin(wanted):
            return wanted
        raise ModelRefused(
            f"{self._name} answered {status} and points to {self._words(str(wanted))}, to which nothing was sent: give that "
            "address if you trust it"
        )

    def _refused(self, response: httpx.Response, watch: Watch) -> ModelRefused:
        data = b""
        for chunk in pieces(response, watch):
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

    def _take(self, response: httpx.Response, answer: Answer, watch: Watch, *, stream: bool) -> None:
        chunks = pieces(response, watch)
        head = b""
        while not head and (chunk := next(chunks, b"")):
            head = chunk.lstrip()
        body = itertools.chain((head,), chunks)
        if head.startswith((b"{", b"[")):
            # Not joined from a list: pieces of a byte or two take fifty times their size in it.
            data = bytearray()
            for chunk in body:
                data += chunk
            add_whole(object_in(bytes(data)), answer)
            if stream:
                answer.note(Quirk.CAME_WHOLE, "a stream was asked for, and the answer came whole")
            return
        if not self._add_stream(body, answer, watch):
            shown = head[:100].decode(errors="replace")
            raise Malformed(f"{shown!r}. Is its address the one that ends in /v1?" if head else "nothing at all")
        if not stream:
            answer.note(Quirk.CAME_STREAMED, "a whole answer was asked for, and a stream came")

    def _add_stream(self, body: Iterator[bytes], answer: Answer, watch: Watch) -> bool:
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


def _origin(url: httpx.URL) -> tuple[str, str, int]:
    return url.scheme, url.host, url.port or {"http": 80, "https": 443}.get(url.scheme, 0)


def _encoded(request: dict[str, Any]) -> bytes:
    text = json.dumps(request, ensure_ascii=False, separators=(",", ":"))
    try:
        return text.encode()
    except UnicodeEncodeError:
        return well_formed(text).encode()
