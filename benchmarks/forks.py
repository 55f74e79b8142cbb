"""Measures live forks of sessions that hold 10 MB and 1 GB, and going back to a checkpoint.

A fork makes two copies: the session goes on as one of them (docs/decisions/0009-forks.md). The floor is what the kernel takes to
fork a process of that size twice into new namespaces, and to move both into a cgroup where sessions are in one, by itself, with no
wall put up and nothing handed over.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from benchmarks import report
from fumehood import Engine
from fumehood.engine import SESSION_LIMITS

if TYPE_CHECKING:
    from collections.abc import Callable

    from fumehood import Session

SIZES = {"10 MB": (10, "<= 10 ms"), "1 GB": (1024, "<= 60 ms")}
_HEAP = "held = [bytearray(1 << 20) for _ in range({})]\nfor each in held:\n    for at in range(0, 1 << 20, 4096): each[at] = 1"
_FLOOR = """
import os, sys, time
from fumehood.protocol.limits import Limits
from fumehood.sandbox import kernel
from fumehood.sandbox.cgroup import Cgroup
from fumehood.sandbox.isolation.namespaces import NAMESPACES
exec(sys.argv[1])
cgroup = Cgroup.open(Limits(memory_bytes=3 << 30))
for line in sys.stdin:
    time.sleep(0.03)  # a move into a cgroup waits for less where another came just before it
    start, go = time.perf_counter(), os.pipe()
    for _copy in range(2):
        pid = kernel.clone3(NAMESPACES)[0]
        if pid == 0: os.read(go[0], 1); os._exit(0)
        for path in cgroup.entrances if cgroup else ():
            kernel.write_file(path if path.endswith("cgroup.procs") else path + "/cgroup.procs", str(pid))
    print(time.perf_counter() - start, flush=True)
    os.write(go[1], b"..")
    for _copy in range(2): os.wait()
    for end in go: os.close(end)
if cgroup: cgroup.close()
"""


def main() -> None:
    """Measure, print, save."""
    arguments = report.options(__doc__, rounds=50)
    rows: list[dict[str, Any]] = []
    with Engine() as engine:
        engine.prepare("python")
        with engine.session():
            time.sleep(1)
        for size, (megabytes, goal) in SIZES.items():
            rows += _rows(engine, size, _HEAP.format(megabytes), goal, arguments.rounds)
    report.save("forks", rows, arguments, [])


def _rows(engine: Engine, size: str, heap: str, goal: str, rounds: int) -> list[dict[str, Any]]:
    limits = SESSION_LIMITS.replace(memory_bytes=3 << 30)
    bare = [sys.executable, "-I", "-c", "print(1)"]
    times: dict[str, list[float]] = {}
    with engine.session(limits=limits) as session, _Floor(heap) as floor:
        if not session.run(heap).ok:
            raise RuntimeError(f"a session could not hold {size}")
        for number in range(rounds):
            if number % 8 == 0:  # forks of forks nest
                session.restart()
                session.run(heap)
            _timed(times, "print(1), bare", lambda: subprocess.run(bare, stdout=subprocess.DEVNULL, check=True))
            times.setdefault(f"two forks into new namespaces, {size} (floor)", []).append(floor.once())
            _fork(times, session, size)
            if number % 8 == 4:
                _restore(times, session, size)
    goals = {f"session.fork(1), {size}": goal}
    return [report.row(what, each, times["print(1), bare"], goals.get(what, "")) for what, each in times.items()]


def _fork(times: dict[str, list[float]], session: Session, size: str) -> None:
    (fork,) = _timed(times, f"session.fork(1), {size}", session.fork)
    if not fork.run("len(held)").ok:
        raise RuntimeError("a fork holds nothing")
    fork.close()


def _restore(times: dict[str, list[float]], session: Session, size: str) -> None:
    with _timed(times, f"session.checkpoint(), {size}", session.checkpoint) as checkpoint:
        _timed(times, f"session.restore(), {size}", lambda: session.restore(checkpoint))


def _timed(times: dict[str, list[float]], what: str, action: Callable[[], Any]) -> Any:
    start = time.perf_counter()
    result = action()
    times.setdefault(what, []).append(time.perf_counter() - start)
    return result


class _Floor:
    """A process that holds as much and forks itself."""

    def __init__(self, heap: str) -> None:
        self._heap = heap

    def __enter__(self) -> _Floor:  # noqa: PYI034 - nobody derives from it
        asked, self._asks = os.pipe()
        self._answers, answered = os.pipe()
        self._process = subprocess.Popen([sys.executable, "-c", _FLOOR, self._heap], stdin=asked, stdout=answered)
        os.close(asked)
        os.close(answered)
        self.once()
        return self

    def __exit__(self, *_error: object) -> None:
        os.close(self._asks)
        self._process.wait()
        os.close(self._answers)

    def once(self) -> float:
        """Return the seconds that two forks took."""
        os.write(self._asks, b"\n")
        said = b""
        while not said.endswith(b"\n"):
            said += os.read(self._answers, 100)
        return float(said)


if __name__ == "__main__":
    main()
