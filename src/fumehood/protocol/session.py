"""What comes of a session's cells, as data."""

from __future__ import annotations

from .record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Literal

    from .network import Connection, Refusal

    #: Why a session is dead, from kernel facts and its owner's own wishes.
    DeathReason = Literal[
        "closed",  # its owner closed it
        "exited",  # its program ended by itself
        "crashed",  # a signal that it caused ended it
        "killed",  # SIGKILL from outside, or what it was forked from died
        "out_of_memory",  # memory_bytes were used up
        "timeout",  # a cell's time was used up and it could not be interrupted, or cpu_seconds were used up
        "output_limit",  # output_bytes of a cell were used up and it could not be interrupted
        "idle",  # nothing was asked of it for idle_seconds
        "lifetime",  # lifetime_seconds were used up
        "protocol",  # what it sent breaks the protocol between its program and us
    ]
    Listener = Callable[["Event"], None]


class Event(Record):
    """One thing that a cell showed; all are hostile text."""


class Output(Event):
    """Text printed to "stdout" or "stderr"."""

    stream: str
    text: str


class Display(Event):
    """Something displayed: MIME type to text, to base64 for pictures, or to JSON values.

    `is_result`: it is the value of the cell's last expression.
    """

    data: dict[str, Any]
    metadata: dict[str, Any]
    is_result: bool = False


class CellError(Event):
    """An exception that ended the cell."""

    name: str
    value: str
    traceback: str


class Cleared(Event):
    """What was shown before should be taken off the screen."""


class Death(Record):
    """Why and how a session ended."""

    reason: DeathReason
    detail: str


class CellResult(Record):
    """What came of one cell.

    `ok`: it ran to its end without an exception. `events` are in the order in which they happened. `ended` says how: "finished",
    "timeout" or "output_limit" (it was interrupted), "died" (and the session with it). `connections` and `refusals` are what
    the session's network allowed meanwhile and did not; of a connection that lasts, each cell tells its part.
    """

    ok: bool
    events: tuple[Event, ...]
    ended: Literal["finished", "timeout", "output_limit", "died"] = "finished"
    duration_seconds: float = 0.0
    connections: tuple[Connection, ...] = ()
    refusals: tuple[Refusal, ...] = ()

    @property
    def stdout(self) -> str:
        """Return all that it printed to standard output."""
        return "".join(each.text for each in self.events if isinstance(each, Output) and each.stream == "stdout")

    @property
    def stderr(self) -> str:
        """Return all that it printed to standard error."""
        return "".join(each.text for each in self.events if isinstance(each, Output) and each.stream == "stderr")

    @property
    def displays(self) -> tuple[Display, ...]:
        """Return what was displayed, the result not among it."""
        return tuple(each for each in self.events if isinstance(each, Display) and not each.is_result)

    @property
    def result(self) -> dict[str, Any] | None:
        """Return the last expression's value by MIME type; None where there is none."""
        return next((each.data for each in self.events if isinstance(each, Display) and each.is_result), None)

    @property
    def error(self) -> CellError | None:
        """Return the exception that ended it; None where there is none."""
        return next((each for each in self.events if isinstance(each, CellError)), None)
