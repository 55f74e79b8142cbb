"""Measures what a quiet program notices of a hostile one beside it, for each flood in turn.

The neighbour runs a short program again and again in warm sandboxes of one engine, first alone, then while another thread of the
same engine keeps one sandbox busy with a flood. Ratios are p95 to p95 of the runs alone just before.
"""

from __future__ import annotations

import statistics
import threading
import time
from typing import Any

from benchmarks import report
from fumehood import Engine, ExecutionRequest, Limits
from fumehood.errors import FumehoodError
from fumehood.protocol.limits import MiB

QUIET = "print(sum(i * i for i in range(2000)))"
#: What a hostile sandbox may have.
LIMITS = Limits(wall_seconds=5, cpu_seconds=60, memory_bytes=256 * MiB, pids=64, disk_bytes=64 * MiB)
PAUSE_SECONDS = 0.05
GOAL = "p95 <= 2 x alone"

FLOODS = {
    "one process computes": "while True: pass",
    "sixteen processes compute": "import os\nfor _ in range(4): os.fork()\nwhile True: pass",
    "sixteen sessions compute": "import os\nfor _ in range(4): os.fork()\nif os.getpid() != os.getsid(0): os.setsid()\nwhile True: pass",
    "a fork bomb": "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
    "processes come and go": "import os\nwhile True:\n    if os.fork() == 0: os._exit(0)\n    os.wait()",
    "memory": "held = []\nwhile True: held.append(bytearray(1 << 20))",
    "memory again and again": "while True:\n    held = bytearray(128 << 20)\n    for at in range(0, len(held), 4096): held[at] = 1",
    "disk": "while True:\n    try:\n        with open('file', 'wb') as file:\n            while True: file.write(bytes(1 << 20))\n    except OSError: pass",
    "empty files": "import os\nnumber = 0\nwhile True:\n    try: open(str(number), 'x').close()\n    except OSError: [os.remove(each) for each in os.listdir()]\n    number += 1",
    "output": "import os\nblock = b'x' * (1 << 16)\nwhile True: os.write(1, block)",
    "lines": "import os\nwhile True: os.write(1, b'x\\n')",
    "pipes": "import os\nwhile True:\n    try: held = [os.pipe() for _ in range(200)]\n    except OSError: pass\n    for pair in held: [os.close(each) for each in pair]",
    "sockets": "import socket\nwhile True:\n    pairs = [socket.socketpair() for _ in range(200)]\n    for one, other in pairs:\n        one.setblocking(False)\n        try:\n            while True: one.send(bytes(1 << 15))\n        except OSError: pass",
    "system calls": "import os\nwhile True: os.getppid()",
}  # fmt: skip


def main() -> None:
    """Measure, print, save."""
    arguments = report.options(__doc__, rounds=200)
    with Engine() as engine:
        engine.prepare("python")
        for _ in range(3):
            _quiet(engine)
            time.sleep(0.3)
        rows = [row for name, code in FLOODS.items() for row in _beside(engine, name, code, arguments.rounds)]
    report.save("neighbours", rows, arguments, [])


def _beside(engine: Engine, name: str, code: str, rounds: int) -> list[dict[str, Any]]:
    alone = _times(engine, rounds)
    stop = threading.Event()
    thread = threading.Thread(target=_flood, args=(engine, code, stop))
    thread.start()
    time.sleep(0.5)
    beside = _times(engine, rounds)
    stop.set()
    thread.join()
    p95 = _p95(beside) / _p95(alone)
    text = (
        f"alone {statistics.median(alone):.2f} (p95 {_p95(alone):.2f}) ms, beside it {statistics.median(beside):.2f} "
        f"({_p95(beside):.2f}) ms: p95 x {p95:.2f}"
    )
    return [{"what": name, "text": text, "goal": GOAL}]


def _flood(engine: Engine, code: str, stop: threading.Event) -> None:
    while not stop.is_set():
        try:
            engine.execute(ExecutionRequest(code=code, limits=LIMITS))
        except FumehoodError as error:
            print(f"the flood could not run: {error}")
            time.sleep(0.1)


def _quiet(engine: Engine) -> None:
    if not (result := engine.execute(ExecutionRequest(code=QUIET))).ok:
        raise RuntimeError(f"the neighbour failed: {result}")


def _times(engine: Engine, rounds: int) -> list[float]:
    times: list[float] = []
    for _ in range(rounds):
        start = time.perf_counter()
        _quiet(engine)
        times.append((time.perf_counter() - start) * 1000)
        time.sleep(PAUSE_SECONDS)
    return times


def _p95(times: list[float]) -> float:
    return statistics.quantiles(times, n=20)[-1]


if __name__ == "__main__":
    main()
