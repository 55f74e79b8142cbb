"""A number that is read later is read once, by whoever comes first, and never stops what else has to be done."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import pytest

from fumehood.sandbox.read_once import ReadOnce


def opened() -> list[int]:
    return [os.open("/proc/self/stat", os.O_RDONLY)]


def is_open(descriptor: int) -> bool:
    return os.path.exists(f"/proc/self/fd/{descriptor}")


def test_it_is_read_once_and_closed() -> None:
    reads: list[list[int]] = []

    def count(descriptors: list[int]) -> int:
        reads.append(list(descriptors))
        return 42

    number = ReadOnce(count)
    number.add(descriptors := opened())
    assert (number.later()(), number(), len(reads)) == (42, 42, 1)
    assert not is_open(descriptors[0])
    number.close()
    assert number() == 42


def test_unread_it_is_closed_and_nothing() -> None:
    number = ReadOnce(lambda _descriptors: 42)
    number.add(descriptors := opened())
    number.close()
    assert number() == 0
    assert not is_open(descriptors[0])


@pytest.mark.parametrize("error", [OSError(19, "no such device"), ValueError("vm"), IndexError("list")])
def test_what_the_kernel_will_not_say_is_nothing_and_closed(error: Exception) -> None:
    def fail(_descriptors: list[int]) -> int:
        raise error

    number = ReadOnce(fail)
    number.add(descriptors := opened())
    assert number() == 0
    assert not is_open(descriptors[0])


def test_whoever_asks_in_the_middle_of_it_neither_waits_nor_reads_again() -> None:
    inner: list[int] = []

    def ask(_descriptors: list[int]) -> int:
        # As a signal's handler may, in the same thread.
        inner.append(number())
        return 42

    number = ReadOnce(ask)
    number.add(opened())
    assert (number(), inner) == (42, [0])


def test_a_fork_neither_waits_for_a_thread_that_it_has_not_nor_reads() -> None:
    reading, go_on = threading.Event(), threading.Event()

    def wait(_descriptors: list[int]) -> int:
        reading.set()
        go_on.wait(20)
        return 42

    number = ReadOnce(wait)
    number.add(opened())
    thread = threading.Thread(target=number)
    thread.start()
    reading.wait(20)
    pid = os.fork()
    if pid == 0:
        said = number()
        number.close()
        os._exit(said)
    try:
        until = time.monotonic() + 10
        while (ended := os.waitpid(pid, os.WNOHANG)) == (0, 0) and time.monotonic() < until:
            time.sleep(0.01)
        assert ended == (pid, 0)
    finally:
        go_on.set()
        thread.join()
    assert number() == 42


FORKED = """
import os, time
from fumehood import Engine, ExecutionRequest
code = "import socket\\ntry: socket.create_connection(('192.0.2.9', 80), 1)\\nexcept OSError: pass\\nx = b'x' * (30 << 20)"
with Engine() as engine:
    engine.prepare("python")
    result = engine.execute(ExecutionRequest(code=code))
    pid = os.fork()
    if pid == 0:
        # By now the parent has taken the sandbox away, with what the kernel counted.
        time.sleep(0.5)
        print(result.warm, result.network_refused, result.peak_memory_bytes > 25 << 20, flush=True)
        os._exit(0)
    os.waitpid(pid, 0)
    print(result.network_refused, result.peak_memory_bytes > 25 << 20)
"""


def test_a_fork_of_the_caller_finds_the_same_numbers() -> None:
    said = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, check=False, timeout=60)
    assert said.stdout == "True 1 True\n1 True\n", said.stderr
