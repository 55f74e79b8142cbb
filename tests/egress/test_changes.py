"""A way out that changes while it is used: rules of sessions, forks, and a proxy that dies."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fumehood import (
    Bearer,
    CellResult,
    Engine,
    ExecutionRequest,
    Network,
    Session,
)
from fumehood.errors import EgressFailed
from tests.testing.outside import Request
from tests.testing.reaching import SECRET, Outside

pytestmark = pytest.mark.usefixtures("echoes")


@pytest.fixture
def session(outside: Outside) -> Iterator[Session]:
    with outside.engine.session(network=Network(allow=[outside.rule()])) as session:
        yield session


def status_of(outside: Outside, session: Session, host: str = "good.test") -> str:
    return session.run(outside.get(host).replace("r.text", "''")).stdout.strip()


def test_a_sessions_rules_are_tightened_and_widened_between_cells(outside: Outside, session: Session) -> None:
    assert status_of(outside, session) == "200"
    session.set_network(Network())
    assert status_of(outside, session) == "403"
    session.set_network(Network(allow=[outside.rule("other.test", credential=Bearer(token=SECRET))]))
    assert status_of(outside, session) == "403"
    assert status_of(outside, session, "other.test") == "200"
    assert outside.https.requests[-1].header("authorization") == f"Bearer {SECRET}"
    assert session.network.rules[0].host == "other.test"


def test_a_rule_that_names_another_port_opens_it_in_a_session_that_runs(outside: Outside) -> None:
    with outside.engine.session(network=Network()) as session:
        code = f"import requests; print(requests.get('http://good.test:{outside.http.port}/').status_code)"
        assert session.run(code).error is not None
        session.set_network(Network(allow=[outside.rule()]))
        assert session.run(code).stdout == "200\n"


def test_a_session_that_began_without_network_can_be_given_one(outside: Outside) -> None:
    with outside.engine.session() as session:
        assert session.run(outside.get()).error is not None
        session.set_network(Network(allow=[outside.rule(credential=Bearer(token=SECRET))]))
        assert status_of(outside, session) == "200"


def test_a_connection_that_the_new_rules_do_not_allow_ends(outside: Outside, session: Session) -> None:
    begin = f"""import ssl, socket
s = ssl.create_default_context().wrap_socket(socket.create_connection(('good.test', {outside.https.port})), server_hostname='good.test')
def ask():
    s.sendall(b'GET / HTTP/1.1\\r\\nHost: good.test\\r\\n\\r\\n')
    return s.recv(15)
print(ask())"""
    assert session.run(begin).stdout == "b'HTTP/1.1 200 OK'\n"
    assert session.run("s.settimeout(5); s.recv(100_000); print(ask())").stdout == "b'HTTP/1.1 200 OK'\n"
    session.set_network(Network(allow=["other.test"]))
    result = session.run("s.recv(100_000); print(ask())")
    assert result.error is not None or "200" not in result.stdout
    assert len(outside.https.requests) == 2


def test_a_request_under_way_goes_on_where_the_new_rules_have_its_rule(outside: Outside) -> None:
    rule, held = outside.rule(credential=Bearer(token=SECRET)), threading.Event()

    def answer(_request: Request) -> tuple[int, dict[str, str], bytes]:
        held.wait(10)
        return 200, {}, b"whole"

    outside.https.answer = answer
    code = f"import requests; print(requests.get('https://good.test:{outside.https.port}/').text)"
    with outside.engine.session(network=Network(allow=[rule])) as session:
        for network, text in ((Network(allow=[rule, "a.test"]), "whole\n"), (Network(allow=["a.test"]), "")):
            held.clear()
            outside.https.requests.clear()
            cell: list[CellResult] = []
            thread = threading.Thread(target=lambda cell=cell: cell.append(session.run(code)))
            thread.start()
            while not outside.https.requests:
                time.sleep(0.01)
            session.set_network(network)
            held.set()
            thread.join()
            assert cell[0].stdout == text


def test_each_cell_tells_what_it_reached(outside: Outside, session: Session) -> None:
    def lines(cell: CellResult) -> list[tuple[str, str]]:
        return [(each.host, each.verdict) for each in cell.connections]

    assert lines(session.run(outside.get())) == [("good.test", "tunnelled")]
    assert lines(session.run("1")) == []
    refused = session.run("requests.get('https://evil.test/')")
    assert lines(refused) == [("evil.test", "refused")]
    assert [(each.host, each.rule) for each in refused.refusals][-1] == ("evil.test", "evil.test")


def test_a_forked_session_keeps_its_network_and_its_copies_get_theirs_anew(outside: Outside) -> None:
    rule = outside.rule(credential=Bearer(token=SECRET))
    with outside.engine.session(network=Network(allow=[rule])) as session:
        assert status_of(outside, session) == "200"
        (copy,) = session.fork()
        with copy:
            assert status_of(outside, session) == "200"
            assert copy.run(outside.get()).error is not None
            assert copy.network == Network()
            copy.set_network(session.network)
            assert status_of(outside, copy) == "200"
        session.restart()
        assert status_of(outside, session) == "200"
        with session.checkpoint() as checkpoint:
            session.set_network(Network())
            session.restore(checkpoint)
            assert session.run(outside.get()).error is not None


@pytest.mark.parametrize("language", ["bash", "javascript"])
def test_sessions_of_other_languages_reach_allowed_hosts(outside: Outside, language: str) -> None:
    if language == "javascript":
        pytest.importorskip("shutil").which("node") or pytest.skip("no node here")
        code = f"(await fetch('https://good.test:{outside.https.port}/')).status"
    else:
        Path("/usr/bin/curl").exists() or pytest.skip("no curl here")
        code = f"curl -sS -o /dev/null -w '%{{http_code}}' https://good.test:{outside.https.port}/"
    rule = outside.rule(credential=Bearer(token=SECRET))
    with outside.engine.session(language, network=Network(allow=[rule])) as session:
        result = session.run(code)
        assert "200" in f"{result.stdout}{result.result}", result


def kill_proxy(engine: Engine) -> None:
    process = engine._outward()._outlet._process
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def test_a_dead_proxy_is_a_typed_error_and_no_open_path(outside: Outside) -> None:
    code = (
        outside.get().replace("requests.get(", "requests.Session().get(")
        + "\nimport time\nprint('up', flush=True)\ntime.sleep(1)\n"
    )
    code += "try: requests.get(r.url, timeout=5); print('reached')\nexcept requests.ConnectionError: print('refused')"
    began = threading.Event()
    heard = bytearray()

    def hear(_stream: str, piece: bytes) -> None:
        heard.extend(piece)
        if b"up" in heard:
            began.set()

    def kill() -> None:
        began.wait(20)
        kill_proxy(outside.engine)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        with pytest.raises(EgressFailed, match="the egress proxy was killed"):
            outside.engine.execute(ExecutionRequest(code=code, network=Network(allow=[outside.rule()])), on_output=hear)
    finally:
        killer.join()
    assert b"refused" in heard
    assert outside.run(outside.get(), outside.rule()).stdout.startswith("200")


def test_a_session_hears_of_a_dead_proxy_and_gets_another(outside: Outside, session: Session) -> None:
    assert status_of(outside, session) == "200"
    kill_proxy(outside.engine)
    with pytest.raises(EgressFailed):
        session.run("1")
    assert session.run(f"x = 1\n{outside.get()}").error is not None
    session.set_network(Network(allow=[outside.rule(credential=Bearer(token=SECRET))]))
    assert status_of(outside, session) == "200"
    assert session.run("x").result == {"text/plain": "1"}


def test_a_change_of_rules_tells_of_a_dead_proxy_too_and_the_next_is_made(outside: Outside, session: Session) -> None:
    assert status_of(outside, session) == "200"
    kill_proxy(outside.engine)
    with pytest.raises(EgressFailed):
        session.set_network(Network(allow=["another.test:8443"]))
    assert session.network.rules[0].host == "good.test"
    session.set_network(Network(allow=[outside.rule()]))
    assert status_of(outside, session) == "200"
