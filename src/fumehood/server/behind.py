"""The service behind the application, as its endpoints ask for it."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from .service import Service


def service_of(request: Request) -> Service:
    """Return it."""
    service: Service = request.app.state.service
    return service


async def _behind(request: Request) -> Service:
    # FastAPI asks what is not async in a thread, which takes a quarter of a millisecond.
    return service_of(request)


Behind = Annotated[Service, Depends(_behind)]
