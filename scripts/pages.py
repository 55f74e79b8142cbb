"""Generated pages of the reference: the table of system calls, the probes, and what CPython's own tests say inside."""

from __future__ import annotations

import json
import re
from collections import Counter
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from fumehood.conformance.checks import CHECKS, FAMILIES
from fumehood.conformance.reports import link
from fumehood.probes.attacks import SUITES
from fumehood.sandbox.syscalls import ABSENT, ALLOWED, CHECKED, HOSTILE, PROFILES, REFUSED, UNSUPPORTED
from fumehood.sandbox.walls import WALLS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fumehood.probes.suite import Probe

# What is no wall of the kernel's, but something that the host's side does or does not do.
_OTHERS = {
    "memory": "one limit for all that its processes, files and the kernel on its behalf hold",
    "processes": "one limit of processes and threads",
    "time": "wall and processor time end it, whatever it ignores",
    "output": "bounded, and harmless on a terminal",
    "results": "why it ended comes from the kernel, not from its words",
    "files-in": "names that are given cannot lead out",
    "files-out": "links, pipes, holes and races of whoever collects",
    "sessions": "cells can end their session, and nothing else",
    "forks": "copies share nothing from then on",
    "leftovers": "nothing stays",
    "egress": "allowed hosts alone, at addresses that were checked; credentials stay outside",
}
COMPATIBILITY = Path(__file__).parent.parent / "benchmarks" / "compatibility"


def system_calls() -> str:
    """Return the page of system calls."""
    parts = [
        "# System calls\n\nGenerated from `src/fumehood/sandbox/syscalls.py`, from which the seccomp filters are compiled too, "
        "for x86-64 and arm64. "
        "`fumehood run --explain` says which of a program's calls were refused.\n",
        _calls("Allowed", "", ALLOWED),
        *(
            _calls(f"Allowed to the runtimes of profile {name}", "Programs of Node and Deno have it.\n\n", groups)
            for name, groups in PROFILES.items()
            if groups
        ),
        _calls(
            "Allowed with a check of arguments",
            "What is refused stands in the first column.\n\n",
            ((against, name) for name, against in CHECKED.items()),
        ),
        _calls("Refused with EPERM", "Programs ask for these and can go on without.\n\n", REFUSED),
        _calls("EOPNOTSUPP", "As from a file system without them.\n\n", UNSUPPORTED),
        _calls(
            "The end of the process",
            "Nothing that runs without the host's root has a use for these: SIGSYS. So do x32 numbers and 32-bit calls.\n\n",
            HOSTILE,
        ),
        _calls("ENOSYS, as on an older kernel", "So does every number that no group names.\n\n", ABSENT),
    ]
    return "".join(parts)


def _calls(title: str, words: str, groups: Iterable[tuple[str, str]]) -> str:
    rows = "".join(f"| {reason} | {' '.join(f'`{name}`' for name in names.split())} |\n" for reason, names in groups)
    return f"\n## {title}\n\n{words}| why | calls |\n| --- | --- |\n{rows}"


def probes() -> str:
    """Return the page of probes."""
    every = [probe for suite in SUITES.values() for probe in suite]
    parts = [
        f"# Probes\n\nGenerated from the probes themselves: {len(every)} attacks that `fumehood doctor --probes` runs on the host "
        "it is called on, each in every way in which a sandbox can come about there. "
        "[The threat model](../threat-model.md) says what they are there to show.\n"
    ]
    for suite in SUITES.values():
        parts.append(f"\n## {suite.name}\n\n| probe | tried | expected | wall |\n| --- | --- | --- | --- |\n")
        for _function, group in groupby(suite, key=lambda probe: probe.name.partition("[")[0]):
            parts += _rows(list(group))
    return "".join(parts)


def _rows(variants: list[Probe]) -> list[str]:
    return [
        f"| {probe.id} | {_cell(probe.tried)} | {_cell(probe.expected)} | {probe.wall}{_open(probe)} |\n"
        for probe in variants
    ]


def _open(probe: Probe) -> str:
    return "".join(f"; open in {tier}: {_cell(why)}" for tier, why in probe.open_in.items())


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def checks() -> str:
    """Return the page of what `fumehood model verify` checks."""
    parts = [
        f"# Checks of a model server\n\nGenerated from the checks themselves: {len(CHECKS)} that `fumehood model verify` runs "
        "([how](../how-to/verify-a-model-server.md)). A failure that is critical has an agent do what nobody asked for, or "
        "believe what is not so; a major one stops it or costs it a turn; of a minor one a client has to know.\n"
    ]
    for family in FAMILIES:
        parts.append(f"\n## {family.title}\n")
        for check in family:
            issues = ", ".join(f"[{issue}]({link(issue)})" for issue in check.issues)
            rows = [("Oracle", check.oracle), ("If it fails", check.meaning), ("Cure", check.cure)]
            facts = "".join(f"- {name}: {_text(words)}\n" for name, words in rows)
            parts.append(
                f"\n### {check.id} {check.name} ({check.severity})\n\nProves: {_text(check.proves)}.\n\n{facts}"
            )
            parts.append(f"- Reported as: {issues}\n" if issues else "")
    return "".join(parts)


def _text(words: str) -> str:
    """Return words as Markdown shows them: what looks like HTML or a link is neither."""
    return re.sub(r"`[^`]*`|[<>\[\]*_]", lambda found: found[0] if found[0][0] == "`" else f"\\{found[0]}", words)


def walls() -> str:
    """Return the table of walls, each with the numbers of the probes that attack it."""
    numbers: dict[str, Counter[str]] = {}
    for suite in SUITES.values():
        for probe in suite:
            numbers.setdefault(probe.wall, Counter())[probe.id] += 1
    meanings = {**WALLS, **_OTHERS}
    lines = ["| wall | what it is there for | probes |", "| --- | --- | --- |"]
    for wall in [*(wall for wall in meanings if wall in numbers), *sorted(numbers.keys() - meanings.keys())]:
        ids = sorted(numbers[wall], key=lambda number: int(number[1:]))
        lines.append(f"| {wall} | {meanings.get(wall, '')} | {sum(numbers[wall].values())}: {', '.join(ids)} |")
    return "\n".join(lines) + "\n"


def compatibility() -> str:
    """Return the page that compares CPython's regression tests outside and inside."""
    parts = [
        "# Compatibility\n\nCPython's own regression tests, outside and inside a sandbox; `./scripts/compatibility` runs "
        "them and saves what came of them under "
        "`benchmarks/compatibility/`, this page is generated from the latest of each kind. Outside they run as an ordinary user.\n"
    ]
    latest = {path.stem.split("-", 5)[-1]: path for path in sorted(COMPATIBILITY.glob("*.json"))}
    parts += [_compared(json.loads(path.read_text(encoding="utf-8"))) for path in latest.values()]
    return "".join(parts)


def _compared(result: dict) -> str:  # type: ignore[type-arg]  # JSON of ours
    head = (
        f"\n## {result['who']}\n\n{result['date']}, commit {result['commit']}, {result['machine']}; {result['python']}; "
        f"{len(result['modules'])} modules.\n\n| | passed | skipped | failed | else |\n| --- | --- | --- | --- | --- |\n"
    )
    rows = "".join(f"| {side} | {_numbers(result[side])} |\n" for side in ("outside", "inside"))
    reasons = Counter(row["why"] or "not explained" for row in result["differences"])
    body = (
        f"\n{len(result['differences'])} cases come out differently:\n\n| why | cases | which |\n| --- | --- | --- |\n"
    )
    for why, count in reasons.most_common():
        names = [
            row["test"].removeprefix("test.") for row in result["differences"] if (row["why"] or "not explained") == why
        ]
        shown = ", ".join(f"`{name}`" for name in names[:6]) + (f" and {count - 6} more" if count > 6 else "")
        body += f"| {why} | {count} | {shown} |\n"
    return head + rows + body


def _numbers(counts: dict[str, int]) -> str:
    known = ("passed", "skipped", "failed")
    rest = ", ".join(f"{number} {what}" for what, number in counts.items() if what not in known)
    return " | ".join([*(str(counts.get(what, 0)) for what in known), rest])
