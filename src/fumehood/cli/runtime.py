"""`fumehood runtime`: the environments that programs run in."""

from __future__ import annotations

import json
import os
import shutil

from ..runtimes import build, packages
from .arguments import Arguments, Command, Option, UsageError
from .terminal import note


def runtime(arguments: Arguments) -> int:
    """Do the command."""
    actions = {"build": _build, "list": _list}
    action = actions.get(arguments.action or "")
    if action is None:
        raise UsageError(f"fumehood runtime {arguments.action or ''!r}: say {' or '.join(actions)}")
    return action(arguments)


def _build(arguments: Arguments) -> int:
    path = os.path.join(packages.folder(), packages.revision())
    if os.path.isdir(path) and arguments.force:
        shutil.rmtree(path)
    if not os.path.isdir(path):
        build.build(path, None if arguments.standard_library else packages.LOCK, note)
    print(path)
    return 0


def _list(arguments: Arguments) -> int:
    folder = packages.folder()
    names = sorted(name for name in os.listdir(folder) if not name.startswith(".")) if os.path.isdir(folder) else []
    rows = [
        {"revision": name, "path": os.path.join(folder, name), "current": name == packages.revision()} for name in names
    ]
    if arguments.json:
        print(json.dumps(rows, indent=2))
    else:
        for row in rows:
            print(f"{row['revision']:<40} {'current' if row['current'] else '':<8} {row['path']}")
    return 0


COMMAND = Command(
    name="runtime",
    summary="Build and list the environments that programs run in.",
    description=(
        "build: install the packages of the python runtime now and not at the first run. list: show what is installed."
    ),
    run=runtime,
    positionals=(("ACTION", "build or list."),),
    options=(
        Option(name="standard-library", help="build: no packages; needs no network."),
        Option(name="force", help="build: anew, even where it is there."),
        Option(name="json", help="list: print JSON."),
    ),
    examples=("fumehood runtime build", "fumehood runtime list --json"),
)
