"""What happens while a program runs, written by its thread and read by any number of streams, each from where it wants."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

#: After so long without news a stream says that it is still there.
_SILENCE_SECONDS = 15.0

Happening = tuple[str, Any]


class Happenings:
    """Any thread may call. What was written stays until the whole is dropped."""

    def __init__(self) -> None:
        self._all: list[Happening] = []
        self._ended = False
        self._lock = threading.Lock()
        self._waiting: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()

    def add(self, kind: str, value: Any) -> None:
        """Write one down."""
        with self._lock:
            self._all.append((kind, value))
            self._wake()

    def end(self) -> None:
        """Say that there will be no more."""
        with self._lock:
            self._ended = True
            self._wake()

    async def follow(self, after: int = 0) -> AsyncGenerator[tuple[int, Happening | None], None]:
        """Give each with its number, from 1, beginning behind `after`, until the end; None where nothing came for long."""
        fresh = asyncio.Event()
        waiter = (asyncio.get_running_loop(), fresh)
        with self._lock:
            self._waiting.add(waiter)
        number = max(0, after)
        try:
            while True:
                fresh.clear()
                with self._lock:
                    news, ended = self._all[number:], self._ended
                for each in news:
                    number += 1
                    yield number, each
                if ended and not news:
                    return
                if not news:
                    try:
                        await asyncio.wait_for(fresh.wait(), _SILENCE_SECONDS)
                    except TimeoutError:
                        yield number, None
        finally:
            with self._lock:
                self._waiting.discard(waiter)

    def _wake(self) -> None:
        for loop, fresh in self._waiting:
            # A loop that is closed has no stream that waits.
            if not loop.is_closed():
                loop.call_soon_threadsafe(fresh.set)
