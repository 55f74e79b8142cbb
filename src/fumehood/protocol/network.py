"""Which hosts a program may reach, and what came of its tries, as data."""

from __future__ import annotations

from ..errors import InvalidRequest
from .credentials import KINDS, Credential
from .hosts import host_name, is_ambiguous_path, port_number
from .record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Literal

    #: What became of a connection.
    Verdict = Literal[
        "tunnelled",  # TLS from the program to the host, unopened
        "opened",  # TLS was opened on the way, for a credential or a rule about requests
        "plain",  # HTTP without TLS
        "refused",  # by the policy, before anything was sent
        "failed",  # it was allowed, and the host could not be reached
    ]

#: The ports of a rule that names none.
DEFAULT_PORTS = (443, 80)


class Allow(Record):
    """One rule: a host that may be reached.

    - `host`: `api.example.com`; `*.example.com` for every subdomain, not for `example.com` itself; `*` for all.
    - `ports`: those that may be reached; 443 and 80 where none is named.
    - `scheme`: "https" or "http" where only that may be spoken.
    - `credential`: is added to every request, on TLS connections alone unless `scheme` is "http".
    - `methods`, `paths`: what requests may be, all where empty. A path is a whole one, or, with a `*` at its end, a beginning.
    - `websocket`: connections that are opened may become WebSockets.
    - `addresses`: networks like `10.0.0.0/8` in which the host may lie although they are not the Internet's.

    Where several rules name a host, those with the most exact `host` count and no others.
    """

    host: str
    ports: tuple[int, ...] = ()
    scheme: str = ""
    credential: Credential | None = None
    methods: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    websocket: bool = False
    addresses: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.__dict__["host"] = _pattern(self.host)
        for name in ("ports", "methods", "paths", "addresses"):
            value = getattr(self, name)
            if not isinstance(value, (tuple, list)):
                raise InvalidRequest(f"{name} of host {self.host!r} is {value!r}: give a list")
            self.__dict__[name] = tuple(value)
        if self.scheme not in ("", "https", "http"):
            raise InvalidRequest(f"scheme {self.scheme!r} of host {self.host!r}: take https or http, or leave it out")
        self._check_parts()
        if not self.ports:
            self.__dict__["ports"] = {"": DEFAULT_PORTS, "https": (443,), "http": (80,)}[self.scheme]
        if self.credential is not None and not isinstance(self.credential, Credential):
            raise InvalidRequest(f"credential of host {self.host!r}: give Bearer, Basic, Header or Query")

    def _check_parts(self) -> None:
        ports: tuple[Any, ...] = self.ports
        for port in ports:
            if isinstance(port, bool) or not isinstance(port, int) or not 1 <= port <= 65535:
                raise InvalidRequest(f"port {port!r} of host {self.host!r} is not a number from 1 to 65535")
        methods: tuple[Any, ...] = self.methods
        for method in methods:
            if not isinstance(method, str) or not method.isascii() or not method.isalpha() or not method.isupper():
                raise InvalidRequest(f"method {method!r} of host {self.host!r}: write one like GET")
        paths: tuple[Any, ...] = self.paths
        for path in paths:
            plain = isinstance(path, str) and path.isascii() and path.isprintable() and " " not in path
            if not plain or not path.startswith("/") or "*" in path[:-1] or is_ambiguous_path(path):
                raise InvalidRequest(f"path {path!r} of host {self.host!r}: write one like /v1/models or /v1/*")
        for network in self.addresses:
            _check_network(network, self.host)
        if not isinstance(self.websocket, bool):
            raise InvalidRequest(f"websocket of host {self.host!r} is {self.websocket!r}: give True or False")

    @property
    def needs_opening(self) -> bool:
        """Whether its requests must be seen."""
        return self.credential is not None or bool(self.methods or self.paths)

    @classmethod
    def parse(cls, text: str) -> Allow:
        """Read `[SCHEME://]HOST[:PORT][/PATH][@NETWORK]`. Raises `InvalidRequest`."""
        scheme, slashes, rest = text.partition("://")
        if slashes and not scheme:
            raise InvalidRequest(f"allowed host {text!r}: write https:// or http:// before it, or nothing")
        rest, at, network = _without_network(rest if slashes else text)
        if at and set(network) - _OF_NETWORKS:
            # Before anything is quoted: what stands before an @ may be a password.
            raise InvalidRequest(
                f"{network!r} behind an @ is no network like 10.0.0.0/8; a user's name and password are a credential, given apart"
            )
        place, slash, path = rest.partition("/")
        host, colon, port = place.partition(":")
        try:
            ports = (port_number(port),) if colon else ()
        except ValueError as error:
            raise InvalidRequest(f"allowed host {text!r}: {error}") from error
        return cls(
            host=host, ports=ports, scheme=scheme if slashes else "", paths=(f"/{path}",) if slash and path else (),
            addresses=(network,) if at else (),
        )  # fmt: skip

    def as_plain(self) -> dict[str, Any]:
        """Return plain JSON values, the credential's secret among them: for the proxy alone."""
        return {**self.as_dict(), "credential": self.credential and self.credential.as_plain()}

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> Allow:
        """Undo `as_plain`."""
        credential = plain["credential"]
        if credential is not None:
            credential = KINDS[credential["kind"]](
                **{name: value for name, value in credential.items() if name != "kind"}
            )
        return cls(**{**plain, "credential": credential})


class Network(Record):
    """What a program may reach: the hosts of `allow`, texts standing for rules (`Allow.parse`), and nothing where it is empty.

    - `connections`: how many may be open at one time.
    - `sent_bytes`, `received_bytes`: what all of them together may carry.
    - `connection_seconds`: how long one may last.
    """

    allow: Sequence[Allow | str] = ()
    connections: int = 128
    sent_bytes: int = 1 << 30
    received_bytes: int = 16 << 30
    connection_seconds: float = 3600.0

    def __post_init__(self) -> None:
        if not isinstance(self.allow, (list, tuple)):
            raise InvalidRequest(f"allow is {type(self.allow).__name__}: give a list of hosts")
        for each in self.allow:
            if not isinstance(each, (str, Allow)):
                # Not as it is: a credential may be in it.
                raise InvalidRequest(f"allow has a {type(each).__name__}: give hosts, or fumehood.Allow(…)")
        rules = tuple(Allow.parse(each) if isinstance(each, str) else each for each in self.allow)
        self.__dict__["allow"] = rules
        if len(rules) > _MOST_RULES:
            raise InvalidRequest(f"allow has {len(rules)} rules: {_MOST_RULES} is the most")
        if len(self.ports) > _MOST_PORTS:
            raise InvalidRequest(f"the rules name {len(self.ports)} ports: {_MOST_PORTS} is the most")
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            wanted = (int, float) if name.endswith("_seconds") else (int,)
            if isinstance(value, bool) or not isinstance(value, wanted) or not low <= value <= high:
                raise InvalidRequest(f"{name} is {value!r}: give a number from {low} to {high}")
        _check_credentials(rules)

    @property
    def rules(self) -> tuple[Allow, ...]:
        """`allow`, all of it rules."""
        return tuple(each for each in self.allow if isinstance(each, Allow))

    @property
    def ports(self) -> tuple[int, ...]:
        """Every port that a rule names, and those that are taken in any case, where refusals are explained."""
        named = {port for rule in self.rules for port in rule.ports}
        return tuple(sorted(named | set(DEFAULT_PORTS)))

    @property
    def has_credentials(self) -> bool:
        """Whether a rule has one."""
        return any(rule.credential is not None for rule in self.rules)

    @property
    def placeholders(self) -> tuple[str, ...]:
        """The environment variables in which programs find placeholders."""
        given = (rule.credential.placeholder for rule in self.rules if rule.credential is not None)
        return tuple(dict.fromkeys(name for name in given if name))

    def as_plain(self) -> dict[str, Any]:
        """Return plain JSON values, secrets among them: for the proxy alone."""
        return {**self.as_dict(), "allow": [rule.as_plain() for rule in self.rules]}

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> Network:
        """Undo `as_plain`."""
        return cls(**{**plain, "allow": tuple(Allow.from_plain(rule) for rule in plain["allow"])})

    def describe(self) -> str:
        """Return the rules in words for people and models, without credentials; of very many the first."""
        words = list(dict.fromkeys(_described(rule) for rule in self.rules))
        others = len(words) - _MOST_DESCRIBED
        return ", ".join(words[:_MOST_DESCRIBED]) + (f" and {others} others" if others > 0 else "")


class Connection(Record):
    """One connection that a program made, or tried: a line of the audit. Never bodies, never credentials.

    `methods` are those of its requests, where they could be seen, in the order of their first use. `sent_bytes` are the program's.
    """

    host: str
    port: int
    verdict: Verdict
    reason: str = ""
    methods: tuple[str, ...] = ()
    requests: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0
    duration_seconds: float = 0.0


class Refusal(Record):
    """What was refused `count` times: the host and port, why, and the rule that would allow it, "" where none would.

    Its port is 0 where the name was looked up and nothing more.
    """

    host: str
    port: int
    why: str
    rule: str = ""
    count: int = 1


class Traffic(Record):
    """What the egress proxy saw of one sandbox. Of connections the first thousand are kept, `left_out` counts the others."""

    connections: tuple[Connection, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    left_out: int = 0

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Traffic:
        """Undo `as_json`."""
        connections = (Connection(**{**each, "methods": tuple(each["methods"])}) for each in values["connections"])
        refusals = (Refusal(**each) for each in values["refusals"])
        return cls(connections=tuple(connections), refusals=tuple(refusals), left_out=values["left_out"])

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "connections": [each.as_dict() for each in self.connections],
            "refusals": [each.as_dict() for each in self.refusals],
            "left_out": self.left_out,
        }


_OF_NETWORKS = frozenset("0123456789abcdefABCDEF.:/")
_MOST_RULES, _MOST_PORTS, _MOST_DESCRIBED = 1000, 32, 50
_RANGES = {
    "connections": (1, 10_000),
    "sent_bytes": (0, 1 << 50),
    "received_bytes": (0, 1 << 50),
    "connection_seconds": (0.01, 86_400),
}


def _pattern(host: Any) -> str:
    if not isinstance(host, str):
        raise InvalidRequest(f"host is {type(host).__name__}: give a name")
    if host == "*":
        return host
    stars = "*." if host.startswith("*.") else ""
    try:
        return stars + host_name(host[len(stars) :])
    except ValueError as error:
        raise InvalidRequest(f"host {host!r}: {error}") from error


def _without_network(text: str) -> tuple[str, str, str]:
    place, at, network = text.rpartition("@")
    # In a path an @ may stand for itself, as in npm's /@scope/package.
    if at and ("/" not in place or not set(network) - _OF_NETWORKS):
        return place, at, network
    return text, "", ""


def _check_network(network: Any, host: str) -> None:
    import ipaddress  # noqa: PLC0415 - 3 ms that only rules with networks need pay

    try:
        if not isinstance(network, str):
            raise ValueError(f"{type(network).__name__} is no text")
        ipaddress.ip_network(network)
    except ValueError as error:
        raise InvalidRequest(f"addresses of host {host!r}: {error}; write a network like 10.0.0.0/8") from error


def _check_credentials(rules: tuple[Allow, ...]) -> None:
    seen: dict[tuple[object, ...], Allow] = {}
    for rule in rules:
        for port in rule.ports:
            for path in rule.paths or ("",):
                for method in rule.methods or ("",):
                    twin = seen.setdefault((rule.host, port, path, method), rule)
                    if twin.credential != rule.credential:
                        raise InvalidRequest(
                            f"two rules for host {rule.host!r} have different credentials for the same requests: keep one"
                        )


def _described(rule: Allow) -> str:
    place = rule.host if rule.ports in (DEFAULT_PORTS, (443,)) else f"{rule.host}:{','.join(map(str, rule.ports))}"
    words = [f"{rule.scheme}://{place}" if rule.scheme == "http" else place]
    if rule.methods:
        words.append(f"({' '.join(rule.methods)})")
    if rule.paths:
        words.append(f"({' '.join(rule.paths)})")
    return " ".join(words)
