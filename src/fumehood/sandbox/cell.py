"""One cell that runs, seen from the host: what it has shown, when its time is up, how it ended."""

from __future__ import annotations

import queue
import time
from typing import TYPE_CHECKING, Any

from ..protocol.record import Record
from ..protocol.session import Event, Output
from .channel import BrokenProtocol

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Literal


class Held(Record):
    """A program that came to a stand: its pid inside, and what of it no fork takes along. The guest's own word."""

    pid: int
    lost: tuple[str, ...]

    @classmethod
    def of(cls, message: dict[str, Any]) -> Held:
        """Read it from the program's message. Raises `BrokenProtocol`."""
        pid, lost = message.get("pid"), message.get("lost")
        if not isinstance(pid, int) or not isinstance(lost, list):
            raise BrokenProtocol("a message is not what was agreed on")
        return cls(pid=pid, lost=tuple(str(each)[:100] for each in lost[:100]))


class Cell:
    """What is known of the cell that runs. Its events end with None."""

    def __init__(self, seconds: float, early: Iterable[Event] = ()) -> None:
        self.events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        for event in early:
            self.events.put(event)
        self.started = time.monotonic()
        self.deadline = self.started + seconds
        self.shown_bytes = 0
        self.interrupts = 0
        self.stands_back = False
        self.ok = False
        self.ended: Literal["finished", "timeout", "output_limit", "died"] = "finished"
        self.held: Held | None = None

    def is_well(self) -> bool:
        """Whether nothing has cut it short."""
        return self.ended == "finished"


class Shown:
    """The events of a cell, with pieces of one stream that follow each other put together."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        # Of the stream that the latest event is of: to join them at each piece would take time by the square.
        self._stream, self._pieces = "", list[str]()

    def add(self, event: Event) -> None:
        """Take the next one."""
        if isinstance(event, Output):
            if event.stream != self._stream:
                self._join()
                self._stream = event.stream
            self._pieces.append(event.text)
        else:
            self._join()
            self._events.append(event)

    def all(self) -> list[Event]:
        """Return them."""
        self._join()
        return self._events

    def _join(self) -> None:
        if self._pieces:
            self._events.append(Output(stream=self._stream, text="".join(self._pieces)))
        self._stream, self._pieces = "", []
