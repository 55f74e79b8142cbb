"""Decides, for one sandbox, whether a connection and then each request on it may be made, and by which rule.

Promised: what no rule allows is denied, in words that name the rule which would allow it; of several rules those with the most
exact host decide, whatever a wider one says.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ..protocol.hosts import is_ambiguous_path

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..protocol.network import Allow, Network

_HTTPS = "https"
_PLAIN_PATH = re.compile(r"(?:/[A-Za-z0-9._~-]*){1,20}")


class Denied(Exception):
    """The program's wish, against the policy. `rule` would allow it, "" where none would."""

    def __init__(self, host: str, port: int, why: str, rule: str = "") -> None:
        self.host, self.port, self.why, self.rule = host, port, why, rule
        super().__init__(f"{why}; the rule {rule} would allow it" if rule else why)


class Policy:
    """The rules of one sandbox. `placeholders` are the made-up values that stand for credentials, by their variables."""

    def __init__(self, network: Network, placeholders: Mapping[str, str]) -> None:
        self.network, self.placeholders = network, placeholders
        self._rules: dict[str, list[Allow]] = {}
        for rule in network.rules:
            self._rules.setdefault(rule.host, []).append(rule)

    def rules_for(self, host: str) -> list[Allow]:
        """Return the rules with the most exact name for a host."""
        if host in self._rules:
            return self._rules[host]
        _first, dot, rest = host.partition(".")
        while dot:
            if (rules := self._rules.get(f"*.{rest}")) is not None:
                return rules
            _first, dot, rest = rest.partition(".")
        return self._rules.get("*", [])

    def check_name(self, host: str, port: int = 0) -> list[Allow]:
        """Return those rules. Raises `Denied` where there are none."""
        if rules := self.rules_for(host):
            return rules
        allowed = self.network.describe()
        why = f"host {host} is not allowed: " + (f"only {allowed}" if allowed else "no host is")
        raise Denied(host, port, why, host if port in (0, 80, 443) else f"{host}:{port}")

    def connection(self, host: str, port: int, scheme: str) -> bool:
        """Return whether TLS to that host must be opened. Raises `Denied`."""
        rules = self.check_name(host, port)
        ports = sorted({each for rule in rules for each in rule.ports})
        if port not in ports:
            why = f"port {port} of host {host} is not allowed: only {', '.join(map(str, ports))}"
            raise Denied(host, port, why, f"{host}:{port}")
        rules = [rule for rule in rules if port in rule.ports]
        if all(rule.scheme not in ("", scheme) for rule in rules):
            why = f"{scheme} to port {port} of host {host} is not allowed: only {rules[0].scheme}"
            raise Denied(host, port, why, f"{scheme}://{host}:{port}")
        # A placeholder must not leave unseen, whichever host it is sent to.
        return bool(self.placeholders) or any(rule.needs_opening for rule in rules)

    def request(self, host: str, port: int, scheme: str, method: str, target: str) -> Allow:
        """Return the rule by which a request may be made. Raises `Denied`."""
        self.connection(host, port, scheme)
        path = target.partition("?")[0]
        rules = [rule for rule in self.rules_for(host) if port in rule.ports and rule.scheme in ("", scheme)]
        if any(rule.paths for rule in rules) and is_ambiguous_path(path):
            raise Denied(
                host, port, f"path {path} of host {host} can be read in more than one way, and a rule names paths"
            )
        fitting = [rule for rule in rules if not rule.methods or method in rule.methods]
        fitting = [rule for rule in fitting if not rule.paths or _exactness(rule, path) > 0]
        if not fitting:
            why = f"{method} {path} of host {host} is not allowed: only {', '.join(map(_requests, rules))}"
            place = host if port in (80, 443) else f"{host}:{port}"
            # The program chose the path: it is suggested where it can stand for nothing else, in a rule or in a shell.
            raise Denied(host, port, why, f"{place}{path}" if _PLAIN_PATH.fullmatch(path) else place)
        rule = max(fitting, key=lambda each: (_exactness(each, path), bool(each.methods)))
        if rule.credential is not None and scheme not in (_HTTPS, rule.scheme):
            raise Denied(host, port, f"host {host} has a credential, which goes over https alone: ask for https")
        return rule

    def foreign_placeholders(self, rule: Allow) -> list[str]:
        """Return the placeholders that a request by this rule may not carry."""
        own = rule.credential.placeholder if rule.credential is not None else ""
        return [value for variable, value in self.placeholders.items() if variable != own]


def _exactness(rule: Allow, path: str) -> int:
    """Return how much of a path a rule names, 0 where it does not fit or names none; a whole one counts most."""
    fitting = [
        2 * len(each) - 2 if each.endswith("*") else 2 * len(each) + 1
        for each in rule.paths
        if (path.startswith(each[:-1]) if each.endswith("*") else path == each)
    ]
    return max(fitting, default=0)


def _requests(rule: Allow) -> str:
    return f"{' or '.join(rule.methods) or 'any method'} of {' or '.join(rule.paths) or 'any path'}"
