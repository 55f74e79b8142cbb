"""The generated page of the HTTP API: every endpoint of every door, what it takes, and the scope that its key needs."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, get_args

from fastapi.routing import APIRoute

from fumehood.server import operations
from fumehood.server.description import scope_of
from fumehood.server.doors import native, piston, riza, sandboxfusion, sessions, tenants

if TYPE_CHECKING:
    from fastapi import APIRouter

_DOORS: tuple[tuple[str, APIRouter, str], ...] = (
    ("Riza's contract", riza.router, "What programs written for Riza's API call; [its open points](riza.md)."),
    ("Executions, tools, secrets, runtimes", native.router, "Ours, beside Riza's, on the same things."),
    ("Sessions", sessions.router, "Ours."),
    ("Keys, projects, usage, audit", tenants.router, "Ours."),
    ("Piston", piston.router, "[What is kept of it](other-contracts.md)."),
    ("SandboxFusion", sandboxfusion.router, "[What is kept of it](other-contracts.md)."),
    ("Operations", operations.router, "[Operating a server](../how-to/operate.md)."),
)
_ABOUT = """# HTTP API

Generated from the endpoints. `fumehood serve` has the same as OpenAPI at `/openapi.json`. A field in **bold** is needed. Streams
are server-sent events, for requests with `Accept: text/event-stream`: of an execution `output` and then `result` or `error`; of a
cell `cell`, then `output`, `display`, `error` (with a `type`) and `cleared`, each with an id, and then `result`, or `error` with a
`status` where the cell did not run. `GET …/cells/{id}/events` goes on behind the event that `Last-Event-ID` names. MCP is at
`/mcp` ([how](../how-to/mcp.md)).

Errors are `{"code", "message", "kind"}`: gRPC's code, words, and the name of the class in `fumehood.errors` where there is one.
"""


def api() -> str:
    """Return the page."""
    parts = [_ABOUT]
    for title, router, about in _DOORS:
        rows = [_row(route) for route in router.routes if isinstance(route, APIRoute) and route.include_in_schema]
        head = "| endpoint | takes | scope | |\n| --- | --- | --- | --- |\n"
        parts.append(f"\n## {title}\n\n{about}\n\n{head}{''.join(rows)}")
    return "".join(parts)


def _row(route: APIRoute) -> str:
    method = next(iter(route.methods or ()))
    takes = [_field(name, needed=field["needed"]) for name, field in _fields(route).items()]
    takes += [f"?{each.alias}" for each in route.dependant.query_params]
    about = (inspect.getdoc(route.endpoint) or "").split("\n\n")[0].replace("\n", " ")
    return f"| `{method} {route.path_format}` | {', '.join(takes)} | {_scope(route)} | {about} |\n"


def _fields(route: APIRoute) -> dict[str, dict[str, Any]]:
    found = {}
    for body in route.dependant.body_params:
        # A body that may be left out is a union with None.
        for model in get_args(body.field_info.annotation) or (body.field_info.annotation,):
            for name, field in getattr(model, "model_fields", {}).items():
                found[field.alias or name] = {"needed": field.is_required()}
    return found


def _field(name: str, *, needed: bool) -> str:
    return f"**{name}**" if needed else name


def _scope(route: APIRoute) -> str:
    scope = scope_of(route)
    return scope and f"`{scope}`"
