"""A thread with an event loop, through which code without one talks to a server.

Why a loop: what waits for a server must be given up at any moment, by a closed descriptor, by Ctrl-C, by another thread, and the
connection with it, since that is what ends a program over there. A thread that is blocked in `recv` cannot be told so; a task can.

Promised: any thread may call, signal handlers too; when `Work.cancel` returns, its connection is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import threading
import time
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ..errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from contextlib import AbstractAsyncContextManager

Piece = TypeVar("Piece")
Result = TypeVar("Result")


class Portal:
    """The thread. What `resource` opens is open while it lives."""

    def __init__(self, resource: AbstractAsyncContextManager[Any]) -> None:
        self.pid = os.getpid()
        self._resource = resource
        # A signal's handler may call while this thread is in here.
        self._lock = threading.RLock()
        self._is_closed = False
        self._tasks: set[asyncio.Task[Any]] = set()
        ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(ready,), name="fumehood-client", daemon=True)
        self._thread.start()
        ready.wait()

    def begin(self, make: Callable[[Callable[[Piece], None]], Coroutine[Any, Any, Result]]) -> Work[Piece, Result]:
        """Begin what `make` returns; it is given a function that passes pieces on. Raises `InvalidRequest` once closed."""
        work: Work[Piece, Result] = Work(self)

        def start() -> None:
            task = self._loop.create_task(make(work.pieces.put))
            work.task = task
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            task.add_done_callback(work.pieces.put)

        self.post(start)
        return work

    def post(self, callback: Callable[[], object]) -> None:
        """Have the loop call it. Raises `InvalidRequest` once closed."""
        with self._lock:
            if self._is_closed:
                raise InvalidRequest("this executor is closed: make another")
            self._loop.call_soon_threadsafe(callback)

    def close(self) -> None:
        """Cancel all that is under way, and end the thread."""
        with self._lock:
            if not self._is_closed:
                self._is_closed = True
                self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join()

    def _serve(self, ready: threading.Event) -> None:
        with asyncio.Runner() as runner:
            self._loop = runner.get_loop()
            runner.run(self._stay(ready))

    async def _stay(self, ready: threading.Event) -> None:
        self._closing = asyncio.Event()
        async with self._resource:
            ready.set()
            await self._closing.wait()
            for task in (under_way := set(self._tasks)):
                task.cancel()
            if under_way:
                await asyncio.wait(under_way)


class Work(Generic[Piece, Result]):
    """Something under way, and what it has passed on so far."""

    def __init__(self, portal: Portal) -> None:
        self._portal = portal
        self.task: asyncio.Task[Result] | None = None
        #: Pieces in order; the task itself once it is over.
        self.pieces: queue.SimpleQueue[Piece | asyncio.Task[Result]] = queue.SimpleQueue()

    def result(self, hear: Callable[[Piece], object]) -> Result:
        """Have `hear` called in this thread for each piece, and return what came of it in the end."""
        while not isinstance(piece := self.pieces.get(), asyncio.Task):
            hear(piece)
        return piece.result()

    def is_over(self, seconds: float) -> bool:
        """Wait so long for its end; what it passed on meanwhile is dropped."""
        until = time.monotonic() + seconds
        while self.task is None or not self.task.done():
            try:
                self.pieces.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                return False
        return True

    def cancel(self) -> None:
        """End it, and return once it is over."""
        with contextlib.suppress(InvalidRequest):
            self._portal.post(lambda: self.task and self.task.cancel())
        while self.task is None or not self.task.done():
            self.pieces.get()


@contextlib.contextmanager
def ends_by(descriptor: int | None) -> Iterator[Callable[[], bool]]:
    """Inside a task: cancel it once the descriptor is readable; give a function that says whether that happened."""
    if descriptor is None:
        yield lambda: False
        return
    loop, task, happened = asyncio.get_running_loop(), asyncio.current_task(), threading.Event()
    # A loop knows a descriptor by its number: several tasks may wait for the caller's one.
    own = os.dup(descriptor)

    def end() -> None:
        # Once: a second cancellation would break off what closes the connection.
        loop.remove_reader(own)
        happened.set()
        if task is not None:
            task.cancel()

    try:
        loop.add_reader(own, end)
        yield happened.is_set
    finally:
        loop.remove_reader(own)
        os.close(own)
