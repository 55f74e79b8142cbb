"""Explore a table cell by cell, as a model would: state stays, an exception or a hanging cell costs nothing of it.

Then fork the live session, to try several continuations from the same state and keep the one that works.
"""

from __future__ import annotations

import statistics
import time

import fumehood

IDEAS = [
    "min(row['people'] for row in rows) / 0",
    "sorted(rows, key=lambda row: row['people'])[0]['town']",
    "rows.sort(key=lambda row: float(row['people'])); rows[0]['city']",
]
TABLE = "city,people\nBerlin,3.7\nParis,2.1\nRome,2.8\n"
CELLS = [
    "import csv; rows = list(csv.DictReader(open('cities.csv'))); len(rows)",
    "sum(float(row['people']) for row in rows)",
    "sum(row['peoples'] for row in rows)",
    "while True: pass",
    "print(max(rows, key=lambda row: float(row['people']))['city'])",
]


def main() -> None:
    """Run the cells; then show how fast programs are that need no session."""
    with fumehood.Engine() as engine:
        engine.prepare("python")
        with engine.session(files={"cities.csv": TABLE}) as session:
            for cell in CELLS:
                print(f">>> {cell}\n{_said(session.run(cell, timeout=1))}")
            started = time.perf_counter()
            forks = session.fork(len(IDEAS))
            milliseconds = (time.perf_counter() - started) * 1000
            print(f"the smallest city, {len(IDEAS)} ideas in {len(IDEAS)} live forks, made in {milliseconds:.0f} ms:")
            for fork, idea in zip(forks, IDEAS, strict=True):
                print(f">>> {idea}\n{_said(fork.run(idea))}")
                fork.close()
        request = fumehood.ExecutionRequest(code="print(1)")
        took = []
        for _ in range(20):
            took.append(engine.execute(request).duration_seconds)
            time.sleep(0.02)
    milliseconds = statistics.median(took) * 1000
    print(f"a program forked from a warm interpreter, from its order to its death: {milliseconds:.1f} ms")


def _said(result: fumehood.CellResult) -> str:
    if result.ended != "finished":
        return f"({result.ended}: it was interrupted, and what was there before stays)"
    if result.error is not None:
        return f"{result.error.name}: {result.error.value}"
    return result.stdout.rstrip() or str((result.result or {}).get("text/plain", ""))


if __name__ == "__main__":
    main()
