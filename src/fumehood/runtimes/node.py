"""What JavaScript and TypeScript share: finding Node.js, its version, and packages for it."""

from __future__ import annotations

import functools
import os
import subprocess

from ..errors import RuntimeUnavailable
from ..sandbox.spec import Mount
from . import interpreter, packages

#: Its warnings about experimental features are about our choice of flags, not about the program.
OPTIONS = ("--no-warnings",)


@functools.cache
def find() -> tuple[str, tuple[int, int]]:
    """Return Node's path and (major, minor) version. Raises `RuntimeUnavailable`."""
    path = interpreter.find("node", package="install Debian's package `nodejs`")
    try:
        answer = subprocess.run(
            [path, "--version"], capture_output=True, text=True, timeout=10, check=True, env={}
        ).stdout
        major, minor = answer.strip().lstrip("v").split(".")[:2]
        return path, (int(major), int(minor))
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise RuntimeUnavailable(f"`{path} --version` did not answer as Node.js does: {error}") from error


def debian_modules() -> tuple[Mount, ...]:
    """Return the mount of what Debian took out of the node binary and keeps beside it."""
    folder = "/usr/share/nodejs"
    return (Mount(host=folder, inside=folder),) if os.path.isdir(folder) else ()


def own_modules(name: str | None) -> tuple[Mount, ...]:
    """Return the mount of the packages of a runtime of the user's own, nothing without a name. Raises `RuntimeUnavailable`."""
    if name is None:
        return ()
    # At the root: from /work all ways of importing look there, and what a program has in /work comes first.
    return (Mount(host=packages.ensure_for_node(name, find()[1][0]), inside="/node_modules"),)
