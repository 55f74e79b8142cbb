"""What an engine does so that its sandboxes may reach hosts: stored secrets, placeholders, the certificates to trust, the proxy.

Promised: of a credential a sandbox gets a placeholder, where one is asked for, and nothing else.
"""

from __future__ import annotations

import os
import secrets as tokens
import threading
from typing import TYPE_CHECKING

from .errors import EgressFailed, InvalidRequest
from .protocol.credentials import StoredSecret
from .protocol.network import Network, Traffic
from .sandbox.outlet import Outlet, Passage
from .sandbox.trust import ENVIRONMENT, Trust

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .protocol.network import Connection
    from .sandbox.spec import Mount

    #: Opens listeners in a network namespace, as `Launcher.open_listeners` does.
    Opens = Callable[..., list[int]]
    #: Gives a stored secret by its id. Raises KeyError where there is none.
    Secrets = Callable[[str], str]
    ConnectionListener = Callable[[Connection], None]


class Outward:
    """One for each engine. Any thread may call."""

    def __init__(
        self, secrets: Mapping[str, str] | Secrets | None, nameserver: str, on_connection: ConnectionListener | None
    ) -> None:
        self._secrets: Secrets = secrets if callable(secrets) else dict(secrets or {}).__getitem__
        self._on_connection = on_connection
        self._outlet = Outlet(nameserver or os.environ.get("FUMEHOOD_NAMESERVER", ""))
        self._lock = threading.Lock()
        self._trust: Trust | None = None
        self._mounts: dict[tuple[Mount, ...], tuple[Mount, ...]] = {}

    def mounts(self, shown: tuple[Mount, ...]) -> tuple[Mount, ...]:
        """Return what a sandbox with these mounts is shown besides, to trust whom its programs should."""
        with self._lock:
            if self._trust is None:
                self._trust = Trust()
            if shown not in self._mounts:
                self._mounts[shown] = self._trust.mounts(shown)
            return self._mounts[shown]

    def placeholders(self, network: Network) -> dict[str, str]:
        """Make up a value for each placeholder of a network, by its variable."""
        return {name: f"fumehood-placeholder-{tokens.token_hex(16)}" for name in network.placeholders}

    def environment(self, placeholders: Mapping[str, str]) -> dict[str, str]:
        """Return what a program finds in its environment. Raises `EgressFailed`."""
        # Before the program starts: it may read its certificates at once.
        certificate = self._outlet.certificate()
        with self._lock:
            if self._trust is None:
                self._trust = Trust()
            self._trust.add(certificate)
        return {**ENVIRONMENT, **placeholders}

    def way_out(self, network: Network, opens: Opens | None, placeholders: Mapping[str, str] | None = None) -> WayOut:
        """Return a sandbox's way out, which is not open yet. Raises `InvalidRequest` for a secret that is not there.

        `placeholders` are those that its program has already; None makes up new ones.
        """
        given = self.placeholders(network) if placeholders is None else placeholders
        way = WayOut(self, network, opens, given)
        self._outlet.begin()
        return way

    def open(self, listeners: list[int], network: Network, placeholders: Mapping[str, str]) -> Passage:
        """Do what `Outlet.open` does, with a network of `resolved`."""
        return self._outlet.open(listeners, network, placeholders)

    def resolved(self, network: Network) -> Network:
        """Return a network with the texts of stored secrets in it. Raises `InvalidRequest` naming one that is not there."""
        rules = []
        for rule in network.rules:
            credential = rule.credential
            if credential is not None and isinstance(credential.secret, StoredSecret):
                name = credential.secret.id
                try:
                    credential = credential.with_secret(self._secrets(name))
                except KeyError as error:
                    raise InvalidRequest(f"no secret has the id {name!r}: give the engine one (secrets=…)") from error
            rules.append(rule.replace(credential=credential))
        return network.replace(allow=tuple(rules))

    def told(self, traffic: Traffic) -> Traffic:
        """Pass on what was seen to whoever listens, and return it."""
        if self._on_connection is not None:
            for connection in traffic.connections:
                self._on_connection(connection)
        return traffic

    def close(self) -> None:
        """End the proxy, and with it every way out."""
        self._outlet.close()
        with self._lock:
            if self._trust is not None:
                self._trust.close()

    def abandon(self) -> None:
        """Leave all of it to the process that this one was forked from."""
        self._outlet.abandon()
        if self._trust is not None:
            self._trust.close()
        self._trust, self._mounts = None, {}


class WayOut:
    """The way out of one sandbox, from before it is open until it is closed."""

    def __init__(
        self, outward: Outward, network: Network, opens: Opens | None, placeholders: Mapping[str, str]
    ) -> None:
        self._outward, self._opens = outward, opens
        self.network, self.placeholders = network, placeholders
        self._check_placeholders(network)
        self._resolved = outward.resolved(network)
        self._passage: Passage | None = None

    def environment(self) -> dict[str, str]:
        """Return what its program finds in its environment. Raises `EgressFailed`."""
        return self._outward.environment(self.placeholders)

    def open(self, listeners: list[int]) -> None:
        """Open it at sockets of the sandbox's, which this owns. Raises `EgressFailed`."""
        self._passage = self._outward.open(listeners, self._resolved, self.placeholders)

    def begin(self, namespace: int) -> None:
        """Open it in the sandbox's network namespace, an open one. Raises `EgressFailed`, `SandboxFailed`."""
        self.open(self._listeners(namespace, self.network.ports, is_first=True))

    def change(self, network: Network, namespace: int) -> None:
        """Allow other hosts from now on. Raises as those do, and `InvalidRequest`; then all is as it was."""
        self._check_placeholders(network)
        resolved = self._outward.resolved(network)
        # Trusted before it is needed, also where the proxy is another than before.
        self.environment()
        if self._passage is None:
            before = self.network, self._resolved
            self.network, self._resolved = network, resolved
            try:
                self.begin(namespace)
            except BaseException:
                self.network, self._resolved = before
                raise
            return
        try:
            if ports := tuple(set(network.ports) - self._passage.ports):
                self._passage.add(self._listeners(namespace, ports, is_first=False), ports)
            self._passage.change(resolved, self.placeholders)
        except EgressFailed:
            self.close()
            raise
        self.network, self._resolved = network, resolved

    def part(self) -> Traffic:
        """Return what was seen since the last time. Raises `EgressFailed`: then it is closed, and `change` opens it anew."""
        return self._report(is_last=False)

    def end(self) -> Traffic:
        """Do the same after every connection was closed."""
        return self._report(is_last=True)

    def close(self) -> None:
        """Close it: no connection stays. Closing twice is no error."""
        passage, self._passage = self._passage, None
        if passage is not None:
            passage.close()

    def _report(self, *, is_last: bool) -> Traffic:
        if self._passage is None:
            return Traffic()
        try:
            return self._outward.told(self._passage.report(is_last=is_last))
        except EgressFailed:
            self.close()
            raise

    def _listeners(self, namespace: int, ports: tuple[int, ...], *, is_first: bool) -> list[int]:
        if self._opens is None or namespace < 0:
            raise InvalidRequest(
                "this sandbox cannot be led out: its engine forks sandboxes by itself, or gave up proc"
            )
        return self._opens(namespace, ports, is_first=is_first)

    def _check_placeholders(self, network: Network) -> None:
        if missing := set(network.placeholders) - self.placeholders.keys():
            raise InvalidRequest(
                f"placeholder {min(missing)!r} cannot be given to a program that runs: name it when its session begins"
            )
