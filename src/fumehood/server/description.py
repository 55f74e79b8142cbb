"""The OpenAPI document: of each endpoint the errors that it can answer and no others, and the key that it needs.

Derived from what an endpoint takes, so that a new one is described as it is; what one alone answers stands at its `responses=`.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from .auth import Scoped
from .faults import Status

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fastapi import APIRouter, FastAPI

_WHY = {
    400: "the request is none, or asks for what cannot be", 401: "no key, or one that is not known",
    403: "the key may not do that", 404: "there is no such thing in the key's project", 409: "not in this state",
    410: "the session has ended", 413: "the body is too long", 422: "the request is none, or asks for what cannot be",
    429: "a quota is used up; Retry-After says when to come again", 500: "a fault of the service's",
    503: "something that the service needs is not there",
}  # fmt: skip
_SESSION = "/v1/sessions/{session_id}/"


def describe(app: FastAPI, routers: Iterable[APIRouter]) -> dict[str, Any]:
    """Return the document for these routers of the application, which is made once."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, routes=app.routes)
        schemas = document["components"]["schemas"]
        schemas[Status.__name__] = Status.model_json_schema()
        for route in chain.from_iterable(router.routes for router in routers):
            if isinstance(route, APIRoute) and route.include_in_schema:
                for method in route.methods or ():
                    _complete(document["paths"][route.path_format][method.lower()], route)
        # FastAPI's own errors, which none of ours is.
        schemas.pop("HTTPValidationError", None)
        schemas.pop("ValidationError", None)
        document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        app.openapi_schema = document
    return app.openapi_schema


def scope_of(route: APIRoute) -> str:
    """Return the scope that the caller's key needs; "" where none is needed."""
    calls = (each.call for each in route.dependant.dependencies)
    return next((call.scope for call in calls if isinstance(call, Scoped)), "")


def error_responses(*statuses: int, model: type[Any] = Status) -> dict[int | str, dict[str, Any]]:
    """Return these statuses as `responses=` has them."""
    return {status: {"model": model, "description": _WHY[status]} for status in statuses}


def _complete(operation: dict[str, Any], route: APIRoute) -> None:
    responses = operation["responses"]
    if 422 not in route.responses:
        responses.pop("422", None)
    schema = {"$ref": f"#/components/schemas/{Status.__name__}"}
    for status in sorted(_statuses(route)):
        responses.setdefault(
            str(status), {"description": _WHY[status], "content": {"application/json": {"schema": schema}}}
        )
    if scope := scope_of(route):
        operation["security"] = [{"key": []}]
        operation["x-scope"] = scope


def _statuses(route: APIRoute) -> set[int]:
    """Return the errors that follow from what an endpoint takes. Those of another contract's shape stand at its door."""
    scope = scope_of(route)
    if not scope or not route.path_format.startswith("/v1/"):
        return set()
    takes, bodied = route.dependant, not (route.methods or set()) <= {"GET", "DELETE"}
    found = {401, 403, 429, 500, 503}
    if bodied:
        found |= {400, 413}
    if takes.query_params:
        found.add(400)
    if takes.path_params:
        found.add(404)
    if route.path_format.startswith(_SESSION):
        lives = any(part in route.path_format for part in ("/files", "{cell_id}"))
        found |= {409, 410} if bodied else {410} if lives else set()
    return found
