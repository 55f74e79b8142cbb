"""MCP over streamable HTTP, at `/mcp`: by the same keys and scopes as everything else.

Promised: a caller sees what is of its key's project alone; a page of a browser reaches this from this machine alone, whatever its
name server says of us. Each request stands for itself, so any client goes on after the server began anew; a client that goes away
ends its program. MCP's own software takes most of a second to load: that is done at the first request.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from starlette.requests import Request

from ...protocol.loopback import is_loopback
from ..auth import caller_of
from ..faults import Fault, answer, lacking
from ..mcp_bench import ServiceBench

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
    from starlette.datastructures import Headers
    from starlette.types import Receive, Scope, Send

    from ..service import Service

PATH = "/mcp"
_BODY_BYTES = 16 << 20
_CALLER = "fumehood.caller"


class Door:
    """The endpoint, for one application: its `living` lasts as long as that."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._wanted, self._leave = asyncio.Event(), asyncio.Event()
        self._manager: asyncio.Future[StreamableHTTPSessionManager] | None = None

    @contextlib.asynccontextmanager
    async def living(self) -> AsyncIterator[None]:
        """Serve meanwhile."""
        self._manager = asyncio.get_running_loop().create_future()
        keeping = asyncio.create_task(self._keep(self._manager))
        try:
            yield
        finally:
            self._leave.set()
            await keeping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request. Its caller is found, and its browser turned away, before anything of it is read."""
        request = Request(scope, receive)
        try:
            _check_page(request.headers)
            caller = await caller_of(request)
            if not caller.may("execute"):
                raise lacking("execute")
        except Fault as fault:
            refusal = answer(fault)
            if fault.status == 401:
                refusal.headers["www-authenticate"] = "Bearer"
            await refusal(scope, receive, send)
            return
        if request.method != "POST":
            # There is nothing to listen for, and no state to be given up.
            refusal = answer(Fault(405, "POST messages of the Model Context Protocol here"))
            refusal.headers["allow"] = "POST"
            await refusal(scope, receive, send)
            return
        assert self._manager is not None  # noqa: S101 - an application serves while its lifespan lasts
        self._wanted.set()
        manager = await asyncio.shield(self._manager)
        await manager.handle_request({**scope, _CALLER: caller}, receive, send)

    async def _keep(self, ready: asyncio.Future[StreamableHTTPSessionManager]) -> None:
        """Have the manager run from the first request on. In a task of its own: it must end in the one in which it began."""
        waiting = [asyncio.create_task(each.wait()) for each in (self._wanted, self._leave)]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for each in waiting:
            each.cancel()
        if self._leave.is_set():
            return
        try:
            manager = await asyncio.to_thread(_made, self._service)
            async with manager.run():
                ready.set_result(manager)
                await self._leave.wait()
        except Exception as error:
            if ready.done():
                raise
            ready.set_exception(error)


def _made(service: Service) -> StreamableHTTPSessionManager:
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager  # noqa: PLC0415 - see above

    from ..mcp_tools import make  # noqa: PLC0415 - likewise

    def bench_of(context: Any) -> ServiceBench:
        return ServiceBench(service, context.request.scope[_CALLER])

    # Who comes from where is looked at above, more strictly than by its settings.
    return StreamableHTTPSessionManager(make(bench_of), stateless=True, max_request_body_size=_BODY_BYTES)


def _check_page(headers: Headers) -> None:
    """Raise a 403 for a browser's request that no page of this machine makes, or to a name that may be anybody's.

    DNS rebinding needs a browser, and a browser says where a page is from (Fetch, 3.1), or at least that it is one.
    """
    origin = headers.get("origin")
    if origin is None and "sec-fetch-site" not in headers:
        return
    if not is_loopback(_host_of(f"//{headers.get('host', '')}")) or (
        origin is not None and not is_loopback(_host_of(origin))
    ):
        raise Fault(403, "pages of a browser reach this from the machine that it runs on alone, by a loopback address")


def _host_of(address: str) -> str:
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""
