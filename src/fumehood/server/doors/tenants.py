"""Our own API for keys, projects, what they have used, and the audit log."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from ..answers import Json
from ..auth import Admin, Keeping, Reading
from ..behind import Behind
from ..description import error_responses
from ..faults import Fault, found
from ..store.keys import Key, Project, Quotas, new_key
from .native_types import KeyBody, ProjectBody, QuotasBody
from .riza import After, Limit

router = APIRouter(tags=["Keys and projects"])


@router.post("/v1/keys", responses=error_responses(404))
def create_key(body: KeyBody, caller: Keeping, service: Behind) -> Json:
    """Make a key; this answer alone shows it."""
    project = body.project_id or caller.project_id
    if project != caller.project_id:
        if not caller.may("admin"):
            raise Fault(404, f"there is no project {project!r}")  # nor may this key list them
        found(service.store.keys.project(project), "project", project)
    key = body.key or new_key()
    made = service.store.keys.add(caller, key, body.name, body.scopes, project)
    return Json({**_key(made), "key": key})


@router.get("/v1/keys")
def list_keys(caller: Keeping, service: Behind) -> Json:
    """List the project's keys."""
    return Json({"keys": [_key(each) for each in service.store.keys.listed(caller.project_id)]})


@router.delete("/v1/keys/{key_id}")
def revoke_key(key_id: str, caller: Keeping, service: Behind) -> Json:
    """Revoke a key."""
    found(service.store.keys.revoke(caller, key_id), "key", key_id)
    service.doorman.forget()
    return Json({"id": key_id, "deleted": True})


@router.get("/v1/usage")
def usage(caller: Reading, service: Behind) -> Json:
    """Say what the project has used today, and what it may use."""
    project = found(service.store.keys.project(caller.project_id), "project", caller.project_id)
    used = service.store.keys.used(caller.project_id)
    running = service.gate.running_now(caller.project_id)
    return Json({"project_id": project.id, "project": project.name, "running": running, **used.as_dict(),
                 "quotas": project.quotas.as_dict()})  # fmt: skip


@router.get("/v1/audit")
def audit(
    caller: Keeping,
    service: Behind,
    limit: Limit = 100,
    starting_after: After = None,
) -> Json:
    """List who changed what, the newest first."""
    listed = service.store.keys.audit(caller.project_id, limit=limit, after=starting_after or None)
    return Json({"entries": [each.as_dict() for each in listed]})


@router.get("/v1/projects")
def list_projects(_caller: Admin, service: Behind) -> Json:
    """List all projects."""
    return Json({"projects": [_project(each) for each in service.store.keys.projects()]})


@router.post("/v1/projects")
def create_project(body: ProjectBody, caller: Admin, service: Behind) -> Json:
    """Make a project."""
    return Json(_project(service.store.keys.add_project(caller, body.name, Quotas(**body.quotas.model_dump()))))


@router.put("/v1/projects/{project_id}/quotas")
def set_quotas(project_id: str, body: QuotasBody, caller: Admin, service: Behind) -> Json:
    """Change what a project may use."""
    changed = service.store.keys.set_quotas(caller, project_id, Quotas(**body.model_dump()))
    service.doorman.forget()
    return Json(_project(found(changed, "project", project_id)))


def _key(key: Key) -> dict[str, Any]:
    return {**key.as_dict(), "scopes": list(key.scopes)}


def _project(project: Project) -> dict[str, Any]:
    return {**project.as_dict(), "quotas": project.quotas.as_dict()}
