"""`fumehood shell` as a user meets it: at a real terminal, and through pipes."""

from __future__ import annotations

import base64
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

FUMEHOOD = [str(Path(sys.executable).with_name("fumehood")), "shell"]
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


class Terminal:
    """A shell at a pseudo-terminal."""

    def __init__(self, folder: Path, *words: str, **environment: str) -> None:
        self.sent = ""
        self._pid, self._master = pty.fork()
        if self._pid == 0:
            os.chdir(folder)
            own = {"TERM": "xterm", "NO_COLOR": "1", "XDG_STATE_HOME": str(folder / "state"), **environment}
            kept = {name: value for name, value in os.environ.items() if not name.startswith(("KITTY", "TERM"))}
            os.execve(FUMEHOOD[0], [*FUMEHOOD, *words], {**kept, **own})

    def expect(self, text: str, seconds: float = 30) -> str:
        """Read until the text comes; return what came before and with it."""
        until = time.monotonic() + seconds
        while text not in self.sent:
            readable, _w, _x = select.select([self._master], [], [], max(0.0, until - time.monotonic()))
            assert readable, self.sent
            try:
                self.sent += os.read(self._master, 65536).decode("utf-8", "replace").replace("\r\n", "\n")
            except OSError:
                raise AssertionError(f"it ended: {self.sent}") from None
        before, found, self.sent = self.sent.partition(text)
        return before + found

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def ask(self, text: str) -> str:
        """Type a line and return what was shown up to the next prompt."""
        self.type(text + "\n")
        self.expect(text)
        return self.expect(">>> ").removesuffix(">>> ").strip()

    def leave(self) -> int:
        self.type("\x04")
        while True:
            try:
                if not os.read(self._master, 65536):
                    break
            except OSError:
                break
        os.close(self._master)
        return os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    terminal = Terminal(tmp_path)
    terminal.expect(">>> ")
    yield terminal
    assert terminal.leave() == 0


def test_a_conversation(terminal: Terminal) -> None:
    assert terminal.ask("x = 20") == ""
    assert terminal.ask("x * 2 + 2") == "42"
    assert terminal.ask("print('hi')") == "hi"
    assert "ZeroDivisionError" in terminal.ask("1/0")
    assert terminal.ask("!echo $((6*7))") == "42"
    assert ":files" in terminal.ask(":help")


def test_a_block_ends_with_an_empty_line(terminal: Terminal) -> None:
    terminal.type("def f():\n")
    terminal.expect("... ")
    terminal.type("    return 7\n")
    terminal.expect("... ")
    terminal.type("\n")
    terminal.expect(">>> ")
    assert terminal.ask("f()") == "7"


def test_ctrl_c_interrupts_the_cell_and_keeps_state(terminal: Terminal) -> None:
    terminal.ask("kept = 5")
    terminal.type("import time; print('going'); time.sleep(60)\n")
    terminal.expect("going\n")
    terminal.type("\x03")
    assert "KeyboardInterrupt" in terminal.expect(">>> ")
    assert terminal.ask("kept") == "5"


def test_copies_and_checkpoints(terminal: Terminal) -> None:
    terminal.ask("x = 1")
    assert "forked: 2; :use 2" in terminal.ask(":fork")
    terminal.type(":use 2\n")
    terminal.expect("2>>> ")
    assert terminal.ask("x = 'second'; x").endswith("'second'\n2")
    assert terminal.ask(":use").splitlines()[:2] == ["1  idle", "* 2  idle"]
    terminal.type(":use 1\n")
    terminal.expect("1>>> ")
    assert terminal.ask("x").startswith("1\n")
    assert "remembered; :restore here" in terminal.ask(":checkpoint here")
    terminal.ask("del x")
    terminal.ask(":restore here")
    assert terminal.ask("x").startswith("1\n")
    assert "there is no checkpoint 'there': there are here" in terminal.ask(":restore there")
    assert "there is no copy 9: there are 1 to 2" in terminal.ask(":use 9")
    assert "'two' is no number" in terminal.ask(":fork two")
    terminal.ask(
        "import threading, time; threading.Thread(target=time.sleep, args=(99,), daemon=True, name='clock').start()"
    )
    assert "(gone: thread clock)" in terminal.ask(":fork")


def test_files_go_in_and_out(terminal: Terminal, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("hello")
    assert terminal.ask(":put in.txt") == ""
    terminal.ask("open('out.txt', 'w').write(open('in.txt').read().upper());")
    assert terminal.ask(":files").split() == ["5", "in.txt", "5", "out.txt"]
    assert terminal.ask(":get out.txt") == "saved out.txt"
    assert (tmp_path / "out.txt").read_text() == "HELLO"
    assert "is there already" in terminal.ask(":get out.txt")
    assert "nowhere" in terminal.ask(":put nowhere")
    assert "cannot be taken" in terminal.ask(":get missing")


def test_a_dead_session_is_explained_and_restarted(terminal: Terminal) -> None:
    assert "exit code 3" in terminal.ask("import os; os._exit(3)")
    assert "is dead" in terminal.ask("1")
    assert terminal.ask(":restart") == ""
    assert terminal.ask("1 + 1") == "2"


def test_a_guest_cannot_drive_the_terminal(terminal: Terminal) -> None:
    shown = terminal.ask("print('\\x1b]0;title\\x07\\x1b[2J')")
    assert "\x1b]0;" not in shown
    assert "\x1b[2J" not in shown


def show_a_picture(terminal: Terminal) -> str:
    terminal.ask("png = bytes.fromhex('')")
    for start in range(0, len(PIXEL), 20):
        # Short lines: an editor of lines wraps long ones, and their echo is no longer what was typed.
        terminal.ask(f"png += bytes.fromhex('{PIXEL[start : start + 20].hex()}')")
    terminal.ask("P = type('P', (), {'_repr_png_': lambda s: png})")
    return terminal.ask("P()")


def test_a_picture_is_saved_and_named_where_the_terminal_cannot_show_it(terminal: Terminal, tmp_path: Path) -> None:
    assert show_a_picture(terminal) == "[picture saved as figure-1.png]"
    assert (tmp_path / "figure-1.png").read_bytes() == PIXEL
    assert terminal.ask("P()") == "[picture saved as figure-2.png]"


WAYS = {
    "kitty": ({"KITTY_WINDOW_ID": "1"}, "\x1b_Ga=T,f=100,m=0;"),
    "iterm": ({"TERM_PROGRAM": "iTerm.app"}, "\x1b]1337;File=inline=1;"),
}


@pytest.mark.parametrize(("environment", "start"), WAYS.values(), ids=WAYS.keys())
def test_a_picture_is_shown_where_the_terminal_can(tmp_path: Path, environment: dict[str, str], start: str) -> None:
    terminal = Terminal(tmp_path, **environment)
    terminal.expect(">>> ")
    shown = show_a_picture(terminal)
    assert start in shown
    assert base64.b64encode(PIXEL).decode() in shown
    assert terminal.leave() == 0
    assert list(tmp_path.glob("figure*")) == []


def test_history_is_kept_for_its_owner_alone(tmp_path: Path) -> None:
    for text in ("'typed first'", "'typed then'"):
        terminal = Terminal(tmp_path)
        terminal.expect(">>> ")
        terminal.ask(text)
        terminal.leave()
    history = tmp_path / "state" / "fumehood" / "history-python"
    assert history.read_text() == "'typed first'\n'typed then'\n"
    assert history.stat().st_mode & 0o777 == 0o600


def piped(code: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*FUMEHOOD, *words], input=code, capture_output=True, text=True, check=False)


def test_standard_input_is_one_cell_where_there_is_no_terminal(tmp_path: Path) -> None:
    data = tmp_path / "d.csv"
    data.write_text("a,b")
    answer = piped("x = open('d.csv').read()\nprint('out')\nx", "--file", str(data))
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "out\n'a,b'\n", "")
    failed = piped("1/0")
    assert failed.returncode == 1
    assert "ZeroDivisionError" in failed.stderr


BAD = {
    "language": (["--language", "cobol"], 65, "cobol"),
    "no_sessions": (["--language", "ruby"], 64, "no sessions"),
    "file": (["--file", "nowhere"], 64, "nowhere"),
    "memory": (["--memory", "much"], 2, "256M"),
}


@pytest.mark.parametrize(("words", "code", "said"), BAD.values(), ids=BAD.keys())
def test_what_is_asked_wrong_is_said_in_one_sentence(words: list[str], code: int, said: str) -> None:
    answer = piped("1", *words)
    assert answer.returncode == code
    assert said in answer.stderr
    assert "Traceback" not in answer.stderr


def test_hosts_are_allowed_listed_and_locked_and_a_credential_is_in_no_history(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path)
    terminal.expect(">>> ")
    code = "import requests; requests.get('https://evil.test/').status_code"
    assert terminal.ask(":network") == "it may reach no host"
    assert terminal.ask(":allow good.test") == "it may reach good.test"
    assert "403" in terminal.ask(code)
    shown = terminal.ask(":allow api.test=bearer:correct-horse-battery-staple")
    assert shown == "it may reach good.test, api.test"
    assert "no network like" in terminal.ask(":allow a.test@b.test")
    assert terminal.ask(":lock") == "it may reach no host"
    assert terminal.leave() == 0
    history = (tmp_path / "state" / "fumehood" / "history-python").read_text()
    assert ":allow good.test" in history
    assert ":lock" in history
    assert "correct-horse" not in history
