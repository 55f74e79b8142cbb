"""What those ask who look after the service: whether it lives, whether it can work, and what it counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse
from starlette.concurrency import run_in_threadpool

from ..errors import StoreUnavailable
from ..protocol.loopback import is_loopback
from .answers import Json
from .auth import Scoped
from .behind import Behind
from .description import error_responses
from .store import health

if TYPE_CHECKING:
    from collections.abc import Callable

    from .service import Service

_FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")
router = APIRouter(tags=["Operations"])
_reader = Scoped("read")


@router.get("/healthz")
async def health_of_process() -> Json:
    """Say that the process answers."""
    return Json({"status": "ok"})


@router.get("/readyz", responses={503: {"description": "a part cannot work, which its answer names"}})
def readiness(service: Behind) -> Json:
    """Say whether it can work, and else which part cannot: a 503."""
    parts = service.readiness.parts()
    ready = all(parts.values())
    words = {name: "ok" if fine else "down" for name, fine in parts.items()}
    return Json({"status": "ready" if ready else "not ready", **words}, status_code=200 if ready else 503)


@router.get("/metrics", response_class=PlainTextResponse, responses=error_responses(401, 403, 429, 500, 503))
async def metrics(request: Request, service: Behind) -> Response:
    """Give what is counted, as Prometheus reads it; with a key of scope `read`, or without one on this machine."""
    if not may_look(request, service.settings.metrics):
        await _reader(request)
    text, media_type = await run_in_threadpool(service.watch.metrics.text, request.headers.get("accept", ""))
    return Response(text, media_type=media_type)


def may_look(request: Request, openness: str) -> bool:
    """Whether somebody may see metrics without a key: where they are open, or the request was made on this machine itself.

    A proxy in front is on this machine too, and says so in its headers; a page in a browser, whose name was bound to this
    machine's address, names itself as the host.
    """
    if openness != "local":
        return openness == "open"
    if any(name in request.headers for name in _FORWARDED):
        return False
    return is_loopback(request.client.host if request.client else "") and is_loopback(request.url.hostname or "")


def gauges(service: Service) -> None:
    """Have what is there at the moment among the metrics."""
    look = service.watch.metrics.look
    look("fumehood_sessions_live", "Sessions that live.", "", lambda: {"": service.sessions.living()})
    look(
        "fumehood_sandboxes_warm",
        "Sandboxes that wait for programs.",
        "",
        lambda: {"": service.engine.warm_sandboxes},
    )
    look("fumehood_builds", "Revisions of runtimes, by how their builds stand.", "status", _quietly(service))


def _quietly(service: Service) -> Callable[[], dict[str, float]]:
    def ask() -> dict[str, float]:
        try:
            return dict(health.builds(service.store.database))
        except StoreUnavailable:
            return {}

    return ask
