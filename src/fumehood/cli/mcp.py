"""`fumehood mcp`: tools for models over MCP, on standard input and output, for clients that start their servers themselves."""

from __future__ import annotations

import os

from ..engine import Engine
from ..errors import ServerRefused, ServerUnreachable
from .api import Api
from .arguments import Arguments, Command, Option, UsageError
from .network import OPTIONS, network_of
from .server import ISOLATION, SERVER, isolation_of, server_of
from .terminal import is_terminal, note

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from mcp.server import Server, ServerRequestContext
    from mcp_types import CallToolRequestParams, CallToolResult, ListToolsResult, PaginatedRequestParams

    Context = ServerRequestContext[Any, Any]


def mcp(arguments: Arguments) -> int:
    """Do the command."""
    if is_terminal(0):
        note("fumehood: waiting for a client of MCP on standard input; such clients start this command themselves")
    url = server_of(arguments)
    if not url:
        return _serve_here(arguments)
    if arguments.allow_host or arguments.placeholder:
        raise UsageError(
            f"--allow-host is about programs on this machine, and these would run on the server {url!r}: leave it out, "
            "or say --server '' to run here"
        )
    with Api(url) as api:
        _check(api)
    return _pass_on(api.url, os.environ.get("FUMEHOOD_API_KEY", ""))


def _check(api: Api) -> None:
    """Raise what is wrong with the address or the key, now and in words: clients of MCP show little of it."""
    try:
        api.ask("GET", "/mcp")
    except ServerRefused as refused:
        # What it says to those whom it would serve.
        if refused.status == 405:
            return
        raise


def _serve_here(arguments: Arguments) -> int:
    import anyio  # noqa: PLC0415 - MCP's own software takes most of a second to load

    from ..server.mcp_bench import LocalBench  # noqa: PLC0415 - likewise
    from ..server.mcp_tools import make  # noqa: PLC0415 - likewise

    network = network_of(arguments)
    with Engine(without=arguments.without, isolation=isolation_of(arguments), notice=_say) as engine:
        bench = LocalBench(engine, network)

        def close() -> None:
            bench.close()
            engine.close()

        try:
            anyio.run(_speak, make(lambda _context: bench, bench.hosts), close)
        finally:
            bench.close()
    return 0


def _pass_on(url: str, key: str) -> int:
    """Speak for a server's own MCP: all that its tools do is done there."""
    import anyio  # noqa: PLC0415 - as above
    import httpx2  # noqa: PLC0415 - likewise
    from mcp import Client  # noqa: PLC0415 - likewise
    from mcp.client.streamable_http import streamable_http_client  # noqa: PLC0415 - likewise
    from mcp.server import Server  # noqa: PLC0415 - likewise

    from .. import __version__  # noqa: PLC0415 - likewise

    async def pass_on() -> None:
        headers = {"authorization": f"Bearer {key}"}
        # A program may say nothing for as long as it likes: the server bounds it.
        timeout = httpx2.Timeout(30, read=None)
        async with (
            httpx2.AsyncClient(headers=headers, timeout=timeout) as http,
            Client(streamable_http_client(f"{url}/mcp", http_client=http)) as there,
        ):

            async def list_tools(_context: Context, _params: PaginatedRequestParams | None) -> ListToolsResult:
                return await there.list_tools()

            async def call_tool(_context: Context, params: CallToolRequestParams) -> CallToolResult:
                return await there.call_tool(params.name, params.arguments)

            await _speak(
                Server(
                    "fumehood", version=__version__, title="Fumehood", instructions=there.instructions,
                    on_list_tools=list_tools, on_call_tool=call_tool,
                ),
                lambda: None,
            )  # fmt: skip

    try:
        anyio.run(pass_on)
    except* (httpx2.HTTPError, OSError) as group:
        raise ServerUnreachable(f"the connection to {url} broke: {group.exceptions[0]}") from group
    return 0


async def _speak(server: Server[Any], close: Callable[[], None]) -> None:
    """Serve a client until it closes our standard input; `close` tidies up where a signal ends this process before."""
    import anyio  # noqa: PLC0415 - as above
    from mcp.server.stdio import stdio_server  # noqa: PLC0415 - likewise

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_leave_by_signal, close)
        # While this lasts, what anything else prints goes to standard error.
        async with stdio_server() as (incoming, outgoing):
            await server.run(incoming, outgoing, server.create_initialization_options())
        tasks.cancel_scope.cancel()


async def _leave_by_signal(close: Callable[[], None]) -> None:
    import signal  # noqa: PLC0415 - as above

    import anyio  # noqa: PLC0415 - likewise
    import anyio.to_thread  # noqa: PLC0415 - likewise

    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for number in signals:
            await anyio.to_thread.run_sync(close)
            # At once: a thread waits for a line of standard input, and nothing but its client would wake it.
            os._exit(128 + number)


def _say(sentence: str, done: float) -> None:
    if done == 0:
        note(f"fumehood: {sentence}")


COMMAND = Command(
    name="mcp",
    summary="Give models tools over MCP, on standard input and output.",
    description=(
        "Give a client of the Model Context Protocol tools to run programs and sessions with, behind this machine's walls: no "
        "network but hosts that --allow-host names. Clients start it themselves and end it by closing its standard input. With "
        "--server it speaks for a `fumehood serve`, with that one's sessions and saved tools."
    ),
    run=mcp,
    options=(
        *OPTIONS,
        SERVER,
        ISOLATION,
        Option(name="without", metavar="WALL", many=True, help="Give up a wall that this host cannot put up."),
    ),
    examples=(
        "fumehood mcp",
        "fumehood mcp --allow-host pypi.org --allow-host files.pythonhosted.org",
        "FUMEHOOD_API_KEY=fh_… fumehood mcp --server http://127.0.0.1:3003",
    ),
)
