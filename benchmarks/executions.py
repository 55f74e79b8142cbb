"""Measures executions by the Python interface, warm, forked on demand and cold, beside the peers, in one run.

Every round runs each once, in turn. "bare" is `python3 -I -c`, of the environment whose packages the program uses. The floors are
what the kernel takes by itself, of an interpreter that has the same modules loaded. The first is the end of a fork without any
wall. The second is a fork that enters new namespaces, mounts a disk, brings up `lo`, is moved into a cgroup where executions are,
and ends: it runs nothing, and no call is filtered. The third is the time that the processors spend in the kernel for one
execution that is forked on demand, its clean-up included. The last is how many forks of the second kind two processes make a
second, without cgroups.
"""

from __future__ import annotations

import contextlib
import functools
import os
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import peers, report
from fumehood import Engine, ExecutionRequest
from fumehood.runtimes import packages, python

if TYPE_CHECKING:
    from collections.abc import Callable

PRINT = "print(1)"
NUMPY = "import numpy as np; print(np.arange(10).sum())"
PANDAS = "import pandas as pd; print(pd.DataFrame({'a': [1, 2, 1], 'b': [1, 2, 3]}).groupby('a').b.sum().to_string())"
FIB = "def fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)\nprint(fib(27))"
CALLERS = 8
LOAD_SECONDS = 4.0
IDLE_SECONDS = 5.0
KERNEL_ROUNDS = 300

_END = """
import os, sys, time
for name in sys.argv[1].split(","): __import__(name)
import gc; gc.collect(); gc.freeze()
for line in sys.stdin:
    go, gone = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(go[1]); os.read(go[0], 1); os._exit(0)
    time.sleep(0.005)
    start = time.perf_counter()
    os.close(go[0]); os.close(go[1]); os.waitpid(pid, 0)
    print(time.perf_counter() - start, flush=True)
    for each in gone: os.close(each)
"""

_ENTERING = """
import sys, os, time
from fumehood.sandbox import kernel
from fumehood.sandbox.isolation.namespaces import NAMESPACES
for name in sys.argv[1].split(","): __import__(name)
def enter():
    kernel.unshare(NAMESPACES)
    kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    kernel.mount("tmpfs", "/tmp", "tmpfs", kernel.MS_NOSUID, "size=64m")
    kernel.raise_loopback()
import gc; gc.collect(); gc.freeze()
"""

_BIRTH = f"""{_ENTERING}
from fumehood.protocol.limits import Limits
from fumehood.sandbox.cgroup import Cgroup
cgroup = Cgroup.open(Limits())
for line in sys.stdin:
    # A move into a cgroup waits for less where another came just before it.
    time.sleep(0.03)
    start = time.perf_counter()
    go = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(go[1]); enter(); os.read(go[0], 1); os._exit(0)
    for path in cgroup.entrances if cgroup else ():
        kernel.write_file(path if path.endswith("cgroup.procs") else path + "/cgroup.procs", str(pid))
    os.close(go[0]); os.close(go[1])
    if os.waitpid(pid, 0)[1]: raise SystemExit("a fork failed")
    print(time.perf_counter() - start, flush=True)
if cgroup: cgroup.close()
"""

_FORKS = f"""{_ENTERING}
until, count = time.monotonic() + float(sys.argv[2]), 0
while time.monotonic() < until:
    pid = os.fork()
    if pid == 0:
        enter(); os._exit(0)
    if os.waitpid(pid, 0)[1]: raise SystemExit("a fork failed")
    count += 1
print(count)
"""


def main() -> None:
    """Measure, print, save."""
    arguments = report.options(__doc__, rounds=200)
    with (
        Engine() as warm, Engine(warm_bytes=1) as empty, Engine(warm_bytes=0) as cold, _Floor([peers.PYTHON, "-I"], _END) as end,
        _Floor([sys.executable], _BIRTH) as birth,
    ):  # fmt: skip
        for engine in (warm, empty, cold):
            _settle(engine)
        commands, notes = peers.working(PRINT)
        rows = _latencies(warm, empty, cold, (end, birth), commands, arguments.rounds)
        rows.append(_kernel_time(empty, rows[0]["p50_ms"]))
        rows += _cells(warm, arguments.rounds)
        rows += _throughput(warm)
        rows += _idle()
    report.save("executions", rows, arguments, notes)


def _settle(engine: Engine) -> None:
    for language in ("python", "python-data"):
        for _ in range(3):
            execution(engine, PRINT, language)()
            time.sleep(0.5)


def execution(engine: Engine, code: str, language: str = "python") -> Callable[[], object]:
    """Return what runs a program once and sees that it did."""
    request = ExecutionRequest(code=code, language=language)

    def run() -> None:
        result = engine.execute(request)
        if not result.ok or not result.stdout:
            raise RuntimeError(f"{code!r} failed: {result}")

    return run


def command(words: list[str]) -> Callable[[], object]:
    """Return what runs a command once."""
    return lambda: subprocess.run(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)


def _latencies(
    warm: Engine,
    empty: Engine,
    cold: Engine,
    floors: tuple[_Floor, _Floor],
    commands: dict[str, list[str]],
    rounds: int,
) -> list[dict[str, Any]]:
    data = str(Path(packages.folder(), packages.revision("python-data"), "bin", "python"))
    actions: dict[str, Callable[[], object]] = {
        "print(1), bare": command([peers.PYTHON, "-I", "-c", PRINT]),
        "print(1), warm": execution(warm, PRINT),
        "print(1), forked on demand": execution(empty, PRINT),
        "print(1), cold": execution(cold, PRINT),
        "the end of a fork, without walls (floor)": floors[0].once,
        "a fork into new namespaces that runs nothing (floor)": floors[1].once,
        "numpy, bare": command([data, "-I", "-c", NUMPY]),
        "numpy, warm": execution(warm, NUMPY, "python-data"),
        "pandas groupby, bare": command([data, "-I", "-c", PANDAS]),
        "pandas groupby, warm": execution(warm, PANDAS, "python-data"),
        "fib(27), bare": command([peers.PYTHON, "-I", "-c", FIB]),
        "fib(27), warm": execution(warm, FIB),
    }
    actions |= {f"print(1), {name}": command(words) for name, words in commands.items()}
    times: dict[str, list[float]] = {what: [] for what in actions}
    for number in range(rounds):
        for what, action in actions.items():
            # What takes long is measured in every tenth round.
            if number % 10 and any(name in what for name in ("numpy", "pandas", "runsc", "pyodide")):
                continue
            start = time.perf_counter()
            took = action()
            times[what].append(took if isinstance(took, float) else time.perf_counter() - start)
    goals = {
        "print(1), warm": "<= 0.067, p95 <= 0.25 of bare p50",
        "print(1), forked on demand": "<= 0.333",
        "numpy, warm": "<= 0.017",
        "pandas groupby, warm": "<= 0.017",
        "fib(27), warm": "<= 1.03",
    }
    return [report.row(what, times[what], times[_bare(what)], goals.get(what, "")) for what in actions]


def _kernel_time(engine: Engine, bare_ms: float) -> dict[str, Any]:
    """Run as many as it takes to see it in the kernel's own account, which is kept in hundredths of a second."""
    run = execution(engine, PRINT)
    before = _in_kernel()
    for _ in range(KERNEL_ROUNDS):
        run()
    time.sleep(0.5)  # clean-up goes on for a while
    each = (_in_kernel() - before) / KERNEL_ROUNDS * 1000
    most = (os.cpu_count() or 1) / each * 1000
    text = f"{each:.2f} ms = {each / bare_ms:.3f} of bare; so no more than {most:.0f}/s"
    return {"what": "in the kernel, for one forked on demand (floor)", "text": text, "goal": ""}


def _in_kernel() -> float:
    """Return the seconds that this machine's processors have spent in the kernel, as proc(5) tells: system, irq, softirq."""
    fields = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()
    return sum(int(fields[place]) for place in (3, 6, 7)) / os.sysconf("SC_CLK_TCK")


def _bare(what: str) -> str:
    topic = what.partition(",")[0]
    return f"{topic}, bare" if topic in ("numpy", "pandas groupby", "fib(27)") else "print(1), bare"


def _cells(engine: Engine, rounds: int) -> list[dict[str, Any]]:
    """Run `1+1` in live sessions, ours and Jupyter's kernel."""
    with contextlib.ExitStack() as stack:
        actions: dict[str, Callable[[], object]] = {}
        for language in ("python", "python-data"):
            session = stack.enter_context(engine.session(language))
            actions[f"cell 1+1, {language}"] = functools.partial(session.run, "1+1")
        if kernel := peers.jupyter_kernel():
            actions["cell 1+1, ipykernel"] = stack.enter_context(kernel).cell
        times: dict[str, list[float]] = {what: [] for what in actions}
        for _ in range(max(rounds, 30)):
            for what, action in actions.items():
                start = time.perf_counter()
                took = action()
                times[what].append(took if isinstance(took, float) else time.perf_counter() - start)
    base = times.get("cell 1+1, ipykernel", times["cell 1+1, python"])
    goal = "p50 <= 0.5 ms and <= 0.2 of ipykernel's"
    return [report.row(what, each, base, goal if what == "cell 1+1, python" else "") for what, each in times.items()]


class _Floor:
    """A process that forks itself, as warm interpreters do, and tells how long that took."""

    def __init__(self, interpreter: list[str], script: str) -> None:
        self._command = [*interpreter, "-c", script, ",".join(python.STANDARD)]

    def __enter__(self) -> _Floor:  # noqa: PYI034 - nobody derives from it
        asked, self._asks = os.pipe()
        self._answers, answered = os.pipe()
        self._process = subprocess.Popen(self._command, stdin=asked, stdout=answered)
        os.close(asked)
        os.close(answered)
        return self

    def __exit__(self, *_error: object) -> None:
        os.close(self._asks)
        self._process.wait()
        os.close(self._answers)

    def once(self) -> float:
        """Return the seconds that one fork took."""
        os.write(self._asks, b"\n")
        said = b""
        while not said.endswith(b"\n"):
            said += os.read(self._answers, 100) or b"it ended\n"
        return float(said)


def _throughput(warm: Engine) -> list[dict[str, Any]]:
    """Run as many programs as eight callers can, ours and bubblewrap's in turn."""
    bwrap = peers.commands(PRINT).get("bwrap --unshare-all python3")
    contenders = {"fumehood": execution(warm, PRINT)} | ({"bwrap": command(bwrap)} if bwrap else {})
    rates: dict[str, list[float]] = {name: [] for name in (*contenders, "floor")}
    for _ in range(2):
        for name, action in contenders.items():
            rates[name].append(_rate(action))
        rates["floor"].append(_rate_of_forks())
    mean = {name: statistics.mean(each) for name, each in rates.items()}
    text, floor = (f"{mean[name]:.0f}/s" for name in ("fumehood", "floor"))
    if bwrap:
        text += f", bwrap {mean['bwrap']:.0f}/s, ratio {mean['fumehood'] / mean['bwrap']:.2f}"
        floor += f", {mean['floor'] / mean['bwrap']:.2f} x bwrap"
    return [
        {"what": f"print(1), {CALLERS} callers", "text": text, "goal": ">= 6 x bwrap"},
        {"what": "forks into new namespaces that run nothing (floor)", "text": floor, "goal": ""},
    ]


def _rate_of_forks() -> float:
    command = [sys.executable, "-c", _FORKS, ",".join(python.STANDARD), str(LOAD_SECONDS)]
    forkers = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]
    return sum(int(each.communicate()[0]) for each in forkers) / LOAD_SECONDS


def _rate(action: Callable[[], object]) -> float:
    until = time.perf_counter() + LOAD_SECONDS

    def work(_number: int) -> int:
        count = 0
        while time.perf_counter() < until:
            action()
            count += 1
        return count

    with ThreadPoolExecutor(CALLERS) as callers:
        return sum(callers.map(work, range(CALLERS))) / LOAD_SECONDS


def _idle() -> list[dict[str, Any]]:
    """Look at a pool of which eight wait: private memory of each, and processor time of all while nobody asks."""
    rows = []
    for language, goal in (("python", 15), ("python-data", 30)):
        with Engine() as engine:
            engine.prepare(language)
            with ThreadPoolExecutor(CALLERS) as callers:
                busy = execution(engine, "import time; time.sleep(0.5); print(1)", language)
                for waiting in [callers.submit(busy) for _ in range(CALLERS)]:
                    waiting.result()
            time.sleep(1)
            family = [pid for pid in _family(os.getpid()) if _cpu(pid) is not None]
            inside = [pid for pid in family if _depth(pid) == 3]
            private = sum(_private(pid) for pid in inside)
            before = {pid: _cpu(pid) for pid in (*family, os.getpid())}
            time.sleep(IDLE_SECONDS)
            used = sum((_cpu(pid) or 0.0) - (before[pid] or 0.0) for pid in before if _cpu(pid) is not None)
        each = private / max(1, len(inside) // 2) / 1e6
        text = f"{each:.1f} MB private each of {len(inside) // 2}; {used * 1000 / IDLE_SECONDS:.1f} ms of CPU a second"
        rows.append({"what": f"idle pool, {language}", "text": text, "goal": f"<= {goal} MB, no busy loop"})
    return rows


def _family(pid: int) -> list[int]:
    found, pending = [], [pid]
    while pending:
        for task in Path(f"/proc/{pending.pop()}/task").glob("*/children"):
            found += (children := [int(word) for word in task.read_text().split()])
            pending += children
    return found


def _depth(pid: int) -> int:
    """Return in how many pid namespaces a process is, this one's being the first."""
    own = len(_status(os.getpid(), "NSpid").split())
    return len(_status(pid, "NSpid").split()) - own + 1


def _status(pid: int, name: str) -> str:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.partition(":")[2] for line in lines if line.startswith(name))


def _private(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))


def _cpu(pid: int) -> float | None:
    """Return the processor time that a process used, None where it has ended: a pool grows and shrinks."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
