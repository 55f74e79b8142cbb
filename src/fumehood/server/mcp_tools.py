"""The tools that MCP's clients are given: programs, sessions and their files, and what a project has saved.

Promised: what goes wrong is told in the tool's result, in words that a model can act on; a call that its client gives up is ended.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import jsonschema
from jsonschema.exceptions import best_match
from mcp.server import Server
from mcp_types import CallToolResult, ListToolsResult, ToolAnnotations
from mcp_types import Tool as Shown

from .. import __version__
from ..errors import FumehoodError, InvalidRequest
from ..protocol.record import Record
from ..runtimes import languages
from . import mcp_words as words
from . import schemas
from .faults import Fault, fault_of, lacking
from .mcp_bench import Program

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mcp.server import ServerRequestContext
    from mcp_types import CallToolRequestParams, PaginatedRequestParams

    from .mcp_bench import Bench
    from .mcp_words import Content
    from .store.tools import Tool

    Context = ServerRequestContext[Any, Any]
    #: Whose bench a request works at.
    BenchOf = Callable[[Context], Bench]
    Work = Callable[[Bench, Mapping[str, Any], int], list[Content]]

#: Where calls wait for their programs: nobody else does.
_THREADS = anyio.CapacityLimiter(256)
#: Of a file, so much is read at once: in base64 it is not too long for a text.
_PIECE_BYTES = words.TEXT_CHARACTERS * 7 // 10
_NAME_CHARACTERS = 56
_INSTRUCTIONS = (
    "Runs code behind walls of the kernel's. run_code runs a program in a fresh sandbox that is gone afterwards; a session "
    "keeps its variables and files from one cell to the next, shows pictures, and can be forked to try several ways from one "
    "point on. What is printed is cut to some {characters} characters: print what you need. {network}"
)


class Offer(Record):
    """A tool: what is said of it, the scope that it takes, and how it is done."""

    description: str
    properties: Mapping[str, Any]
    required: tuple[str, ...]
    scope: str
    work: Work

    @property
    def schema(self) -> dict[str, Any]:
        """The JSON Schema of its arguments."""
        return {
            "type": "object", "properties": dict(self.properties), "required": list(self.required),
            "additionalProperties": False,
        }  # fmt: skip


def make(bench_of: BenchOf, hosts: str = "") -> Server[Any]:
    """Return the server of MCP; `bench_of` finds whose bench a request works at, and `hosts` describes what programs reach."""

    async def list_tools(context: Context, _params: PaginatedRequestParams | None) -> ListToolsResult:
        return ListToolsResult(tools=await anyio.to_thread.run_sync(_shown, bench_of(context)))

    async def call_tool(context: Context, params: CallToolRequestParams) -> CallToolResult:
        return await _called(bench_of(context), params.name, params.arguments or {})

    network = f"Programs reach these hosts and no others: {hosts}." if hosts else "Programs have no network."
    return Server(
        "fumehood", version=__version__, title="Fumehood", on_list_tools=list_tools, on_call_tool=call_tool,
        instructions=_INSTRUCTIONS.format(characters=words.TEXT_CHARACTERS, network=network),
        # None of our arguments travels in a header, and without this every call lists all tools first.
        get_tool_input_schema=lambda _name: None,
    )  # fmt: skip


def _shown(bench: Bench) -> list[Shown]:
    surroundings = f" Hosts that it can reach: {bench.hosts}." if bench.hosts else " It has no network."
    shown = [
        Shown(
            name=name, input_schema=offer.schema,
            description=offer.description + (surroundings if name in ("run_code", "start_session") else ""),
            annotations=ToolAnnotations(
                read_only_hint=offer.scope == "read", destructive_hint=name == "end_session",
                open_world_hint=bool(bench.hosts),
            ),
        )
        for name, offer in OFFERS.items() if bench.may(offer.scope)
    ]  # fmt: skip
    if bench.may("read") and bench.may("execute"):
        for name, tool in _saved(bench).items():
            shown.append(Shown(name=name, description=tool.description or tool.name, input_schema=_schema(tool)[0]))
    return shown


def _saved(bench: Bench) -> dict[str, Tool]:
    """Return a project's tools by names that models can call: letters, digits, _ and -, each once."""
    found: dict[str, Tool] = {}
    for tool in bench.saved():
        name = re.sub(r"[^A-Za-z0-9_-]+", "_", tool.name).strip("_")[:_NAME_CHARACTERS] or "tool"
        if name in OFFERS or name in found:
            name = f"{name}_{tool.id[-6:].lower()}"
        found.setdefault(name, tool)
    return found


def _schema(tool: Tool) -> tuple[dict[str, Any], bool]:
    """Return the schema of a saved tool's arguments, and whether its input is wrapped as the argument `input`.

    Arguments are objects always. One schema that is none would make a client refuse all tools.
    """
    if not schemas.is_schema(tool.input_schema):
        return {"type": "object"}, False
    kind = tool.input_schema.get("type", "object")
    if kind == "object":
        return {**tool.input_schema, "type": "object"}, False
    return {"type": "object", "properties": {"input": tool.input_schema}, "required": ["input"]}, True


async def _called(bench: Bench, name: str, arguments: Mapping[str, Any]) -> CallToolResult:
    cancel = os.eventfd(0, os.EFD_CLOEXEC)

    def stop() -> None:
        os.eventfd_write(cancel, 1)
        if name == "run_cell":
            try:
                bench.session(str(arguments.get("session_id"))).interrupt()
            except (FumehoodError, Fault):
                pass  # it is dead already, or never was

    try:
        return await _to_its_end(partial(_answered, bench, name, arguments, cancel), stop)
    finally:
        os.close(cancel)


async def _to_its_end(work: Callable[[], CallToolResult], stop: Callable[[], None]) -> CallToolResult:
    """Do what blocks in a thread. Where the caller gives up, have it stopped, and wait until it has."""
    ended = anyio.Event()

    async def watch() -> None:
        try:
            await ended.wait()
        finally:
            with anyio.CancelScope(shield=True):
                # Again and again: what was not yet under way could not be stopped.
                while not ended.is_set():
                    stop()
                    with anyio.move_on_after(1):
                        await ended.wait()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        try:
            result = await anyio.to_thread.run_sync(work, limiter=_THREADS)
        finally:
            ended.set()
    return result


def _answered(bench: Bench, name: str, arguments: Mapping[str, Any], cancel: int) -> CallToolResult:
    try:
        offer = OFFERS.get(name)
        if offer is None:
            return _answered_saved(bench, name, arguments)
        _check_scope(bench, offer.scope)
        wrong = best_match(jsonschema.Draft202012Validator(offer.schema).iter_errors(arguments))
        if wrong is not None:
            place = wrong.json_path.removeprefix("$").lstrip(".")
            raise InvalidRequest(f"{name}: {f'{place}: ' if place else ''}{wrong.message[:300]}")
        return CallToolResult(content=[*offer.work(bench, arguments, cancel)])
    except Exception as error:  # noqa: BLE001 - told to the model
        fault = fault_of(error)
        again = f"; try again in {fault.retry_after} seconds" if fault.retry_after else ""
        return CallToolResult(content=[words.text(fault.message + again)], is_error=True)


def _answered_saved(bench: Bench, name: str, arguments: Mapping[str, Any]) -> CallToolResult:
    _check_scope(bench, "execute")
    tool = _saved(bench).get(name)
    if tool is None:
        raise Fault(404, f"there is no tool {name!r}: list the tools anew")
    wraps = _schema(tool)[1]
    if wraps and "input" not in arguments:
        raise InvalidRequest(f"{name}: give the argument input")
    content, failed = words.of_saved(bench.run_saved(tool, arguments["input"] if wraps else dict(arguments)))
    return CallToolResult(content=[*content], is_error=failed)


def _check_scope(bench: Bench, scope: str) -> None:
    if not bench.may(scope):
        raise lacking(scope)


# What each tool does


def _run_code(bench: Bench, arguments: Mapping[str, Any], cancel: int) -> list[Content]:
    given = {"seconds" if name == "timeout_seconds" else name: value for name, value in arguments.items()}
    return words.of_execution(bench.run(Program(**given), cancel))


def _start_session(bench: Bench, arguments: Mapping[str, Any], _cancel: int) -> list[Content]:
    language = arguments.get("language", "python")
    name = bench.start(language, arguments.get("files", {}))
    return [words.text(f"session_id: {name}\nlanguage: {language}")]


def _run_cell(bench: Bench, arguments: Mapping[str, Any], _cancel: int) -> list[Content]:
    cell = bench.run_cell(arguments["session_id"], arguments["code"], arguments.get("timeout_seconds"))
    return words.of_cell(cell)


def _list_sessions(bench: Bench, _arguments: Mapping[str, Any], _cancel: int) -> list[Content]:
    lines = []
    for name, session in bench.sessions().items():
        death = session.death
        why = f" ({death.reason}: {death.detail})" if death is not None else ""
        lines.append(f"{name}: {session.language}, {session.status}{why}")
    return [words.text("\n".join(lines) or "there are no sessions: start one")]


def _list_files(bench: Bench, arguments: Mapping[str, Any], _cancel: int) -> list[Content]:
    sizes = sorted(bench.session(arguments["session_id"]).list_files().items())
    return [words.text("\n".join(f"{words.printable(path)} ({size} bytes)" for path, size in sizes) or "no files")]


def _read_file(bench: Bench, arguments: Mapping[str, Any], _cancel: int) -> list[Content]:
    path, begin = arguments["path"], arguments.get("offset", 0)
    data = bench.session(arguments["session_id"]).get_file(path)
    if begin == 0 and words.picture_type(data) is not None:
        return words.of_file(path, data)
    end = begin + arguments.get("bytes", _PIECE_BYTES)
    # Not within a character: what follows its first byte has the bits 10 in front.
    while begin < end < len(data) and data[end] & 0xC0 == 0x80 and end - begin > 4:
        end -= 1
    content = words.of_file(path, data[begin:end])
    if begin or end < len(data):
        content.append(words.text(f"[bytes {begin} to {min(end, len(data))} of {len(data)}]"))
    return content


def _write_file(bench: Bench, arguments: Mapping[str, Any], _cancel: int) -> list[Content]:
    path, data = arguments["path"], arguments["content"].encode("utf-8", "replace")
    if arguments.get("encoding") == "base64":
        try:
            data = base64.b64decode(data, validate=True)
        except (binascii.Error, ValueError) as error:
            raise InvalidRequest(f"write_file: content is no base64: {error}") from error
    bench.session(arguments["session_id"]).put_file(path, data)
    return [words.text(f"{path}: {len(data)} bytes written")]


def _fork_session(bench: Bench, arguments: Mapping[str, Any], _cancel: int) -> list[Content]:
    name = arguments["session_id"]
    forks = bench.fork(name, arguments.get("count", 1))
    lost = bench.session(name).lost
    left = f"\nnot taken along, and gone in this session too: {'; '.join(lost)}" if lost else ""
    return [words.text(f"copies of session {name}: {', '.join(forks)}{left}")]


def _end_session(bench: Bench, arguments: Mapping[str, Any], _cancel: int) -> list[Content]:
    bench.end(arguments["session_id"])
    return [words.text(f"session {arguments['session_id']} has ended")]


def _list_languages(bench: Bench, _arguments: Mapping[str, Any], _cancel: int) -> list[Content]:
    return [words.text("\n".join(bench.languages()))]


_TEXT = {"type": "string"}
_SESSION = {"type": "string", "description": "The id that start_session gave."}
_PATH = {"type": "string", "description": "Relative to the working folder."}
_CODE = {"type": "string", "description": "The whole program, as text."}
_LANGUAGE = {
    "type": "string", "default": "python",
    "description": f"One of {', '.join(languages())}, or another that list_languages names.",
}  # fmt: skip
_FILES = {
    "type": "object", "additionalProperties": _TEXT, "description": "Files to lay into the working folder: path to text.",
}  # fmt: skip


def _seconds(usual: int) -> dict[str, Any]:
    return {"type": "number", "exclusiveMinimum": 0, "maximum": 3600, "default": usual}


#: By name.
OFFERS = {
    "run_code": Offer(
        description="Run a program in a fresh sandbox and return what it printed and the files it left. Nothing stays from one "
        "call to the next. Print what you want to see.",
        properties={"code": _CODE, "language": _LANGUAGE, "stdin": _TEXT, "files": _FILES, "timeout_seconds": _seconds(30)},
        required=("code",), scope="execute", work=_run_code,
    ),
    "start_session": Offer(
        description="Start a session: a sandbox that stays, where variables and files last from one cell to the next. Ends after "
        "half an hour without a cell.",
        properties={"language": _LANGUAGE, "files": _FILES}, required=(), scope="execute", work=_start_session,
    ),
    "run_cell": Offer(
        description="Run code in a session, as a notebook's cell: the value of its last expression, what it printed, and pictures "
        "such as plots are returned.",
        properties={"session_id": _SESSION, "code": _TEXT, "timeout_seconds": _seconds(60)},
        required=("session_id", "code"), scope="execute", work=_run_cell,
    ),
    "list_sessions": Offer(
        description="List the sessions that there are, with their state.",
        properties={}, required=(), scope="read", work=_list_sessions,
    ),
    "list_files": Offer(
        description="List the files in a session's working folder.",
        properties={"session_id": _SESSION}, required=("session_id",), scope="read", work=_list_files,
    ),
    "read_file": Offer(
        description="Read a file of a session: text as it is, a picture as a picture, anything else in base64. A long one comes in "
        "pieces.",
        properties={
            "session_id": _SESSION, "path": _PATH,
            "offset": {"type": "integer", "minimum": 0, "default": 0, "description": "The byte to begin at."},
            "bytes": {"type": "integer", "minimum": 1, "maximum": _PIECE_BYTES, "default": _PIECE_BYTES},
        },
        required=("session_id", "path"), scope="read", work=_read_file,
    ),
    "write_file": Offer(
        description="Write a file into a session's working folder, in the place of one that is there.",
        properties={
            "session_id": _SESSION, "path": _PATH, "content": _TEXT,
            "encoding": {"enum": ["text", "base64"], "default": "text"},
        },
        required=("session_id", "path", "content"), scope="execute", work=_write_file,
    ),
    "fork_session": Offer(
        description="Copy a session with all that it holds, memory and files, to try something from this point on without "
        "changing the original.",
        properties={"session_id": _SESSION, "count": {"type": "integer", "minimum": 1, "maximum": 16, "default": 1}},
        required=("session_id",), scope="execute", work=_fork_session,
    ),
    "end_session": Offer(
        description="End a session; what it holds is gone.",
        properties={"session_id": _SESSION}, required=("session_id",), scope="execute", work=_end_session,
    ),
    "list_languages": Offer(
        description="List the languages that programs and sessions may be written in.",
        properties={}, required=(), scope="read", work=_list_languages,
    ),
}  # fmt: skip
