"""Puts a credential into a request on its way out, and takes it out of what comes back.

Promised: whatever the program put where the credential belongs is gone; of a response no bytes pass that are the secret, or its
usual spellings, as they stand. Not promised: that a server which spells it otherwise, or compresses, cannot give it away.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote_plus, urlencode

from ..protocol.credentials import Basic, Bearer, Header, Query

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..protocol.credentials import Credential

    Headers = list[tuple[bytes, bytes]]

#: Shorter secrets are not looked for: they would be found in everything.
SHORTEST = 6
_MASK = b"*"
_COMPRESSES = (b"accept-encoding", b"sec-websocket-extensions")


class Injection:
    """One credential. `secrets` are the spellings of what must not come back."""

    def __init__(self, credential: Credential) -> None:
        self._credential = credential
        secret = str(credential.secret)
        spellings = [secret, quote(secret, safe=""), quote(secret)]
        self._header: tuple[bytes, bytes] | None = None
        match credential:
            case Bearer():
                self._header = (b"authorization", f"Bearer {secret}".encode())
            case Basic():
                pair = base64.b64encode(f"{credential.user}:{secret}".encode()).decode()
                spellings.append(pair)
                self._header = (b"authorization", f"Basic {pair}".encode())
            case Header():
                self._header = (credential.name.lower().encode(), secret.encode())
            case Query():
                spellings.append(urlencode({"": secret})[1:])
        long_enough = {each.encode() for each in spellings if len(each) >= SHORTEST}
        self.secrets = tuple(sorted(long_enough, key=len, reverse=True))

    def headers(self, headers: Headers) -> Headers:
        """Return the headers of a request with the credential in its place."""
        # What is compressed cannot be looked through on its way back.
        kept = [(name, value) for name, value in headers if name not in _COMPRESSES]
        kept.append((b"accept-encoding", b"identity"))
        if self._header is None:
            return kept
        return [*((name, value) for name, value in kept if name != self._header[0]), self._header]

    def target(self, target: str) -> str:
        """Return the target of a request, likewise."""
        if not isinstance(self._credential, Query):
            return target
        path, _mark, query = target.partition("?")
        key = self._credential.key
        others = [each for each in query.split("&") if each and unquote_plus(each.partition("=")[0]) != key]
        return f"{path}?{'&'.join([*others, urlencode({key: str(self._credential.secret)})])}"


class Redactor:
    """Masks secrets in a stream of bytes, whose length stays; as many bytes are held back as the beginning of one may have.

    As many whatever they are: who sees when something is held back could learn a secret from it, one character after another.
    """

    def __init__(self, secrets: tuple[bytes, ...]) -> None:
        self._secrets, self._held = secrets, b""
        self._longest = max(map(len, secrets), default=1)

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to look for."""
        return not self._secrets

    @property
    def holds(self) -> bool:
        """Whether something is held back."""
        return bool(self._held)

    def feed(self, data: bytes) -> bytes:
        """Return what may go on."""
        if not self._secrets:
            return data
        data = masked(self._held + data, self._secrets)
        keep = min(len(data), self._longest - 1)
        self._held = data[len(data) - keep :]
        return data[: len(data) - keep]

    def feed_long(self, data: bytes) -> tuple[bytes, bytes | memoryview]:
        """Do the same for a long piece, with fewer copies; return what may go on in two parts."""
        seam = self._longest - 1
        if any(secret in data or secret in self._held + data[:seam] for secret in self._secrets) or len(data) <= seam:
            return self.feed(data), b""
        held, self._held = self._held, data[len(data) - seam :]
        return held, memoryview(data)[: len(data) - seam]

    def end(self) -> bytes:
        """Return what was held back: at the end, or where nothing came for a while."""
        held, self._held = self._held, b""
        return held


def masked(data: bytes, secrets: Iterable[bytes]) -> bytes:
    """Return the data with as many asterisks for each secret in it."""
    for secret in secrets:
        if secret in data:
            data = data.replace(secret, _MASK * len(secret))
    return data


class Placeholders:
    """Looks for placeholders in what a program sends, as they stand or within base64."""

    def __init__(self, values: Iterable[str]) -> None:
        self._needles = tuple({needle for value in values for needle in _spellings(value.encode())})
        self._longest = max(map(len, self._needles), default=0)
        self._tail = b""

    def are_in(self, data: bytes) -> bool:
        """Whether one is in this or crosses from what came before."""
        if not self._needles:
            return False
        data = self._tail + data
        self._tail = data[-(self._longest - 1) :]
        return any(needle in data for needle in self._needles)


def _spellings(value: bytes) -> list[bytes]:
    # Where it begins within a group of three bytes decides how base64 spells all but its ends.
    shifted = (base64.b64encode(bytes(shift) + value)[4 if shift else 0 : -4] for shift in range(3))
    return [value, *shifted]
