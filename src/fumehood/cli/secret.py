"""`fumehood secret`: the secrets that a server keeps for programs' connections and tools."""

from __future__ import annotations

import os
import sys

from .api import JSON, SERVER, Api, act, listed, needed, part, show
from .arguments import Arguments, Command, Option, UsageError
from .terminal import is_terminal, note, printable

_PATH = "/v1/secrets"


def secret(arguments: Arguments) -> int:
    """Do the command."""
    return act(arguments, "secret", {"create": _create, "list": _list, "delete": _delete})


def _create(api: Api, arguments: Arguments) -> int:
    name = needed(arguments.name, "fumehood secret create NAME: say what to call it")
    made = api.ask("POST", _PATH, {"name": name, "value": _value(arguments.from_env)})
    if arguments.json:
        show(made)
    else:
        print(printable(str(made.get("id"))))
    return 0


def _value(variable: str | None) -> str:
    """Return the value: never an argument, which every user of the machine can see."""
    if variable is not None:
        value = os.environ.get(variable, "")
        return needed(value, f"--from-env {variable!r}: there is no such variable, or it is empty")
    if is_terminal(0):
        import getpass  # noqa: PLC0415 - for who types it

        value = getpass.getpass("Value, which is not shown: ")
    else:
        try:
            value = sys.stdin.buffer.read().decode("utf-8")
        except UnicodeDecodeError as error:
            raise UsageError("the value on standard input is no UTF-8: encode it, in base64 for one") from error
    # As `echo` and editors end what they write.
    value = value.removesuffix("\n").removesuffix("\r")
    return needed(value, "the value is empty: give it on standard input, or name a variable by --from-env")


def _list(api: Api, arguments: Arguments) -> int:
    return listed(arguments, api.rows(_PATH, "secrets"), ("id", "name"), "There are no secrets.")


def _delete(api: Api, arguments: Arguments) -> int:
    name = needed(arguments.name, "fumehood secret delete NAME: its name or its id; `fumehood secret list` shows both")
    found = api.named(_PATH, "secrets", name)
    api.ask("DELETE", f"{_PATH}/{part(found)}")
    note(printable(f"fumehood: secret {found} is gone"))
    return 0


COMMAND = Command(
    name="secret",
    summary="Keep, list and delete a server's secrets.",
    description=(
        "create NAME: keep a secret, whose value is read from standard input or from a variable, never from the arguments, and "
        "print its id. list: show ids and names; nothing gives a value back. delete NAME: forget it."
    ),
    run=secret,
    positionals=(("ACTION", "create, list or delete."), ("NAME", "Its name; delete: its name or id.")),
    options=(
        Option(name="from-env", metavar="VARIABLE", help="create: take the value from this variable."),
        JSON,
        SERVER,
    ),
    examples=(
        "fumehood secret create github < token.txt",
        "fumehood secret create github --from-env GH_TOKEN",
        "fumehood secret delete github",
    ),
)
