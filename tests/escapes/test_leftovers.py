"""Attacks that try to stay: after an execution nothing of it may be left on the host."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from pathlib import Path

import pytest

from fumehood import Limits
from fumehood.protocol.limits import MiB
from tests.testing.unwalled import UnwalledExecutor

from .conftest import UNWALLED, Attack, alive, attacks_on, end, engine_of

# Leaves three daemons that ignore what they can and hold memory, a file, a socket and, if they may, a mount.
STAY = '''
import subprocess, time
stay = """
import ctypes, mmap, signal, socket, time
libc = ctypes.CDLL(None)
signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
held = mmap.mmap(-1, 1 << 20), open("held", "w"), socket.socket(socket.AF_UNIX)
libc.unshare(0x20000)
libc.mount(b"none", b"/tmp", b"tmpfs", ctypes.c_ulong(0), None)
time.sleep(15)
"""
for _ in range(3):
    subprocess.Popen([sys.executable, "-c", stay, sys.argv[1]], start_new_session=True,
                     stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
time.sleep(0.2)
'''

WAYS_TO_END = {
    "p33_by_itself": "",
    "p33_with_an_error": "raise SystemExit(3)",
    "p33_by_a_signal": "os.kill(os.getpid(), 11)",
    "p34_at_its_deadline": "time.sleep(60)",
    "p104_by_its_output": "for _ in range(400): os.write(1, bytes(65536))",
    "p48_by_its_memory": "kept = [bytearray(b'x') * (1 << 20) for _ in range(200) if time.sleep(0.002) is None]",
}


@pytest.mark.parametrize("start", ["cold"] if UNWALLED else ["cold", "warm"])
@pytest.mark.parametrize("ending", WAYS_TO_END.values(), ids=WAYS_TO_END.keys())
def test_nothing_is_left_whichever_way_it_ends(start: str, ending: str) -> None:
    marker = secrets.token_hex(8)
    groups, mounts, inside = _groups(), _mounts(), _look_inside()
    limits = Limits(wall_seconds=1.5, memory_bytes=96 * MiB, output_bytes=1 * MiB)
    with engine_of(start) as engine:
        if start == "warm":
            engine.prepare("python", limits)
        result = attacks_on(UnwalledExecutor() if UNWALLED else engine)(STAY + ending, args=[marker], limits=limits)
        left = alive(marker)
        end(left)
        assert left == []
        assert result.warm == (start == "warm")
    # What an engine keeps warm for the next program goes with it.
    assert _groups() == groups
    assert _mounts() == mounts
    assert _inside(inside) == []


def test_p28_the_next_execution_finds_nothing_of_the_last(attack: Attack) -> None:
    marker = secrets.token_hex(8)
    attack(f"""
        for folder in ("/tmp", "/dev/shm"):
            open(os.path.join(folder, "{marker}"), "w").close()
        key = libc.shmget(0x{marker[:7]}, 4096, 0o1666)
    """)
    result = attack(f"""
        key = libc.shmget(0x{marker[:7]}, 4096, 0)
        print([f for f in ("/tmp", "/dev/shm") if os.path.exists(os.path.join(f, "{marker}"))], key < 0)
        if key >= 0:
            libc.shmctl(key, 0, None)
    """)
    for folder in ("/tmp", "/dev/shm"):
        Path(folder, marker).unlink(missing_ok=True)
    assert result.stdout == "[] True\n"


def _groups() -> set[Path]:
    # Engines elsewhere on this machine have groups too; ours carry our number.
    return set(Path("/sys/fs/cgroup").glob(f"**/fumehood-{os.getpid()}-*"))


def _mounts() -> set[str]:
    return set(Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines())


def _inside(before: list[str]) -> list[str]:
    """Return what descends from this process, lives in a namespace below its own, and did not before."""
    until = time.monotonic() + 0.5
    # A sandbox's process 1 reports when all others are dead, and then ends by itself.
    while (found := sorted(set(_look_inside()) - set(before))) and time.monotonic() < until:
        time.sleep(0.01)
    return found


def _look_inside() -> list[str]:
    facts = {}
    for status in Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(OSError):
            text = status.read_text(encoding="utf-8", errors="replace")
            facts[status.parent.name] = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
    ours = {str(os.getpid())}
    depth = len(facts[str(os.getpid())]["NSpid"].split())
    while new := {pid for pid, fact in facts.items() if fact["PPid"] in ours} - ours:
        ours |= new
    return [
        f"{pid} {facts[pid]['Name']}"
        for pid in ours & facts.keys()
        if len(facts[pid].get("NSpid", "").split()) > depth and not facts[pid]["State"].startswith("Z")
    ]
