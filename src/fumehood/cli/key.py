"""`fumehood key`: the API keys of a server."""

from __future__ import annotations

from .api import JSON, SERVER, Api, act, listed, needed, one_line, part, show
from .arguments import Arguments, Command, Option
from .terminal import note, printable


def key(arguments: Arguments) -> int:
    """Do the command."""
    return act(arguments, "key", {"create": _create, "list": _list, "revoke": _revoke})


def _create(api: Api, arguments: Arguments) -> int:
    name = needed(arguments.name, "fumehood key create NAME: say what it is for")
    scopes = {"scopes": arguments.scope} if arguments.scope else {}
    project = {"project_id": arguments.project} if arguments.project else {}
    made = api.ask("POST", "/v1/keys", {"name": name, **scopes, **project})
    if arguments.json:
        show(made)
    else:
        note(f"fumehood: key {one_line(made.get('id'))} may {one_line(made.get('scopes'))}; it is shown this once:")
        print(printable(str(made.get("key"))))
    return 0


def _list(api: Api, arguments: Arguments) -> int:
    keys = api.page("/v1/keys", "keys")
    columns = ("id", "name", "scopes", "created_at", "revoked_at")
    return listed(arguments, keys, columns, "There are no keys.")


def _revoke(api: Api, arguments: Arguments) -> int:
    name = needed(arguments.name, "fumehood key revoke ID: `fumehood key list` shows the ids")
    api.ask("DELETE", f"/v1/keys/{part(name)}")
    note(printable(f"fumehood: key {name} opens nothing any more"))
    return 0


COMMAND = Command(
    name="key",
    summary="Make, list and revoke a server's API keys.",
    description=(
        "create NAME: make a key and print it, this once. list: show the keys of your key's project. revoke ID: have one open "
        "nothing from now on. Scopes: execute, read, manage (tools, secrets, runtimes), keys, admin (all projects)."
    ),
    run=key,
    positionals=(("ACTION", "create, list or revoke."), ("NAME", "The new key's name; revoke: the key's id.")),
    options=(
        Option(name="scope", metavar="SCOPE", many=True, help="create: what it may do (all but admin)."),
        Option(name="project", metavar="ID", help="create: whose it is, where yours may administer."),
        JSON,
        SERVER,
    ),
    examples=(
        "fumehood key create ci --scope execute --scope read",
        "fumehood key list",
        "fumehood key revoke 01JM3WYP0000000000000000AA",
    ),
)
