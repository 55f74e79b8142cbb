"""The service behind the application, as its endpoints ask for it."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from .service import Service


def service_of(request: Request) -> Service:
    """Return it."""
    service: Service = request.app.state.service
    return service


Behind = Annotated[Service, Depends(service_of)]
