"""The application: doors, errors, and what stands before every request."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio.to_thread
from fastapi import Depends, FastAPI
from starlette.routing import Route

from .. import __version__
from . import faults, operations
from .answers import Json
from .auth import caller_of
from .dashboard import forms, login, pages, parts
from .description import describe
from .doors import mcp, native, piston, riza, sandboxfusion, sessions, tenants
from .faults import Fault
from .flow import Bounded

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from .service import Service

#: How many requests may wait besides those whose programs run.
_OTHERS = 128
# A request is held against one after another: the most usual first.
_DOORS = (riza, native, sessions, tenants, operations, piston, sandboxfusion)


def make(service: Service) -> FastAPI:
    """Return the application over a service, which stays its caller's."""

    @asynccontextmanager
    async def living(_app: FastAPI) -> AsyncIterator[None]:
        # An endpoint waits for its program in one of these.
        anyio.to_thread.current_default_thread_limiter().total_tokens = service.settings.at_once + _OTHERS
        service.builder.start()
        async with models.living():
            yield
        await anyio.to_thread.run_sync(service.close)

    app = FastAPI(
        title="Fumehood", version=__version__, docs_url=None, redoc_url=None, lifespan=living, default_response_class=Json,
        # FastAPI's own spans and logs would hold paths, queries and what errors quote: ours are in watching.py.
        telemetry={"tracing": False, "metrics": False, "logs": False, "operation_spans": False, "auto_configure": False},
    )  # fmt: skip
    app.openapi = lambda: describe(app, [door.router for door in _DOORS])  # type: ignore[method-assign]  # as FastAPI's own manual has it
    app.state.service = service
    operations.gauges(service)
    faults.install(app)
    for door in _DOORS:
        app.include_router(door.router)
    for part in (login, parts, pages, forms):
        app.include_router(part.router)
    models = mcp.Door(service)
    app.router.routes.append(Route(mcp.PATH, models))

    @app.api_route("/{path:path}", methods=["GET", "POST", "PUT", "PATCH", "DELETE"], include_in_schema=False)
    def unknown(path: str, _caller: object = Depends(caller_of)) -> None:
        """Answer for every other path, after the key was looked at."""
        raise Fault(404, f"there is nothing at /{path} for this method: /openapi.json lists what there is")

    app.add_middleware(Bounded, service=service)
    return app
