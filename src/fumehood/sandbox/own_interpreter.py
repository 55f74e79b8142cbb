"""The Python that runs Fumehood, as it can be shown inside the walls: for the canary and the `python` runtime."""

from __future__ import annotations

import os
import sys

from .spec import Mount


def path() -> str:
    """Return the base interpreter, outside of any virtual environment."""
    return os.path.realpath(getattr(sys, "_base_executable", sys.executable))


def mounts() -> tuple[Mount, ...]:
    """Return what the base interpreter needs beyond the base system's folders."""
    if sys.base_prefix == "/usr":
        return ()
    base = os.path.realpath(sys.base_prefix)
    return tuple(
        Mount(host=f"{base}/{part}", inside=f"{base}/{part}")
        for part in ("bin", "lib")
        if os.path.isdir(f"{base}/{part}")
    )
