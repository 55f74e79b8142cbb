"""Commands whose programs run on a server print, save and return what they do on this machine."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.cli.test_shell import Terminal
from tests.testing.raw_server import RawServer
from tests.testing.served import KEY, Served

FUMEHOOD = [str(Path(sys.executable).with_name("fumehood"))]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("data")) as served:
        yield served


def command(
    *words: str, stdin: bytes = b"", cwd: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*FUMEHOOD, *words], input=stdin, capture_output=True, check=False, cwd=cwd, env={**os.environ, **environment}
    )


def both(
    served: Served, name: str, *words: str, stdin: bytes = b""
) -> tuple[subprocess.CompletedProcess[bytes], subprocess.CompletedProcess[bytes]]:
    here = command(name, *words, stdin=stdin)
    return here, command(name, "--server", served.url, *words, stdin=stdin, FUMEHOOD_API_KEY=KEY)


SAME = {
    "output": (["-c", "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"], b""),
    "bytes": (["-c", "import sys; sys.stdout.buffer.write(bytes(range(256)))"], b""),
    "input": (["-c", "print(open(0, 'rb').read())", "one"], b"\xff piped"),
    "code_from_input": (["-l", "bash"], b"echo $((6*7))"),
    "arguments": (["-e", "A=b", "-c", "import os, sys; print(sys.argv[1:], os.environ['A'])", "--", "x", "ünï"], b""),
    "timeout": (["-c", "while True: pass", "-t", "0.5"], b""),
    "memory": (["-c", "a=[]\nwhile True: a.append(b'x' * (1 << 20))", "-m", "64M"], b""),
    "segfault": (["-c", "import ctypes; ctypes.string_at(0)"], b""),
    "disk": (["--disk", "2M", "-l", "bash", "-c", "head -c 9999999 /dev/zero > f 2>/dev/null"], b""),
    "network": (["-c", "import socket; socket.create_connection(('192.0.2.1', 80))"], b""),
    "host": (["--allow-host", "good.test", "-l", "bash", "-c", "curl -s https://evil.test/"], b""),
    "refused_call": (["--explain", "-c", "import socket; socket.socket(socket.AF_PACKET)"], b""),
    "file": (["-f", "in=/etc/hostname", "-c", "print(open('in').read())"], b""),
    "file_to_the_parent": (["-f", "../x=/etc/hostname", "-c", "1"], b""),
    "unknown_language": (["-l", "cobol", "-c", "1"], b""),
    "limit_out_of_range": (["-t", "0", "-c", "1"], b""),
    "no_such_file": (["nowhere.py"], b""),
}


@pytest.mark.parametrize(("words", "stdin"), SAME.values(), ids=SAME.keys())
def test_run_is_the_same_there_as_here(served: Served, words: list[str], stdin: bytes) -> None:
    here, there = both(served, "run", *words, stdin=stdin)
    assert (there.returncode, there.stdout) == (here.returncode, here.stdout), there.stderr
    assert _comparable(there.stderr) == _comparable(here.stderr)


def _comparable(stderr: bytes) -> bytes:
    """Return it without what differs from run to run, and by who counted memory."""
    return re.sub(rb"\d+", b"N", re.sub(rb"(out of memory): .*", rb"\1", stderr))


def test_run_with_json_has_the_same_fields_and_values(served: Served) -> None:
    code = "print(1); open('f', 'wb').write(b'\\xff'); open('t', 'w').write('x')"
    here, there = (json.loads(each.stdout) for each in both(served, "run", "--json", "-c", code))
    assert there.keys() == here.keys()
    varying = {"id", "duration_seconds", "cpu_seconds", "peak_memory_bytes", "warm", "tier"}
    assert {k: v for k, v in there.items() if k not in varying} == {k: v for k, v in here.items() if k not in varying}


def test_run_saves_files_from_there(served: Served, tmp_path: Path) -> None:
    code = "import os\nos.mkdir('a')\nopen('a/b', 'wb').write(b'\\xff')\nos.symlink('/etc/passwd', 'link')"
    there = command("run", "-c", code, "--out", str(tmp_path), FUMEHOOD_SERVER=served.url, FUMEHOOD_API_KEY=KEY)
    assert (tmp_path / "a" / "b").read_bytes() == b"\xff"
    assert not (tmp_path / "link").is_symlink()
    assert b"'link' is a symbolic link" in there.stderr


def test_output_from_there_comes_as_it_is_printed_and_ctrl_c_ends_the_program_there(served: Served) -> None:
    words = ["run", "--server", served.url, "-c", "import time; print('begun', flush=True); time.sleep(60)"]
    environment = {**os.environ, "FUMEHOOD_API_KEY": KEY}
    with subprocess.Popen(
        [*FUMEHOOD, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=environment
    ) as running:
        assert running.stdout is not None
        assert running.stdout.read(5) == b"begun"
        running.send_signal(signal.SIGINT)
        assert running.wait(20) == 130
    until = time.monotonic() + 20
    while (last := listed(served, "executions?limit=1&all=true")["data"])[0]["exit_code"] != 137:
        assert time.monotonic() < until, last


def listed(served: Served, what: str) -> dict[str, Any]:
    answer = httpx.get(f"{served.url}/v1/{what}", headers={"authorization": f"Bearer {KEY}"})
    found: dict[str, Any] = answer.json()
    return found


@pytest.mark.parametrize("method", [[], ["--json-mode"], ["--no-stream"]], ids=["calls", "direct", "whole"])
def test_ask_is_the_same_there_as_here(served: Served, method: list[str]) -> None:
    before = len(listed(served, "executions?limit=100&all=true")["data"])
    here, there = both(served, "ask", "--model", "scripted:demo", *method, "What are the first 50 Fibonacci numbers?")
    assert (there.returncode, there.stdout, there.stderr) == (here.returncode, here.stdout, here.stderr)
    assert b"7778742049" in there.stdout
    assert len(listed(served, "executions?limit=100&all=true")["data"]) > before


CELLS = {
    "well": "x = 6\nprint('out')\nx * 7",
    "badly": "import sys; print('err', file=sys.stderr); 1/0",
    "dead": "import os; os._exit(3)",
    "shown": "display([1], 'two')",
}


@pytest.mark.parametrize("code", CELLS.values(), ids=CELLS.keys())
def test_a_cell_from_standard_input_is_the_same_there_as_here(served: Served, code: str) -> None:
    here, there = both(served, "shell", stdin=code.encode())
    assert (there.returncode, there.stdout, there.stderr) == (here.returncode, here.stdout, here.stderr)
    assert listed(served, "sessions") == {"sessions": []}


@pytest.fixture
def terminal(served: Served, tmp_path: Path) -> Iterator[Terminal]:
    terminal = Terminal(tmp_path, FUMEHOOD_SERVER=served.url, FUMEHOOD_API_KEY=KEY)
    terminal.expect(">>> ")
    yield terminal
    assert terminal.leave() == 0
    assert listed(served, "sessions") == {"sessions": []}


def test_a_conversation_with_a_session_there(terminal: Terminal, tmp_path: Path) -> None:
    assert terminal.ask("x = 20") == ""
    assert terminal.ask("x * 2 + 2") == "42"
    assert "ZeroDivisionError" in terminal.ask("1/0")
    (tmp_path / "in.txt").write_text("hello")
    assert terminal.ask(":put in.txt") == ""
    assert terminal.ask(":files").split() == ["5", "in.txt"]
    assert terminal.ask(":get in.txt out.txt") == "saved out.txt"
    assert (tmp_path / "out.txt").read_text() == "hello"
    assert "cannot be taken" in terminal.ask(":get missing")
    assert terminal.ask(":allow good.test") == "it may reach good.test"
    assert terminal.ask(":lock") == "it may reach no host"
    assert "exit code 3" in terminal.ask("import os; os._exit(3)")
    assert "with :restart" in terminal.ask("1")
    assert terminal.ask(":restart") == ""
    assert terminal.ask("1 + 1") == "2"


def test_ctrl_c_interrupts_a_cell_there_and_keeps_its_state(terminal: Terminal) -> None:
    terminal.ask("kept = 5")
    terminal.type("import time; print('going'); time.sleep(60)\n")
    terminal.expect("going\n")
    terminal.type("\x03")
    assert "KeyboardInterrupt" in terminal.expect(">>> ")
    assert terminal.ask("kept") == "5"


def test_copies_and_checkpoints_there(terminal: Terminal) -> None:
    terminal.ask("x = 1")
    assert "forked: 2; :use 2" in terminal.ask(":fork")
    terminal.type(":use 2\n")
    terminal.expect("2>>> ")
    assert terminal.ask("x = 'second'; x").endswith("'second'\n2")
    terminal.type(":use 1\n")
    terminal.expect("1>>> ")
    assert terminal.ask("x").startswith("1\n")
    assert "remembered; :restore here" in terminal.ask(":checkpoint here")
    terminal.ask("del x")
    terminal.ask(":restore here")
    assert terminal.ask("x").startswith("1\n")


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_a_shell_that_is_told_to_end_leaves_no_session_there(served: Served, number: signal.Signals) -> None:
    pid, master = pty.fork()
    if pid == 0:
        os.execve(FUMEHOOD[0], [*FUMEHOOD, "shell", "--server", served.url], {**os.environ, "FUMEHOOD_API_KEY": KEY})
    shown = b""
    while b">>> " not in shown:
        shown += os.read(master, 1 << 16)
    assert len(listed(served, "sessions")["sessions"]) == 1
    os.kill(pid, number)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 128 + number
    os.close(master)
    assert listed(served, "sessions") == {"sessions": []}


LOCAL = {
    "isolation": ["--isolation", "namespaces"],
    "without": ["--without", "cgroup"],
    "cgroup": ["--cgroup"],
}


@pytest.mark.parametrize("name", ["run", "ask", "shell"])
@pytest.mark.parametrize(("option", "words"), LOCAL.items(), ids=LOCAL.keys())
def test_options_about_this_machines_walls_do_not_go_with_a_server(name: str, option: str, words: list[str]) -> None:
    question = {"run": ["-c", "1"], "ask": ["--model", "scripted:demo", "q"], "shell": []}[name]
    if option == "cgroup" and name != "run":
        assert command(name, *words, *question).returncode == 2
        return
    there = command(name, "--server", "http://127.0.0.1:1", *words, *question)
    assert there.returncode == 2
    assert f"--{option} is about this machine's walls".encode() in there.stderr
    by_variable = command(name, *words, *question, FUMEHOOD_SERVER="http://127.0.0.1:1")
    assert by_variable.returncode == 2
    assert b"say --server ''" in by_variable.stderr


def test_an_empty_server_is_this_machine() -> None:
    here = command("run", "--server", "", "-c", "print(6*7)", FUMEHOOD_SERVER="http://127.0.0.1:1")
    assert (here.returncode, here.stdout, here.stderr) == (0, b"42\n", b"")


WRONG = {
    "gone": ("http://127.0.0.1:1", KEY, 69, "cannot be reached"),
    "no_address": ("127.0.0.1:3003", KEY, 64, "write one like http"),
    "key": ("", "fh_another", 77, "set FUMEHOOD_API_KEY"),
    "no_key": ("", "", 77, "set FUMEHOOD_API_KEY"),
}


@pytest.mark.parametrize("name", ["run", "ask", "shell"])
@pytest.mark.parametrize(("url", "key", "code", "said"), WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_with_a_server_is_one_sentence(
    served: Served, name: str, url: str, key: str, code: int, said: str
) -> None:
    words = {
        "run": ["-c", "1"],
        "ask": ["--model", "scripted:demo", "What are the first 50 Fibonacci numbers?"],
        "shell": [],
    }[name]
    there = command(name, "--server", url or served.url, *words, FUMEHOOD_API_KEY=key)
    assert there.returncode == code, there.stderr
    assert said.encode() in there.stderr
    assert b"Traceback" not in there.stderr
    assert not key or key.encode() not in there.stderr


def test_a_server_cannot_drive_the_terminal() -> None:
    attack = "\x1b]0;title\x07"
    result = {
        "id": "x", "language": "python", "reason": "timeout", "exit_code": 124, "signal": None, "detail": attack,
        "files": [], "skipped_files": [{"path": "p", "why": attack}], "duration_seconds": 1, "cpu_seconds": 1,
        "peak_memory_bytes": None, "network_refused": 0, "connections": [], "connections_left_out": 0, "tier": "x",
        "refusals": [{"host": "h", "port": 1, "why": attack, "rule": attack, "count": 1}], "warm": True,
        "denied_calls": [{"call": attack, "answer": attack, "count": 2, "why": attack}], "stdout": "", "stderr": "",
    }  # fmt: skip
    body = f"event: result\ndata: {json.dumps(result)}\n\n".encode()
    with RawServer(body, kind="text/event-stream") as raw:
        there = command("run", "--server", raw.url, "-c", "1", "--out", "/tmp")
    assert there.returncode == 124
    assert there.stderr.count(b"title") >= 5
    assert b"\x1b" not in there.stderr
    with RawServer(json.dumps({"message": attack}).encode(), status=500) as raw:
        refused = command("run", "--server", raw.url, "-c", "1")
    assert (refused.returncode, b"\x1b" in refused.stderr, b"title" in refused.stderr) == (77, False, True)


@pytest.mark.parametrize(("url", "loaded"), [("", False), ("http://127.0.0.1:1", True)], ids=["here", "there"])
def test_what_speaks_http_is_loaded_for_a_server_alone(url: str, loaded: bool) -> None:
    words = [sys.executable, "-X", "importtime", "-m", "fumehood", "run", "--server", url, "-c", "1"]
    shown = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False).stderr
    names = {line.rpartition("|")[2].strip() for line in shown.splitlines() if line.startswith("import time")}
    assert "fumehood.cli.run" in names
    assert [name in names for name in ("httpx", "asyncio", "fumehood.client.executor")] == [loaded] * 3
