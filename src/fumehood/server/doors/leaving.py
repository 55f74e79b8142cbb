"""Programs whose caller goes away before they end: they are ended too, and kept as such."""

from __future__ import annotations

import asyncio
import os
import select
from typing import TYPE_CHECKING, Any, TypeVar

from ..watching import carried

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastapi import Request

    from ..service import Service

Made = TypeVar("Made")


async def unless_gone(request: Request, service: Service, work: Callable[[int], Made]) -> Made:
    """Return what `work` makes, in a thread; the descriptor that it is given is readable once the caller has gone away."""
    cancel = os.eventfd(0, os.EFD_CLOEXEC)
    working: asyncio.Future[Made] = asyncio.get_running_loop().run_in_executor(service.threads, carried(work), cancel)
    # It is looked at by the execution to its end, whoever is gone by then.
    working.add_done_callback(lambda _done: os.close(cancel))
    leaving = asyncio.ensure_future(_gone(request))
    both: set[asyncio.Future[Any]] = {working, leaving}
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            os.eventfd_write(cancel, 1)
        return await working
    finally:
        leaving.cancel()


def is_readable(descriptor: int) -> bool:
    """Whether a descriptor is readable: its caller has gone away."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


async def _gone(request: Request) -> None:
    # Its body was read; what comes yet is its end.
    while (await request.receive())["type"] != "http.disconnect":
        pass
