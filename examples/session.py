"""Explore a table cell by cell, as a model would: state stays, an exception or a hanging cell costs nothing of it."""

from __future__ import annotations

import statistics
import time

import fumehood

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
