"""`fumehood execution`: what a server has run."""

from __future__ import annotations

from .api import JSON, SERVER, Api, act, facts, listed, needed, part, section, show
from .arguments import Arguments, Command, Option
from .terminal import note, printable

_PATH = "/v1/executions"
_MOST = 20


def execution(arguments: Arguments) -> int:
    """Do the command."""
    return act(arguments, "execution", {"list": _list, "show": _show, "delete": _delete})


def _list(api: Api, arguments: Arguments) -> int:
    failed = {"only_non_zero_exit_codes": "true"} if arguments.failed else {}
    rows = api.rows(_PATH, "data", arguments.limit, all="true", **failed)
    columns = ("id", "started_at", "duration_ms", "language", "door", "kind", "exit_code", "reason")
    shown = rows if arguments.json else [{**row, "duration_ms": row.get("duration")} for row in rows]
    return listed(arguments, shown, columns, "Nothing was run.")


def _show(api: Api, arguments: Arguments) -> int:
    found = api.ask("GET", f"{_PATH}/{part(_id(arguments))}")
    if arguments.json:
        show(found)
        return 0
    details = found.get("details")
    details = details if isinstance(details, dict) else {}
    request, response = (
        {} if not isinstance(details.get(name), dict) else details[name] for name in ("request", "response")
    )
    # A function's answer holds that of the program that called it.
    ran = response.get("execution") if isinstance(response.get("execution"), dict) else response
    duration = {"duration": f"{found.get('duration')} ms", "kind": details.get("type"), "reason": ran.get("reason")}
    facts({**found, **duration}, ("id", "kind", "language", "started_at", "duration", "exit_code", "reason"))
    section("code", request.get("code"))
    section("stdout", ran.get("stdout"))
    section("stderr", ran.get("stderr"))
    return 0


def _delete(api: Api, arguments: Arguments) -> int:
    name = _id(arguments)
    api.ask("DELETE", f"{_PATH}/{part(name)}")
    note(printable(f"fumehood: execution {name} is forgotten"))
    return 0


def _id(arguments: Arguments) -> str:
    return needed(arguments.id, f"fumehood execution {arguments.action} ID: `fumehood execution list` shows the ids")


def _limit(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 1_000_000:
        raise ValueError("write a number from 1")
    return int(text)


COMMAND = Command(
    name="execution",
    summary="List, show and forget what a server has run.",
    description=(
        "list: show what was run, by whichever door, the newest first. show ID: what was asked and what came of it. delete ID: "
        "forget it."
    ),
    run=execution,
    positionals=(("ACTION", "list, show or delete."), ("ID", "Which one.")),
    options=(
        Option(name="failed", help="list: those alone whose exit code is not 0."),
        Option(name="limit", metavar="N", default=_MOST, convert=_limit, help=f"list: so many at most ({_MOST})."),
        JSON,
        SERVER,
    ),
    examples=(
        "fumehood execution list --failed",
        "fumehood execution show 01JM3WYP0000000000000000AA",
        "fumehood execution list --json --limit 1000",
    ),
)
