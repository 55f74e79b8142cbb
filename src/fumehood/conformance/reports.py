"""What came of a run: as a JSON value, and as JUnit XML for a build server. The page for people is in `page.py`."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any

from ..protocol.record import Record
from .check import Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .check import Check, Result

# C0 and C1 controls but for layout, bidirectional controls (CVE-2021-42574), halves of characters, and what XML 1.0 leaves out.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)


class Report(Record):
    """One run. `begun` is the time in UTC as ISO 8601 writes it."""

    base_url: str
    model: str
    version: str
    begun: str
    seconds: float
    results: tuple[Result, ...]


def visible(text: str) -> str:
    """Return `text` with every character that could hide, reorder or break something as its number."""
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def link(issue: str) -> str:
    """Return the address of `owner/name#number`."""
    repository, _hash, number = issue.partition("#")
    return f"https://github.com/{repository}/issues/{number}"


def described(check: Check) -> dict[str, Any]:
    """Return what a check is, as a JSON value."""
    return {
        "id": check.id, "name": check.name, "severity": str(check.severity), "proves": check.proves, "oracle": check.oracle,
        "meaning": check.meaning, "cure": check.cure, "issues": [link(issue) for issue in check.issues],
    }  # fmt: skip


def counts(results: Sequence[Result]) -> dict[str, int]:
    """Return how many checks had each outcome."""
    found = Counter(result.outcome for result in results)
    return {str(outcome): found[outcome] for outcome in Outcome}


def as_json(report: Report) -> dict[str, Any]:
    """Return the run as a JSON value, without the exchanges."""
    checks = [
        {**described(result.check), "outcome": str(result.outcome), "seen": result.seen,
         "seconds": round(result.seconds, 3), "requests": len(result.exchanges)}
        for result in report.results
    ]  # fmt: skip
    return {
        "server": report.base_url, "model": report.model, "fumehood": report.version, "begun": report.begun,
        "seconds": round(report.seconds, 3), "outcomes": counts(report.results), "checks": checks,
    }  # fmt: skip


def as_junit(report: Report) -> str:
    """Return the run as JUnit XML: what needs real weights counts as skipped."""
    from xml.etree import ElementTree as ET  # noqa: PLC0415 - written, never read

    told = counts(report.results)
    skipped = told[Outcome.SKIPPED] + told[Outcome.NEEDS_REAL_WEIGHTS]
    suite = ET.Element(
        "testsuite", name="fumehood model verify", tests=str(len(report.results)), failures=str(told[Outcome.FAIL]),
        errors="0", skipped=str(skipped), time=f"{report.seconds:.3f}", timestamp=report.begun,
    )  # fmt: skip
    for result in report.results:
        name = f"{result.check.id} {result.check.name}"
        case = ET.SubElement(
            suite, "testcase", classname=visible(report.model), name=name, time=f"{result.seconds:.3f}"
        )
        if result.outcome is Outcome.FAIL:
            failure = ET.SubElement(case, "failure", type=str(result.check.severity), message=visible(result.seen))
            failure.text = f"{result.check.meaning}\n{result.check.cure}"
        elif result.outcome is not Outcome.PASS:
            ET.SubElement(case, "skipped", message=visible(f"{result.outcome}: {result.seen}"))
    ET.indent(suite)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(suite, encoding="unicode") + "\n"
