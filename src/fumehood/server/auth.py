"""Who asks: `Authorization: Bearer KEY`, where a key may be any text, spaces included; and what the key may do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, Request
from starlette.concurrency import run_in_threadpool

from .dashboard import cookies
from .faults import Fault, lacking
from .store.common import Caller

if TYPE_CHECKING:
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


class Scoped:
    """Finds the caller, and raises a 403 where its key lacks the scope."""

    def __init__(self, scope: str) -> None:
        self.scope = scope

    async def __call__(self, request: Request) -> Caller:
        """Return who asks."""
        found = await caller_of(request)
        if not found.may(self.scope):
            raise lacking(self.scope)
        return found


Executing = Annotated[Caller, Depends(Scoped("execute"))]
Reading = Annotated[Caller, Depends(Scoped("read"))]
Managing = Annotated[Caller, Depends(Scoped("manage"))]
Keeping = Annotated[Caller, Depends(Scoped("keys"))]
Admin = Annotated[Caller, Depends(Scoped("admin"))]
