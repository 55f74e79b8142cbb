"""Credentials that the egress proxy adds on the way out. A sandbox never holds one; nothing that shows a record shows one."""

from __future__ import annotations

from ..errors import InvalidRequest
from .record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar

#: The kinds by the name that stands for each on the command line and between processes.
KINDS: dict[str, type[Credential]]


class StoredSecret(Record):
    """A secret by the id under which the engine's `secrets` know it."""

    id: str


class Credential(Record):
    """What is added to a request: one of `Bearer`, `Basic`, `Header` and `Query`.

    The secret part is a text, or a `StoredSecret`. `placeholder` names an environment variable in which the program finds a
    made-up value, for tools that want to see one; where that value is sent to another host the request is refused.
    """

    placeholder: str = ""
    _secret: ClassVar[str] = ""
    _in_header: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for name in self._fields:
            value = getattr(self, name)
            if name == self._secret:
                if isinstance(value, StoredSecret):
                    continue
                if not isinstance(value, str) or not value:
                    raise InvalidRequest(f"{type(self).__name__}: {name} is empty or no text")
            if not isinstance(value, str) or any(each in value for each in "\0\r\n") or not _is_unicode(value):
                # Without the value: it may be the secret.
                raise InvalidRequest(
                    f"{type(self).__name__}: {name} is no text, or has a line end or half a character in it"
                )
        if self._in_header and isinstance(secret := self.secret, str) and not _fits_header(secret):
            raise InvalidRequest(
                f"{type(self).__name__}: {self._secret} does not fit into a header: take visible ASCII characters"
            )
        name = self.placeholder
        if name and (not name.isascii() or not name.isidentifier() or name in ("PATH", "HOME", "LANG", "TZ")):
            raise InvalidRequest(f"placeholder {self.placeholder!r} is no name of an environment variable")

    @property
    def secret(self) -> str | StoredSecret:
        """The part that must not be seen."""
        value: str | StoredSecret = getattr(self, self._secret)
        return value

    def with_secret(self, value: str) -> Credential:
        """Return the same with a text for its secret."""
        return self.replace(**{self._secret: value})

    def as_plain(self) -> dict[str, Any]:
        """Return plain JSON values, the secret among them: for the proxy alone."""
        kind = next(name for name, cls in KINDS.items() if cls is type(self))
        return {"kind": kind, **self.as_dict()}

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in self._fields if name != self._secret)
        return f"{type(self).__name__}({shown}, {self._secret}=…)"


class Bearer(Credential):
    """`Authorization: Bearer TOKEN` (RFC 6750)."""

    token: str | StoredSecret
    _secret = "token"  # noqa: S105 - the field's name
    _in_header = True


class Basic(Credential):
    """`Authorization: Basic …` (RFC 7617)."""

    user: str
    password: str | StoredSecret
    _secret = "password"  # noqa: S105 - likewise

    def __post_init__(self) -> None:
        super().__post_init__()
        if ":" in self.user:
            raise InvalidRequest(f"Basic: user {self.user!r} has a colon, which RFC 7617 forbids")


class Header(Credential):
    """A header of that name, like `X-Api-Key`."""

    name: str
    value: str | StoredSecret
    _secret = "value"  # noqa: S105 - likewise
    _in_header = True

    def __post_init__(self) -> None:
        super().__post_init__()
        token = self.name.replace("-", "a").replace("_", "a")
        if not token.isascii() or not token.isalnum() or self.name.lower() in _FRAMING:
            raise InvalidRequest(f"Header: name {self.name!r} cannot be a credential's: take one like X-Api-Key")


class Query(Credential):
    """A parameter of the URL's query. Servers write URLs into their logs: take it where there is no other way."""

    key: str
    value: str | StoredSecret
    _secret = "value"  # noqa: S105 - likewise

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.key:
            raise InvalidRequest("Query: key is empty")


# What says where a message ends or whom it is for is no credential.
_FRAMING = frozenset(
    ("host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer", "expect", "keep-alive")
)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _fits_header(text: str) -> bool:
    return text.isascii() and text.isprintable() and text == text.strip()


KINDS = {"bearer": Bearer, "basic": Basic, "header": Header, "query": Query}
