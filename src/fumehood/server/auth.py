"""Who asks: `Authorization: Bearer KEY`, where a key may be any text, spaces included; and what the key may do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, Request
from starlette.concurrency import run_in_threadpool

from .dashboard import cookies
from .faults import Fault
from .store.common import Caller

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .service import Service


async def caller_of(request: Request) -> Caller:
    """Return who asks. Raises a 401 where it is nobody that is known, a 429 where the project asks too often."""
    service: Service = request.app.state.service
    if "authorization" in request.headers:
        scheme, _space, key = request.headers["authorization"].partition(" ")
        found = await service.doorman.look_up(key.strip()) if scheme.lower() == "bearer" and key.strip() else None
    else:
        visit = cookies.of_our_scripts(request, service.vault)
        found = None if visit is None else await run_in_threadpool(service.doorman.look_up_id, visit.key_id)
    if found is None:
        # Word for word what the contract has.
        raise Fault(401, "unauthenticated")
    request.state.caller = found[0]  # the log says who asked
    service.gate.count(*found)
    return found[0]


def with_scope(scope: str) -> Callable[[Request], Awaitable[Caller]]:
    """Return what finds the caller, and raises a 403 where its key may not do this."""

    async def caller(request: Request) -> Caller:
        found = await caller_of(request)
        if not found.may(scope):
            raise Fault(403, f"this key may not do that: it lacks the scope {scope!r}")
        return found

    return caller


Executing = Annotated[Caller, Depends(with_scope("execute"))]
Reading = Annotated[Caller, Depends(with_scope("read"))]
Managing = Annotated[Caller, Depends(with_scope("manage"))]
Keeping = Annotated[Caller, Depends(with_scope("keys"))]
Admin = Annotated[Caller, Depends(with_scope("admin"))]
