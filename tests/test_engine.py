"""What an execution promises to whoever asks for it, seen from the Python API."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import fumehood
from fumehood import Engine, ExecutionRequest, ExecutionResult, Limits
from fumehood.protocol.limits import MiB


@pytest.fixture(scope="module", params=["cold", "warm"])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    with Engine(warm_bytes=0 if request.param == "cold" else 256 * MiB) as engine:
        if request.param == "warm":
            engine.prepare("python")
        yield engine


def run(engine: Engine, code: str, **fields: object) -> ExecutionResult:
    return engine.execute(ExecutionRequest(code=code, **fields))  # type: ignore[arg-type]  # the callers' own


def test_a_program_prints_and_exits(engine: Engine) -> None:
    result = run(engine, "print(6 * 7)")
    assert (result.reason, result.exit_code, result.stdout, result.stderr, result.ok) == ("exited", 0, "42\n", "", True)


ENDS = {
    "syntax_error": ("print('a'\nprint(", "exited", 1),
    "exit_code": ("import os; os._exit(3)", "exited", 3),
    "segfault": ("import ctypes; ctypes.string_at(0)", "signalled", 139),
    "abort": ("import os; os.abort()", "signalled", 134),
    "endless_loop": ("while True: pass", "timeout", 124),
    "sleep": ("import time; time.sleep(60)", "timeout", 124),
    "endless_output": ("while True: print('x' * 10_000)", "output_limit", 122),
    "memory": ("a = []\nimport time\nwhile True: a.append(b'x' * (4 << 20)); time.sleep(0.005)", "out_of_memory", 137),
    "disk": ("with open('f', 'wb') as f:\n    while True: f.write(bytes(1 << 20))", "disk_full", 1),
    "exception": ("raise KeyError('x')", "exited", 1),
}


@pytest.mark.parametrize(("code", "reason", "exit_code"), ENDS.values(), ids=ENDS.keys())
def test_every_end_has_its_reason(engine: Engine, code: str, reason: str, exit_code: int) -> None:
    limits = Limits(wall_seconds=2, memory_bytes=96 * MiB, disk_bytes=8 * MiB, output_bytes=1 * MiB)
    result = run(engine, code, limits=limits)
    assert (result.reason, result.exit_code) == (reason, exit_code)
    assert result.detail if reason != "exited" else not result.detail
    assert result.duration_seconds < 6


def test_what_was_printed_before_a_deadline_is_kept(engine: Engine) -> None:
    result = run(engine, "print('first'); import time; time.sleep(9)", limits=Limits(wall_seconds=0.5))
    assert result.stdout == "first\n"


def test_arguments_environment_and_input_arrive(engine: Engine) -> None:
    code = "import os, sys\nprint(sys.argv[1:], sorted(os.environ), os.environ['A'], sys.stdin.read())"
    result = run(engine, code, args=["one", "two words", "ünï"], env={"A": "1"}, stdin="hello")
    assert result.stdout == "['one', 'two words', 'ünï'] ['A', 'HOME', 'LANG', 'PATH', 'TZ'] 1 hello\n"


def test_large_input_and_output_pass_unharmed(engine: Engine) -> None:
    data = os.urandom(5 * MiB)
    result = run(engine, "import sys; sys.stdout.buffer.write(sys.stdin.buffer.read())", stdin=data)
    assert result.stdout_bytes == data


def test_a_program_that_never_reads_its_input_ends_all_the_same(engine: Engine) -> None:
    assert run(engine, "print(1)", stdin=bytes(4 * MiB)).ok


def test_files_go_in_and_new_and_changed_ones_come_out(engine: Engine) -> None:
    result = run(
        engine,
        """
import os
assert open('data/given.txt').read() == 'given'
open('data/given.txt', 'a').write(' and changed')
os.makedirs('out/deep')
open('out/deep/new.bin', 'wb').write(bytes(range(256)))
assert open('raw.bin', 'rb').read() == b'\\xff\\x00'
""",
        files={"data/given.txt": "given", "raw.bin": b"\xff\x00", "data/same.txt": "same"},
    )
    assert result.ok, result.stderr
    assert {file.path: file.data for file in result.files} == {
        "data/given.txt": b"given and changed",
        "out/deep/new.bin": bytes(range(256)),
    }


LEFT: dict[str, tuple[str, dict[str, bytes], list[str]]] = {
    "nothing": ("pass", {}, []),
    "program_moved": ("import os; os.rename('main.py', 'x')", {"x": b"import os; os.rename('main.py', 'x')"}, []),
    "program_changed": ("open('main.py', 'w').write('#')", {"main.py": b"#"}, []),
    "given_changed": ("open('a', 'r+').write('B')", {"a": b"B"}, []),
    "given_exchanged": ("import os; os.rename('a', 'c'); os.rename('b', 'a'); os.rename('c', 'b')", {"a": b"2", "b": b"1"}, []),
    "given_became_a_folder": ("import os; os.remove('a'); os.mkdir('a'); open('a/x', 'w').write('x')", {"a/x": b"x"}, []),
    "given_became_a_link": ("import os; os.remove('a'); os.symlink('b', 'a')", {}, ["a"]),
    "given_became_unreadable": ("import os; os.chmod('a', 0)", {}, [] if os.geteuid() == 0 else ["a"]),
    "beside_one_in_a_folder": ("open('d/extra', 'w').write('x')", {"d/extra": b"x"}, []),
    "one_more_name": ("import os; os.remove('a'); os.link('b', 'a')", {}, ["a", "b"]),
}  # fmt: skip


@pytest.mark.parametrize(("code", "files", "skipped"), LEFT.values(), ids=LEFT.keys())
def test_what_is_left_is_told_whatever_was_done_to_what_was_there(
    engine: Engine, code: str, files: dict[str, bytes], skipped: list[str]
) -> None:
    given = {"a": "1", "b": "2"} | ({"d/a": "3"} if "d/" in code else {})
    result = run(engine, code, files=given)
    assert result.ok, result.stderr
    assert {file.path: file.data for file in result.files} == files
    assert sorted(file.path for file in result.skipped_files) == skipped


def test_an_environment_that_somebody_replaced_will_do(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", dict(os.environ))
    assert run(engine, "print(1)").stdout == "1\n"


def test_a_file_that_imports_its_neighbour_works(engine: Engine) -> None:
    result = run(engine, "import helper; print(helper.X)", files={"helper.py": "X = 5"})
    assert result.stdout == "5\n"
    assert result.files == ()


def test_a_file_with_the_programs_own_name_is_refused(engine: Engine) -> None:
    with pytest.raises(fumehood.FumehoodError, match=r"main\.py"):
        run(engine, "print(1)", files={"main.py": "x"})
    assert run(engine, "print(__file__)", files={"main.py": "x"}, name="other.py").stdout == "/work/other.py\n"


def test_odd_names_survive_as_data_and_as_json(engine: Engine) -> None:
    import json

    result = run(engine, "open(b'\\xff\\n\\x1b[31m', 'w').write('x')")
    assert [os.fsencode(file.path) for file in result.files] == [b"\xff\n\x1b[31m"]
    assert json.loads(json.dumps(result.as_json()))["files"][0]["text"] == "x"


def test_usage_is_plausible(engine: Engine) -> None:
    result = run(engine, "x = b'x' * (50 << 20)\nsum(range(3_000_000))")
    assert result.peak_memory_bytes is not None
    assert 40 * MiB < result.peak_memory_bytes < 120 * MiB
    assert 0.01 < result.cpu_seconds < 5
    assert 0.01 < result.duration_seconds < 5


def test_refused_network_is_counted_and_only_then(engine: Engine) -> None:
    assert run(engine, "print(1)").network_refused == 0
    code = "import urllib.request\ntry: urllib.request.urlopen('http://example.com')\nexcept OSError: pass"
    assert run(engine, code).network_refused > 0
    with Engine() as other:
        other.prepare("python")
        results = [run(other, code), run(other, "print(1)"), run(other, code)]
        assert all(result.warm for result in results)
        assert results[0].network_refused > 0
    # Whoever took the sandbox away has asked the kernel, which has forgotten it by now.
    assert [result.network_refused > 0 for result in results] == [True, False, True]


def test_a_server_inside_the_sandbox_can_talk_to_itself(engine: Engine) -> None:
    result = run(
        engine,
        """
import http.server, threading, urllib.request
server = http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
threading.Thread(target=server.serve_forever, daemon=True).start()
print(urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/").status)
""",
    )
    assert result.stdout == "200\n"


ORDINARY = {
    "threads": "from concurrent.futures import ThreadPoolExecutor as T\nprint(sum(T(4).map(int, '1234')))",
    "processes": "from multiprocessing import Pool\nif __name__ == '__main__':\n    with Pool(2) as p: print(sum(p.map(int, '1234')))",
    "subprocess": "import subprocess\nprint(subprocess.run(['expr', '4', '+', '6'], capture_output=True, text=True).stdout.strip())",
    "asyncio": "import asyncio\nasync def f(): await asyncio.sleep(0.01); return 10\nprint(asyncio.run(f()))",
    "sqlite": "import sqlite3\nprint(sqlite3.connect('x.db').execute('select 4 + 6').fetchone()[0])",
    "tempfile": "import tempfile\nwith tempfile.TemporaryFile() as f: print(f.write(b'0123456789'))",
    "ssl": "import ssl, hashlib\nassert ssl.create_default_context().get_ca_certs()\nprint(10)",
    "zoneinfo": "import zoneinfo\nzoneinfo.ZoneInfo('Europe/Paris')\nprint(10)",
    "packages": "import requests, httpx\nprint(10)",
    "dataclass": "from dataclasses import dataclass\n@dataclass\nclass A: x: int\nprint(A(10).x)",
    "password_database": "import pwd, os\nassert pwd.getpwuid(os.getuid()).pw_name == 'user'\nprint(10)",
}


@pytest.mark.parametrize("code", ORDINARY.values(), ids=ORDINARY.keys())
def test_ordinary_programs_work(engine: Engine, code: str) -> None:
    result = run(engine, code)
    assert result.stdout == "10\n", result.stderr


def test_callers_at_once_get_their_own_output(engine: Engine) -> None:
    def one(number: int) -> bool:
        result = run(engine, f"print({number} * 2); import sys; print({number}, file=sys.stderr)")
        return (result.stdout, result.stderr) == (f"{number * 2}\n", f"{number}\n")

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(one, range(40)))


def test_output_is_heard_as_it_comes(engine: Engine) -> None:
    heard: list[tuple[float, str, bytes]] = []
    code = "import time, sys\nprint(1)\ntime.sleep(0.5)\nprint(2, file=sys.stderr)"
    request = ExecutionRequest(code=code)
    engine.execute(request, on_output=lambda stream, piece: heard.append((time.monotonic(), stream, piece)))
    assert b"".join(piece for _time, stream, piece in heard if stream == "stdout") == b"1\n"
    assert b"".join(piece for _time, stream, piece in heard if stream == "stderr") == b"2\n"
    assert heard[-1][0] - heard[0][0] > 0.3


def test_cancelling_a_task_kills_its_sandbox() -> None:
    marker = f"cancel-{os.getpid()}-{time.monotonic_ns()}"

    async def cancelled() -> float:
        task = asyncio.create_task(fumehood.arun("import time; time.sleep(30)", args=[marker]))
        while not _running(marker):
            await asyncio.sleep(0.05)
        started = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return time.monotonic() - started

    assert asyncio.run(cancelled()) < 3
    assert _running(marker) == []


def test_closing_the_engine_ends_what_still_runs() -> None:
    marker = f"close-{os.getpid()}-{time.monotonic_ns()}"
    engine = Engine()
    errors: list[Exception] = []

    def work() -> None:
        try:
            run(engine, "import time; time.sleep(30)", args=[marker])
        except fumehood.FumehoodError as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    while not _running(marker):
        time.sleep(0.05)
    engine.close()
    thread.join(5)
    assert not thread.is_alive()
    assert errors
    assert _running(marker) == []


def test_a_killed_launcher_takes_its_sandboxes_along_and_is_replaced() -> None:
    marker = f"launcher-{os.getpid()}-{time.monotonic_ns()}"
    with Engine() as engine:
        run(engine, "print(1)")
        thread = threading.Thread(
            target=lambda: pytest.raises(
                fumehood.FumehoodError, run, engine, "import time; time.sleep(30)", args=[marker]
            )
        )
        thread.start()
        while not _running(marker):
            time.sleep(0.05)
        launcher = engine._launcher
        assert launcher is not None
        assert launcher._process is not None
        launcher._process.kill()
        thread.join(5)
        assert not thread.is_alive()
        assert _running(marker) == []
        assert run(engine, "print(2)").stdout == "2\n"


def _running(marker: str) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and marker.encode() in (entry / "cmdline").read_bytes():
                found.append(entry.name)
        except OSError:
            continue
    return found


def test_a_fork_of_the_program_gets_a_launcher_of_its_own() -> None:
    program = (
        "import fumehood, os\n"
        "assert fumehood.run('print(1)').stdout == '1\\n'\n"
        "pid = os.fork()\n"
        "answers = [fumehood.run(f'print({n})').stdout for n in range(5)]\n"
        "assert answers == [f'{n}\\n' for n in range(5)], answers\n"
        "if pid == 0: os._exit(0)\n"
        "assert os.waitpid(pid, 0)[1] == 0\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=True, timeout=60)


def test_a_killed_program_takes_its_sandboxes_along() -> None:
    marker = f"killed-{os.getpid()}-{time.monotonic_ns()}"
    program = f"import fumehood; fumehood.run('import time; time.sleep(60)', args=['{marker}'])"
    process = subprocess.Popen([sys.executable, "-c", program])
    command = [sys.executable, "-m", "fumehood", "run", "-c", "import time; time.sleep(60)", marker]
    direct = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    while len(_running(marker)) < 4:
        time.sleep(0.05)
    process.kill()
    direct.kill()
    process.wait()
    direct.wait()
    deadline = time.monotonic() + 3
    while _running(marker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert _running(marker) == []


def test_a_kind_of_sandbox_runs_programs_and_begins_sessions(engine: Engine) -> None:
    sandbox = fumehood.Sandbox(files={"n": "20"}, env={"ADD": "2"}, engine=engine)
    code = "import os, sys; print(int(open('n').read()) * 2 + int(os.environ['ADD']), sys.argv[1:])"
    assert sandbox.run(code, args=["a"]).stdout == "42 ['a']\n"
    assert sandbox.run("open('n', 'w').write('21')").ok
    assert asyncio.run(sandbox.arun(code)).stdout == "42 []\n"
    with sandbox.session() as session:
        assert session.run("open('n').read()").result == {"text/plain": "'20'"}


def test_a_kind_of_sandbox_is_the_process_own_by_default() -> None:
    assert fumehood.Sandbox("bash").run("echo on").stdout == "on\n"
