"""The tools of Fumehood as a host of MCP sees them: listed, and called, with the official `mcp` over streamable HTTP.

    uv pip install mcp
    fumehood serve  # in another terminal; it prints the key
    export FUMEHOOD_MCP_URL=http://127.0.0.1:3003/mcp FUMEHOOD_API_KEY=fh_…
    python examples/mcp_client.py

A host that starts its servers itself, as editors do, needs no service: its command is `fumehood mcp`.
"""

from __future__ import annotations

import asyncio
import os
import re
from typing import Any

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

CODE = "import collections; print(collections.Counter('mississippi').most_common(1))"


async def main() -> None:
    """List the tools; run a program, then cells of a session, which keep their state."""
    headers = {"authorization": f"Bearer {os.environ['FUMEHOOD_API_KEY']}"}
    url = os.environ.get("FUMEHOOD_MCP_URL", "http://127.0.0.1:3003/mcp")
    async with (
        httpx2.AsyncClient(headers=headers, timeout=60) as http,
        Client(streamable_http_client(url, http_client=http)) as client,
    ):
        print("tools:", ", ".join(sorted(tool.name for tool in (await client.list_tools()).tools)))
        print("run_code:", text(await client.call_tool("run_code", {"language": "python", "code": CODE})))
        started = text(await client.call_tool("start_session", {"language": "python"}))
        # A model reads the id in the answer's words, and so do we.
        session = {"session_id": re.findall(r"\b[0-9A-Z]{26}\b", started)[0]}
        for cell in ("rows = [3, 1, 2]", "sorted(rows)", "rows[7]"):
            print("run_cell:", text(await client.call_tool("run_cell", {**session, "code": cell})))
        await client.call_tool("end_session", session)


def text(result: Any) -> str:
    """Return what a call answered, without pictures."""
    return "\n".join(part.text for part in result.content if part.type == "text").strip()


if __name__ == "__main__":
    asyncio.run(main())
