"""`fumehood tool`: the functions that a server keeps, to be run by name."""

from __future__ import annotations

import json
import os
import sys

from ..runtimes import language_of
from .api import JSON, SERVER, Api, act, facts, id_of, listed, needed, part, section, show
from .arguments import Arguments, Command, Option, UsageError
from .terminal import note, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_PATH = "/v1/tools"


def tool(arguments: Arguments) -> int:
    """Do the command."""
    actions = {"create": _create, "list": _list, "show": _show, "run": _run, "update": _update, "delete": _delete}
    return act(arguments, "tool", actions)


def _create(api: Api, arguments: Arguments) -> int:
    path = needed(arguments.tool, "fumehood tool create FILE: say where its code is")
    values = _given(arguments, path)
    if "language" not in values:
        raise UsageError(f"{path}: its name does not say what it is written in: add --language")
    values.setdefault("name", os.path.basename(path).partition(".")[0] or "tool")
    return _told(arguments, api.ask("POST", _PATH, values))


def _update(api: Api, arguments: Arguments) -> int:
    found = _named(api, arguments)
    values = _given(arguments, arguments.file)
    if not values:
        raise UsageError(
            "fumehood tool update TOOL: say what changes: its FILE, --name, --description, --input-schema …"
        )
    return _told(arguments, api.ask("POST", f"{_PATH}/{part(found)}", values))


def _given(arguments: Arguments, path: str | None) -> dict[str, Any]:
    """Return what was said of a tool."""
    values: dict[str, Any] = {}
    if path is not None:
        values["code"] = _read(path)
        if (language := arguments.language or language_of(path)) is not None:
            values["language"] = language
    elif arguments.language is not None:
        values["language"] = arguments.language
    if arguments.input_schema is not None:
        values["input_schema"] = _json(_read(arguments.input_schema), f"--input-schema {arguments.input_schema}")
    said = {"name": arguments.name, "description": arguments.description, "runtime_revision_id": arguments.runtime}
    return values | {name: given for name, given in said.items() if given is not None}


def _list(api: Api, arguments: Arguments) -> int:
    columns = ("id", "name", "language", "description")
    return listed(arguments, api.rows(_PATH, "tools"), columns, "There are no tools.")


def _show(api: Api, arguments: Arguments) -> int:
    found = api.ask("GET", f"{_PATH}/{part(_named(api, arguments))}")
    if arguments.json:
        show(found)
        return 0
    facts(found, ("id", "name", "description", "language", "revision_id", "runtime_revision_id", "input_schema"))
    section("code", found.get("code"))
    return 0


def _run(api: Api, arguments: Arguments) -> int:
    found = _named(api, arguments)
    text = sys.stdin.read() if arguments.input == "-" else arguments.input
    body: dict[str, Any] = {"input": None if text is None else _json(text, "--input")}
    body["env"] = [
        {"name": name, "secret_id": api.named("/v1/secrets", "secrets", kept)} for name, kept in arguments.secret
    ]
    if arguments.revision is not None:
        body["revision_id"] = arguments.revision
    answer = api.ask("POST", f"{_PATH}/{part(found)}/execute", body)
    ran = answer.get("execution")
    ran = ran if isinstance(ran, dict) else {}
    status, code = answer.get("output_status"), ran.get("exit_code")
    code = code if isinstance(code, int) and 0 <= code <= 255 else 1
    if arguments.json:
        show(answer)
    else:
        # What it printed is beside what it returned.
        for stream in ("stdout", "stderr"):
            print(printable(str(ran.get(stream, ""))), end="", file=sys.stderr, flush=True)
        if status == "valid":
            show(answer.get("output"))
        elif code == 0:
            note(printable(f"fumehood: the tool returned nothing that can be shown: {status}"))
    return code or int(status != "valid")


def _delete(api: Api, arguments: Arguments) -> int:
    found = _named(api, arguments)
    api.ask("DELETE", f"{_PATH}/{part(found)}")
    note(printable(f"fumehood: tool {found} is gone"))
    return 0


def _named(api: Api, arguments: Arguments) -> str:
    what = f"fumehood tool {arguments.action} TOOL: its name or its id; `fumehood tool list` shows both"
    return api.named(_PATH, "tools", needed(arguments.tool, what))


def _told(arguments: Arguments, made: dict[str, Any]) -> int:
    if arguments.json:
        show(made)
    else:
        print(printable(id_of(made)))
    return 0


def _read(path: str) -> str:
    try:
        if path == "-":
            return sys.stdin.read()
        with open(path, encoding="utf-8") as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no UTF-8"
        raise UsageError(f"{path!r} cannot be read: {why}") from error


def _json(text: str, what: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{what} is no JSON: {error}") from error


def _pair(text: str) -> tuple[str, str]:
    name, equals, secret = text.partition("=")
    if not equals or not name or not secret:
        raise ValueError("write VARIABLE=SECRET, the secret by its name or id")
    return name, secret


COMMAND = Command(
    name="tool",
    summary="Make, change and run the functions that a server keeps.",
    description=(
        "create FILE: keep a function `execute(input)` in Python, JavaScript or TypeScript, and print its id. run TOOL: run it; "
        "what it returns is printed as JSON, what it prints goes to standard error, and its exit code is ours. update TOOL "
        "[FILE]: make a new revision. list, show TOOL, delete TOOL. A tool is named by its name or its id."
    ),
    run=tool,
    positionals=(
        ("ACTION", "create, list, show, run, update or delete."),
        ("TOOL", "Which one; create: the file with its code, - for standard input."),
        ("FILE", "update: the file with its new code."),
    ),
    options=(
        Option(name="input", short="i", metavar="JSON", help="run: what it is given; - for standard input."),
        Option(name="secret", metavar="VARIABLE=SECRET", many=True, convert=_pair,
               help="run: a variable of its environment, with a stored secret in it."),
        Option(name="revision", metavar="ID", help="run: an older revision of it."),
        Option(name="name", short="n", metavar="NAME", help="create, update: what to call it (the file's name)."),
        Option(name="description", metavar="TEXT", help="create, update: what it does, for models to read."),
        Option(name="input-schema", metavar="FILE", help="create, update: the JSON Schema of its input."),
        Option(name="language", short="l", metavar="LANGUAGE", help="create, update: what it is written in (by the file's name)."),
        Option(name="runtime", metavar="REVISION", help="create, update: the revision of a runtime that it runs on."),
        JSON,
        SERVER,
    ),
    examples=(
        "fumehood tool create area.py --description 'The area of a circle' --input-schema schema.json",
        "fumehood tool run area --input '{\"radius\": 2}'",
        "fumehood tool update area area.py",
        "fumehood tool list --json",
    ),
)  # fmt: skip
