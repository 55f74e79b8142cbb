"""Our own API for sessions: cells that share state, their events streamed and read again, files, forks and checkpoints."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Header, Request, Response
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from ...engine import SESSION_LIMITS
from ...errors import InvalidFilePath, InvalidRequest
from ..answers import Json, event
from ..auth import Executing, Reading
from ..behind import Behind
from ..description import error_responses
from ..faults import Fault
from ..watching import carried
from .native import STREAM, STREAM_HEADERS, wants_stream
from .native_types import CellBody, ForkBody, LimitsBody, NetworkBody, RestoreBody, SessionBody, laid

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ..live_sessions import Cell

_DOOR = "native"
router = APIRouter(prefix="/v1/sessions", tags=["Sessions"])


@router.post("")
def create(body: SessionBody, caller: Executing, service: Behind) -> Json:
    """Begin a session."""
    live = service.sessions.create(
        caller, body.language, limits=(body.limits or LimitsBody()).limits(SESSION_LIMITS), env=body.env,
        files=laid(body.files), network=None if body.network is None else body.network.network(),
        idle_seconds=body.idle_seconds, lifetime_seconds=body.lifetime_seconds,
    )  # fmt: skip
    return Json(live.as_json())


@router.get("")
def listed(caller: Reading, service: Behind) -> Json:
    """List the project's sessions."""
    return Json({"sessions": [each.as_json() for each in service.sessions.listed(caller)]})


@router.get("/{session_id}")
def get(session_id: str, caller: Reading, service: Behind) -> Json:
    """Give one's state."""
    return Json(service.sessions.get(caller, session_id).as_json())


@router.delete("/{session_id}")
def delete(session_id: str, caller: Executing, service: Behind) -> Json:
    """End one."""
    service.sessions.delete(caller, session_id)
    return Json({"id": session_id, "deleted": True})


@router.post("/{session_id}/cells")
async def run(session_id: str, body: CellBody, request: Request, caller: Executing, service: Behind) -> Response:
    """Run a cell. With `Accept: text/event-stream` its events are streamed; its caller's going away leaves it running."""
    live = service.sessions.get(caller, session_id)
    begin = carried(partial(service.sessions.run, caller, live, body.code, body.timeout, _DOOR))
    cell = await asyncio.get_running_loop().run_in_executor(service.threads, begin)
    if wants_stream(request):
        return StreamingResponse(_streamed(cell, 0), media_type=STREAM, headers=STREAM_HEADERS)
    # No thread waits with it: as many callers may wait as want to.
    async with contextlib.aclosing(cell.happenings.follow()) as news:
        async for _each in news:
            pass
    return Json(cell.whole())


@router.get("/{session_id}/cells/{cell_id}", responses=error_responses(400, 409))
def get_cell(session_id: str, cell_id: str, caller: Reading, service: Behind) -> Json:
    """Give what came of a cell, or that it runs."""
    return Json(service.sessions.get(caller, session_id).cell(cell_id).whole())


@router.get("/{session_id}/cells/{cell_id}/events", responses=error_responses(400))
async def get_events(
    session_id: str, cell_id: str, caller: Reading, service: Behind, last_event_id: Annotated[str, Header()] = "0"
) -> Response:
    """Stream a cell's events, behind the one that `Last-Event-ID` names."""
    cell = service.sessions.get(caller, session_id).cell(cell_id)
    if not last_event_id.isascii() or not last_event_id.isdigit() or len(last_event_id) > 9:
        raise InvalidRequest(f"Last-Event-ID {last_event_id[:40]!r} is no number of an event")
    return StreamingResponse(_streamed(cell, int(last_event_id)), media_type=STREAM, headers=STREAM_HEADERS)


@router.post("/{session_id}/interrupt")
def interrupt(session_id: str, caller: Executing, service: Behind) -> Json:
    """Interrupt the cell that runs; state stays."""
    live = service.sessions.get(caller, session_id)
    live.session.interrupt()
    return Json(live.as_json())


@router.post("/{session_id}/restart")
def restart(session_id: str, caller: Executing, service: Behind) -> Json:
    """Begin it anew."""
    live = service.sessions.get(caller, session_id)
    service.sessions.begin_anew(caller, live, live.session.restart)
    return Json(live.as_json())


@router.post("/{session_id}/fork")
def fork(session_id: str, caller: Executing, service: Behind, body: ForkBody | None = None) -> Json:
    """Make copies that begin with all that it holds."""
    live = service.sessions.get(caller, session_id)
    forks = service.sessions.fork(caller, live, (body or ForkBody()).count)
    return Json({"sessions": [each.as_json() for each in forks], "session": live.as_json()})


@router.post("/{session_id}/checkpoints")
def checkpoint(session_id: str, caller: Executing, service: Behind) -> Json:
    """Remember what it holds now."""
    return Json(service.sessions.checkpoint(caller, service.sessions.get(caller, session_id)))


@router.get("/{session_id}/checkpoints")
def list_checkpoints(session_id: str, caller: Reading, service: Behind) -> Json:
    """List what is remembered."""
    return Json({"checkpoints": service.sessions.get(caller, session_id).checkpoints()})


@router.delete("/{session_id}/checkpoints/{checkpoint_id}")
def delete_checkpoint(session_id: str, checkpoint_id: str, caller: Executing, service: Behind) -> Json:
    """Give a checkpoint up."""
    service.sessions.get(caller, session_id).give_up(checkpoint_id)
    return Json({"id": checkpoint_id, "deleted": True})


@router.post("/{session_id}/restore")
def restore(session_id: str, body: RestoreBody, caller: Executing, service: Behind) -> Json:
    """Go back to a checkpoint, of this session or of another of the project."""
    live = service.sessions.get(caller, session_id)
    kept = (each.held(body.checkpoint_id) for each in service.sessions.listed(caller))
    wanted = next((each for each in kept if each is not None), None)
    if wanted is None:
        raise Fault(
            404, f"there is no checkpoint {body.checkpoint_id!r}: GET /v1/sessions/{{id}}/checkpoints lists a session's"
        )
    service.sessions.begin_anew(caller, live, lambda: live.session.restore(wanted))
    return Json(live.as_json())


@router.put("/{session_id}/network")
def set_network(session_id: str, body: NetworkBody, caller: Executing, service: Behind) -> Json:
    """Let it reach these hosts from now on and no others."""
    live, network = service.sessions.get(caller, session_id), body.network()
    service.check(live.session.limits, network)
    live.session.set_network(service.with_secrets(caller, network))
    return Json(live.as_json())


@router.get("/{session_id}/files")
def list_files(session_id: str, caller: Reading, service: Behind) -> Json:
    """List the files in its working folder."""
    sizes = service.sessions.get(caller, session_id).session.list_files()
    return Json({"files": [{"path": path, "size": size} for path, size in sorted(sizes.items())]})


@router.get("/{session_id}/files/{path:path}")
def get_file(session_id: str, path: str, caller: Reading, service: Behind) -> Response:
    """Give a file's content."""
    session = service.sessions.get(caller, session_id).session
    try:
        data = session.get_file(path)
    except InvalidFilePath as error:
        raise Fault(404, str(error), kind="InvalidFilePath") from error
    # Never as what the guest would have it be: a browser that opens it shows nothing of it.
    headers = {
        "x-content-type-options": "nosniff",
        "content-disposition": "attachment",
        "content-security-policy": "sandbox",
    }
    return Response(data, media_type="application/octet-stream", headers=headers)


@router.put("/{session_id}/files/{path:path}")
async def put_file(session_id: str, path: str, request: Request, caller: Executing, service: Behind) -> Json:
    """Lay a file into its working folder: the body is its content."""
    session, data = service.sessions.get(caller, session_id).session, await request.body()
    await run_in_threadpool(session.put_file, path, data)
    return Json({"path": path, "size": len(data)})


async def _streamed(cell: Cell, after: int) -> AsyncIterator[str]:
    yield event("cell", {"id": cell.id})
    async with contextlib.aclosing(cell.happenings.follow(after)) as news:
        async for number, happening in news:
            yield ": still here\n\n" if happening is None else event(*happening, number)
