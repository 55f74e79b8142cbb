"""Measures what a command costs from its start to its end, beside the peers that are installed here, in one run.

Every round runs each command once, in turn, so that a busy moment of the machine hits all alike. The bare interpreter is
the one that runs Fumehood and that its sandboxes run, measured twice: as it is installed, where other packages may slow its
start, and in the environment that sandboxes see. Ratios are to the first. Results are saved with machine and commit.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from fumehood.runtimes import packages

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
PYTHON = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
FUMEHOOD = str(Path(sys.executable).parent / "fumehood")
RUNTIME = str(Path(packages.folder(), packages.revision(), "bin", "python"))
PROGRAM = "print(1)"
GOALS = {"fumehood --help": "< 150 ms", "fumehood run": "<= 3.0 x bare"}


def main() -> None:
    """Measure, print, save."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=60)
    options.add_argument("--no-save", action="store_true")
    arguments = options.parse_args()
    commands = _commands()
    for command in commands.values():
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)  # warm: files in memory, walls seen to hold
    times = _measure(commands, arguments.rounds)
    rows = [_row(what, seconds, statistics.median(times["bare python3 -I -c"])) for what, seconds in times.items()]
    rows.append(_memory_row(commands["fumehood run"]))
    result = {
        "date": dt.datetime.now(tz=dt.UTC).date().isoformat(),
        "commit": _output("git", "rev-parse", "--short", "HEAD")
        + ("+" if _output("git", "status", "--porcelain") else ""),
        "machine": _machine(),
        "who": "as root" if os.geteuid() == 0 else "as an ordinary user",
        "rounds": arguments.rounds,
        "rows": rows,
        "notes": [_attach_note()] if os.geteuid() == 0 else [],
    }
    for row in rows:
        print(*(f"{key}={value}" for key, value in row.items()))
    if not arguments.no_save:
        RESULTS.mkdir(exist_ok=True)
        who = "root" if os.geteuid() == 0 else "user"
        path = RESULTS / f"{result['date']}-{str(result['commit']).rstrip('+')}-{platform.machine()}-{who}.json"
        path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        print(f"saved {path.relative_to(ROOT)}")


def _commands() -> dict[str, list[str]]:
    commands = {
        "bare python3 -I -c": [PYTHON, "-I", "-c", PROGRAM],
        "bare python3 -I -c, in the runtime's environment": [RUNTIME, "-I", "-c", PROGRAM],
        "fumehood --help": [FUMEHOOD, "--help"],
        "fumehood run": [FUMEHOOD, "run", "-c", PROGRAM],
    }
    if os.geteuid() == 0:
        commands["fumehood run --cgroup"] = [FUMEHOOD, "run", "--cgroup", "-c", PROGRAM]
    if bwrap := shutil.which("bwrap"):
        binds = [
            word
            for path in ("/usr", "/lib", "/lib64", "/bin")
            if Path(path).exists()
            for word in ("--ro-bind", path, path)
        ]
        if not PYTHON.startswith("/usr/"):
            binds += ["--ro-bind", sys.base_prefix, sys.base_prefix]
        commands["bwrap --unshare-all python3"] = [bwrap, "--unshare-all", *binds, PYTHON, "-I", "-c", PROGRAM]
    if nsjail := shutil.which("nsjail"):
        commands["nsjail python3"] = [nsjail, "-Mo", "-q", "--chroot", "/", "--", PYTHON, "-I", "-c", PROGRAM]
    return commands


def _measure(commands: dict[str, list[str]], rounds: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {what: [] for what in commands}
    for _round in range(rounds):
        for what, command in commands.items():
            start = time.perf_counter()
            subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
            times[what].append(time.perf_counter() - start)
    return times


def _row(what: str, seconds: list[float], bare: float) -> dict[str, Any]:
    median = statistics.median(seconds)
    return {
        "what": what,
        "p50_ms": round(median * 1000, 2),
        "p95_ms": round(statistics.quantiles(seconds, n=20)[-1] * 1000, 2),
        "ratio": round(median / bare, 2),
        "goal": GOALS.get(what, ""),
    }


def _memory_row(command: list[str]) -> dict[str, Any]:
    """Run once more and read the largest resident set of the command's own process from the kernel."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _pid, _status, usage = os.wait4(process.pid, 0)
    process.returncode = 0
    return {"what": "peak memory of fumehood run", "text": f"{usage.ru_maxrss / 1024:.1f} MB", "goal": "< 60 MB"}


def _attach_note() -> str:
    return (
        "`--cgroup` moves the sandbox into cgroups of version 1, where the kernel makes a move wait for a grace period of all "
        "processors: see docs/decisions/0006-cgroups.md."
    )


def _machine() -> str:
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    return f"{os.cpu_count()} x {model}, Linux {platform.release()}, Python {platform.python_version()}"


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False).stdout.strip()


if __name__ == "__main__":
    main()
