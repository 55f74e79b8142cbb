"""The official client of MCP, unmodified, and short ways to say what is asked of it."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import anyio
import httpx2
import pytest
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp_types import CallToolResult, ImageContent, TextContent

from tests.testing.served import FUMEHOOD, KEY, Served

Connect = Callable[[], contextlib.AbstractAsyncContextManager[Client]]


@contextlib.asynccontextmanager
async def over_http(served: Served, key: str = KEY, mode: str = "auto") -> AsyncIterator[Client]:
    async with (
        httpx2.AsyncClient(headers={"authorization": f"Bearer {key}"}, timeout=60) as http,
        Client(streamable_http_client(f"{served.url}/mcp", http_client=http), mode=mode) as client,
    ):
        yield client


@contextlib.asynccontextmanager
async def over_stdio(*options: str, mode: str = "auto", **environment: str) -> AsyncIterator[Client]:
    data = {name: os.environ[name] for name in ("XDG_DATA_HOME", "FUMEHOOD_PYTHON") if name in os.environ}
    server = StdioServerParameters(command=str(FUMEHOOD), args=["mcp", *options], env={**data, **environment})
    async with Client(server, mode=mode) as client:
        yield client


def use(connect: Connect, work: Callable[[Client], Awaitable[None]]) -> None:
    wrong: list[BaseException] = []

    async def run() -> None:
        async with connect() as client:
            try:
                await work(client)
            except (Exception, pytest.skip.Exception) as error:  # noqa: BLE001 - raised below, outside groups of tasks
                wrong.append(error)

    anyio.run(run)
    if wrong:
        raise wrong[0]


def text(result: CallToolResult) -> str:
    return "\n".join(each.text for each in result.content if isinstance(each, TextContent))


def pictures(result: CallToolResult) -> list[ImageContent]:
    return [each for each in result.content if isinstance(each, ImageContent)]


async def said(client: Client, tool: str, **arguments: Any) -> str:
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, text(result)
    return text(result)


async def failed(client: Client, tool: str, **arguments: Any) -> str:
    result = await client.call_tool(tool, arguments)
    assert result.is_error, text(result)
    return text(result)


async def begun(client: Client, **arguments: Any) -> str:
    return (await said(client, "start_session", **arguments)).split()[1]


def wait_until(holds: Callable[[], bool]) -> None:
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < 10
        time.sleep(0.05)
