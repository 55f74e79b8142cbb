"""Finds interpreters on the host and says what of the host they need to be shown."""

from __future__ import annotations

import os

from ..errors import RuntimeUnavailable
from ..sandbox.spec import Mount


def find(command: str, *, package: str, search: str | None = None) -> str:
    """Return the absolute path of `command`, links resolved, from PATH. Raises `RuntimeUnavailable`."""
    for folder in (search or os.environ.get("PATH", os.defpath)).split(os.pathsep):
        path = os.path.join(folder, command)
        # A version manager's shim is a script that looks for the home directory, which has no place inside.
        if os.path.isfile(path) and os.access(path, os.X_OK) and not _is_script(path):
            return os.path.realpath(path)
    raise RuntimeUnavailable(f"`{command}` is not installed: {package}")


def mounts_for(path: str, *libraries: str) -> tuple[Mount, ...]:
    """Return what must be shown for the interpreter at `path`: nothing if the base system has it.

    Elsewhere the program itself and, of its prefix, the folders named in `libraries`.
    """
    if path.startswith("/usr/bin/"):
        return ()
    prefix = os.path.dirname(os.path.dirname(path))
    folders = [os.path.join(prefix, library) for library in libraries]
    shown = [path, *(folder for folder in folders if os.path.isdir(folder))]
    return tuple(Mount(host=each, inside=each) for each in shown)


def _is_script(path: str) -> bool:
    with open(path, "rb") as file:
        return file.read(2) == b"#!"
