"""An engine, and an outside that its sandboxes may reach."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fumehood import (
    Allow,
    Engine,
    ExecutionRequest,
    ExecutionResult,
    Network,
)
from fumehood.protocol.network import Connection
from tests.testing.outside import LOOPBACK, Authority, NameServer, Server

SECRET = "correct-horse-battery-staple"


class Outside:
    """A name server, an HTTPS and an HTTP server, and an engine that asks that name server."""

    def __init__(self, names: NameServer, https: Server, http: Server, engine: Engine, seen: list[Connection]) -> None:
        self.names, self.https, self.http, self.engine, self.seen = names, https, http, engine, seen

    def rule(self, host: str = "good.test", **fields: object) -> Allow:
        return Allow(host=host, ports=(self.https.port, self.http.port), addresses=LOOPBACK, **fields)  # type: ignore[arg-type]  # fields by name

    def run(self, code: str, *rules: Allow | str, language: str = "python", **limits: int) -> ExecutionResult:
        network = Network(allow=rules, **limits)
        return self.engine.execute(ExecutionRequest(code=code, language=language, network=network))

    def get(self, host: str = "good.test", path: str = "/", more: str = "") -> str:
        """Return a program that prints status and body."""
        url = f"https://{host}:{self.https.port}{path}"
        return f"import requests\nr = requests.get({url!r}{more})\nprint(r.status_code, r.text)"


@pytest.fixture(scope="module")
def outside() -> Iterator[Outside]:
    authority = Authority()
    addresses = {
        name: [["127.0.0.1"]] for name in ("good.test", "other.test", "a.wild.test", "wild.test", "untrusted.test")
    }
    seen: list[Connection] = []
    secrets = {"stored": SECRET}
    with (
        authority.trusted(),
        NameServer(addresses) as names,
        Server(context=authority.context("good.test", "other.test", "a.wild.test", "wild.test")) as https,
        Server() as http,
        Engine(nameserver=names.address, secrets=secrets, on_connection=seen.append) as engine,
    ):
        engine.prepare()
        yield Outside(names, https, http, engine, seen)


@pytest.fixture
def echoes(outside: Outside) -> Iterator[None]:
    answer = outside.https.answer
    for server in (outside.https, outside.http):
        server.requests.clear()
    yield
    outside.https.answer = answer
