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


def shown(path: str, *libraries: str) -> tuple[str, tuple[Mount, ...]]:
    """Return where the interpreter at `path` is found inside, and what must be mounted for that.

    Nothing where the base system has it. Elsewhere the program itself and, of its prefix, the folders named in
    `libraries`, at a place of ours: the host's path may be a name that the sandbox uses, and tells of the host.
    """
    if path.startswith("/usr/bin/"):
        return path, ()
    prefix = os.path.dirname(os.path.dirname(path))
    home = f"/opt/fumehood/{os.path.basename(path)}"
    inside = f"{home}/bin/{os.path.basename(path)}"
    folders = [library for library in libraries if os.path.isdir(f"{prefix}/{library}")]
    libraries_shown = (Mount(host=f"{prefix}/{library}", inside=f"{home}/{library}") for library in folders)
    return inside, (Mount(host=path, inside=inside), *libraries_shown)


def _is_script(path: str) -> bool:
    with open(path, "rb") as file:
        return file.read(2) == b"#!"
