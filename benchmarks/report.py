"""What every benchmark writes down: its rows, the machine and the commit."""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import platform
import statistics
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"


def options(about: str | None, rounds: int) -> argparse.Namespace:
    """Read the options that all benchmarks share."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--no-save", action="store_true")
    return parser.parse_args()


def row(what: str, seconds: list[float], bare: list[float], goal: str = "") -> dict[str, Any]:
    """Return one measured row; the ratio is to the median of `bare`, the bare interpreter's in the same run."""
    median = statistics.median(seconds)
    return {
        "what": what,
        "p50_ms": round(median * 1000, 2),
        "p95_ms": round(statistics.quantiles(seconds, n=20)[-1] * 1000, 2),
        "ratio": round(median / statistics.median(bare), 3),
        "goal": goal,
    }


def save(name: str, rows: list[dict[str, Any]], arguments: argparse.Namespace, notes: list[str]) -> None:
    """Print the rows; keep them below `results` unless told not to."""
    result = {**heading(name), "rounds": arguments.rounds, "rows": rows, "notes": notes}
    for each in rows:
        print(*(f"{key}={value}" for key, value in each.items()))
    if not arguments.no_save:
        write(RESULTS, name, result)


def heading(name: str) -> dict[str, Any]:
    """Return when, at which commit, on which machine and as whom something was measured."""
    commit = _output("git", "rev-parse", "--short", "HEAD")
    return {
        "date": dt.datetime.now(tz=dt.UTC).date().isoformat(),
        "commit": commit + ("+" if _output("git", "status", "--porcelain") else ""),
        "machine": _machine(),
        "who": f"{name}, as root" if os.geteuid() == 0 else f"{name}, as an ordinary user",
    }


def write(folder: Path, name: str, result: dict[str, Any]) -> None:
    """Keep a result, which has a heading, in a file of its own."""
    folder.mkdir(exist_ok=True)
    who = "root" if os.geteuid() == 0 else "user"
    commit = result["commit"].removesuffix("+")
    path = folder / f"{result['date']}-{commit}-{platform.machine()}-{name}-{who}.json"
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"saved {path.relative_to(ROOT)}")


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
