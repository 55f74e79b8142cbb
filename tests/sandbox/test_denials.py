"""Refused system calls, reported: the report changes nothing for the program, whatever it tries with it."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

import fumehood
from fumehood import Engine, ExecutionRequest, ExecutionResult, Limits
from fumehood.errors import InvalidRequest
from tests.testing.leftovers import assert_nothing_is_left, settled


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine(warm_bytes=0) as engine:
        yield engine


TRIES = """
import ctypes, os, platform
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
def call(x86_64, aarch64, *arguments):
    ctypes.set_errno(0)
    result = libc.syscall(*map(ctypes.c_long, ({"x86_64": x86_64, "aarch64": aarch64}[platform.machine()], *arguments)))
    return result, ctypes.get_errno()
"""
PROGRAM = (
    TRIES
    + """
import socket, threading
print(call(425, 425, 1, 0), call(272, 97, 0x10000000), call(272, 97, 0x20000), call(900, 900), call(157, 167, 22, 1))
print(call(56, 220, 0x10000000 | 17, 0, 0, 0, 0))
try:
    socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
except OSError as error:
    print(error)
thread = threading.Thread(target=lambda: print("a thread"))
thread.start()
thread.join()
"""
)


def run(engine: Engine, code: str, *, explain: bool = True, limits: Limits | None = None) -> ExecutionResult:
    return engine.execute(ExecutionRequest(code=code, explain=explain, limits=limits or Limits(wall_seconds=20)))


def test_the_report_names_each_call_its_answer_and_why(engine: Engine) -> None:
    result = run(engine, PROGRAM)
    assert result.denied_calls is not None
    assert [(denied.call, denied.answer, denied.count) for denied in result.denied_calls] == [
        ("io_uring_setup", "EPERM", 1),
        ("unshare", "EPERM", 2),
        ("system call 900", "ENOSYS", 1),
        ("prctl", "EINVAL", 1),
        ("clone", "EPERM", 1),
        ("socket", "EAFNOSUPPORT", 1),
    ]
    assert all(denied.why for denied in result.denied_calls)


def test_the_program_is_answered_as_without_a_report(engine: Engine) -> None:
    explained, plain = run(engine, PROGRAM), run(engine, PROGRAM, explain=False)
    assert explained.stdout == plain.stdout
    assert "a thread" in plain.stdout
    assert (explained.reason, explained.exit_code) == (plain.reason, plain.exit_code) == ("exited", 0)
    assert plain.denied_calls is None


def test_a_program_that_is_refused_nothing_has_an_empty_report(engine: Engine) -> None:
    assert run(engine, "print(1)").denied_calls == ()


def test_a_call_that_only_attacks_make_ends_the_process_and_is_named(engine: Engine) -> None:
    code = TRIES + "call(169, 142, 0, 0, 0, 0)\nprint('survived')"
    explained, plain = run(engine, code), run(engine, code, explain=False)
    assert (plain.reason, plain.signal, plain.stdout) == ("signalled", "SIGSYS", "")
    assert "only attacks make" in plain.detail
    assert (explained.reason, explained.signal, explained.stdout) == ("signalled", "SIGKILL", "")
    assert "reboot" in explained.detail


def test_a_thread_that_makes_such_a_call_takes_its_process_along(engine: Engine) -> None:
    code = TRIES + (
        "import threading, time\nthreading.Thread(target=call, args=(169, 142, 0)).start()\ntime.sleep(5)\nprint('survived')"
    )
    result = run(engine, code)
    assert (result.reason, result.stdout) == ("signalled", "")
    assert result.duration_seconds < 3


def test_a_flood_of_refused_calls_ends_at_the_deadline_and_is_counted(engine: Engine) -> None:
    code = TRIES + "import os\n[os.fork() for _ in range(3)]\nwhile True: call(272, 97, 0x20000)"
    result = run(engine, code, limits=Limits(wall_seconds=0.5))
    assert result.reason == "timeout"
    assert result.duration_seconds < 2
    assert result.denied_calls is not None
    assert result.denied_calls[0].count > 100


def test_as_many_calls_as_there_are_numbers_make_a_short_report(engine: Engine) -> None:
    result = run(engine, TRIES + "for number in range(600, 3000): call(number, number)")
    assert result.denied_calls is not None
    assert len(result.denied_calls) == 101
    assert (result.denied_calls[-1].call, result.denied_calls[-1].count) == ("others", 2300)


def test_processes_that_die_with_a_question_open_leave_nothing(engine: Engine) -> None:
    before = settled()
    # Children are killed while they ask.
    result = run(
        engine,
        TRIES
        + """
import signal, time
for _ in range(40):
    pid = os.fork()
    if pid == 0:
        while True:
            call(272, 97, 0x20000)
    time.sleep(0.001)
    os.kill(pid, signal.SIGKILL)
    os.wait()
print("done")
""",
    )
    assert (result.reason, result.stdout) == ("exited", "done\n")
    assert_nothing_is_left(before)


def test_processes_that_are_killed_over_a_hostile_call_harm_nobody(engine: Engine) -> None:
    # Their parent kills them in the moment in which the host would.
    result = run(
        engine,
        TRIES
        + """
import signal, time
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
for step in range(600):
    pid = os.fork()
    if pid == 0:
        call(169, 142, 0)
        os._exit(0)
    time.sleep(step / 1e6)
    os.kill(pid, signal.SIGKILL)
    os.wait()
print("done")
""",
    )
    assert (result.reason, result.stdout) == ("exited", "done\n")


def test_the_library_takes_it_too() -> None:
    result = fumehood.run(TRIES + "call(272, 97, 0x20000)", explain=True)
    assert result.denied_calls == (
        fumehood.DeniedCall(call="unshare", answer="EPERM", count=1, why="mounts and namespaces"),
    )


def test_the_listener_is_not_the_programs(engine: Engine) -> None:
    result = run(engine, "import os\nprint(sorted(map(int, os.listdir('/proc/self/fd')))[:-1])")
    assert result.stdout == "[0, 1, 2]\n"


def test_several_at_once_are_told_apart(engine: Engine) -> None:
    found: dict[int, object] = {}

    def one(number: int) -> None:
        denied = run(engine, TRIES + f"for _ in range({number}): call(272, 97, 0x20000)").denied_calls
        found[number] = denied and denied[0].count

    threads = [threading.Thread(target=one, args=(number,)) for number in range(1, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: number for number in range(1, 7)}


def test_explaining_needs_the_wall_that_refuses() -> None:
    with Engine(warm_bytes=0, without=["seccomp"]) as engine, pytest.raises(InvalidRequest, match="seccomp"):
        run(engine, "print(1)")


def test_the_command_says_it_beside_the_output() -> None:
    command = [sys.executable, "-m", "fumehood", "run", "--explain"]
    code = "import socket\ntry: socket.socket(socket.AF_PACKET)\nexcept OSError as error: print(error.errno)"
    shown = subprocess.run([*command, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout == f"{errno.EAFNOSUPPORT}\n"
    assert "refused: socket, EAFNOSUPPORT: families but Unix" in shown.stderr
    quiet = subprocess.run([*command, "-c", "print(1)"], capture_output=True, text=True, check=True)
    assert "no system call was refused" in quiet.stderr
    as_json = subprocess.run([*command, "--json", "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(as_json.stdout)["denied_calls"][0]["call"] == "socket"


def test_an_execution_is_cancelled_while_it_asks(engine: Engine) -> None:
    import os

    cancel = os.eventfd(0)
    threading.Timer(0.3, os.eventfd_write, (cancel, 1)).start()
    started = time.monotonic()
    request = ExecutionRequest(code=TRIES + "while True: call(272, 97, 0x20000)", explain=True)
    engine.execute(request, cancel=cancel)
    os.close(cancel)
    assert time.monotonic() - started < 3
