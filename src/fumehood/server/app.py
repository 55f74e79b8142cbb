"""The application: doors, errors, and what stands before every request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import Depends, FastAPI
from starlette.exceptions import HTTPException

from . import faults
from .auth import caller_of
from .doors import riza
from .faults import Fault

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from .service import Service

#: What a request's body may hold: the contract's code, input, files and variables at their most, as JSON.
BODY_BYTES = 64 << 20


def make(service: Service) -> FastAPI:
    """Return the application over a service, which stays its caller's."""
    app = FastAPI(title="Fumehood", docs_url=None, redoc_url=None)
    app.state.service = service
    faults.install(app)
    app.include_router(riza.router)

    @app.get("/healthz")
    def health() -> dict[str, str]:
        """Say that the process answers."""
        return {"status": "ok"}

    @app.api_route("/{path:path}", methods=["GET", "POST", "PUT", "PATCH", "DELETE"], include_in_schema=False)
    def unknown(path: str, _caller: object = Depends(caller_of)) -> None:
        """Answer for every other path, after the key was looked at."""
        raise Fault(404, f"there is nothing at /{path}")

    app.add_middleware(_Bounded)
    return app


class _Bounded:
    """Refuses bodies that are too long, by what they say and by what they are."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        left = BODY_BYTES

        async def counted() -> Message:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                # FastAPI lets this pass, and takes others for a body that cannot be read.
                raise HTTPException(413, f"a request's body holds {BODY_BYTES >> 20} MiB at most")
            return message

        await self._app(scope, counted, send)
