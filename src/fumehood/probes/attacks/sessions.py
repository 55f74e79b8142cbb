"""Attacks by the cells of a session: on the channel to the host, on its clocks, on other sessions, and on what stays after it."""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import InvalidFilePath
from ...protocol.limits import MiB
from ..host_side import alive, end, in_environment, listening, nobody_came, nothing_stays, secret_file, taken_from_host
from ..suite import Fell, Suite, at_most, holds, one_of, same
from ..target import LIMITS, Target

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

SUITE = Suite("sessions")

_LIMITS = LIMITS.replace(wall_seconds=5, cpu_seconds=60)
_DAEMON = """
import subprocess, sys
subprocess.Popen([sys.executable, "-c", "import signal, time\\nsignal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\\ntime.sleep(8)",
                  "{}"], start_new_session=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
"""


@contextlib.contextmanager
def two_sessions(target: Target, **fields: Any) -> Iterator[tuple[Any, Any]]:
    """Yield a session of the enemy's, and a neighbour's, which must be as it was at the end."""
    with target.session(limits=_LIMITS.replace(**fields)) as one, target.session(limits=_LIMITS) as other:
        other.run("mine = 'as it was'")
        yield one, other
        same(said(other, "print(mine)"), "as it was\n")
        same(other.death, None)


def said(session: Any, code: str) -> str:
    """Run a cell, and return what it printed."""
    return str(session.run(code, timeout=4.0).stdout)


@SUITE.probe_each(
    "P113",
    {
        "an exit": ("import os; os._exit(5)", "exited", "exit code 5"),
        "a bad address": ("import ctypes; ctypes.string_at(0)", "crashed", "SIGSEGV"),
        "an abort": ("import os; os.abort()", "crashed", "SIGABRT"),
        "a signal of its own": ("import os; os.kill(os.getpid(), 15)", "crashed", "SIGTERM"),
        "SIGKILL": ("import os; os.kill(os.getpid(), 9)", "killed", "SIGKILL"),
        "the signal of used-up time": ("import os; os.kill(os.getpid(), 24)", "crashed", "SIGXCPU"),
        "another program": ("import os; os.execv('/bin/sh', ['sh', '-c', 'exit 3'])", "exited", "exit code 3"),
        "lack of memory": (
            "import time\nkept = []\nfor _ in range(50): kept.append(b'x' * (4 << 20)); time.sleep(0.005)",
            "out_of_memory", "bytes",
        ),
    },
    tried="end a session in the middle of a cell, by {}",
    expected="the reason by its type; others go on; a restart begins anew", wall="sessions",
)  # fmt: skip
def a_death_has_its_reason(target: Target, code: str, reason: str, detail: str) -> None:
    with two_sessions(target) as (session, _other):
        session.run("lost = 1")
        same(session.run(code).ended, "died")
        same((session.death.reason, detail in session.death.detail), (reason, True))
        session.restart()
        same(said(session, "print('lost' in globals())"), "False\n")


# Writes to every descriptor, whichever the channel is.
_FORGE = """
import os, time
def forge(data):
    for number in range(3, 1024):
        try:
            os.write(number, data)
        except OSError:
            pass
"""


@SUITE.probe_each(
    "P47",
    {
        "garbage": "forge(os.urandom(1000))",
        "no header": "forge(b'x' * 10)",
        "no JSON": "forge(b'1 0 {')",
        "no object": "forge(b'1 0 []')",
        "a deep one": "forge(b'1 0 ' + b'[' * 50_000)",
        "one of an unknown kind": """forge(b'1 0 {"type": "x"}')""",
        "wrong types": """forge(b'1 0 {"type": "display", "data": 5}')""",
        "a kind that is a list": """forge(b'1 0 {"type": [[]]}')""",
        "a huge number": "forge(b'9' * 50_000 + b' 1 x')",
        "a huge value": """forge(b'1 0 {"type": "done", "ok": ' + b'9' * 50_000 + b'}')""",
        "half of one, before its own": "forge(b'%d 1 {' % os.getpid())",
        "one that never ends": "for _ in range(60): forge(b'1 1 ' + b'x' * 50_000)",
        "those of a thousand senders": "for number in range(1000): forge(b'%d 1 x' % number)",
        "a stand that nobody asked for": """forge(b'1 0 {"type": "still", "pid": -1, "lost": 5}')""",
    },
    tried="write to the session's channel: {}", expected="the session ends: protocol; others go on", wall="sessions",
)  # fmt: skip
def a_forged_message_ends_the_session_alone(target: Target, forgery: str) -> None:
    with two_sessions(target, output_bytes=1 * MiB) as (session, _other):
        same(session.run(f"{_FORGE}\n{forgery}\ntime.sleep(0.3)").ended, "died")
        same(session.death.reason, "protocol")
        session.restart()
        same(said(session, "print(1)"), "1\n")


@SUITE.probe_each(
    "P47",
    {
        "its end": '{"type": "done", "ok": true}',
        "that it is ready": '{"type": "ready"}',
        "that it stands still": '{"type": "still", "pid": 1, "lost": []}',
    },
    tried="say on the channel {}, and go on for long", expected="the next cell ends in its time", wall="sessions",
)  # fmt: skip
def a_forged_end_stops_no_clock(target: Target, message: str) -> None:
    with two_sessions(target) as (session, _other):
        session.run(
            f"""{_FORGE}\nforge(b'1 0 {message}' if {target.walled} else b'[true, ""]\\n')\n"""
            "until = time.monotonic() + 3\nwhile time.monotonic() < until: time.sleep(0.1)"
        )
        started = time.monotonic()
        result = session.run("print(2)", timeout=0.3)
        at_most(time.monotonic() - started, 2.5)
        one_of(result.ended, ("finished", "timeout", "died"))


@SUITE.probe_each(
    "P47",
    {
        "every builtin": "import builtins\nfor name in dir(builtins):\n  if name[0] != '_': setattr(builtins, name, None)",
        "print, repr and open": "import builtins\nbuiltins.print = builtins.repr = builtins.open = lambda *_: 'all is well'",
        "json": "import json\njson.dumps = lambda *_, **__: '{\"type\": \"done\", \"ok\": true}'",
        "all modules": "import sys\nsys.modules.clear()",
        "its streams": "import sys\nsys.stdout = sys.stderr = sys.__stdout__ = None",
        "signals and pids": "import os, signal, _signal\nos.getpid = lambda: 1\nsignal.signal = _signal.signal = lambda *_: None",
        "its own loop": "import sys\nframe = sys._getframe()\nwhile frame.f_back: frame = frame.f_back\n"
        "frame.f_globals.update(json=None, Channel=None, signal=None)",
        "exit hooks": "import atexit, os\natexit.register(os._exit, 0)",
    },
    tried="put others in the place of {}, then crash", expected="crashed, or an earlier end by its type", wall="sessions",
)  # fmt: skip
def what_decides_is_outside(target: Target, patch: str) -> None:
    with two_sessions(target) as (session, _other):
        session.run("import ctypes\nreally_crash = ctypes.CDLL(None).abort\nreally_crash.restype = None")
        session.run(patch, timeout=0.3)
        if session.death is None:
            session.run("really_crash()", timeout=0.3)
        holds(session.death is not None, "it goes on after a crash")
        one_of(session.death.reason, ("crashed", "exited", "protocol", "timeout"))
        session.restart()
        same(said(session, "print(len('four'))"), "4\n")


# Each ends by itself after a while, for where there are no walls.
_STUBBORN = {
    "ignores it": "signal.signal(signal.SIGINT, signal.SIG_IGN)\nspin()",
    "catches it": "def again():\n  try: spin()\n  except BaseException: again()\nagain()",
    "blocks all signals": "signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\nspin()",
    "is stopped": "me = os.getpid()\nif os.fork() == 0:\n  signal.signal(2, signal.SIG_IGN); os.setsid(); time.sleep(4)\n"
    "  os.kill(me, 18); os._exit(0)\nos.kill(me, 19)",
    "waits in a child": "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    "if os.fork() == 0: time.sleep(4); os._exit(0)\nos.wait()",
    "is never the same": "signal.signal(signal.SIGINT, signal.SIG_IGN)\nuntil = time.monotonic() + 4\n"
    "while os.getpid() == me and os.fork(): spin()\nwhile time.monotonic() < until:\n  if os.fork(): os._exit(0)\n"
    "  time.sleep(0.01)\nos._exit(0)",
}


@SUITE.probe(
    "P34",
    tried="ignore, catch or block every signal, stop, or go on in child after child, in a cell whose time is used up",
    expected="each of those sessions ends, in time: timeout",
    wall="sessions",
)
def a_cell_that_cannot_be_interrupted_is_ended(target: Target) -> None:
    seen: dict[str, tuple[str, str, bool]] = {}

    def try_one(name: str, code: str) -> None:
        spin = "def spin():\n  until = time.monotonic() + 4\n  while time.monotonic() < until: time.sleep(0.02)\n"
        with target.session(limits=_LIMITS) as session:
            started = time.monotonic()
            result = session.run(f"import os, signal, time\nme = os.getpid()\n{spin}{code}", timeout=0.3)
            in_time = time.monotonic() - started < 3.5
            seen[name] = result.ended, session.death.reason if session.death else "lives", in_time

    threads = [threading.Thread(target=try_one, args=each) for each in _STUBBORN.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    same({name: each for name, each in seen.items() if each != ("died", "timeout", True)}, {})
    same(len(seen), len(_STUBBORN))


@SUITE.probe_each(
    "P104",
    {
        "lines": "for _ in range(4000): print('x' * 1000)",
        "another program's lines": "import os\nfor _ in range(4000): os.write(1, b'x' * 1000)",
        "one line": "print('x' * (4 << 20))",
        "errors": "import sys\nfor _ in range(4000): sys.stderr.write('x' * 1000)",
        "displays": "for _ in range(4000): display('x' * 1000)",
        "one display": "display('x' * (4 << 20))",
        "a result": "'x' * (4 << 20)",
        "an exception": "raise ValueError('x' * (4 << 20))",
        "very many small things": "for _ in range(40000): display(1)",
    },
    tried="show much more than is allowed: {}", expected="what is allowed, then its end", wall="output",
)  # fmt: skip
def a_flood_is_bounded(target: Target, code: str) -> None:
    with two_sessions(target, output_bytes=1 * MiB) as (session, _other):
        result = session.run(code, timeout=3)
        shown = sum(len(repr(each.as_dict())) for each in result.events)
        # Their names are counted here too.
        at_most(shown, 2 * MiB)
        one_of(
            (result.ended, session.death.reason if session.death else None),
            (("output_limit", None), ("died", "output_limit"), ("died", "protocol")),
        )
        if session.death is None:
            same(said(session, "print(1)"), "1\n")


@SUITE.probe(
    "P104",
    tried="show much, and then very many small things past its time",
    expected="it ends in its time: the host keeps up",
    wall="time",
)
def small_things_do_not_keep_the_host_from_the_clock(target: Target) -> None:
    # Room for some thousand small things after the much.
    with target.session(limits=_LIMITS.replace(output_bytes=20 * MiB + (160 << 10))) as session:
        started = time.monotonic()
        session.run(
            "import time\nuntil = time.monotonic() + 4\nfor _ in range(5): print('x' * (4 << 20))\n"
            "while time.monotonic() < until: print('a', end='')",
            timeout=1.0,
        )
        at_most(time.monotonic() - started, 3)


@SUITE.probe("P20", tried="print half characters", expected="what it said can be written as UTF-8", wall="output")
def what_a_cell_says_is_text(target: Target) -> None:
    with target.session(limits=_LIMITS) as session:
        result = session.run("print('before \\ud800 \\udfff after')")
        holds("before" in result.stdout, "nothing was shown")
        holds(not any("\ud800" <= sign <= "\udfff" for sign in result.stdout), "half characters came to the host")


@SUITE.probe(
    "P27",
    tried="look for a file and memory of another session's: in all folders, in /proc, by a socket's name, by a key",
    expected="none is found",
    wall="sessions",
)
def another_session_is_not_found(target: Target) -> None:
    marker = secrets.token_hex(8)
    places = ("/tmp", "/dev/shm")
    try:
        with two_sessions(target) as (session, other):
            other.run(
                f"import ctypes, os, socket\nfor place in ('.', *{places}): open(os.path.join(place, '{marker}'), 'w').close()\n"
                f"server = socket.socket(socket.AF_UNIX)\nserver.bind('\\0{marker}'); server.listen()\n"
                f"key = ctypes.CDLL(None).shmget(0x{marker[:7]}, 4096, 0o1666)"
            )
            found = said(session, _LOOK.format(marker=marker, key=marker[:7]))
            other.run("ctypes.CDLL(None).shmctl(key, 0, None)")
    finally:
        taken_from_host(*(Path(place, marker) for place in places))
    same(found, "[]\n")


_LOOK = """
import ctypes, glob, os, socket
places = [".", "/tmp", "/dev/shm", "/var/tmp", *glob.glob("/tmp/*"), *glob.glob("/proc/[0-9]*/cwd"), *glob.glob("/proc/[0-9]*/root/tmp")]
found = [place for place in places if os.path.exists(os.path.join(place, "{marker}"))]
try:
    socket.socket(socket.AF_UNIX).connect("\\0{marker}")
    found.append("socket")
except OSError:
    pass
if ctypes.CDLL(None).shmget(0x{key}, 4096, 0) >= 0:
    found.append("memory")
print(found)
"""


@SUITE.probe(
    "P35",
    tried="kill a process of another session's by its number on the host",
    expected="it lives",
    wall="pid-namespace",
)
def another_session_cannot_be_killed(target: Target) -> None:
    marker = secrets.token_hex(8)
    with two_sessions(target) as (session, other):
        other.run(_DAEMON.format(marker))
        pids = seen_alive(marker)
        session.run(f"import os\nfor pid in {pids}: os.kill(pid, 9)")
        time.sleep(0.05)
        left = alive(marker)
        end(left)
        same(left, pids)


def seen_alive(marker: str) -> list[int]:
    """Return the host's processes with a marker, once there are some."""
    until = time.monotonic() + 2
    while not (pids := alive(marker)) and time.monotonic() < until:
        time.sleep(0.01)
    holds(bool(pids), "the process that was to be attacked did not start")
    return pids


@SUITE.probe("P103", tried="look for a secret of the host's environment", expected="it is nowhere", wall="own-user")
def the_hosts_environment_is_not_there(target: Target) -> None:
    secret = secrets.token_hex(16)
    with in_environment("FUMEHOOD_PROBE", secret), target.session(limits=_LIMITS) as session:
        shown = said(
            session,
            "import glob, os\nprint(dict(os.environ))\nfor path in glob.glob('/proc/[0-9]*/environ'):\n"
            "  try: print(open(path).read())\n  except OSError: pass",
        )
    holds("PATH" in shown, "nothing was shown")
    holds(secret not in shown, "the secret was there")


@SUITE.probe(
    "P85", tried="read a file of the host's and reach a port of it from a cell", expected="neither", wall="network"
)
def a_session_has_the_walls_too(target: Target) -> None:
    with secret_file() as secret, listening() as server, target.session(limits=_LIMITS) as session:
        shown = said(session, reaching(secret, server.getsockname()[1]))
        same(shown, "")
        nobody_came(server)


def reaching(secret: Path, port: int) -> str:
    """Return a cell that prints a file of the host's, and comes to a port of it."""
    return (
        f"import socket\ntry: print(open('{secret}').read())\nexcept OSError: pass\n"
        f"try: socket.create_connection(('127.0.0.1', {port}), 0.5)\nexcept OSError: pass"
    )


@SUITE.probe_each(
    "P14",
    {
        "a link": "os.symlink('{}', 'out')",
        "a link to its folder": "os.symlink(os.path.dirname('{}'), 'out')",
        "a link to another link": "os.symlink('{}', 'x'); os.symlink('x', 'out')",
        "a link through /proc": "os.symlink('/proc/self/root{}', 'out')",
    },
    tried="have the host read and write its own file through what the session calls out: {}",
    expected="InvalidFilePath, and the file is as it was", wall="files-out",
)  # fmt: skip
def files_of_a_session_lead_nobody_out(target: Target, make: str) -> None:
    with secret_file() as secret, target.session(limits=_LIMITS) as session:
        before = secret.read_bytes()
        same(said(session, f"import os\n{make.format(secret)}\nprint('made')"), "made\n")
        for path in ("out", "out/secret"):
            with contextlib.suppress(InvalidFilePath, NotADirectoryError, FileNotFoundError, IsADirectoryError):
                holds(session.get_file(path) != before, "the host's file was read")
            with contextlib.suppress(InvalidFilePath, NotADirectoryError, FileNotFoundError, IsADirectoryError):
                session.put_file(path, b"changed")
        same(secret.read_bytes(), before)
        holds("out/secret" not in session.list_files(), "the host's folder was listed")


@SUITE.probe(
    "P14",
    tried="swap a file for a link to the host's, while it is fetched",
    expected="only its own is read",
    wall="files-out",
)
def a_swapped_file_leads_nobody_out(target: Target) -> None:
    with secret_file() as secret, target.session(limits=_LIMITS) as session:
        session.run(
            "import os, threading, time\nos.mkdir('d'); open('d/secret', 'w').write('own')\n"
            f"os.symlink('{secret.parent}', 'l')\nuntil = time.monotonic() + 2\n"
            "def swap():\n  while time.monotonic() < until:\n    for one, other in (('d', 'x'), ('l', 'd'), ('d', 'l'), ('x', 'd')):\n"
            "      os.rename(one, other)\n      time.sleep(0.0002)\n"
            "threading.Thread(target=swap, daemon=True).start()"
        )
        seen = set()
        until = time.monotonic() + 0.4
        while time.monotonic() < until:
            with contextlib.suppress(InvalidFilePath, OSError):
                seen.add(session.get_file("d/secret"))
        same(seen, {b"own"})


@SUITE.probe(
    "P16", tried="call a pipe out, that somebody fetches", expected="InvalidFilePath at once", wall="files-out"
)
def a_pipe_that_is_fetched_delays_nobody(target: Target) -> None:
    with target.session(limits=_LIMITS) as session:
        session.run(
            "import os, threading, time\nos.mkfifo('out')\n"
            "threading.Thread(target=lambda: (time.sleep(0.5), open('out', 'w').write('late')), daemon=True).start()"
        )
        try:
            seen = session.get_file("out")
        except InvalidFilePath:
            return
    raise Fell(f"it was read: {seen!r}")


@SUITE.probe("P33", tried="leave daemons, and be closed", expected="they are dead", wall="leftovers")
def daemons_of_a_session_end_with_it(target: Target) -> None:
    marker = secrets.token_hex(8)
    with nothing_stays(), Target(target.way) as own:
        with own.session(limits=_LIMITS) as session:
            session.run(_DAEMON.format(marker) * 3)
            seen_alive(marker)
        left = alive(marker)
        end(left)
    same(left, [])


@SUITE.probe(
    "P28",
    tried="leave files, shared memory and a daemon for the session after a restart",
    expected="none is found",
    wall="leftovers",
)
def a_restart_leaves_nothing(target: Target) -> None:
    marker = secrets.token_hex(8)
    places = ("/tmp", "/dev/shm")
    with nothing_stays(), Target(target.way) as own, own.session(limits=_LIMITS) as session:
        session.run(f"import os\nfor place in ('.', *{places}): open(os.path.join(place, '{marker}'), 'w').close()")
        session.run(_DAEMON.format(marker))
        seen_alive(marker)
        session.restart()
        left = alive(marker)
        end(left)
        found = said(session, _LOOK.format(marker=marker, key=marker[:7]))
    taken_from_host(*(Path(place, marker) for place in places))
    same((found, left), ("[]\n", []))


@SUITE.probe(
    "P114", tried="run a cell, with daemons, when its owner closes", expected="nothing is left", wall="leftovers"
)
def nothing_is_left_of_a_cell_that_ran(target: Target) -> None:
    marker = secrets.token_hex(8)
    ended: list[str] = []
    with nothing_stays(), Target(target.way) as own, own.session(limits=_LIMITS) as session:
        code = _DAEMON.format(marker) * 2 + "import time\nfor _ in range(40): time.sleep(0.1)"
        cell = threading.Thread(target=lambda: ended.append(session.run(code).ended))
        cell.start()
        seen_alive(marker)
        session.close()
        left = alive(marker)
        cell.join()
        end(left)
    same((left, ended), ([], ["died"]))


@SUITE.probe(
    "P110", tried="leave a daemon in each of 12 sessions", expected="none is left, nor any descriptor", wall="leftovers"
)
def many_sessions_leave_nothing(target: Target) -> None:
    marker = secrets.token_hex(8)
    with nothing_stays(), Target(target.way) as own:
        own.run("")
        with own.session(limits=_LIMITS):
            before = len(os.listdir("/proc/self/fd"))
        with contextlib.ExitStack() as all_of_them:
            for _ in range(12):
                all_of_them.enter_context(own.session(limits=_LIMITS)).run(_DAEMON.format(marker))
            at_most(len(os.listdir("/proc/self/fd")) - before, 12 * 16)
        left = alive(marker)
        end(left)
        after = len(os.listdir("/proc/self/fd"))
    same(left, [])
    # What the pool holds ready meanwhile has some.
    at_most(after - before, 64 if target.way == "warm" else 0)
