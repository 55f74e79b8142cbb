"""The commands as a user meets them: in a process of their own, by exit codes, pipes, terminals and signals."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fumehood import OutputFile
from fumehood.cli import COMMANDS, files_out, load
from fumehood.cli.arguments import UsageError, help_text, parse
from fumehood.cli.terminal import printable
from tests.testing.chat_servers import ChatServer

FUMEHOOD = [str(Path(sys.executable).with_name("fumehood"))]


def command(*arguments: str, stdin: bytes = b"", **environment: str) -> subprocess.CompletedProcess[str]:
    answer = subprocess.run(
        [*FUMEHOOD, *arguments], input=stdin, capture_output=True, check=False, env={**os.environ, **environment}
    )
    return subprocess.CompletedProcess(
        answer.args,
        answer.returncode,
        answer.stdout.decode("utf-8", "replace"),
        answer.stderr.decode("utf-8", "replace"),
    )


def test_run_prints_what_the_program_prints() -> None:
    answer = command("run", "-c", "print(6*7)")
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "42\n", "")


ENDS = {
    "own_code": (["-c", "import sys; sys.exit(3)"], 3, ""),
    "timeout": (["-c", "while True: pass", "-t", "0.3"], 124, "timeout"),
    "memory": (["-c", "a=[]\nwhile True: a.append(b'x' * (1 << 20))", "-m", "64M"], 137, "out of memory"),
    "output": (["-c", "while True: print('x' * 99999)"], 122, "output limit"),
    "segfault": (["-c", "import ctypes; ctypes.string_at(0)"], 139, "SIGSEGV"),
    "disk": (["--disk", "2M", "-l", "bash", "-c", "head -c 9999999 /dev/zero > f"], 1, "disk full"),
    "network": (["-c", "import urllib.request as u; u.urlopen('http://example.com')"], 1, "by policy"),
    "unknown_language": (["-l", "cobol", "-c", "x"], 65, "'cobol'"),
    "unknown_option": (["--zork"], 2, "--zork"),
    "option_without_value": (["-c"], 2, "needs a value"),
    "bad_size": (["-m", "much", "-c", "1"], 2, "256M"),
    "limit_out_of_range": (["-t", "0", "-c", "1"], 64, "wall_seconds"),
    "no_such_file": (["nowhere.py"], 64, "nowhere.py"),
    "no_suffix": (["/etc/hostname"], 2, "--language"),
    "file_to_the_parent": (["-f", "../x=/etc/hostname", "-c", "1"], 66, "'../x'"),
    "file_that_is_missing": (["-f", "nowhere", "-c", "1"], 2, "nowhere"),
    "wall_that_cannot_go": (["--without", "files", "-c", "1"], 64, "'files'"),
    "out_is_a_file": (["-c", "open('x','w')", "--out", "/etc/hostname"], 64, "--out"),
}


@pytest.mark.parametrize(("arguments", "code", "words"), ENDS.values(), ids=ENDS.keys())
def test_every_end_has_its_exit_code_and_its_sentence(arguments: list[str], code: int, words: str) -> None:
    answer = command("run", *arguments)
    assert answer.returncode == code, answer.stderr
    assert words in answer.stderr
    assert "site-packages/fumehood" not in answer.stderr
    assert "src/fumehood" not in answer.stderr


def test_code_comes_from_standard_input_and_input_from_a_pipe(tmp_path: Path) -> None:
    assert command("run", stdin=b"print('from stdin')").stdout == "from stdin\n"
    assert command("run", "-", "one", stdin=b"import sys; print(sys.argv[1])").stdout == "one\n"
    program = tmp_path / "echo.py"
    program.write_text("import sys; print(sys.stdin.read() + sys.argv[1])")
    assert command("run", str(program), "-x", stdin=b"piped ").stdout == "piped -x\n"


def test_a_pipe_that_says_nothing_is_not_waited_for() -> None:
    read, write = os.pipe()
    started = time.monotonic()
    subprocess.run([*FUMEHOOD, "run", "-c", "print(1)"], stdin=read, check=True, capture_output=True, timeout=20)
    assert time.monotonic() - started < 10
    os.close(read)
    os.close(write)


def test_json_holds_the_whole_result() -> None:
    result = json.loads(command("run", "--json", "-c", "print(1); open('f', 'w').write('x')").stdout)
    assert result["stdout"] == "1\n"
    assert result["reason"] == "exited"
    assert result["files"] == [{"path": "f", "text": "x"}]


def test_files_are_saved_and_links_are_not(tmp_path: Path) -> None:
    code = "import os\nos.mkdir('a')\nopen('a/b', 'wb').write(b'\\xff')\nos.symlink('/etc/passwd', 'link')\nopen('.envrc', 'w').write('x')"
    answer = command("run", "-c", code, "--out", str(tmp_path / "out"))
    assert (tmp_path / "out" / "a" / "b").read_bytes() == b"\xff"
    assert not (tmp_path / "out" / "link").exists()
    assert "'link' is a symbolic link" in answer.stderr
    assert ".envrc" in answer.stderr


def test_nothing_is_saved_outside_of_the_folder(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (tmp_path / "victim").write_text("mine")
    (out / "link").symlink_to(tmp_path / "victim")
    (out / "folder").symlink_to(tmp_path)
    names = ["../victim", "/abs", "link", "folder/victim", "bad\nname", "fine"]
    files_out.save([OutputFile(path=name, data=b"theirs") for name in names], str(out))
    assert (tmp_path / "victim").read_text() == "mine"
    assert (out / "fine").read_bytes() == b"theirs"
    # The link was replaced by the file, not followed.
    assert not (out / "link").is_symlink()
    assert capfd.readouterr().err.count("not saved") == 4


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    script = f'{FUMEHOOD[0]} run -c "for n in range(200000): print(n)" | head -1'
    answer = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert answer.stdout == "0\n"
    assert "Traceback" not in answer.stderr


def test_ctrl_c_ends_the_program_and_says_130() -> None:
    marker = f"ctrl-c-{os.getpid()}"
    process = subprocess.Popen(
        [*FUMEHOOD, "run", "-c", "import time; print('up', flush=True); time.sleep(60)", marker],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.read(2) == b"up"
    process.send_signal(signal.SIGINT)
    _out, err = process.communicate(timeout=10)
    assert process.returncode == 130
    assert b"Traceback" not in err
    time.sleep(0.1)
    commands = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert not any(marker.encode() in each for each in commands)


def test_a_guest_cannot_drive_the_terminal() -> None:
    shown = on_a_terminal("run", "-c", "print('\\x1b]52;c;QUJD\\x07\\x1b[2J\\u202e red \\x9b31m')")
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert "red" in shown
    piped = command("run", "-c", "import sys; sys.stdout.buffer.write(b'\\x1b[2J\\xff')")
    assert piped.stdout == "\x1b[2J\ufffd"


def test_an_answer_is_drawn_on_a_terminal_and_plain_in_a_pipe() -> None:
    arguments = ("ask", "--model", "scripted:demo", "What is today's date?")
    drawn = on_a_terminal(*arguments)
    assert "not a model" in drawn.splitlines()[0]
    assert "**" not in drawn.splitlines()[-1]
    plain = command(*arguments)
    assert "Today's date is **20" in plain.stdout
    assert "\x1b" not in plain.stdout + plain.stderr
    assert "date.today()" in plain.stderr


def on_a_terminal(*arguments: str) -> str:
    """Run the command on a real pseudo-terminal and return what reached it."""
    pid, master = pty.fork()
    if pid == 0:
        os.execve(FUMEHOOD[0], [*FUMEHOOD, *arguments], {**os.environ, "TERM": "xterm", "NO_COLOR": "1"})
    pieces = []
    while True:
        try:
            piece = os.read(master, 65536)
        except OSError:
            break
        if not piece:
            break
        pieces.append(piece)
    os.close(master)
    os.waitpid(pid, 0)
    return b"".join(pieces).decode("utf-8", "replace").replace("\r\n", "\n")


def test_ask_prints_the_true_numbers() -> None:
    answer = command("ask", "--model", "scripted:demo", "What are the first 50 Fibonacci numbers?")
    numbers = [0, 1]
    while len(numbers) < 50:
        numbers.append(numbers[-1] + numbers[-2])
    assert ", ".join(map(str, numbers)) in answer.stdout
    assert answer.stdout.startswith("This is a replay")


def test_ask_in_json_gives_the_whole_transcript() -> None:
    answer = command("ask", "--json", "--json-mode", "--model", "scripted:demo", "What is today's date?")
    transcript = json.loads(answer.stdout)
    assert transcript["method"] == "direct prompting"
    assert transcript["executions"][0]["stdout"].strip() == transcript["answer"].strip()


def test_ask_works_against_a_server_by_its_url() -> None:
    calls = [{"name": "exec_python", "arguments": json.dumps({"code": "print(2 ** 100)"})}]
    with ChatServer({"calls": calls}, {"text": "It is large."}) as server:
        answer = command("ask", "--model", f"openai:m@{server.url}/v1", "What is 2**100?")
    assert answer.stdout == "It is large.\n"
    assert "1267650600228229401496703205376" in answer.stderr
    assert answer.returncode == 0


ASKED = {
    "no_question": ([], 2, "give a question"),
    "no_model": (["hi"], 72, "scripted:demo"),
    "unknown_kind": (["-m", "zork:x", "hi"], 72, "zork"),
    "nobody_there": (["-m", "openai:m@http://127.0.0.1:1/v1", "hi"], 69, "cannot be reached"),
    "unknown_question": (["-m", "scripted:demo", "why?"], 72, "Fibonacci"),
    "turns": (["--max-turns", "0", "hi"], 2, "1 to 1000"),
}


@pytest.mark.parametrize(("arguments", "code", "words"), ASKED.values(), ids=ASKED.keys())
def test_ask_says_what_is_missing(arguments: list[str], code: int, words: str, tmp_path: Path) -> None:
    answer = command("ask", *arguments, XDG_CONFIG_HOME=str(tmp_path), MISTRAL_API_KEY="")
    assert answer.returncode == code
    assert words in answer.stderr
    assert "Traceback" not in answer.stderr


@pytest.mark.parametrize("status", [401, 500])
def test_ask_passes_on_a_servers_refusal(status: int) -> None:
    with ChatServer(status) as server:
        answer = command("ask", "--model", f"openai:m@{server.url}/v1", "hi")
    assert answer.returncode == 77
    assert f"answered {status}" in answer.stderr


def test_a_servers_words_cannot_drive_the_terminal(tmp_path: Path) -> None:
    (tmp_path / "fumehood").mkdir()
    (tmp_path / "fumehood" / "config.toml").write_text('"\\u001b]0;owned\\u0007" = 1\n')
    answer = command("ask", "hi", XDG_CONFIG_HOME=str(tmp_path))
    assert answer.returncode == 78
    assert "owned" in answer.stderr
    assert "\x1b" not in answer.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_examples(name: str) -> None:
    answer = command(name, "--help")
    assert answer.returncode == 0
    assert "Examples:" in answer.stdout
    assert answer.stdout == help_text(load(name))
    assert max(map(len, answer.stdout.splitlines())) <= 110


def test_the_command_alone_shows_its_help() -> None:
    assert command().returncode == 2
    assert command("--help").returncode == 0
    assert command("--version").stdout.startswith("fumehood 0")
    assert command("zork").returncode == 2
    assert "run, shell, ask" in command("zork").stderr


def test_doctor_shows_every_wall_and_language() -> None:
    shown = command("doctor")
    assert shown.returncode == 0
    assert "landlock" in shown.stdout
    assert "\x1b" not in shown.stdout
    found = json.loads(command("doctor", "--json").stdout)
    assert found["tier"] == ("cgroup" if found["walls"][-1]["up"] else "sampled")
    assert set(found["languages"]) == {"python", "python-data", "bash", "javascript", "typescript", "ruby", "php"}


def test_runtime_lists_what_is_installed() -> None:
    command("runtime", "build")
    rows = json.loads(command("runtime", "list", "--json").stdout)
    assert [row["current"] for row in rows if row["runtime"] == "python"].count(True) == 1
    assert command("runtime", "zork").returncode == 2


def test_options_are_read_as_gnu_does() -> None:
    run = load("run")
    given = parse(run, ["--timeout=2", "-m64M", "-e", "A=1", "--env", "B=2", "prog.py", "--timeout", "x", "--", "y"])
    assert given is not None
    assert (given.timeout, given.memory, given.env) == (2.0, 64 << 20, [("A", "1"), ("B", "2")])
    assert (given.program, given.rest) == ("prog.py", ["--timeout", "x", "--", "y"])
    assert parse(run, ["-h"]) is None
    with pytest.raises(UsageError, match="takes no value"):
        parse(run, ["--json=1"])


def test_printable_keeps_text_and_shows_the_rest() -> None:
    assert printable("a\tb\nç 世\r\n") == "a\tb\nç 世\n"
    assert printable("\x1b[1m\x00\x7f\x85\u202e\udc80") == "␛[1m␀\\x7f\\x85\\u202e\\udc80"
