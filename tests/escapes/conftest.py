"""What the attacks are run against: the sandbox, or, to see each of them succeed, nothing at all."""

from __future__ import annotations

import contextlib
import os
import signal
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fumehood import Engine, ExecutionRequest, ExecutionResult, Limits
from fumehood.protocol.executor import Executor
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


@pytest.fixture(scope="module", params=["cold"] if UNWALLED else ["cold", "warm"])
def attack(request: pytest.FixtureRequest) -> Iterator[Attack]:
    """Run a program of the enemy's; Python gets a few names for free."""
    with engine_of(request.param) as engine:
        yield attacks_on(UnwalledExecutor() if UNWALLED else engine)


def engine_of(start: str) -> Engine:
    """Return an engine whose Python programs start so: "warm" or "cold"."""
    engine = Engine(warm_bytes=256 * MiB if start == "warm" else 0)
    if start == "warm":
        engine.prepare("python", LIMITS)
    return engine


def attacks_on(executor: Executor) -> Attack:
    """Return the function with which attacks are made."""

    def run(code: str, *, language: str = "python", limits: Limits = LIMITS, **fields: object) -> ExecutionResult:
        text = textwrap.dedent(code)
        whole = _PRELUDE + text if language == "python" else text
        return executor.execute(ExecutionRequest(code=whole, language=language, limits=limits, **fields))  # type: ignore[arg-type]  # the callers' own

    return run


@pytest.fixture(scope="module")
def tier(attack: Attack) -> str:
    """How memory is bounded here; "" without walls."""
    return "" if UNWALLED else attack("").tier


@pytest.fixture
def as_root() -> None:
    """Mark an attack that only the host's root could succeed with: without walls there is nothing to show to others."""
    if UNWALLED and not is_the_hosts_root():
        pytest.skip(ONLY_ROOT)


#: The one reason for which the run without walls may leave an attack out.
ONLY_ROOT = "without walls this attack fails for an ordinary user too: only root can show that it is real"


def is_the_hosts_root() -> bool:
    """Whether this process is root, and not merely called so inside a user namespace."""
    return os.geteuid() == 0 and Path("/proc/self/uid_map").read_text(encoding="utf-8").split() == ALL_USERS


ALL_USERS = ["0", "0", "4294967295"]


def alive(marker: str) -> list[int]:
    """Return the host's processes that carry a marker in their arguments."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and marker.encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def end(pids: list[int]) -> None:
    """Kill what an attack without walls has left."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
