"""`fumehood runtime`: the environments that programs run in."""

from __future__ import annotations

import json
import os

from ..runtimes import build, packages
from ..runtimes.runtime import Host
from ..sandbox import walls
from .arguments import Arguments, Command, Option, UsageError
from .progress import Building
from .server import SERVER, url_of
from .terminal import note


def runtime(arguments: Arguments) -> int:
    """Do the command."""
    if url := url_of(arguments):
        from . import runtime_there  # noqa: PLC0415 - for who asks a server

        return runtime_there.runtime(arguments, url)
    actions = {"build": _build, "list": _list, "remove": _remove}
    action = actions.get(arguments.action or "")
    if action is None:
        raise UsageError(f"fumehood runtime {arguments.action or ''!r}: say {', '.join(actions)}")
    return action(arguments)


def _build(arguments: Arguments) -> int:
    if arguments.requirements is not None or arguments.package_json is not None or arguments.name is not None:
        print(_build_own(arguments))
        return 0
    name = arguments.runtime or "python"
    if name not in packages.LOCK_IDS:
        raise UsageError(
            f"there is no built-in runtime {name!r} to build: {', '.join(packages.LOCK_IDS)}, or one of your own with "
            "--requirements FILE or --package-json FILE, and --name NAME"
        )
    revision = packages.revision(name)
    path = os.path.join(packages.folder(), revision)
    if os.path.isdir(path) and arguments.force:
        build.remove(revision)
    if not os.path.isdir(path):
        build.build(path, name, None if arguments.standard_library else packages.lock(name), _host(arguments))
    print(path)
    return 0


def _build_own(arguments: Arguments) -> str:
    requirements, package_json = arguments.requirements, arguments.package_json
    if (requirements is None) == (package_json is None) or arguments.name is None or arguments.runtime is not None:
        raise UsageError(
            "a runtime of your own needs --requirements FILE or --package-json FILE, one of them, and --name NAME, and no "
            "other name"
        )
    hosts = tuple(arguments.allow_host)
    if package_json is not None:
        return build.build_own_for_node(arguments.name, package_json, _host(arguments), allowed_hosts=hosts)
    return build.build_own(arguments.name, requirements, _host(arguments), allowed_hosts=hosts)


def _host(arguments: Arguments) -> Host:
    return Host(notice=Building(), without=walls.named(arguments.without))


def _list(arguments: Arguments) -> int:
    rows = [_row(revision) for revision in build.installed()]
    if arguments.json:
        print(json.dumps(rows, indent=2))
    else:
        for row in rows:
            print(f"{row['runtime']:<14} {'current' if row['current'] else '':<8} {row['path']}")
    return 0


def _row(revision: str) -> dict[str, object]:
    name = build.runtime_of(revision)
    current = packages.revision(name) if name in packages.LOCK_IDS else packages.own(name)
    path = os.path.join(packages.folder(), revision)
    language = "javascript" if packages.is_for_node(revision) else "python"
    return {"runtime": name, "language": language, "revision": revision, "path": path, "current": revision == current}


def _remove(arguments: Arguments) -> int:
    if arguments.runtime is None:
        raise UsageError("fumehood runtime remove: say which, by the name or the revision that `list` shows")
    for revision in build.remove(arguments.runtime):
        note(f"removed {revision}")
    return 0


COMMAND = Command(
    name="runtime",
    summary="Build, list and remove the environments that programs run in.",
    description=(
        "build: install the packages of a built-in runtime now and not at its first use (python, the default, or python-data), or "
        "make one of your own from a requirements file, or for JavaScript from a package.json, to be used as --language NAME. "
        "list: show what is installed. remove: delete a runtime or one of its revisions. Revisions never change: other "
        "requirements make another one. A build runs inside the walls and reaches the package index, the hosts that the "
        "requirements or uv's or npm's settings name, and no other. "
        "With --server the runtimes are those of a server: build waits for its builder and prints the revision, to be used as "
        "--language; show RUNTIME lists revisions, log RUNTIME prints what the builder said."
    ),
    run=runtime,
    positionals=(("ACTION", "build, list or remove; at a server show and log too."), ("RUNTIME", "Which one.")),
    options=(
        Option(name="requirements", short="r", metavar="FILE", help="build: what to install, as pip and uv read it."),
        Option(name="package-json", metavar="FILE", help="build: for JavaScript, what to install: its `dependencies`."),
        Option(name="name", metavar="NAME", help="build: what to call it."),
        Option(
            name="allow-host",
            metavar="HOST",
            many=True,
            help="build: a host that may be reached besides those that the requirements name.",
        ),
        Option(name="without", metavar="WALL", many=True, help="build: give up a wall that this host cannot put up."),
        Option(name="standard-library", help="build: no packages; needs no network."),
        Option(name="force", help="build: anew, even where it is there."),
        Option(name="json", help="list: print JSON."),
        Option(name="no-wait", help="build, at a server: do not wait for its builder."),
        Option(name="revision", metavar="ID", help="log, at a server: of this revision and not of the newest."),
        SERVER,
    ),
    examples=(
        "fumehood runtime build python-data",
        "fumehood runtime build --requirements requirements.txt --name geo",
        "fumehood run --language geo -c 'import shapely'",
        "fumehood runtime build --package-json package.json --name parsers",
        "fumehood runtime list --json",
        "fumehood runtime remove geo",
        "fumehood runtime build --server https://fumehood.example --requirements requirements.txt --name geo",
    ),
)
