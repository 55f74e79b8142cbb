"""What a check is: what it proves and by which oracle, what its failure means for an agent and how it is cured."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from ..protocol.record import Record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from .talk import Talk
    from .wire import Exchange

    _Run = Callable[[Talk], str]


class Severity(StrEnum):
    """What a failure costs."""

    CRITICAL = "critical"  # an agent does what nobody asked for, or believes what is not so
    MAJOR = "major"  # an agent stops, or loses a turn
    MINOR = "minor"  # a client has to know about it


class Outcome(StrEnum):
    """What came of a check."""

    PASS = "pass"  # noqa: S105 - no password
    FAIL = "fail"
    SKIPPED = "skipped"
    NEEDS_REAL_WEIGHTS = "needs real weights"


class Check(Record):
    """One check.

    `id` is a letter for the family and a number. `run` returns in a few words what was seen, or raises `Failed`, `Skipped` or
    `NeedsRealWeights`. `issues` are public reports of the same failure, as `owner/name#number` on GitHub.
    """

    id: str
    name: str
    proves: str
    oracle: str
    severity: Severity
    #: What a failure means for an agent.
    meaning: str
    #: The known cure: a flag, a version, a template, or what a client does instead.
    cure: str
    run: Callable[[Talk], str]
    issues: tuple[str, ...] = ()


class Family:
    """The checks of one part of the wire, in the order in which they were added."""

    def __init__(self, title: str) -> None:
        self.title = title
        self._checks: list[Check] = []

    def __iter__(self) -> Iterator[Check]:
        return iter(self._checks)

    def check(self, id: str, **fields: Any) -> Callable[[_Run], _Run]:  # noqa: A002 - what it is
        """Make a check of the function below."""

        def added(run: _Run) -> _Run:
            self._checks.append(Check(id=id, run=run, **fields))
            return run

        return added


class Result(Record):
    """What came of one check, with everything that was said."""

    check: Check
    outcome: Outcome
    seen: str
    seconds: float
    exchanges: tuple[Exchange, ...]
