"""What the attacks are run against: the sandbox, or, to see each of them succeed, nothing at all."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Callable, Iterator

import pytest

from fumehood import Engine, ExecutionRequest, ExecutionResult, Limits
from fumehood.protocol.limits import MiB
from tests.testing.unwalled import UnwalledExecutor

UNWALLED = os.environ.get("FUMEHOOD_TEST_UNWALLED") == "1"
#: Small, so that floods end soon.
LIMITS = Limits(wall_seconds=10, cpu_seconds=10, memory_bytes=96 * MiB, pids=48, disk_bytes=16 * MiB, disk_files=1000)

Attack = Callable[..., ExecutionResult]

# Names for what every attack needs; `tried` prints the errno's name of a failed action, or "done".
_PRELUDE = """
import ctypes, errno, os, socket, sys, platform
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
def tried(action):
    try:
        action()
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error.errno))
    return "done"
def raw(x86_64, aarch64, *args):
    number = {"x86_64": x86_64, "aarch64": aarch64}[platform.machine()]
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(a) if isinstance(a, int) else a for a in args])
    return "done" if result >= 0 else errno.errorcode[ctypes.get_errno()]
"""


@pytest.fixture(scope="session")
def attack() -> Iterator[Attack]:
    """Run a program of the enemy's; Python gets a few names for free."""
    with Engine() as engine:
        executor = UnwalledExecutor() if UNWALLED else engine

        def run(code: str, *, language: str = "python", limits: Limits = LIMITS, **fields: object) -> ExecutionResult:
            text = textwrap.dedent(code)
            whole = _PRELUDE + text if language == "python" else text
            return executor.execute(ExecutionRequest(code=whole, language=language, limits=limits, **fields))  # type: ignore[arg-type]  # the callers' own

        yield run


@pytest.fixture
def as_root() -> None:
    """Mark an attack that only root could succeed with if there were no walls."""
    if os.geteuid() != 0:
        pytest.skip("without walls this attack fails for an ordinary user too: run the tests as root")
