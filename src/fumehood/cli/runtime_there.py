"""`fumehood runtime --server URL`: the runtimes that a server builds and keeps."""

from __future__ import annotations

import time

from .api import Api, facts, id_of, listed, needed, part, show
from .arguments import Arguments, UsageError
from .terminal import note, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_PATH = "/v1/runtimes"
_LOOK_SECONDS = 0.5
# What is about this machine.
_LOCAL = ("without", "allow_host", "standard_library", "force")


def runtime(arguments: Arguments, url: str) -> int:
    """Do the command at the server there."""
    actions = {"build": _build, "list": _list, "show": _show, "log": _log, "remove": _remove}
    action = actions.get(arguments.action or "")
    if action is None:
        raise UsageError(f"fumehood runtime {arguments.action or ''!r}: at a server say {', '.join(actions)}")
    for name in _LOCAL:
        if getattr(arguments, name):
            raise UsageError(
                f"--{name.replace('_', '-')} is about builds on this machine, and the server {url!r} builds by its own rules: "
                "leave it out, or say --server '' to build here"
            )
    with Api(url) as api:
        return action(api, arguments)


def _build(api: Api, arguments: Arguments) -> int:
    requirements, package_json, name = arguments.requirements, arguments.package_json, arguments.name
    if (requirements is None) == (package_json is None) or name is None or arguments.runtime is not None:
        raise UsageError(
            "a server builds runtimes of your own: give --requirements FILE or --package-json FILE, one of them, and --name NAME"
        )
    kind, path = ("requirements.txt", requirements) if requirements is not None else ("package.json", package_json)
    try:
        with open(path, encoding="utf-8") as file:
            body: dict[str, Any] = {"manifest_file": {"name": kind, "contents": file.read()}}
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no UTF-8"
        raise UsageError(f"{path!r} cannot be read: {why}") from error
    found = api.named(_PATH, "runtimes", name, there=False)
    if found:
        made = api.ask("POST", f"{_PATH}/{part(found)}/revisions", body)
        revision = id_of(made)
    else:
        language = "python" if requirements is not None else "javascript"
        made = api.ask("POST", _PATH, {"language": language, "name": name, **body})
        found, revision = id_of(made), str(made.get("revision_id"))
    status = str(made.get("status")) if arguments.no_wait else _wait(api, found, revision)
    if arguments.json:
        show({"id": found, "revision_id": revision, "status": status})
    else:
        print(printable(revision))
    return int(status == "failed")


def _wait(api: Api, runtime: str, revision: str) -> str:
    """Show what the builder says until it is done; return how that ended."""
    path, shown = f"{_PATH}/{part(runtime)}/revisions/{part(revision)}", 0
    while True:
        # In this order: what it says in the end is there once it has ended.
        status = str(api.ask("GET", path).get("status"))
        text = api.text(f"{path}/log")
        # The last line may go on.
        end = text.rfind("\n") + 1 if status in ("pending", "building") else len(text)
        if end > shown:
            note(printable(text[shown:end]).rstrip("\n"))
            shown = end
        if status not in ("pending", "building"):
            note(printable(f"fumehood: revision {revision}: {status}"))
            return status
        time.sleep(_LOOK_SECONDS)


def _list(api: Api, arguments: Arguments) -> int:
    columns = ("id", "name", "language", "status", "revision_id")
    return listed(arguments, api.rows(_PATH, "runtimes"), columns, "There are no runtimes.")


def _show(api: Api, arguments: Arguments) -> int:
    path = f"{_PATH}/{part(_named(api, arguments))}"
    found, revisions = api.ask("GET", path), api.page(f"{path}/revisions", "revisions")
    if arguments.json:
        show({**found, "revisions": revisions})
        return 0
    facts(found, ("id", "name", "language", "status", "revision_id"))
    print()
    return listed(arguments, revisions, ("id", "status"), "It has no revisions.")


def _log(api: Api, arguments: Arguments) -> int:
    path = f"{_PATH}/{part(_named(api, arguments))}"
    revision = arguments.revision or str(api.ask("GET", path).get("revision_id"))
    print(printable(api.text(f"{path}/revisions/{part(revision)}/log")).rstrip())
    return 0


def _remove(api: Api, arguments: Arguments) -> int:
    found = _named(api, arguments)
    api.ask("DELETE", f"{_PATH}/{part(found)}")
    note(printable(f"removed {found}"))
    return 0


def _named(api: Api, arguments: Arguments) -> str:
    what = f"fumehood runtime {arguments.action} RUNTIME: its name or its id; `list` shows both"
    return api.named(_PATH, "runtimes", needed(arguments.runtime, what))
