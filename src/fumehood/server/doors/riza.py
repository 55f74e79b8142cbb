"""The contract of Riza's Code Interpreter API, as its clients rely on it: the same paths, shapes and leniency.

A program that fails is a 200 with its exit code, which is never negative: its clients run a request again that fails otherwise.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import AfterValidator

from ...errors import InvalidRequest
from ...protocol.credentials import Basic, Bearer, Header
from ...protocol.credentials import Query as QueryCredential
from ...protocol.execution import ExecutionRequest
from ...protocol.limits import Limits, MiB
from ...protocol.network import Allow, Network
from ...runtimes import revisions
from .. import schemas
from ..answers import Json
from ..auth import Executing, Managing, Reading, caller_of
from ..behind import Behind
from ..description import error_responses
from ..faults import Fault, found
from ..service import Asked
from . import riza_types as riza
from .leaving import unless_gone

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from ...protocol.credentials import Credential
    from ...protocol.execution import ExecutionResult
    from ...runtimes.functions import FunctionResult
    from ..service import Service
    from ..store.common import Caller
    from ..store.executions import Execution
    from ..store.runtimes import Revision, Runtime
    from ..store.tools import Tool

#: As the documentation of that API had them, and what this one lets callers ask for.
TIMEOUT_SECONDS, MEMORY_MIB, MOST_SECONDS, MOST_MIB = 30, 128, 900, 4096
STDOUT_BYTES = 20 * MiB
# An interpreter of V8 holds more than a small program before its first line.
_V8_MIB = 128
# Two MiB, less what is there anyway.
_COMMAND_BYTES = 2000 << 10
_PAGE = 100
#: Of one project, how many revisions may wait to be built.
_BUILDS = 20

# Names of variables whose values are not kept.
_SECRETIVE = re.compile(
    r"KEY|TOKEN|SECRET|PASS|PWD|AUTH|CRED|DSN|COOKIE|SESSION|CERT|PRIVATE|_URL$|_URI$", re.IGNORECASE
)
_DOOR = "riza"
Limit = Annotated[int, Query(ge=0, le=_PAGE)]
# Clients that have no last id send an empty one. No id has a NUL, and a database takes none.
After = Annotated[str | None, AfterValidator(lambda value: (value or "").replace("\0", "") or None)]


class _SaysWhatItWants(APIRoute):
    """Who has no key hears that and nothing else. Where a body could not be read for its content type, that is named: curl's own is
    that of forms.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return what answers."""
        handle = super().get_route_handler()

        async def handled(request: Request) -> Response:
            try:
                return await handle(request)
            except RequestValidationError as error:
                if any(each["type"] == "json_invalid" for each in error.errors()):
                    await caller_of(request)  # bodies are read before dependencies are
                kind = request.headers.get("content-type", "")
                if request.method == "POST" and "json" not in kind.lower():
                    raise Fault(400, f"content-type is {kind!r}: send application/json") from error
                raise

        return handled


router = APIRouter(tags=["Riza"], route_class=_SaysWhatItWants)


@router.post("/v1/execute", responses=error_responses(404))
async def execute(body: riza.ExecRequest, asker: Request, caller: Executing, service: Behind) -> Json:
    """Run a script. Its caller's going away ends it."""

    def work(cancel: int) -> Json:
        request = _request(service, caller, body, body.language, body.code).replace(args=body.args, stdin=body.stdin)
        return Json(service.run(caller, _asked(body, "script", body.language), request, _exec_result, cancel=cancel))

    return await unless_gone(asker, service, work)


@router.post("/v1/execute-function", responses=error_responses(404))
async def execute_function(body: riza.ExecFuncRequest, asker: Request, caller: Executing, service: Behind) -> Json:
    """Run a function. Its caller's going away ends it."""

    def work(cancel: int) -> Json:
        request = _request(service, caller, body, body.language, body.code)
        asked = _asked(body, "function", body.language)
        return Json(service.run_function(caller, asked, request, body.input, _func_result, cancel=cancel))

    return await unless_gone(asker, service, work)


@router.post("/v1/tools")
def create_tool(body: riza.ToolCreate, caller: Managing, service: Behind) -> Json:
    """Keep a function. Its code is not looked at."""
    service.gate.storing(caller)
    return Json(_tool(service.store.tools.add(caller, body.model_dump())))


@router.post("/v1/tools/{tool_id}")
def update_tool(tool_id: str, body: riza.ToolUpdate, caller: Managing, service: Behind) -> Json:
    """Make a new revision of a tool."""
    service.gate.storing(caller)
    changes = {name: value for name, value in body.model_dump().items() if value is not None}
    return Json(_tool(found(service.store.tools.change(caller, service.known(tool_id), changes), "tool", tool_id)))


@router.get("/v1/tools")
def list_tools(caller: Reading, service: Behind, limit: Limit = _PAGE, starting_after: After = None) -> Json:
    """List tools."""
    listed = service.store.tools.listed(caller.project_id, limit=limit, after=starting_after)
    return Json({"tools": [_tool(each) for each in listed]})


@router.get("/v1/tools/{tool_id}")
def get_tool(tool_id: str, caller: Reading, service: Behind) -> Json:
    """Give one."""
    return Json(_tool(found(service.store.tools.get(caller.project_id, service.known(tool_id)), "tool", tool_id)))


@router.post("/v1/tools/{tool_id}/execute")
async def execute_tool(tool_id: str, body: riza.ToolExec, asker: Request, caller: Executing, service: Behind) -> Json:
    """Run a tool, as it is or as it was. Its caller's going away ends it."""

    def work(cancel: int) -> Json:
        kept = service.store.tools.get(caller.project_id, service.known(tool_id), body.revision_id or None)
        return Json(run_tool(service, caller, found(kept, "tool", tool_id), body, cancel=cancel))

    return await unless_gone(asker, service, work)


def run_tool(
    service: Service, caller: Caller, tool: Tool, body: riza.ToolExec, door: str = _DOOR, cancel: int | None = None
) -> dict[str, Any]:
    """Run a tool and return what this contract answers."""
    given = {} if body.input == [] and tool.input_schema.get("type") == "object" else body.input
    schemas.check(tool.input_schema, given)

    def secret(name: str) -> str:
        return found(service.store.secrets.text(caller.project_id, service.known(name)), "secret", name)

    request = ExecutionRequest(
        code=tool.code, language=service.language(caller, tool.language, tool.runtime_revision_id),
        env={each.name: secret(each.secret_id) if each.secret_id else each.value for each in body.env},
        limits=_limits(None, tool.language), network=_network(body.http, [], secret),
    )  # fmt: skip
    asked = _asked(body, "tool", tool.language).replace(tool_id=tool.id, door=door)
    return service.run_function(caller, asked, request, given, _func_result, cancel=cancel)


@router.post("/v1/secrets")
def create_secret(body: riza.SecretCreate, caller: Managing, service: Behind) -> Json:
    """Keep a secret. Nothing gives it back."""
    service.gate.storing(caller)
    made = service.store.secrets.add(caller, body.name, body.value)
    return Json({"id": made.id, "name": made.name})


@router.get("/v1/secrets")
def list_secrets(caller: Reading, service: Behind, limit: Limit = _PAGE, starting_after: After = None) -> Json:
    """List the names of secrets."""
    listed = service.store.secrets.listed(caller.project_id, limit=limit, after=starting_after)
    return Json({"secrets": [{"id": each.id, "name": each.name} for each in listed]})


@router.post("/v1/runtimes")
def create_runtime(body: riza.RuntimeCreate, caller: Managing, service: Behind) -> Json:
    """Keep a runtime, which is built in the background."""
    _check_builds(service, caller)
    manifest = _manifest(body.manifest_file, body.language)
    imports = body.additional_python_imports
    made = service.store.runtimes.add(caller, body.name, body.language, body.engine, manifest, imports)
    service.builder.look()
    return Json(_runtime(made))


@router.get("/v1/runtimes")
def list_runtimes(caller: Reading, service: Behind, limit: Limit = _PAGE, starting_after: After = None) -> Json:
    """List runtimes."""
    listed = service.store.runtimes.listed(caller.project_id, limit=limit, after=starting_after)
    return Json({"runtimes": [_runtime(each) for each in listed]})


@router.get("/v1/runtimes/{runtime_id}")
def get_runtime(runtime_id: str, caller: Reading, service: Behind) -> Json:
    """Give one; its status is that of its newest revision."""
    return Json(_runtime(_runtime_of(service, caller, runtime_id)))


@router.delete("/v1/runtimes/{runtime_id}")
def delete_runtime(runtime_id: str, caller: Managing, service: Behind) -> Json:
    """Remove a runtime with all its revisions."""
    gone = found(service.store.runtimes.delete(caller, service.known(runtime_id)), "runtime", runtime_id)
    for each in gone:
        service.builder.remove(each)
    return Json({"id": runtime_id, "deleted": True})


@router.post("/v1/runtimes/{runtime_id}/revisions")
def create_revision(runtime_id: str, body: riza.RevisionCreate, caller: Managing, service: Behind) -> Json:
    """Keep a new revision of a runtime, which is built in the background."""
    _check_builds(service, caller)
    runtime = _runtime_of(service, caller, runtime_id)
    manifest = _manifest(body.manifest_file, runtime.language)
    made = service.store.runtimes.revise(caller, runtime.id, manifest, body.additional_python_imports)
    service.builder.look()
    return Json(_revision(found(made, "runtime", runtime_id)))


@router.get("/v1/runtimes/{runtime_id}/revisions")
def list_revisions(runtime_id: str, caller: Reading, service: Behind) -> Json:
    """List a runtime's revisions, all of them."""
    runtime = _runtime_of(service, caller, runtime_id)
    return Json(
        {"revisions": [_revision(each) for each in service.store.runtimes.revisions(caller.project_id, runtime.id)]}
    )


@router.get("/v1/runtimes/{runtime_id}/revisions/{revision_id}")
def get_revision(runtime_id: str, revision_id: str, caller: Reading, service: Behind) -> Json:
    """Give one."""
    return Json(_revision(revision_of(service, caller, runtime_id, revision_id)))


def revision_of(service: Service, caller: Caller, runtime_id: str, revision_id: str) -> Revision:
    """Return a revision of a runtime. Raises a 404."""
    kept = service.store.runtimes.revision(caller.project_id, service.known(revision_id))
    if kept is None or kept.runtime_id != service.known(runtime_id):
        raise Fault(404, f"runtime {runtime_id!r} has no revision {revision_id!r}")
    return kept


@router.get("/v1/executions")
def list_executions(
    caller: Reading, service: Behind, limit: Limit = _PAGE, starting_after: After = None,
    only_non_zero_exit_codes: bool = False, all_doors: Annotated[bool, Query(alias="all")] = False,
) -> Json:  # fmt: skip
    """List executions, the newest first; with `all` those of other doors than this contract's too."""
    listed = service.store.executions.listed(
        caller.project_id, limit=limit, after=starting_after, only_failed=only_non_zero_exit_codes,
        door=None if all_doors else _DOOR,
    )  # fmt: skip
    more = ("door", "kind", "reason", "cpu_ms", "tool_id", "session_id") if all_doors else ()
    return Json({"data": [_execution(each) | {name: getattr(each, name) for name in more} for each in listed]})


@router.get("/v1/executions/{execution_id}")
def get_execution(execution_id: str, caller: Reading, service: Behind) -> Json:
    """Give one, with what was asked and answered."""
    kept = found(service.store.executions.get(caller.project_id, execution_id), "execution", execution_id)
    details = {"type": kept.kind, "request": kept.request, "response": kept.response}
    return Json(_execution(kept) | {"details": details | ({"tool_id": kept.tool_id} if kept.tool_id else {})})


def _asked(body: riza.Lenient, kind: str, language: str) -> Asked:
    return Asked(door=_DOOR, kind=kind, request=_kept(body), language=language)


def _runtime_of(service: Service, caller: Caller, name: str) -> Runtime:
    return found(service.store.runtimes.get(caller.project_id, service.known(name)), "runtime", name)


def _check_builds(service: Service, caller: Caller) -> None:
    service.gate.storing(caller)
    if service.store.runtimes.waiting(caller.project_id) >= _BUILDS:
        raise Fault(429, f"{_BUILDS} builds of the project wait: come again when one has ended", retry_after=30)


def _manifest(file: riza.ManifestFile, language: str) -> tuple[str, str]:
    wanted = {"python": "requirements.txt", "javascript": "package.json"}[language]
    if file.name != wanted:
        raise Fault(400, f"manifest_file: a runtime of {language} is made from {wanted}, not {file.name}")
    revisions.check_manifest(file.name, file.contents)
    return file.name, file.contents


def _runtime(runtime: Runtime) -> dict[str, Any]:
    revision = runtime.revision
    said = {
        "id": runtime.id, "engine": runtime.engine, "language": runtime.language, "name": runtime.name,
        "revision_id": revision.id, "status": revision.status, "manifest_file": _manifest_file(revision),
    }  # fmt: skip
    return said | ({"additional_python_imports": revision.python_imports} if revision.python_imports else {})


def _revision(revision: Revision) -> dict[str, Any]:
    said = {
        "id": revision.id, "manifest_file": _manifest_file(revision), "runtime_id": revision.runtime_id,
        "status": revision.status,
    }  # fmt: skip
    return said | ({"additional_python_imports": revision.python_imports} if revision.python_imports else {})


def _manifest_file(revision: Revision) -> dict[str, str]:
    return {"name": revision.manifest_name, "contents": revision.manifest}


def _request(
    service: Service, caller: Caller, body: riza.ExecRequest | riza.ExecFuncRequest, language: str, code: str
) -> ExecutionRequest:
    _check_command(language, [*body.env, *body.env.values(), *getattr(body, "args", [])])
    return ExecutionRequest(
        code=code, language=service.language(caller, language, body.runtime_revision_id), env=body.env,
        files={each.path: each.contents for each in body.files}, limits=_limits(body.limits, language),
        network=_network(body.http, body.allow_http_hosts, None),
    )  # fmt: skip


def _check_command(language: str, texts: list[str]) -> None:
    # The kernel starts no program with more than a quarter of its stack's limit. Python's are forked, and may have all of it.
    if language != "python" and sum(len(each.encode("utf-8", "replace")) + 9 for each in texts) > _COMMAND_BYTES:
        raise Fault(
            400, f"args and env: together they hold more than {_COMMAND_BYTES} bytes, which only Python can be given"
        )


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


def _execution(kept: Execution) -> dict[str, Any]:
    return {
        "id": kept.id, "duration": kept.duration_ms, "exit_code": kept.exit_code, "language": kept.language,
        "started_at": kept.started_at,
    }  # fmt: skip


def _kept(body: riza.Lenient) -> dict[str, Any]:
    """Return a request as it is kept: what was said, without credentials."""
    asked: dict[str, Any] = body.model_dump(exclude_unset=True, exclude_none=True)
    if "input" in body.model_fields_set:
        asked["input"] = getattr(body, "input")  # noqa: B009 - of scripts' requests, which have none, it is not set
    if "language" in type(body).model_fields:
        asked["language"] = getattr(body, "language")  # noqa: B009 - likewise
    for host in (asked.get("http") or {}).get("allow", []):
        for auth in (host.get("auth") or {}).values():
            auth.update(dict.fromkeys(auth.keys() & {"token", "value", "password"}, "***"))
    env = asked.get("env")
    if isinstance(env, dict):
        env.update(dict.fromkeys(filter(_SECRETIVE.search, env), "***"))
    for each in env if isinstance(env, list) else ():
        if each.get("value") and _SECRETIVE.search(each["name"]):
            each["value"] = "***"
    return asked
