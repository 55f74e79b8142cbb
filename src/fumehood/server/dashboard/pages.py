"""Pages to look at: all that a project has, shown to keys with the scope for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from ...runtimes import languages
from ..behind import Behind
from ..faults import found
from ..store.tool_revisions import revisions_of
from .overview import RECENT, Walls, numbers
from .render import render
from .visiting import Keyholding, Looking, Page, Playing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..service import Service
    from ..store.common import Caller
    from ..store.tools import Tool
    from .visiting import Visitor

_PAGE = 50
#: Lists that a form chooses from, and those that people scroll.
_ALL = 500
router = APIRouter(route_class=Page, include_in_schema=False)
_walls = Walls()


@router.get("/")
def overview(visitor: Looking, service: Behind) -> Response:
    """Show how things stand."""
    seen = _walls.look(service)
    return render(
        "overview.html",
        visitor,
        recent_of=RECENT,
        tier=_tier(seen["walls"]),
        **seen,
        **numbers(service, visitor.caller),
    )


@router.get("/playground")
def playground(visitor: Playing, service: Behind) -> Response:
    """Show the bench, whose scripts talk to the API."""
    return render("playground.html", visitor, languages=languages(), runtimes=_ready_runtimes(service, visitor.caller))


@router.get("/executions")
def executions(visitor: Looking, service: Behind, request: Request) -> Response:
    """List executions, the newest first."""
    failed, after = request.query_params.get("failed") == "1", request.query_params.get("after") or None
    listed = service.store.executions.listed(
        visitor.caller.project_id, limit=_PAGE + 1, after=after, only_failed=failed
    )
    return render("executions.html", visitor, failed=failed, **_paged(listed, after))


@router.get("/executions/{execution_id}")
def execution(execution_id: str, visitor: Looking, service: Behind) -> Response:
    """Show one: what was asked, what came of it, whom it reached."""
    project = visitor.caller.project_id
    kept = found(service.store.executions.get(project, execution_id), "execution", execution_id)
    reached = service.store.executions.connections(project, limit=200, execution=execution_id)
    return render(
        "execution.html", visitor, kept=kept, reached=reached, **_asked_and_answered(kept.request, kept.response)
    )


@router.get("/tools")
def tools(visitor: Looking, service: Behind) -> Response:
    """List saved functions."""
    return render("tools.html", visitor, tools=service.store.tools.listed(visitor.caller.project_id, limit=_ALL))


@router.get("/tools/{tool_id}")
def tool(tool_id: str, visitor: Looking, service: Behind) -> Response:
    """Show one with its revisions."""
    return tool_page(service, visitor, tool_of(service, visitor, tool_id))


def tool_of(service: Service, visitor: Visitor, tool_id: str) -> Tool:
    """Return one of the visitor's project. Raises a 404."""
    return found(service.store.tools.get(visitor.caller.project_id, service.known(tool_id)), "tool", tool_id)


def tool_page(service: Service, visitor: Visitor, tool: Tool, **outcome: Any) -> Response:
    """Return the page of a tool, with what came of running it where it was run."""
    revisions = revisions_of(service.store.database, visitor.caller.project_id, tool.id)
    return render(
        "tool.html", visitor, tool=tool, revisions=revisions, **{"input": "", "problem": "", "outcome": None} | outcome
    )


@router.get("/runtimes")
def runtimes(visitor: Looking, service: Behind) -> Response:
    """List runtimes."""
    listed = service.store.runtimes.listed(visitor.caller.project_id, limit=_ALL)
    return render("runtimes.html", visitor, runtimes=listed, problem="", given={})


@router.get("/runtimes/{runtime_id}")
def runtime(runtime_id: str, visitor: Looking, service: Behind) -> Response:
    """Show one with its builds and their logs."""
    project = visitor.caller.project_id
    kept = found(service.store.runtimes.get(project, service.known(runtime_id)), "runtime", runtime_id)
    revisions = list(reversed(service.store.runtimes.revisions(project, kept.id)))
    return render("runtime.html", visitor, runtime=kept, revisions=revisions)


@router.get("/secrets")
def secrets(visitor: Looking, service: Behind) -> Response:
    """List the names of secrets."""
    return render("secrets.html", visitor, secrets=service.store.secrets.listed(visitor.caller.project_id, limit=_ALL))


@router.get("/keys")
def keys(visitor: Keyholding, service: Behind) -> Response:
    """List keys."""
    return keys_page(service, visitor)


def keys_page(service: Service, visitor: Visitor, **made: Any) -> Response:
    """Return the page of keys, with the one that was just made."""
    listed = list(reversed(service.store.keys.listed(visitor.caller.project_id)))
    return render("keys.html", visitor, keys=listed, **{"fresh": "", "problem": ""} | made)


@router.get("/egress")
def egress(visitor: Looking, service: Behind, request: Request) -> Response:
    """List connections, the newest first."""
    after = request.query_params.get("after") or None
    listed = service.store.executions.connections(visitor.caller.project_id, limit=_PAGE + 1, after=after)
    return render("egress.html", visitor, **_paged(listed, after))


@router.get("/audit")
def audit(visitor: Keyholding, service: Behind, request: Request) -> Response:
    """List who changed what, the newest first."""
    after = request.query_params.get("after") or None
    names = {each.id: each.name for each in service.store.keys.listed(visitor.caller.project_id)}
    listed = service.store.keys.audit(visitor.caller.project_id, limit=_PAGE + 1, after=after)
    return render("audit.html", visitor, names=names, **_paged(listed, after))


def _paged(listed: Sequence[Any], after: str | None) -> dict[str, Any]:
    """Return the rows of one page, and where the next begins; one row more than a page tells that there is a next."""
    rows = listed[:_PAGE]
    return {"rows": rows, "after": after, "next": rows[-1].id if len(listed) > _PAGE else None}


def _ready_runtimes(service: Service, caller: Caller) -> list[tuple[str, str]]:
    if not caller.may("read"):
        return []
    listed = service.store.runtimes.listed(caller.project_id, limit=_ALL)
    return [
        (each.revision.id, f"{each.name} ({each.language})") for each in listed if each.revision.status == "succeeded"
    ]


def _tier(walls: list[dict[str, Any]]) -> str:
    cgroup = next((each for each in walls if each["name"] == "cgroup"), None)
    return "" if cgroup is None else "cgroup" if cgroup["up"] else "sampled"


def _asked_and_answered(request: Any, response: Any) -> dict[str, Any]:
    """Return the parts of what a door asked and answered that people look at first, and the rest."""
    request, response = dict(request), dict(response)
    code, events = request.pop("code", ""), response.pop("events", None)
    program = response.get("execution")
    said = program if isinstance(program, dict) else response
    outputs = {name: said.get(name, "") for name in ("stdout", "stderr")}
    hidden = ("stdout", "stderr", "stdout_base64", "stderr_base64", "execution", "id", "connections", "refusals")
    rest = {name: value for name, value in response.items() if name not in hidden}
    return {"code": code, "asked": _without_empty(request), "events": events, "outputs": outputs, "rest": rest}


def _without_empty(value: Any) -> Any:
    """Return a JSON value without what was left as it usually is."""
    if isinstance(value, dict):
        return {name: _without_empty(each) for name, each in value.items() if each not in (None, "", [], {})}
    return [_without_empty(each) for each in value] if isinstance(value, list) else value
