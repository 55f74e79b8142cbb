"""Where a credential is, looked for from the host: in the engine's own process and its proxy, and nowhere else."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fumehood import Allow, Basic, Bearer, Engine, Header, Network, Query
from fumehood.errors import InvalidRequest
from fumehood.protocol.credentials import Credential
from tests.testing.outside import LOOPBACK, Authority, NameServer, Server

FUMEHOOD = Path(sys.executable).parent / "fumehood"
SECRET = "correct-horse-battery-staple"


@pytest.fixture(scope="module")
def outside() -> Iterator[tuple[NameServer, Server]]:
    authority = Authority()
    with (
        authority.trusted(),
        NameServer({"good.test": [["127.0.0.1"]]}) as names,
        Server(context=authority.context("good.test")) as server,
    ):
        yield names, server


def descendants(pid: int) -> list[int]:
    """Return the numbers of all processes below one."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found += [child, *descendants(child)]
    return found


def places_of(secret: bytes, pid: int) -> list[str]:
    """Return where a process has a secret: its command line, its environment, its memory."""
    places: list[str] = []
    # One that ends meanwhile holds nothing; into some only root may look.
    with contextlib.suppress(ProcessLookupError, FileNotFoundError, PermissionError):
        places += [name for name in ("cmdline", "environ") if secret in Path(f"/proc/{pid}/{name}").read_bytes()]
        with Path(f"/proc/{pid}/maps").open() as maps, Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
            for line in maps:
                addresses, mode = line.split()[:2]
                first, last = (int(each, 16) for each in addresses.split("-"))
                if mode.startswith("r") and "[v" not in line and secret in _read(memory.fileno(), first, last):
                    places.append(line.split()[-1])
    return places


def _read(memory: int, first: int, last: int) -> bytes:
    try:
        return os.pread(memory, last - first, first)
    except OSError:
        return b""  # nothing is there


def readable(pid: int) -> bool:
    try:
        Path(f"/proc/{pid}/maps").read_text()
    except OSError:
        return False
    return True


def name_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")


def test_no_process_but_the_proxy_holds_the_secret(outside: tuple[NameServer, Server]) -> None:
    names, server = outside
    rule = Allow(
        host="good.test", ports=(server.port,), addresses=LOOPBACK, credential=Bearer(token=SECRET, placeholder="TOKEN")
    )
    with Engine(nameserver=names.address) as engine:
        engine.prepare()
        with engine.session(network=Network(allow=[rule])) as session:
            code = (
                f"import requests\nr = requests.get('https://good.test:{server.port}/'); print(r.status_code, r.text)"
            )
            assert session.run(code).stdout.startswith("200")
            assert server.requests[-1].header("authorization") == f"Bearer {SECRET}"
            proxy = engine._outward()._outlet._process
            assert proxy is not None
            below = {pid for pid in descendants(os.getpid()) if readable(pid)}
            if os.geteuid() == 0:
                # The scan sees what it is meant to see.
                assert places_of(SECRET.encode(), proxy.pid)
                assert len(below) >= 5
            held = {name_of(pid): places for pid in below - {proxy.pid} if (places := places_of(SECRET.encode(), pid))}
            assert held == {}
            assert SECRET.encode() not in Path(f"/proc/{proxy.pid}/cmdline").read_bytes()
            with session.fork()[0] as copy:
                assert copy.run("1").ok
                below = {pid for pid in descendants(os.getpid()) if readable(pid)} - {proxy.pid}
                assert not [pid for pid in below if places_of(SECRET.encode(), pid)]


def test_the_commands_sandbox_does_not_hold_it_either(outside: tuple[NameServer, Server]) -> None:
    names, server = outside
    rule = f"https://good.test:{server.port}@127.0.0.0/8=bearer:@TOKEN"
    code = f"import requests, time; print(requests.get('https://good.test:{server.port}/').status_code, flush=True); time.sleep(20)"
    environment = {**os.environ, "TOKEN": SECRET, "FUMEHOOD_NAMESERVER": names.address}
    with subprocess.Popen(
        [FUMEHOOD, "run", "--allow-host", rule, "-c", code], env=environment, stdout=subprocess.PIPE, text=True
    ) as command:
        try:
            assert command.stdout is not None
            assert command.stdout.readline() == "200\n"
            below = [pid for pid in descendants(command.pid) if readable(pid) and "egress.process" not in name_of(pid)]
            assert len(below) >= (3 if os.geteuid() == 0 else 1)
            assert not [name_of(pid) for pid in below if places_of(SECRET.encode(), pid)]
        finally:
            command.terminate()
    time.sleep(0.1)


@pytest.mark.parametrize(
    "make",
    [
        lambda secret: Bearer(token=secret),
        lambda secret: Header(name="X-Key", value=secret),
        lambda secret: Basic(user="me", password=secret),
        lambda secret: Query(key="k", value=secret),
    ],
    ids=["bearer", "header", "basic", "query"],
)
def test_a_secret_that_cannot_be_sent_is_refused_without_being_shown(make: type[Credential]) -> None:
    for secret in (f"{SECRET}\r\nX: y", f"{SECRET}\0", ""):
        with pytest.raises(InvalidRequest) as raised:
            make(secret)  # type: ignore[call-arg]  # one of the lambdas
        assert SECRET not in str(raised.value)
    for secret in (f"{SECRET}\x7f", f" {SECRET}", f"{SECRET}é"):
        if make("x" * 8)._in_header:  # type: ignore[call-arg]  # likewise
            with pytest.raises(InvalidRequest) as raised:
                make(secret)  # type: ignore[call-arg]  # likewise
            assert SECRET not in str(raised.value)


def test_a_secret_goes_into_no_record_of_a_failure(outside: tuple[NameServer, Server]) -> None:
    names, _server = outside
    # Nobody listens there, and the name has no address.
    rules = [
        Allow(host="good.test", ports=(1,), addresses=LOOPBACK, credential=Query(key="key", value=SECRET)),
        Allow(host="nowhere.test", credential=Bearer(token=SECRET)),
    ]
    code = "import requests\nfor u in ('https://good.test:1/', 'https://nowhere.test/'): print(requests.get(u).text)"
    with Engine(nameserver=names.address) as engine, engine.session(network=Network(allow=rules)) as session:
        result = session.run(code)
        assert "cannot be reached" in result.stdout
        assert "cannot be looked up" in result.stdout
        assert [line.verdict for line in result.connections] == ["failed", "failed"]
        assert SECRET not in f"{result!r}{session.network!r}"
