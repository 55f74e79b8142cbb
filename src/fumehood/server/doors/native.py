"""Our own API for programs: executions with files out, streamed where it is asked for, and many in one call."""

from __future__ import annotations

import asyncio
import contextlib
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse, StreamingResponse

from ...protocol import wire
from ...runtimes import languages
from ..answers import Json, event
from ..auth import Executing, Managing, Reading
from ..behind import Behind
from ..bounds import weight
from ..faults import Fault, fault_of, found
from ..happenings import Happenings
from ..service import Asked
from ..watching import carried
from .leaving import is_readable, unless_gone
from .native_types import BatchBody, ExecutionBody
from .riza import revision_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ..service import Service
    from ..store.common import Caller

_DOOR = "native"
#: Of one call's programs, how many run at one time.
_BESIDE = min(32, 4 * (os.cpu_count() or 1))
#: What one call's results may hold before its other programs are left out.
_BATCH_CHARACTERS = 256 << 20
STREAM = "text/event-stream"
router = APIRouter(tags=["Executions"])


@router.get("/v1/languages")
def list_languages(_caller: Reading) -> Json:
    """List the languages that programs may be written in; a runtime's revision is one too, by its id."""
    return Json({"languages": list(languages())})


@router.post("/v1/executions")
async def execute(body: ExecutionBody, request: Request, caller: Executing, service: Behind) -> Response:
    """Run a program. With `Accept: text/event-stream` its output is streamed. Its caller's going away ends it."""
    if wants_stream(request):
        return StreamingResponse(_streamed(service, caller, body), media_type=STREAM, headers=STREAM_HEADERS)
    return await unless_gone(request, service, lambda cancel: Json(run(service, caller, body, _DOOR, cancel=cancel)))


@router.post("/v1/batches")
async def execute_all(body: BatchBody, request: Request, caller: Executing, service: Behind) -> Json:
    """Run programs beside one another; answer with each one's result, or its error, in their order. Its caller's going away ends
    those that run, and the others do not begin.
    """
    return await unless_gone(request, service, lambda cancel: _all_of(service, caller, body, cancel))


def _all_of(service: Service, caller: Caller, body: BatchBody, cancel: int) -> Json:
    held = 0

    def one(program: ExecutionBody) -> dict[str, Any]:
        nonlocal held
        try:
            if held > _BATCH_CHARACTERS:
                raise Fault(413, "the results before it are as much as one answer holds: run it in another batch")
            if is_readable(cancel):
                raise Fault(503, "its caller has gone away")
            result = run(service, caller, program, _DOOR, cancel=cancel)
        except Exception as error:  # noqa: BLE001 - each program's own
            result = {"error": fault_of(error).body}
        held += weight(result)
        return result

    with ThreadPoolExecutor(min(_BESIDE, max(1, len(body.programs)))) as threads:
        running = [threads.submit(carried(one), program) for program in body.programs]
        return Json({"results": [each.result() for each in running]})


@router.delete("/v1/executions/{execution_id}")
def forget_execution(execution_id: str, caller: Managing, service: Behind) -> Json:
    """Forget an execution."""
    found(service.store.executions.delete(caller, execution_id), "execution", execution_id)
    return Json({"id": execution_id, "deleted": True})


@router.delete("/v1/tools/{tool_id}")
def delete_tool(tool_id: str, caller: Managing, service: Behind) -> Json:
    """Remove a tool with all its revisions."""
    found(service.store.tools.delete(caller, service.known(tool_id)), "tool", tool_id)
    return Json({"id": tool_id, "deleted": True})


@router.delete("/v1/secrets/{secret_id}")
def delete_secret(secret_id: str, caller: Managing, service: Behind) -> Json:
    """Forget a secret."""
    found(service.store.secrets.delete(caller, service.known(secret_id)), "secret", secret_id)
    return Json({"id": secret_id, "deleted": True})


@router.get("/v1/runtimes/{runtime_id}/revisions/{revision_id}/log")
def build_log(runtime_id: str, revision_id: str, caller: Reading, service: Behind) -> PlainTextResponse:
    """Give what the builder of a revision has said so far."""
    return PlainTextResponse(revision_of(service, caller, runtime_id, revision_id).log)


@router.get("/v1/executions/{execution_id}/connections")
def list_connections(execution_id: str, caller: Reading, service: Behind) -> Json:
    """List the connections that an execution made or tried."""
    found(service.store.executions.get(caller.project_id, execution_id), "execution", execution_id)
    listed = service.store.executions.connections(caller.project_id, limit=200, execution=execution_id)
    return Json({"connections": [each.as_dict() for each in listed]})


STREAM_HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}


def wants_stream(request: Request) -> bool:
    """Whether a request asks for server-sent events."""
    return STREAM in request.headers.get("accept", "")


def run(service: Service, caller: Caller, body: ExecutionBody, door: str, **listening: Any) -> dict[str, Any]:
    """Run a program and return its result as JSON."""
    request = body.request(service.language(caller, body.language))
    asked = Asked(door=door, kind="execution", request=body.kept(), language=body.language)
    return service.run(caller, asked, request, lambda name, result: wire.result_as_json(result, name), **listening)


async def _streamed(service: Service, caller: Caller, body: ExecutionBody) -> AsyncIterator[str]:
    happenings, cancel = Happenings(), os.eventfd(0, os.EFD_CLOEXEC)

    def hear(stream: str, piece: bytes) -> None:
        happenings.add("output", {"stream": stream, **wire.data_as_json(piece)})

    def work() -> None:
        try:
            happenings.add("result", run(service, caller, body, _DOOR, on_output=hear, cancel=cancel))
        except Exception as error:  # noqa: BLE001 - told to the caller
            fault = fault_of(error)
            happenings.add("error", {**fault.body, "status": fault.status})
        finally:
            happenings.end()

    working = asyncio.get_running_loop().run_in_executor(service.threads, carried(work))
    try:
        async with contextlib.aclosing(happenings.follow()) as news:
            async for number, happening in news:
                yield ": still here\n\n" if happening is None else event(*happening, number)
    finally:
        os.eventfd_write(cancel, 1)
        # Its descriptor is there until the execution has seen it, whoever has gone away.
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.shield(working)
        working.add_done_callback(lambda _done: os.close(cancel))
