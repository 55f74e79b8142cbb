"""The contract of Riza's Code Interpreter API, as its clients rely on it: the same paths, shapes and leniency.

A program that fails is a 200 with its exit code, which is never negative: its clients run a request again that fails otherwise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import jsonschema
from fastapi import APIRouter, Depends, Query, Request

from ...errors import InvalidRequest
from ...protocol.credentials import Basic, Bearer, Header
from ...protocol.credentials import Query as QueryCredential
from ...protocol.execution import ExecutionRequest
from ...protocol.limits import Limits, MiB
from ...protocol.network import Allow, Network
from ..auth import caller_of
from ..faults import Fault
from ..service import Service
from ..store.keeping import Caller, Execution, Tool
from . import riza_types as riza

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...protocol.credentials import Credential
    from ...protocol.execution import ExecutionResult
    from ...runtimes.functions import FunctionResult

#: As the documentation of that API had them, and what this one lets callers ask for.
TIMEOUT_SECONDS, MEMORY_MIB, MOST_SECONDS, MOST_MIB = 30, 128, 900, 4096
STDOUT_BYTES = 20 * MiB
# An interpreter of V8 holds more than a small program before its first line.
_V8_MIB = 128
_PAGE = 100

router = APIRouter()
Thing = TypeVar("Thing")
Asker = Annotated[Caller, Depends(caller_of)]
Limit = Annotated[int, Query(ge=0, le=_PAGE)]


def service_of(request: Request) -> Service:
    """Return the service behind the application."""
    service: Service = request.app.state.service
    return service


Behind = Annotated[Service, Depends(service_of)]


@router.post("/v1/execute")
def execute(body: riza.ExecRequest, caller: Asker, service: Behind) -> dict[str, Any]:
    """Run a script."""
    request = _request(service, body, body.language, body.code).replace(args=body.args, stdin=body.stdin)
    return service.script(caller, request, _kept(body), _exec_result)


@router.post("/v1/execute-function")
def execute_function(body: riza.ExecFuncRequest, caller: Asker, service: Behind) -> dict[str, Any]:
    """Run a function."""
    request = _request(service, body, body.language, body.code)
    return service.function(caller, request, body.input, body.language, _kept(body), _func_result)


@router.post("/v1/tools")
def create_tool(body: riza.ToolCreate, caller: Asker, service: Behind) -> dict[str, Any]:
    """Keep a function. Its code is not looked at."""
    return _tool(service.store.add_tool(caller.project_id, body.model_dump()))


@router.post("/v1/tools/{tool_id}")
def update_tool(tool_id: str, body: riza.ToolUpdate, caller: Asker, service: Behind) -> dict[str, Any]:
    """Make a new revision of a tool."""
    changes = {name: value for name, value in body.model_dump().items() if value is not None}
    changed = service.store.change_tool(caller.project_id, service.known(tool_id), changes)
    return _tool(_found(changed, "tool", tool_id))


@router.get("/v1/tools")
def list_tools(
    caller: Asker, service: Behind, limit: Limit = _PAGE, starting_after: str | None = None
) -> dict[str, Any]:
    """List tools."""
    return {
        "tools": [_tool(each) for each in service.store.tools(caller.project_id, limit=limit, after=starting_after)]
    }


@router.get("/v1/tools/{tool_id}")
def get_tool(tool_id: str, caller: Asker, service: Behind) -> dict[str, Any]:
    """Give one."""
    return _tool(_found(service.store.tool(caller.project_id, service.known(tool_id)), "tool", tool_id))


@router.post("/v1/tools/{tool_id}/execute")
def execute_tool(tool_id: str, body: riza.ToolExec, caller: Asker, service: Behind) -> dict[str, Any]:
    """Run a tool, as it is or as it was."""
    known = service.known(tool_id)
    tool = _found(service.store.tool(caller.project_id, known, body.revision_id or None), "tool", tool_id)
    _check_input(tool, body.input)

    def secret(name: str) -> str:
        return _found(service.store.secret(caller.project_id, service.known(name)), "secret", name)

    request = ExecutionRequest(
        code=tool.code, language=service.language(tool.language, tool.runtime_revision_id),
        env={each.name: secret(each.secret_id) if each.secret_id else each.value for each in body.env},
        limits=_limits(None, tool.language), network=_network(body.http, [], secret),
    )  # fmt: skip
    return service.function(caller, request, body.input, tool.language, _kept(body), _func_result, tool=tool.id)


@router.post("/v1/secrets")
def create_secret(body: riza.SecretCreate, caller: Asker, service: Behind) -> dict[str, Any]:
    """Keep a secret. Nothing gives it back."""
    return {"id": service.store.add_secret(caller.project_id, body.name, body.value), "name": body.name}


@router.get("/v1/secrets")
def list_secrets(
    caller: Asker, service: Behind, limit: Limit = _PAGE, starting_after: str | None = None
) -> dict[str, Any]:
    """List the names of secrets."""
    found = service.store.secrets(caller.project_id, limit=limit, after=starting_after)
    return {"secrets": [{"id": each, "name": name} for each, name in found]}


@router.get("/v1/executions")
def list_executions(
    caller: Asker, service: Behind, limit: Limit = _PAGE, starting_after: str | None = None,
    only_non_zero_exit_codes: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """List executions, the newest first."""
    found = service.store.executions(
        caller.project_id, limit=limit, after=starting_after, only_failed=only_non_zero_exit_codes
    )
    return {"data": [_execution(each) for each in found]}


@router.get("/v1/executions/{execution_id}")
def get_execution(execution_id: str, caller: Asker, service: Behind) -> dict[str, Any]:
    """Give one, with what was asked and answered."""
    found = _found(service.store.execution(caller.project_id, execution_id), "execution", execution_id)
    details = {"type": found.kind, "request": found.request, "response": found.response}
    return _execution(found) | {"details": details | ({"tool_id": found.tool_id} if found.tool_id else {})}


def _found(thing: Thing | None, kind: str, name: str) -> Thing:
    if thing is None:
        raise Fault(404, f"there is no {kind} {name!r}")
    return thing


def _request(
    service: Service, body: riza.ExecRequest | riza.ExecFuncRequest, language: str, code: str
) -> ExecutionRequest:
    for name, value in body.env.items():
        if len(name) > riza.NAME_BYTES or len(value) > riza.VALUE_BYTES:
            raise Fault(400, f"env: {name[:40]!r} or its value is too long")
    return ExecutionRequest(
        code=code, language=service.language(language, body.runtime_revision_id), env=body.env,
        files={each.path: each.contents for each in body.files}, limits=_limits(body.limits, language),
        network=_network(body.http, body.allow_http_hosts, None),
    )  # fmt: skip


def _limits(asked: riza.RequestedLimits | None, language: str) -> Limits:
    seconds = (asked and asked.execution_timeout) or TIMEOUT_SECONDS
    mib = (asked and asked.memory_size) or MEMORY_MIB
    if not 0 < seconds <= MOST_SECONDS or not 0 < mib <= MOST_MIB:
        raise Fault(400, f"limits: execution_timeout is up to {MOST_SECONDS} seconds, memory_size up to {MOST_MIB} MiB")
    mib = max(mib, 16) + (_V8_MIB if language in ("javascript", "typescript") else 0)
    return Limits(
        wall_seconds=float(seconds), cpu_seconds=2.0 * seconds, memory_bytes=mib * MiB, output_bytes=STDOUT_BYTES,
        disk_bytes=min(mib, 128) * MiB,
    )  # fmt: skip


def _network(http: riza.Http | None, hosts: list[str], secret: Callable[[str], str] | None) -> Network:
    rules: dict[str, Allow] = {}
    for each in http.allow if http is not None else []:
        if not each.host:
            continue
        rule = Allow.parse(each.host)
        credential = _credential(each.auth, secret) if each.auth is not None else None
        # Of several for one host the first with a credential counts: its clients sent such lists, and were served.
        if rule.host not in rules or (rules[rule.host].credential is None and credential is not None):
            rules[rule.host] = rule.replace(credential=credential)
    for host in hosts:
        rule = Allow.parse(host)
        rules.setdefault(rule.host, rule)
    return Network(allow=tuple(rules.values()))


def _credential(auth: riza.Auth, secret: Callable[[str], str] | None) -> Credential | None:
    given = next((each for each in (auth.basic, auth.bearer, auth.header, auth.query) if each is not None), None)
    if given is None:
        return None
    if given.secret_id and secret is None:
        raise InvalidRequest("auth: secret_id is for tools; a script or a function is given the secret itself")
    text = secret(given.secret_id) if given.secret_id and secret is not None else given.secret
    if not text:
        return None  # a variable of the caller's that was not set
    if auth.basic is not None:
        return Basic(user=given.user_id, password=text)
    if auth.bearer is not None:
        return Bearer(token=text)
    if auth.header is not None:
        return Header(name=given.name, value=text)
    return QueryCredential(key=given.key, value=text)


def _check_input(tool: Tool, value: Any) -> None:
    try:
        jsonschema.validate(value, tool.input_schema)
    except jsonschema.ValidationError as error:
        place = error.json_path.removeprefix("$").lstrip(".")
        raise Fault(400, f"input{f' at {place}' if place else ''}: {error.message[:300]}") from error
    except jsonschema.SchemaError as error:
        raise Fault(400, f"input_schema of tool {tool.name!r} is no JSON Schema: {error.message[:300]}") from error


def _exec_result(execution: str, result: ExecutionResult) -> dict[str, Any]:
    # The reason that it was ended for is nowhere else in this contract.
    why = f"{result.reason.replace('_', ' ')}: {result.detail}\n" if result.reason != "exited" else ""
    return {
        "id": execution, "exit_code": result.exit_code, "stdout": result.stdout, "stderr": result.stderr + why,
        "duration": round(result.duration_seconds * 1000),
    }  # fmt: skip


def _func_result(execution: str, result: ExecutionResult, returned: FunctionResult) -> dict[str, Any]:
    return {
        "execution": _exec_result(execution, result), "output": returned.output, "output_status": returned.status,
    }  # fmt: skip


def _tool(tool: Tool) -> dict[str, Any]:
    values = tool.as_dict()
    return {name: value for name, value in values.items() if name != "runtime_revision_id" or value}


def _execution(found: Execution) -> dict[str, Any]:
    return {
        "id": found.id, "duration": found.duration_ms, "exit_code": found.exit_code, "language": found.language,
        "started_at": found.started_at,
    }  # fmt: skip


def _kept(body: riza.Lenient) -> dict[str, Any]:
    """Return a request as it is kept: what was said, without credentials."""
    asked: dict[str, Any] = _said(body.model_dump())
    for host in (asked.get("http") or {}).get("allow", []):
        for auth in (host.get("auth") or {}).values():
            auth.update(dict.fromkeys(auth.keys() & {"token", "value", "password"}, "***"))
    return asked


def _said(value: Any) -> Any:
    """Return a value without what is empty in it."""
    if isinstance(value, dict):
        return {name: _said(each) for name, each in value.items() if each not in (None, "", [], {}) or name == "code"}
    return [_said(each) for each in value] if isinstance(value, list) else value
