"""Who asks: `Authorization: Bearer KEY`, where a key may be any text, spaces included."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import Request

from .faults import Fault

if TYPE_CHECKING:
    from .service import Service
    from .store.keeping import Caller


def caller_of(request: Request) -> Caller:
    """Return who asks. Raises a 401 where it is nobody that is known."""
    scheme, _space, key = request.headers.get("authorization", "").partition(" ")
    service: Service = request.app.state.service
    caller = service.store.caller(key.strip()) if scheme.lower() == "bearer" and key.strip() else None
    if caller is None:
        # Word for word what the contract has.
        raise Fault(401, "unauthenticated")
    return caller
