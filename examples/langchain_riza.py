"""LangChain's tools for Riza, as they are, over Fumehood: what an agent of LangChain's does with them, without a model.

    uv pip install langchain-community rizaio
    fumehood serve  # in another terminal; it prints the key
    export RIZA_BASE_URL=http://127.0.0.1:3003 RIZA_API_KEY=fh_…
    python examples/langchain_riza.py

Give the tools to any of LangChain's chat models: `model.bind_tools(TOOLS)`. RUNTIME_REVISION_ID, where it is set, is the revision
of a runtime with packages of your own that the Python programs run on.
"""

from __future__ import annotations

import os

from langchain_community.tools.riza.command import ExecJavaScript, ExecPython

TOOLS = [ExecPython(runtime_revision_id=os.environ.get("RUNTIME_REVISION_ID")), ExecJavaScript()]
#: As a chat model writes them.
CALLS = [
    {"type": "tool_call", "id": "call1", "name": "riza_exec_python", "args": {"code": "print(sum(range(101)))"}},
    {"type": "tool_call", "id": "call2", "name": "riza_exec_python", "args": {"code": "print(1 / 0)"}},
    {"type": "tool_call", "id": "call3", "name": "riza_exec_javascript", "args": {"code": "console.log(6 * 7)"}},
]


def main() -> None:
    """Do the calls; what a program that fails says is told to the model, too."""
    by_name = {tool.name: tool for tool in TOOLS}
    for call in CALLS:
        message = by_name[str(call["name"])].invoke(call)
        print(f"{message.name} ({message.status}): {message.content.strip()}")


if __name__ == "__main__":
    main()
