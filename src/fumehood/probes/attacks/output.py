"""Attacks with what a program says: floods, pipes held open, and what would drive the terminal of whoever reads it."""

from __future__ import annotations

import os
import secrets
import select
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ...protocol.limits import Limits, MiB
from ..host_side import alive, end
from ..suite import Suite, at_most, holds, same

if TYPE_CHECKING:
    from ..target import Target

SUITE = Suite("output")

_ONE = Limits(output_bytes=1 * MiB)


@SUITE.probe_each(
    "P104",
    {
        "in large pieces": "for _ in range(40): sys.stdout.write('x' * (1 << 20))",
        "by children at once": "[os.fork() for _ in range(2)]; [os.write(1, b'x' * 65536) for _ in range(40)]",
        "from a memory file": "f = open('/tmp/' + str(os.getpid()), 'wb+'); f.write(bytes(1 << 20)); f.flush(); os.unlink(f.name)\n"
        "for _ in range(40): os.sendfile(1, f.fileno(), 0, 1 << 20)",
        "into a pipe made wider, in packets": "import fcntl\n"
        "print(tried(lambda: fcntl.fcntl(1, fcntl.F_SETPIPE_SZ, 1 << 20)), flush=True)\n"
        "fcntl.fcntl(1, fcntl.F_SETFL, os.O_WRONLY | os.O_DIRECT)\n"
        "for _ in range(4000): os.write(1, b'x' * 1000)",
        "in small pieces": "for _ in range(400000): os.write(1, b'x' * 8)",
    },
    tried="print 40 times as much as is allowed, {}", expected="all that is allowed, then its end", wall="output",
)  # fmt: skip
def a_flood_is_cut_and_ended(target: Target, code: str) -> None:
    result = target.run(code, limits=_ONE)
    same(result.reason, "output_limit")
    same(len(result.stdout_bytes), 1 * MiB)


@SUITE.probe(
    "P104",
    tried="flood standard error",
    expected="all that is allowed, then its end",
    wall="output",
)
def a_flood_on_standard_error_is_cut_and_ended(target: Target) -> None:
    result = target.run("for _ in range(40): sys.stderr.write('x' * (1 << 20))", limits=_ONE)
    same(result.reason, "output_limit")
    same(len(result.stderr_bytes), 1 * MiB)


@SUITE.probe("P104", tried="flood both streams by turns", expected="each is bounded by itself", wall="output")
def a_flood_on_both_streams_is_cut_and_ended(target: Target) -> None:
    result = target.run("for _ in range(80): os.write(1, bytes(32768)), os.write(2, bytes(32768))", limits=_ONE)
    same(result.reason, "output_limit")
    at_most(max(len(result.stdout_bytes), len(result.stderr_bytes)), 1 * MiB)


@SUITE.probe(
    "P104", tried="print as much as is allowed, and one byte more", expected="only the second is ended", wall="output"
)
def the_limit_is_exact(target: Target) -> None:
    code = "os.write(1, bytes(1000)); os.write(1, bytes(int(sys.argv[1])))"
    limits = Limits(output_bytes=2000)
    inside, above = (target.run(code, args=[str(number)], limits=limits) for number in (1000, 1001))
    same((inside.reason, len(inside.stdout_bytes)), ("exited", 2000))
    same((above.reason, len(above.stdout_bytes)), ("output_limit", 2000))


@SUITE.probe("P104", tried="leave a child that holds the pipe", expected="the result comes at once", wall="processes")
def a_child_that_holds_the_pipe_delays_nobody(target: Target) -> None:
    result = target.run("""
        import time
        if os.fork() == 0:
            time.sleep(3)
            os._exit(0)
    """)
    at_most(result.duration_seconds, 2)


@SUITE.probe(
    "P104",
    tried="leave a child that goes on writing after the program has ended",
    expected="nothing of it is in the result, and it is dead",
    wall="processes",
)
def a_child_adds_nothing_after_the_end(target: Target) -> None:
    marker = secrets.token_hex(8)
    result = target.run(
        """
        import subprocess
        late = "import os, time; time.sleep(0.8); os.write(1, b'late' * 1000)"
        subprocess.Popen([sys.executable, "-c", late, sys.argv[1]], start_new_session=True)
        print("ended", flush=True)
        """,
        args=[marker],
    )
    left = alive(marker)
    end(left)
    same((result.reason, result.exit_code, result.stdout), ("exited", 0, "ended\n"))
    same(left, [])


@SUITE.probe("P104", tried="print one endless line", expected="all that is allowed, then its end", wall="output")
def one_endless_line_is_cut_and_ended(target: Target) -> None:
    result = target.run("[os.write(1, b'x' * 65536) for _ in range(1600)]", limits=Limits(output_bytes=4 * MiB))
    same(result.reason, "output_limit")
    same(len(result.stdout_bytes), 4 * MiB)


@SUITE.probe(
    "P104", tried="close all three streams and sleep past the deadline", expected="timeout, in time", wall="time"
)
def closing_its_output_hides_nothing_from_the_clock(target: Target) -> None:
    result = target.run(
        """
        import signal, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        for number in (0, 1, 2):
            os.close(number)
        time.sleep(2)
        """,
        limits=Limits(wall_seconds=0.4),
    )
    same(result.reason, "timeout")
    at_most(result.duration_seconds, 1.5)


@SUITE.probe(
    "P104", tried="never read a large standard input", expected="timeout, in time: nobody waits for it", wall="time"
)
def an_input_that_is_never_read_delays_nobody(target: Target) -> None:
    result = target.run("import time; time.sleep(2)", stdin=bytes(16 * MiB), limits=Limits(wall_seconds=0.4))
    same(result.reason, "timeout")
    at_most(result.duration_seconds, 1.5)


@SUITE.probe(
    "P104",
    tried="read a little of a large input, close it, and print much",
    expected="both go on: neither waits for the other",
    wall="output",
)
def an_input_that_is_left_in_the_middle_delays_nobody(target: Target) -> None:
    result = target.run(
        "print(len(os.read(0, 9)), flush=True); [os.write(1, bytes(65536)) for _ in range(16)]; os.close(0)\n"
        "[os.write(1, bytes(65536)) for _ in range(16)]",
        stdin=bytes(4 * MiB),
    )
    same((result.reason, result.exit_code, len(result.stdout_bytes)), ("exited", 0, 2 + 2 * MiB))
    same(result.stdout_bytes[:2], b"9\n")


_ESCAPES = {
    "a clipboard (OSC 52)": b"\x1b]52;c;ZXZpbA==\x07",
    "a title (OSC 0)": b"\x1b]0;evil\x07",
    "the screen (CSI)": b"\x1b[2J\x1b[H\x1b[?1049h",
    "a report typed back (DECRQSS, DSR)": b'\x1bP$q"p\x1b\\\x1b[6n',
    "an escape in one byte (C1)": "\x9b2J\x9d52;c;ZXZpbA==\x9c".encode(),
    "an overwritten line": b"rm -rf ~\rls      ",
    "a reordered line (bidi)": "user\u202e \u2066// admin\u2069 \u2066".encode(),
    "backspaces and NULs": b"evil\x08\x08\x08\x08good\x00\x7f",
}
#: What no terminal may be sent, once line ends are taken out.
_FORBIDDEN = [
    *map(chr, range(9)),
    *map(chr, range(11, 32)),
    *map(chr, range(127, 160)),
    *"\u202a\u202b\u202d\u202e\u2066\u2069",
]


@SUITE.probe_each(
    "P105", _ESCAPES, once=True,
    tried="print to a terminal that runs `fumehood run`: {}", expected="it comes as printable signs", wall="output",
)  # fmt: skip
def the_terminal_is_not_driven(target: Target, escape: bytes) -> None:
    # In two pieces: what is harmless by itself may not be so together.
    code = f"import os, time; e = {escape!r}; os.write(1, e[:1]); time.sleep(0.02); os.write(1, e[1:]); os.write(2, e)"
    shown = _on_a_terminal(target, ["run", "-c", code], ["-c", code])
    same([sign for sign in _FORBIDDEN if sign in shown], [])
    holds(bool(shown), "nothing was shown")


@SUITE.probe(
    "P105",
    once=True,
    tried="leave files whose names drive a terminal, links and pipes too, for `fumehood run --out` and `--json`",
    expected="they come as printable signs",
    wall="output",
)
def names_of_files_do_not_drive_the_terminal(target: Target) -> None:
    code = (
        "import os; e = '\\x1b]52;c;ZXZpbA==\\x07'; open(e, 'w').write(e); os.symlink('/etc', 'l' + e); os.mkfifo('p' + e)\n"
        "print(os.listdir('.')[0]); raise OSError(e)"
    )
    shown = _on_a_terminal(target, ["run", "--out", "out", "-c", code], ["-c", code])
    shown += _on_a_terminal(target, ["run", "--json", "-c", code], ["-c", code])
    same([sign for sign in _FORBIDDEN if sign in shown], [])
    holds("52;c;" in shown, "nothing was shown")


@SUITE.probe_each(
    "P105",
    {
        "what it prints": "print(e)",
        "what a process of its prints": "import os; os.write(1, e.encode())",
        "an error": "raise ValueError(e)",
        "an error's own class": "raise type(e, (Exception,), {})(e)",
        "a value": "type('V', (), {'__repr__': lambda _: e})()",
        "a value's Markdown": "type('V', (), {'__repr__': lambda _: e, '_repr_markdown_': lambda _: e})()",
        "its last words": "import os; os.write(2, e.encode()); os._exit(3)",
    },
    once=True, tried="drive the terminal of `fumehood shell` by {}", expected="it comes as printable signs", wall="output",
)  # fmt: skip
def the_terminal_of_a_session_is_not_driven(target: Target, show: str) -> None:
    code = f"e = '\\x1b]52;c;ZXZpbA==\\x07\\x9b2J\\u202e'\n{show}\n"
    shown = _on_a_terminal(target, ["shell"], ["-iq"], typed=code)
    same([sign for sign in _FORBIDDEN if sign in shown], [])
    holds("52;c;" in shown, "nothing was shown")


def _on_a_terminal(target: Target, words: list[str], unwalled: list[str], typed: str = "") -> str:
    """Return what the command of this package, or an interpreter without walls, sends to a terminal; line ends are taken out."""
    ours, theirs = os.openpty()
    command = [sys.executable, *(["-m", "fumehood", *words] if target.walled else unwalled)]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3]), "TERM": "xterm"}
    shown = b""
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=theirs, stderr=theirs, env=env, cwd=folder, start_new_session=True
        ) as process,
    ):
        os.close(theirs)
        try:
            if process.stdin is not None:
                process.stdin.write(typed.encode())
                process.stdin.close()
            until = time.monotonic() + 10
            while select.select([ours], [], [], max(0.0, until - time.monotonic()))[0]:
                shown += os.read(ours, 1 << 16)
        except OSError:
            pass  # EIO: the last that had it open has ended
        finally:
            process.kill()
            os.close(ours)
    return shown.decode("utf-8", "replace").replace("\r\n", "")
