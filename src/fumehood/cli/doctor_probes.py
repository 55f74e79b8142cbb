"""`fumehood doctor --probes`: runs the attacks on this host and prints what came of each, as a table or as JSON."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections import Counter
from itertools import groupby
from typing import TYPE_CHECKING

from ..errors import InvalidRequest, SandboxUnavailable
from ..probes import running, target
from .arguments import UsageError
from .progress import Building
from .terminal import is_terminal, printable, wants_colour

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..probes.running import Outcome
    from .arguments import Arguments

# What attacks without walls leave behind, processes and mounts alike, goes with these. An ordinary user is called root
# in there, so that more of them succeed.
_THROW_AWAY = ("--mount", "--uts", "--pid", "--fork", "--mount-proc", "--kill-child")
# To the command inside: the process namespace that it must not be in any more.
_OUTSIDE = "FUMEHOOD_OUTSIDE"
_WIDTH_OF_A_PIPE = 160
_COLOURS = {"held": "green", "fell": "bold red", "open": "yellow", "left out": "dim"}


def probe(arguments: Arguments) -> int:
    """Do it. Exit code 0 where all holds (without walls: where the suite notices), 1 where it does not."""
    try:
        chosen = running.choose(arguments.only)
    except InvalidRequest as error:
        raise UsageError(f"--only: {error}") from error
    if arguments.unwalled and os.environ.get(_OUTSIDE, _processes()) == _processes():
        _begin_again_in_namespaces_to_throw_away()
    ways: Sequence[str] = ("gvisor",) if arguments.isolation == "gvisor" else target.ways_here()
    if arguments.unwalled:
        ways = ("unwalled",)
    if not arguments.unwalled:
        # Where nothing can run, one sentence says so, not every probe.
        with target.Target(ways[0]) as first:
            first.run("")
    bar = Building()

    def show(outcome: Outcome, done: float) -> None:
        bar(f"{outcome.id} {outcome.way}", done)

    try:
        outcomes = running.run(chosen, ways, show)
    finally:
        bar("", 1)
    passed = running.passes(outcomes, walled=not arguments.unwalled)
    if arguments.json:
        print(json.dumps(_as_json(outcomes, passed, ways), indent=2))
    else:
        _print_table(outcomes)
        print("\n".join(_words(outcomes, passed, walled=not arguments.unwalled)))
    return 0 if passed else 1


def _processes() -> str:
    return os.readlink("/proc/self/ns/pid")


def _begin_again_in_namespaces_to_throw_away() -> None:
    unshare = shutil.which("unshare")
    if unshare is None:
        raise SandboxUnavailable(
            "attacks without walls are run in namespaces to throw away: install util-linux's `unshare`"
        )
    sys.stdout.flush()
    os.environ[_OUTSIDE] = _processes()
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    os.execv(  # noqa: S606 - a program by its path
        unshare, [unshare, *_THROW_AWAY, *user, sys.executable, "-m", "fumehood", *sys.argv[1:]]
    )


def _as_json(outcomes: Sequence[Outcome], passed: bool, ways: Sequence[str]) -> dict[str, object]:
    return {
        "passed": passed,
        "ways": list(ways),
        "counts": _counts(outcomes),
        "seconds": round(sum(outcome.seconds for outcome in outcomes), 1),
        "user": os.geteuid(),
        "kernel": os.uname().release,
        "machine": os.uname().machine,
        "probes": [{**outcome.as_dict(), "seconds": round(outcome.seconds, 3)} for outcome in outcomes],
    }


def _counts(outcomes: Sequence[Outcome]) -> dict[str, int]:
    found = Counter(outcome.verdict for outcome in outcomes)
    return {verdict: found[verdict] for verdict in _COLOURS}  # type: ignore[index]  # they are the verdicts


def _print_table(outcomes: Sequence[Outcome]) -> None:
    from rich.console import Console  # noqa: PLC0415 - 60 ms that only this table pays
    from rich.markup import escape  # noqa: PLC0415 - likewise
    from rich.table import Table  # noqa: PLC0415 - likewise

    table = Table("probe", "tried", "expectation", "outcome", "wall", box=None, pad_edge=False)
    for _name, group in groupby(sorted(outcomes, key=_place(outcomes)), key=lambda outcome: outcome.name):
        tries = sorted(group, key=lambda outcome: target.WAYS.index(outcome.way))
        lines = []
        for (verdict, seen), same in groupby(tries, key=lambda outcome: (outcome.verdict, outcome.seen)):
            ways = ", ".join(outcome.way for outcome in same)
            told = f": {printable(seen)}" if seen else ""
            lines.append(f"[{_COLOURS[verdict]}]{verdict}[/] ({ways}){escape(told)}")
        first = tries[0]
        table.add_row(
            first.id, escape(printable(first.tried)), escape(printable(first.expected)), "\n".join(lines), first.wall
        )
    width = None if is_terminal(1) else _WIDTH_OF_A_PIPE
    console = Console(no_color=not wants_colour(1), highlight=False, width=width)
    console.print(table)
    print()


def _place(outcomes: Sequence[Outcome]) -> Callable[[Outcome], int]:
    places: dict[str, int] = {}
    for outcome in outcomes:
        places.setdefault(outcome.name, len(places))
    return lambda outcome: places[outcome.name]


def _words(outcomes: Sequence[Outcome], passed: bool, *, walled: bool) -> list[str]:
    counts = _counts(outcomes)
    tried = len(outcomes) - counts["left out"]
    seconds = sum(outcome.seconds for outcome in outcomes)
    summary = ", ".join(f"{number} {verdict}" for verdict, number in counts.items() if number)
    lines = [f"{len(outcomes)} probes in {seconds:.0f} s: {summary}."]
    if not tried:
        lines.append("Nothing of that could be tried here: this shows nothing.")
    elif walled:
        if counts["open"]:
            lines.append("What is open is not stopped in that tier: docs/threat-model.md says what to choose instead.")
        lines += [
            f"Fell ({outcome.way}): {outcome.id} {outcome.name}" for outcome in outcomes if outcome.verdict == "fell"
        ]
        lines.append(
            "The walls hold."
            if passed
            else "The walls DO NOT hold here: do not run hostile code, and please report this."
        )
    else:
        share = counts["fell"] / tried if tried else 0.0
        lines.append(
            f"This was a run WITHOUT WALLS, to see whether the probes notice: {share:.1%} of those tried fell, "
            f"{running.SHARE_THAT_MUST_FALL:.0%} must. "
            + ("The probes have teeth." if passed else "The probes DO NOT NOTICE: what they show is worth nothing.")
        )
    return lines
