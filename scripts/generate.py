"""Writes what is generated: pages of the reference and the table of benchmark results; `--check` only compares.

Also holds links between the Markdown files against what is there.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import api_page
import conformance_pages
import pages

from fumehood.cli import COMMANDS, load
from fumehood.cli.arguments import help_text

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs" / "reference"
THREATS = ROOT / "docs" / "threat-model.md"
TABLE = ROOT / "benchmarks" / "README.md"
RESULTS = ROOT / "benchmarks" / "results"
REPORTS = ROOT / "docs" / "conformance"


def main() -> int:
    """Write, or with `--check` compare; return the number of what is not as it should be."""
    texts = {
        DOCS / "cli.md": reference(),
        DOCS / "api.md": api_page.api(),
        DOCS / "system-calls.md": pages.system_calls(),
        DOCS / "probes.md": pages.probes(),
        DOCS / "checks.md": pages.checks(),
        DOCS / "compatibility.md": pages.compatibility(),
        THREATS: _between(THREATS, pages.walls()),
        TABLE: table(),
        REPORTS / "README.md": _between(REPORTS / "README.md", conformance_pages.table(REPORTS)),
    }
    problems = broken_links()
    for path, text in texts.items():
        if "--check" not in sys.argv:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            problems.append(f"{path.relative_to(ROOT)} is out of date: run .venv/bin/python scripts/generate.py")
    for problem in problems:
        print(problem, file=sys.stderr)
    return len(problems)


def _between(page: Path, text: str) -> str:
    """Return the page with this text between its two marks."""
    before, rest = page.read_text(encoding="utf-8").split("<!-- generated -->\n")
    return f"{before}<!-- generated -->\n{text}<!-- end -->{rest.split('<!-- end -->')[1]}"


def reference() -> str:
    """Return the command-line reference."""
    parts = ["# Command line\n\nGenerated from the commands themselves; `fumehood COMMAND --help` prints the same.\n"]
    parts += [f"\n## fumehood {name}\n\n```text\n{help_text(load(name))}```\n" for name in COMMANDS]
    return "".join(parts)


def table() -> str:
    """Return the page that shows every saved result."""
    lines = [
        "# Benchmarks\n",
        "`./scripts/bench` measures and saves; this page is generated from `results/`. Times are milliseconds, medians "
        "(p95) of interleaved runs; ratios are to the bare interpreter of the same run.\n",
    ]
    for path in sorted(RESULTS.glob("*.json"), reverse=True):
        result = json.loads(path.read_text(encoding="utf-8"))
        lines.append(f"\n## {result['date']}, commit {result['commit']}, {result['who']}\n\n{result['machine']}.\n")
        lines.append("\n| what | p50 | p95 | ratio | goal |\n| --- | --- | --- | --- | --- |\n")
        for row in result["rows"]:
            times = f"{row['p50_ms']} | {row['p95_ms']} | {row['ratio']}" if "p50_ms" in row else f"{row['text']} | |"
            lines.append(f"| {row['what']} | {times} | {row.get('goal', '')} |\n")
        lines += [f"\n{note}\n" for note in result.get("notes", ())]
    return "".join(lines)


def broken_links() -> list[str]:
    """Return every link from a Markdown file to a file that is not there."""
    problems = []
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").glob("*.md")]
    for page in pages:
        targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
        gone = [target for target in targets if "://" not in target and not (page.parent / target).exists()]
        problems += [f"{page.relative_to(ROOT)} links to {target}, which is not there" for target in gone]
    return problems


if __name__ == "__main__":
    sys.exit(main())
