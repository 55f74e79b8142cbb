"""What commands share that look after a `fumehood serve`: where it is, its answers page by page, and how they are shown.

What a server answers is hostile text, as all that programs print: its form is checked, and nothing of it drives the terminal.
"""

from __future__ import annotations

import json
import os

from .arguments import Option, UsageError
from .server import url_of
from .terminal import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any, Self

    from ..client.transport import Transport
    from .arguments import Arguments

    Row = Mapping[str, Any]

URL = "http://127.0.0.1:3003"
SERVER = Option(
    name="server", metavar="URL",
    help=f"Which `fumehood serve`; else where FUMEHOOD_SERVER says. '' is {URL}, on this machine. The key is in FUMEHOOD_API_KEY.",
)  # fmt: skip
JSON = Option(name="json", help="Print JSON.")
_TIMEOUT_SECONDS = 960.0  # a tool may run for 900
_PAGE = 100
# A list that never ends is none of ours.
_MOST = 100_000
_CELL_CHARACTERS = 60


class Api:
    """One server's API. Use it in a `with`."""

    def __init__(self, url: str) -> None:
        from ..client.transport import Transport  # noqa: PLC0415 - 200 ms that only who asks a server pays

        self._transport: Transport = Transport(url, os.environ.get("FUMEHOOD_API_KEY", ""), _TIMEOUT_SECONDS)
        self.url = self._transport.url

    @classmethod
    def of(cls, arguments: Arguments) -> Self:
        """Return that of the server that was named."""
        return cls(url_of(arguments) or URL)

    def ask(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        """Ask for an object. Raises errors of `fumehood.errors`, the server's in its words."""
        answer = self._transport.ask(method, path, body)
        if not isinstance(answer, dict):
            raise _misbehaved(f"no object for {path.partition('?')[0]}")
        return answer

    def text(self, path: str) -> str:
        """Ask for a text."""
        return self._transport.fetch("GET", path).decode("utf-8", "replace")

    def page(self, path: str, name: str) -> list[dict[str, Any]]:
        """Ask for a list that comes whole."""
        rows = self.ask("GET", path).get(name)
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise _misbehaved(f"no list of {name}")
        return rows

    def rows(self, path: str, name: str, most: int = _MOST, **query: str) -> list[dict[str, Any]]:
        """Ask for a list, page by page, to its end or for so many."""
        rows: list[dict[str, Any]] = []
        while len(rows) < most:
            after = {"starting_after": id_of(rows[-1])} if rows else {}
            limit = str(min(_PAGE, most - len(rows)))
            page = self.page(with_query(path, {**query, **after, "limit": limit}), name)
            if not page:
                break
            rows += page
        return rows

    def named(self, path: str, name: str, text: str, *, there: bool = True) -> str:
        """Return the id of what has this name or id.

        Where nothing has: the text itself, for the server to say so, or "" where it need not be `there`.
        """
        rows = self.rows(path, name)
        if any(row.get("id") == text for row in rows):
            return text
        ids = [id_of(row) for row in rows if row.get("name") == text]
        if len(ids) > 1:
            raise UsageError(f"{len(ids)} {name} are called {text!r}: say which by its id, {' or '.join(ids[:5])}")
        return ids[0] if ids else text if there else ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._transport.close()


def act(arguments: Arguments, name: str, actions: Mapping[str, Callable[[Api, Arguments], int]]) -> int:
    """Do what was asked for. Raises `UsageError` where there is no such action."""
    action = actions.get(arguments.action or "")
    if action is None:
        raise UsageError(f"fumehood {name} {arguments.action or ''!r}: say {', '.join(actions)}")
    with Api.of(arguments) as api:
        return action(api, arguments)


def needed(value: str | None, what: str) -> str:
    """Return an argument that must be given."""
    if not value:
        raise UsageError(what)
    return value


def id_of(row: Row) -> str:
    """Return a thing's id."""
    found = row.get("id")
    if not isinstance(found, str) or not found:
        raise _misbehaved("something without an id")
    return found


def part(text: str) -> str:
    """Return a text as one part of a path."""
    from urllib.parse import quote  # noqa: PLC0415 - with what asks

    return quote(text, safe="", errors="replace") if text.strip(".") else text.replace(".", "%2E")


def with_query(path: str, query: Mapping[str, str]) -> str:
    """Return a path with a query."""
    from urllib.parse import urlencode  # noqa: PLC0415 - likewise

    return f"{path}?{urlencode(query)}" if query else path


def show(value: Any) -> None:
    """Print JSON, in ASCII."""
    print(json.dumps(value, indent=2))


def listed(arguments: Arguments, rows: Sequence[Row], columns: Sequence[str], nothing: str) -> int:
    """Print a list as JSON, or as a table for people."""
    if arguments.json:
        show(list(rows))
    elif not rows:
        print(nothing)
    else:
        table(rows, columns)
    return 0


def table(rows: Iterable[Row], columns: Sequence[str]) -> None:
    """Print rows under their columns' names."""
    lines = [[name.removesuffix("_at").replace("_", " ").upper() for name in columns]]
    lines += [[one_line(row.get(name)) for name in columns] for row in rows]
    widths = [max(len(line[number]) for line in lines) for number in range(len(columns))]
    for line in lines:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip())


def facts(row: Row, names: Sequence[str]) -> None:
    """Print what is known of a thing, a line each."""
    width = max(map(len, names)) + 1
    for name in names:
        if row.get(name) not in (None, "", {}):
            print(f"{name.replace('_', ' ') + ':':<{width}} {one_line(row[name], 2000)}")


def section(title: str, text: object) -> None:
    """Print a text of several lines under a title; nothing where there is none."""
    if isinstance(text, str) and text:
        print(f"\n{title}:\n{printable(text).rstrip()}")


def one_line(value: object, most: int = _CELL_CHARACTERS) -> str:
    """Return a value as it can stand in a line for people."""
    if isinstance(value, list):
        value = " ".join(map(str, value))
    if isinstance(value, dict):
        value = json.dumps(value)
    text = printable(" ".join(str("" if value is None else value).split()))
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _misbehaved(what: str) -> Exception:
    from ..errors import ServerMisbehaved  # noqa: PLC0415 - seldom

    return ServerMisbehaved(f"the server sent {what}: is it the address of a `fumehood serve`?")
