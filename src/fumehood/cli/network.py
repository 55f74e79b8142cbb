"""The options by which a command's programs may reach hosts, and what a person is told of what they could not."""

from __future__ import annotations

import os

from ..protocol.credentials import KINDS
from ..protocol.network import Allow, Network
from .arguments import Option, UsageError
from .terminal import note, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..protocol.credentials import Credential
    from ..protocol.network import Refusal
    from .arguments import Arguments

# What stands behind each kind's name, in order.
_PARTS = {
    "bearer": ("token",),
    "basic": ("user", "password"),
    "header": ("name", "value"),
    "query": ("key", "value"),
}


def network_of(arguments: Arguments) -> Network:
    """Return what the options allow. Raises `InvalidRequest`, `UsageError`."""
    placeholders: dict[str, str] = dict(arguments.placeholder)
    rules = []
    for text in arguments.allow_host:
        rule = rule_of(text)
        variable = placeholders.pop(rule.host, "")
        if variable:
            if rule.credential is None:
                raise UsageError(f"--placeholder {variable}={rule.host}: that host has no credential")
            rule = rule.replace(credential=rule.credential.replace(placeholder=variable))
        rules.append(rule)
    if placeholders:
        host, variable = next(iter(placeholders.items()))
        raise UsageError(f"--placeholder {variable}={host}: no --allow-host names that host")
    return Network(allow=tuple(rules))


def rule_of(text: str) -> Allow:
    """Read `RULE[=KIND:…]`. Raises `InvalidRequest`, `UsageError`."""
    rule, equals, credential = text.partition("=")
    allowed = Allow.parse(rule)
    return allowed.replace(credential=_credential(rule, credential)) if equals else allowed


def _credential(rule: str, text: str) -> Credential:
    # What is wrong is told without the text: it may hold the secret.
    kind, _colon, rest = text.partition(":")
    if kind not in KINDS:
        raise UsageError(
            f"--allow-host {rule}=…: a credential is bearer:TOKEN, basic:USER:PASSWORD, header:NAME:VALUE or query:KEY:VALUE"
        )
    names = _PARTS[kind]
    values = rest.split(":", len(names) - 1)
    if len(values) != len(names) or not all(values):
        raise UsageError(f"--allow-host {rule}={kind}:…: give {':'.join(name.upper() for name in names)}")
    values[-1] = _secret(rule, values[-1])
    return KINDS[kind](**dict(zip(names, values, strict=True)))


def _secret(rule: str, text: str) -> str:
    if not text.startswith("@"):
        return text
    value = os.environ.get(text[1:], "")
    if not value:
        raise UsageError(f"--allow-host {rule}=…: the environment variable {text[1:]!r} is not set")
    return value


def explain(refusals: Iterable[Refusal]) -> None:
    """Tell a person what was refused, and what would allow it."""
    told: dict[str, None] = {}
    for refusal in refusals:
        advice = f": --allow-host {refusal.rule} would allow it" if refusal.rule else ""
        told[f"fumehood: refused: {printable(refusal.why)}{printable(advice)}"] = None
    for line in told:
        note(line)


def _placeholder(text: str) -> tuple[str, str]:
    variable, equals, host = text.partition("=")
    if not equals or not variable or not host:
        raise ValueError("write NAME=HOST")
    return host.lower(), variable


OPTIONS = (
    Option(
        name="allow-host",
        metavar="RULE",
        many=True,
        help="Let it reach a host: [https://]HOST[:PORT][/PATH*], *.HOST for its subdomains, * for all. =bearer:@VARIABLE, "
        "=basic:USER:@VARIABLE, =header:NAME:@VARIABLE or =query:KEY:@VARIABLE at the end adds a credential that it never sees. "
        "@NETWORK after the host: where it may lie although that is not the Internet's.",
    ),
    Option(
        name="placeholder",
        metavar="NAME=HOST",
        many=True,
        convert=_placeholder,
        help="Show it a made-up value in that variable, for tools that ask for a credential.",
    ),
)
