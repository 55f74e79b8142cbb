"""Forms that change something, each sent with its visit's token; the API's own functions do the work."""

from __future__ import annotations

import json

import pydantic
from fastapi import APIRouter
from starlette.responses import RedirectResponse, Response

from ..behind import Behind
from ..doors import native, riza, riza_types, tenants
from ..doors.native_types import KeyBody
from ..faults import Fault, fault_of, lacking
from ..store.common import SCOPES
from ..store.keys import new_key
from .pages import keys_page, tool_of, tool_page
from .render import render
from .visiting import Keeping, Managing, Page, Running

_DOOR = "dashboard"
_MANIFESTS = {"python": "requirements.txt", "javascript": "package.json"}
router = APIRouter(route_class=Page, include_in_schema=False)


@router.post("/secrets")
def add_secret(form: Managing, service: Behind) -> Response:
    """Keep a secret."""
    name, value = form.get("name").strip(), form.get("value")
    if not name or not value:
        raise Fault(400, "a secret needs a name and a value")
    riza.create_secret(riza_types.SecretCreate(name=name, value=value), form.visitor.caller, service)
    return RedirectResponse("/secrets", 303)


@router.post("/secrets/{secret_id}/delete")
def delete_secret(secret_id: str, form: Managing, service: Behind) -> Response:
    """Forget one."""
    native.delete_secret(secret_id, form.visitor.caller, service)
    return RedirectResponse("/secrets", 303)


@router.post("/keys")
def make_key(form: Keeping, service: Behind) -> Response:
    """Make a key, and show it this once: there is no page to come back to."""
    scopes = [each for each in SCOPES if form.get(f"scope-{each}")]
    try:
        body = KeyBody.model_validate({"name": form.get("name").strip(), "scopes": scopes})
    except pydantic.ValidationError as error:
        raise Fault(400, "a key needs a name of 1 to 200 characters") from error
    key = new_key()
    try:
        service.store.keys.add(form.visitor.caller, key, body.name, body.scopes, form.visitor.caller.project_id)
    except Exception as error:
        fault = fault_of(error)
        if fault.status != 400:
            raise
        return _with_status(keys_page(service, form.visitor, problem=fault.message), 400)
    return keys_page(service, form.visitor, fresh=key)


@router.post("/keys/{key_id}/revoke")
def revoke_key(key_id: str, form: Keeping, service: Behind) -> Response:
    """Revoke one; whose own it was is sent to the log-in by the next page."""
    tenants.revoke_key(key_id, form.visitor.caller, service)
    return RedirectResponse("/keys", 303)


@router.post("/runtimes")
def make_runtime(form: Managing, service: Behind) -> Response:
    """Have a runtime built."""
    name, language = form.get("name").strip(), form.get("language")
    if not name or language not in _MANIFESTS:
        raise Fault(400, f"a runtime needs a name, and one of the languages {', '.join(_MANIFESTS)}")
    manifest = riza_types.ManifestFile.model_validate({"name": _MANIFESTS[language], "contents": form.get("manifest")})
    body = riza_types.RuntimeCreate.model_validate({"name": name, "language": language, "manifest_file": manifest})
    try:
        made = riza.create_runtime(body, form.visitor.caller, service)
    except Exception as error:
        fault = fault_of(error)
        if fault.status != 400:
            raise
        may_read = form.visitor.caller.may("read")
        listed = service.store.runtimes.listed(form.visitor.caller.project_id, limit=500) if may_read else []
        page = render("runtimes.html", form.visitor, runtimes=listed, problem=fault.message, given=form.values)
        return _with_status(page, 400)
    return RedirectResponse(f"/runtimes/{json.loads(bytes(made.body))['id']}", 303)


@router.post("/runtimes/{runtime_id}/delete")
def delete_runtime(runtime_id: str, form: Managing, service: Behind) -> Response:
    """Remove one."""
    riza.delete_runtime(runtime_id, form.visitor.caller, service)
    return RedirectResponse("/runtimes", 303)


@router.post("/tools/{tool_id}")
def run_tool(tool_id: str, form: Running, service: Behind) -> Response:
    """Run a tool on the input that was written, and show what came of it, beside its code."""
    if not form.visitor.caller.may("read"):
        raise lacking("read")  # to see the tool's page
    tool, text = tool_of(service, form.visitor, tool_id), form.get("input")
    try:
        body = riza_types.ToolExec(input=json.loads(text) if text.strip() else None)
        outcome = riza.run_tool(service, form.visitor.caller, tool, body, _DOOR)
    except json.JSONDecodeError as error:
        problem, status = f"the input is no JSON: {error}", 400
    except Exception as error:  # noqa: BLE001 - shown beside what was written
        problem, status = fault_of(error).message, fault_of(error).status
    else:
        return tool_page(service, form.visitor, tool, input=text, outcome=outcome)
    return _with_status(tool_page(service, form.visitor, tool, input=text, problem=problem), status)


def _with_status(answer: Response, status: int) -> Response:
    answer.status_code = status
    return answer
