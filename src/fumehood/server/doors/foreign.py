"""What doors for other services' contracts share: errors in the contract's own shape, keys as its clients send them, memory."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Depends, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from ...protocol.limits import MiB
from ..auth import Scoped
from ..faults import Fault, fault_of
from ..store.common import Caller

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from ..service import Service

    #: Makes of a fault, or of what pydantic found wrong, the contract's answer.
    Shape = Callable[[Fault | RequestValidationError], Response]

#: What a program has where its caller names no limit or none at all, and what V8 holds before a program's first line.
_USUAL_MIB, _V8_MIB, _LEAST_MIB = 1024, 128, 16


def speaking(shape: Shape) -> type[APIRoute]:
    """Return a kind of route whose errors have this shape."""

    class Speaking(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle = super().get_route_handler()

            async def answered(request: Request) -> Response:
                try:
                    return await handle(request)
                except RequestValidationError as error:
                    return shape(error)
                except HTTPException as error:
                    return shape(Fault(error.status_code, str(error.detail)))
                except Exception as error:  # noqa: BLE001 - told to the caller
                    fault = fault_of(error)
                    response = shape(fault)
                    response.headers.update(fault.headers)
                    return response

            return answered

    return Speaking


class _Knock(Scoped):
    """Takes a key as `Bearer KEY`, alone, or by Basic as the password, as a URL carries it."""

    async def __call__(self, request: Request) -> Caller:
        """Return who asks."""
        scheme, _space, rest = request.headers.get("authorization", "").partition(" ")
        key = request.headers.get("authorization", "")
        if scheme.lower() == "bearer":
            key = rest
        elif scheme.lower() == "basic":
            key = _password(rest)
        headers = [each for each in request.scope["headers"] if each[0] != b"authorization"]
        bearing = [*headers, (b"authorization", b"Bearer " + key.encode("latin-1", "replace"))]
        return await super().__call__(Request({**request.scope, "headers": bearing}))


Knocking = Annotated[Caller, Depends(_Knock("execute"))]


def _password(text: str) -> str:
    try:
        return base64.b64decode(text, validate=True).decode("latin-1").partition(":")[2]
    except (binascii.Error, ValueError):
        return ""


def memory_bytes(service: Service, asked: float, language: str) -> int:
    """Return what a program has, in bytes, where `asked` bytes were; 0 and less stand for no limit, which nobody gets."""
    most = service.settings.most_memory_bytes
    # A number of thousands of digits cannot even be told that it is too much.
    asked = min(asked, 1 << 60)
    if asked <= 0:
        return min(_USUAL_MIB * MiB, most)
    more = _V8_MIB if language in ("javascript", "typescript") else 0
    return max(round(asked), _LEAST_MIB * MiB) + more * MiB
