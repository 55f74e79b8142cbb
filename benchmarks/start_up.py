"""Measures what a command costs from its start to its end, beside the peers that are installed here, in one run.

Every round runs each command once, in turn, so that a busy moment of the machine hits all alike. The bare interpreter is
the one that runs Fumehood and that its sandboxes run, measured twice: as it is installed, where other packages may slow its
start, and in the environment that sandboxes see. Ratios are to the first. Results are saved with machine and commit.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import peers, report
from benchmarks.peers import PYTHON
from fumehood.runtimes import packages

FUMEHOOD = str(Path(sys.executable).parent / "fumehood")
RUNTIME = str(Path(packages.folder(), packages.revision(), "bin", "python"))
PROGRAM = "print(1)"
GOALS = {"fumehood --help": "< 150 ms", "fumehood run": "<= 3.0 x bare"}


def main() -> None:
    """Measure, print, save."""
    arguments = report.options(__doc__, rounds=60)
    commands = _commands()
    for command in commands.values():
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)  # warm: files in memory, walls seen to hold
    times = _measure(commands, arguments.rounds)
    bare = times["bare python3 -I -c"]
    rows = [report.row(what, seconds, bare, GOALS.get(what, "")) for what, seconds in times.items()]
    rows.append(_memory_row(commands["fumehood run"]))
    report.save("start-up", rows, arguments, [_attach_note()] if os.geteuid() == 0 else [])


def _commands() -> dict[str, list[str]]:
    commands = {
        "bare python3 -I -c": [PYTHON, "-I", "-c", PROGRAM],
        "bare python3 -I -c, in the runtime's environment": [RUNTIME, "-I", "-c", PROGRAM],
        "fumehood --help": [FUMEHOOD, "--help"],
        "fumehood run": [FUMEHOOD, "run", "-c", PROGRAM],
    }
    if os.geteuid() == 0:
        commands["fumehood run --cgroup"] = [FUMEHOOD, "run", "--cgroup", "-c", PROGRAM]
    commands |= {name: words for name, words in peers.commands(PROGRAM).items() if name.startswith(("bwrap", "nsjail"))}
    return commands


def _measure(commands: dict[str, list[str]], rounds: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {what: [] for what in commands}
    for _round in range(rounds):
        for what, command in commands.items():
            start = time.perf_counter()
            subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
            times[what].append(time.perf_counter() - start)
    return times


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


if __name__ == "__main__":
    main()
