"""Executions and sessions inside gVisor, where `runsc` is installed and may run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from fumehood import Allow, Bearer, Engine, ExecutionRequest, ExecutionResult, Limits, Network
from fumehood.errors import ForkRefused, InvalidRequest, SandboxUnavailable
from fumehood.protocol.limits import MiB
from tests.testing.leftovers import assert_nothing_is_left, settled
from tests.testing.outside import LOOPBACK, Authority, NameServer, Server
from tests.testing.served import KEY, Served

pytestmark = [
    pytest.mark.alone,
    pytest.mark.skipif(shutil.which("runsc") is None, reason="gVisor's runsc is not installed"),
]


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine(isolation="gvisor") as engine:
        yield engine


def run(engine: Engine, code: str, language: str = "python", **fields: object) -> ExecutionResult:
    return engine.execute(ExecutionRequest(code=code, language=language, **fields))  # type: ignore[arg-type]  # the tests' own


def test_a_service_gives_all_programs_another_kernel(tmp_path: Path) -> None:
    code = {"code": "import os; print(os.uname().release)"}
    with (
        Served(tmp_path, "--isolation", "gvisor") as served,
        httpx.Client(base_url=served.url, headers={"authorization": f"Bearer {KEY}"}, timeout=60) as client,
    ):
        session = client.post("/v1/sessions", json={}).json()["id"]
        for path in ("/v1/executions", f"/v1/sessions/{session}/cells"):
            told = client.post(path, json=code).json()["stdout"]
            assert told.strip() not in ("", os.uname().release), path
        client.delete(f"/v1/sessions/{session}")


def test_another_kernel_than_the_hosts_answers(engine: Engine) -> None:
    result = run(
        engine, "import os, sys\nprint(os.uname().release)\nprint(os.listdir('.'), file=sys.stderr)\nsys.exit(3)"
    )
    assert (result.reason, result.exit_code, result.warm) == ("exited", 3, False)
    assert result.stdout.strip() != os.uname().release
    assert result.stderr == "['main.py']\n"


def test_files_arguments_environment_and_input_come_as_always(engine: Engine) -> None:
    code = "import os, sys\nopen('out/b.txt', 'w').write(open('in/a.txt').read() + sys.argv[1] + os.environ['X'] + input())"
    result = run(
        engine, f"import os\nos.mkdir('out')\n{code}", args=["1"], env={"X": "2"}, files={"in/a.txt": "0"}, stdin="3\n"
    )
    assert [(file.path, file.data) for file in result.files] == [("out/b.txt", b"0123")]


@pytest.mark.parametrize(
    ("language", "code"),
    [("bash", "echo 42"), ("javascript", "console.log(42)"), ("ruby", "puts 42"), ("php", "<?php echo 42, PHP_EOL;")],
)
def test_other_languages_run(engine: Engine, language: str, code: str) -> None:
    if language != "bash" and shutil.which({"javascript": "node"}.get(language, language)) is None:
        pytest.skip(f"{language} is not installed")
    assert run(engine, code, language).stdout == "42\n"


ENDS = {
    "timeout": ("while True: pass", Limits(wall_seconds=1)),
    "out_of_memory": ("held = [bytearray(b'x') * (10 << 20) for _ in range(100)]", Limits(memory_bytes=96 * MiB)),
    "output_limit": ("while True: print('x' * 1000)", Limits(output_bytes=1 * MiB)),
    "disk_full": ("open('big', 'wb').write(bytes(8 << 20))", Limits(disk_bytes=4 * MiB)),
}


@pytest.mark.parametrize("reason", ENDS)
def test_limits_end_it_with_their_reason(engine: Engine, reason: str) -> None:
    code, limits = ENDS[reason]
    assert run(engine, code, limits=limits).reason == reason


def test_processes_are_bounded(engine: Engine) -> None:
    code = """
import os, time
made = 0
try:
    while made < 200:
        if os.fork() == 0:
            time.sleep(3)
            os._exit(0)
        made += 1
except OSError:
    pass
print(made)
"""
    assert int(run(engine, code, limits=Limits(pids=20)).stdout) < 20


def test_a_fatal_signal_is_told_as_an_exit_code(engine: Engine) -> None:
    # What this tier cannot tell: `runsc` says no more.
    result = run(engine, "import os\nos.kill(os.getpid(), 11)")
    assert (result.reason, result.exit_code, result.signal) == ("exited", 139, None)


def test_nothing_is_left(engine: Engine) -> None:
    before = settled()
    for code in ("print(1)", "import os\nif os.fork() == 0:\n    os.setsid()\n    import time; time.sleep(60)"):
        run(engine, code, limits=Limits(wall_seconds=10))
    assert_nothing_is_left(before)


CELLS = {
    "python": ("x = 20\nprint('said')", "x + 22", "while True: pass", "42"),
    "bash": ("x=20; echo said", "echo $((x + 22))", "sleep 30", "42"),
    "javascript": ("let x = 20; console.log('said')", "x + 22", "while (true);", "42"),
}


@pytest.mark.parametrize("language", CELLS)
def test_a_session_keeps_its_state_its_files_and_can_be_interrupted(engine: Engine, language: str) -> None:
    if language == "javascript" and shutil.which("node") is None:
        pytest.skip("node is not installed")
    first, second, endless, value = CELLS[language]
    with engine.session(language) as session:
        assert session.run(first).stdout == "said\n"
        result = session.run(second)
        assert value in (result.stdout + str(result.result))
        session.put_file("a.txt", b"1")
        assert (session.get_file("a.txt"), session.list_files()) == (b"1", {"a.txt": 1})
        started = time.monotonic()
        assert session.run(endless, timeout=0.5).ended == "timeout"
        assert time.monotonic() - started < 5
        assert session.death is None
        assert session.run(first.replace("let ", "")).stdout == "said\n"


def test_a_session_that_ends_says_so_and_can_be_restarted(engine: Engine) -> None:
    with engine.session() as session:
        assert session.run("import os; os._exit(7)").ended == "died"
        assert session.death is not None
        assert (session.death.reason, session.death.detail) == ("exited", "its program ended with exit code 7")
        session.restart()
        assert session.run("print(1)").stdout == "1\n"


def test_what_it_cannot_do_is_refused_in_words(engine: Engine) -> None:
    with pytest.raises(InvalidRequest, match="seccomp"):
        run(engine, "print(1)", explain=True)
    with pytest.raises(InvalidRequest, match="warm"):
        engine.prepare("python")
    with engine.session() as session, pytest.raises(ForkRefused, match="gVisor"):
        session.fork()


def test_it_reaches_allowed_hosts_and_nothing_else() -> None:
    authority = Authority()
    with (
        authority.trusted(),
        NameServer({"good.test": [["127.0.0.1"]]}) as names,
        Server(context=authority.context("good.test")) as server,
        Engine(isolation="gvisor", nameserver=names.address) as engine,
    ):
        rule = Allow(
            host="good.test", ports=(server.port,), addresses=LOOPBACK, credential=Bearer(token="the-real-token")
        )
        network = Network(allow=[rule])
        code = f"""import requests, socket
for url in ('https://good.test:{server.port}/', 'https://evil.test/'): print(requests.get(url).status_code)
try: socket.create_connection(('192.0.2.1', 80), timeout=5)
except OSError as error: print('no way')"""
        assert run(engine, code, network=network).stdout == "200\n403\nno way\n"
        assert server.requests[-1].header("authorization") == "Bearer the-real-token"
        with engine.session(network=network) as session:
            assert session.run(code).stdout == "200\n403\nno way\n"
            session.set_network(Network())
            assert session.run(code).stdout == "403\n403\nno way\n"
        with engine.session() as session, pytest.raises(InvalidRequest, match="when it begins"):
            session.set_network(network)


def test_several_run_at_once(engine: Engine) -> None:
    said: dict[int, str] = {}
    threads = [
        threading.Thread(target=lambda number=number: said.update({number: run(engine, f"print({number})").stdout}))
        for number in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert said == {number: f"{number}\n" for number in range(6)}


def test_the_command_takes_it_and_the_doctor_shows_it() -> None:
    command = [sys.executable, "-m", "fumehood"]
    shown = subprocess.run(
        [*command, "run", "--isolation", "gvisor", "-c", "print(6*7)"], capture_output=True, text=True, check=True
    )
    assert shown.stdout == "42\n"
    report = subprocess.run(
        [*command, "doctor", "--isolation", "gvisor", "--json"], capture_output=True, text=True, check=True
    )
    assert {wall["wall"]: wall["up"] for wall in json.loads(report.stdout)["walls"]}["own-kernel"]


def test_where_it_is_not_installed_an_error_says_what_to_do(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SandboxUnavailable, match="runsc"):
        Engine(isolation="gvisor")


def test_an_unknown_isolation_is_named() -> None:
    with pytest.raises(InvalidRequest, match="'kvm' is none of namespaces, gvisor"):
        Engine(isolation="kvm")
