"""The remote executor does what the local engine does: the same checks for both, and what only a line between two machines adds."""

from __future__ import annotations

import asyncio
import inspect
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from fumehood import (
    Allow,
    Bearer,
    Engine,
    ExecutionRequest,
    ExecutionResult,
    Limits,
    Network,
    Output,
    RemoteExecutor,
    errors,
)
from fumehood.client.session import RemoteSession
from fumehood.protocol.limits import MiB
from fumehood.sessions import Session
from tests.testing.served import KEY, Served

LIMITS = Limits(wall_seconds=20, cpu_seconds=60, memory_bytes=256 * MiB)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("data")) as served:
        yield served


@pytest.fixture(scope="module")
def remote(served: Served) -> Iterator[RemoteExecutor]:
    with RemoteExecutor(served.url, KEY) as executor:
        yield executor


@pytest.fixture(scope="module")
def local() -> Iterator[Engine]:
    with Engine() as engine:
        yield engine


@pytest.fixture(params=["local", "remote"])
def executor(request: pytest.FixtureRequest, local: Engine, remote: RemoteExecutor) -> Engine | RemoteExecutor:
    return local if request.param == "local" else remote


@pytest.fixture
def session(executor: Engine | RemoteExecutor) -> Iterator[Session | RemoteSession]:
    with executor.session(limits=LIMITS) as session:
        yield session


def run(executor: Engine | RemoteExecutor, code: str, **fields: object) -> ExecutionResult:
    return executor.execute(ExecutionRequest(code=code, **fields))  # type: ignore[arg-type]  # the callers' own


def test_output_is_exact_whatever_bytes_it_is(executor: Engine | RemoteExecutor) -> None:
    code = "import sys; sys.stdout.buffer.write(bytes(range(256)) * 9); sys.stderr.buffer.write(b'\\xff\\r\\n\\0')"
    heard: dict[str, bytes] = {"stdout": b"", "stderr": b""}

    def hear(stream: str, piece: bytes) -> None:
        heard[stream] += piece

    result = executor.execute(ExecutionRequest(code=code), on_output=hear)
    assert (result.stdout_bytes, result.stderr_bytes) == (bytes(range(256)) * 9, b"\xff\r\n\0")
    assert heard == {"stdout": result.stdout_bytes, "stderr": result.stderr_bytes}


def test_a_character_whose_bytes_come_one_by_one_is_whole_in_the_end(executor: Engine | RemoteExecutor) -> None:
    code = "import os, time\nfor each in '\\u20ac\\u2028\\x85'.encode(): os.write(1, bytes([each])); time.sleep(0.05)"
    assert run(executor, code).stdout == "\u20ac\u2028\x85"


def test_output_comes_while_the_program_runs(executor: Engine | RemoteExecutor) -> None:
    heard: list[float] = []
    code = "import time\nfor n in range(3): print(n, flush=True); time.sleep(0.3)"
    executor.execute(ExecutionRequest(code=code), on_output=lambda _stream, _piece: heard.append(time.monotonic()))
    assert heard[-1] - heard[0] > 0.4


def test_everything_that_is_asked_for_arrives(executor: Engine | RemoteExecutor) -> None:
    code = "import os, sys\nprint(__file__, sys.argv[1:], os.environ['A'], sys.stdin.buffer.read(), open('in/f', 'rb').read())"
    result = run(
        executor, code, name="p.py", args=["one", "ünï"], env={"A": "1"}, stdin=b"\xff", files={"in/f": b"\xfe\0"}
    )
    assert result.stdout == "/work/p.py ['one', 'ünï'] 1 b'\\xff' b'\\xfe\\x00'\n", result.stderr


def test_files_come_out_under_their_names(executor: Engine | RemoteExecutor) -> None:
    code = "import os\nopen(b'\\xff\\n\\\\', 'wb').write(bytes(range(256)))\nopen('t', 'w').write('text')\nos.symlink('/etc/passwd', 'link')"
    result = run(executor, code)
    assert {os.fsencode(each.path): each.data for each in result.files} == {
        b"\xff\n\\": bytes(range(256)),
        b"t": b"text",
    }
    assert [(each.path, each.why) for each in result.skipped_files] == [("link", "is a symbolic link")]


ENDS = {
    "exit_code": ("import os; os._exit(3)", "exited", 3, None),
    "segfault": ("import ctypes; ctypes.string_at(0)", "signalled", 139, "SIGSEGV"),
    "endless_loop": ("while True: pass", "timeout", 124, "SIGKILL"),
    "endless_output": ("while True: print('x' * 10_000)", "output_limit", 122, "SIGKILL"),
    "memory": (
        "a = []\nimport time\nwhile True: a.append(b'x' * (4 << 20)); time.sleep(0.005)",
        "out_of_memory",
        137,
        "SIGKILL",
    ),
    "disk": ("with open('f', 'wb') as f:\n    while True: f.write(bytes(1 << 20))", "disk_full", 1, None),
}


@pytest.mark.parametrize(("code", "reason", "exit_code", "signal"), ENDS.values(), ids=ENDS.keys())
def test_limits_hold_and_every_end_has_its_reason(
    executor: Engine | RemoteExecutor, code: str, reason: str, exit_code: int, signal: str | None
) -> None:
    limits = Limits(wall_seconds=2, memory_bytes=96 * MiB, disk_bytes=8 * MiB, output_bytes=1 * MiB)
    result = run(executor, code, limits=limits)
    assert (result.reason, result.exit_code, result.signal) == (reason, exit_code, signal)
    assert result.detail if reason != "exited" else not result.detail


def test_refused_hosts_and_calls_are_told(executor: Engine | RemoteExecutor) -> None:
    network = Network(
        allow=[Allow(host="good.test", ports=(8443,), credential=Bearer(token="secret"), paths=("/v1/*",))]
    )
    result = run(executor, "import requests; requests.get('https://evil.test/')", network=network)
    assert (result.refusals[-1].host, result.refusals[-1].rule) == ("evil.test", "evil.test")
    assert [each.verdict for each in result.connections] == ["refused"]
    asked = run(executor, "import socket; socket.socket(socket.AF_PACKET)", explain=True)
    assert asked.denied_calls is not None
    assert [each.call for each in asked.denied_calls] == ["socket"]


def test_input_of_a_descriptor_follows_what_was_given(executor: Engine | RemoteExecutor) -> None:
    read, write = os.pipe()
    os.write(write, b" and piped")
    os.close(write)
    request = ExecutionRequest(code="print(input())", stdin="given")
    assert executor.execute(request, stdin_source=read).stdout == "given and piped\n"
    os.close(read)


WRONG = {
    "language": ({"language": "cobol"}, errors.UnknownLanguage, "'cobol'"),
    "own_name": ({"files": {"main.py": "x"}}, errors.InvalidFilePath, r"'main\.py'"),
    "too_large": (
        {"files": {"f": bytes(2 * MiB)}, "limits": Limits(disk_bytes=MiB)},
        errors.InvalidRequest,
        "disk_bytes",
    ),
}


@pytest.mark.parametrize(("fields", "kind", "said"), WRONG.values(), ids=WRONG.keys())
def test_errors_are_the_same(
    executor: Engine | RemoteExecutor, fields: dict[str, object], kind: type[Exception], said: str
) -> None:
    with pytest.raises(kind, match=said) as raised:
        run(executor, "1", **fields)
    assert type(raised.value) is kind


def told(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
    loop.call_soon_threadsafe(event.set)


def last_execution(served: Served) -> dict[str, object]:
    answer = httpx.get(f"{served.url}/v1/executions?limit=1&all=true", headers={"authorization": f"Bearer {KEY}"})
    found: dict[str, object] = answer.json()["data"][0]
    return found


def test_a_descriptor_ends_the_program(executor: Engine | RemoteExecutor) -> None:
    cancel = os.eventfd(0)
    started = time.monotonic()

    def hear(_stream: str, _piece: bytes) -> None:
        os.eventfd_write(cancel, 1)

    request = ExecutionRequest(
        code="import time; print('begun\\n', end='', flush=True); time.sleep(60)", limits=Limits(wall_seconds=90)
    )
    result = executor.execute(request, on_output=hear, cancel=cancel)
    os.close(cancel)
    assert time.monotonic() - started < 20
    assert (result.reason, result.exit_code, result.signal) == ("signalled", 137, "SIGKILL")
    assert result.stdout == "begun\n"
    assert "cancelled" in result.detail


def test_one_that_is_set_before_ends_it_at_once(executor: Engine | RemoteExecutor) -> None:
    cancel, (read, write) = os.eventfd(1), os.pipe()
    started = time.monotonic()
    result = executor.execute(ExecutionRequest(code="input()"), stdin_source=read, cancel=cancel)
    assert (result.reason, time.monotonic() - started < 10) == ("signalled", True)
    for each in (cancel, read, write):
        os.close(each)


def test_cancelling_the_task_ends_the_program_there(served: Served, executor: Engine | RemoteExecutor) -> None:
    async def cancelled() -> None:
        begun, loop = asyncio.Event(), asyncio.get_running_loop()
        request = ExecutionRequest(code="print('x', flush=True); input(); import time; time.sleep(60)", stdin="\n")
        task = asyncio.create_task(executor.execute_async(request, on_output=lambda *_: told(loop, begun)))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    started = time.monotonic()
    asyncio.run(cancelled())
    assert time.monotonic() - started < 20
    if isinstance(executor, RemoteExecutor):
        while last_execution(served)["exit_code"] != 137:
            assert time.monotonic() - started < 20


def test_a_listener_that_fails_ends_the_program(executor: Engine | RemoteExecutor) -> None:
    def fail(_stream: str, _piece: bytes) -> None:
        raise KeyError("mine")

    started = time.monotonic()
    with pytest.raises(KeyError, match="mine"):
        executor.execute(ExecutionRequest(code="import time; print(1, flush=True); time.sleep(60)"), on_output=fail)
    assert time.monotonic() - started < 20


def test_many_threads_use_one_executor(executor: Engine | RemoteExecutor) -> None:
    with ThreadPoolExecutor(8) as threads:
        results = list(threads.map(lambda n: run(executor, f"print({n})").stdout, range(24)))
    assert results == [f"{n}\n" for n in range(24)]


def test_state_displays_and_errors_of_cells(session: Session | RemoteSession) -> None:
    assert session.run("x = 41").ok
    assert session.run("x + 1").result == {"text/plain": "42"}
    result = session.run(
        "class R:\n    def _repr_html_(self): return '<b>h</b>'\ndisplay(R()); print('\\u2028\\x85'); 1/0"
    )
    assert not result.ok
    assert result.displays[0].data["text/html"] == "<b>h</b>"
    assert result.stdout == "\u2028\x85\n"
    assert result.error is not None
    assert (result.error.name, result.error.value) == ("ZeroDivisionError", "division by zero")
    assert result.ended == "finished"


def test_events_of_a_cell_come_as_they_happen(session: Session | RemoteSession) -> None:
    heard: list[tuple[float, object]] = []
    result = session.run(
        "import time\nfor n in range(3): print(n); time.sleep(0.3)",
        on_event=lambda event: heard.append((time.monotonic(), event)),
    )
    assert "".join(event.text for _at, event in heard if isinstance(event, Output)) == "0\n1\n2\n"
    assert result.events == (Output(stream="stdout", text="0\n1\n2\n"),)
    assert heard[-1][0] - heard[0][0] > 0.4


def test_cells_end_by_time_and_by_interruption_and_state_stays(session: Session | RemoteSession) -> None:
    session.run("kept = 5")
    assert session.run("import time; time.sleep(60)", timeout=0.5).ended == "timeout"
    timer = threading.Timer(0.5, session.interrupt)
    timer.start()
    result = session.run("time.sleep(60)")
    timer.join()
    assert result.error is not None
    assert result.error.name == "KeyboardInterrupt"
    session.interrupt()
    assert session.run("kept").result == {"text/plain": "5"}


def test_a_listener_that_fails_leaves_no_cell_behind(session: Session | RemoteSession) -> None:
    def fail(_event: object) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        session.run("import time; print(1, flush=True); time.sleep(60)", on_event=fail)
    assert session.run("6 * 7").result == {"text/plain": "42"}


def test_one_cell_runs_at_a_time(session: Session | RemoteSession) -> None:
    begun = threading.Event()
    thread = threading.Thread(
        target=session.run,
        args=("print(1); import time; time.sleep(1)",),
        kwargs={"on_event": lambda _event: begun.set()},
    )
    thread.start()
    assert begun.wait(20)
    assert session.status == "busy"
    with pytest.raises(errors.SessionBusy, match="runs a cell already"):
        session.run("1")
    thread.join()
    assert session.status == "idle"


def test_a_task_that_is_cancelled_interrupts_its_cell(session: Session | RemoteSession) -> None:
    async def both() -> object:
        begun, loop = asyncio.Event(), asyncio.get_running_loop()
        task = asyncio.create_task(
            session.arun("print(1); import time; time.sleep(60)", on_event=lambda _event: told(loop, begun))
        )
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return (await session.arun("6 * 7")).result

    assert asyncio.run(both()) == {"text/plain": "42"}


def test_a_death_has_its_reason_and_a_restart_begins_anew(session: Session | RemoteSession) -> None:
    name = session.id
    assert session.run("import os; os._exit(3)").ended == "died"
    assert session.status == "dead"
    assert session.death is not None
    assert session.death.reason == "exited"
    with pytest.raises(errors.SessionDead, match="exit code 3"):
        session.run("1")
    session.restart()
    assert session.id == name
    assert session.status == "idle"
    assert session.run("'x' in globals()").result == {"text/plain": "False"}


def test_what_was_closed_stays_closed(executor: Engine | RemoteExecutor) -> None:
    with executor.session(limits=LIMITS) as session:
        pass
    session.close()
    assert session.status == "dead"
    assert session.death is not None
    assert session.death.reason == "closed"
    session.interrupt()
    with pytest.raises(errors.SessionDead, match="its owner closed it"):
        session.run("1")


def test_forks_and_checkpoints(session: Session | RemoteSession) -> None:
    session.run(
        "import threading, time; x = [1]; threading.Thread(target=time.sleep, args=(99,), name='clock', daemon=True).start()"
    )
    first, second = session.fork(2)
    assert "thread clock" in session.lost
    for number, each in enumerate((session, first, second)):
        each.run(f"x.append({number})")
    assert [each.run("x").result for each in (session, first, second)] == [
        {"text/plain": f"[1, {number}]"} for number in range(3)
    ]
    with session.checkpoint() as before:
        session.run("x.clear()")
        session.restore(before)  # type: ignore[arg-type]  # it is this session's own
        assert session.run("x").result == {"text/plain": "[1, 0]"}
        first.restore(before)  # type: ignore[arg-type]  # likewise
        assert first.run("x").result == {"text/plain": "[1, 0]"}
    before.close()
    for each in (first, second):
        each.close()
        assert each.status == "dead"
    with pytest.raises(errors.InvalidRequest, match="count|1001"):
        session.fork(1001)


def test_sessions_that_cannot_be_forked_say_so(executor: Engine | RemoteExecutor) -> None:
    with executor.session("bash", limits=LIMITS) as session:
        with pytest.raises(errors.ForkRefused, match="only sessions of python"):
            session.fork()
        assert session.run("echo $((6*7))").stdout == "42\n"


def test_files_of_a_session_go_in_and_out(executor: Engine | RemoteExecutor) -> None:
    with executor.session(files={"given": b"\xff"}, env={"A": "b"}, limits=LIMITS) as session:
        session.put_file("in/ä %41?#.txt", "one")
        session.put_file("raw", bytes(range(256)))
        assert session.run("import os; os.environ['A'], open('in/ä %41?#.txt').read()").result == {
            "text/plain": "('b', 'one')"
        }
        session.run("open(b'\\xff', 'w').write('abc');")
        assert session.list_files() == {"given": 1, "in/ä %41?#.txt": 3, "raw": 256, "\udcff": 3}
        assert session.get_file("raw") == bytes(range(256))
        assert session.get_file("in/ä %41?#.txt") == b"one"
        for path in ("missing", "../x", "/etc/passwd", "", "in"):
            with pytest.raises(errors.InvalidFilePath, match="file"):
                session.get_file(path)
        with pytest.raises(errors.InvalidFilePath, match=r"\.\."):
            session.put_file("a/../../x", b"")


def test_hosts_of_a_session_change_between_cells(executor: Engine | RemoteExecutor) -> None:
    rule = Allow(host="api.test", credential=Bearer(token="correct-horse"))
    with executor.session(network=Network(allow=["good.test"]), limits=LIMITS) as session:
        assert session.run("import requests; requests.get('https://evil.test/').status_code").result == {
            "text/plain": "403"
        }
        session.set_network(session.network.replace(allow=(*session.network.rules, rule)))
        assert session.network.describe() == "good.test, api.test"
        refused = session.run("requests.get('https://evil.test/').reason")
        assert "api.test" in str(refused.result)
        assert {each.host for each in refused.refusals} == {"evil.test"}
        session.set_network(Network())
        assert "no host" in str(session.run("requests.get('https://good.test/').reason").result)


def test_the_remote_sides_parameters_are_the_engines() -> None:
    def parameters(function: object) -> list[tuple[str, object]]:
        return [(each.name, each.default) for each in inspect.signature(function).parameters.values()]  # type: ignore[arg-type]  # a function

    for name in ("execute", "execute_async", "session"):
        assert parameters(getattr(RemoteExecutor, name)) == parameters(getattr(Engine, name)), name
    own = {name for name in vars(Session) if not name.startswith("_")}
    assert own - set(vars(RemoteSession)) <= {"cpu_seconds"}
    for name in own - {"cpu_seconds", "status", "death", "network"}:
        assert parameters(getattr(RemoteSession, name)) == parameters(getattr(Session, name)), name


def test_the_server_names_its_languages(remote: RemoteExecutor) -> None:
    assert {"python", "bash"} <= set(remote.languages())


def test_a_process_that_was_forked_has_an_executor_of_its_own(remote: RemoteExecutor) -> None:
    assert run(remote, "print(1)").ok
    child = os.fork()
    if child == 0:
        os._exit(0 if run(remote, "print(2)").stdout == "2\n" else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert run(remote, "print(3)").ok


def test_closing_the_executor_ends_what_runs_and_it_says_so_afterwards(served: Served, tmp_path: Path) -> None:
    executor = RemoteExecutor(served.url, KEY)
    with ThreadPoolExecutor(1) as threads:
        begun = threading.Event()
        request = ExecutionRequest(code="import time; print(1, flush=True); time.sleep(60)")
        running = threads.submit(executor.execute, request, on_output=lambda *_: begun.set())
        assert begun.wait(20)
        executor.close()
        with pytest.raises(errors.ServerUnreachable, match="was closed"):
            running.result(20)
    executor.close()
    with pytest.raises(errors.InvalidRequest, match="is closed"):
        run(executor, "1")
