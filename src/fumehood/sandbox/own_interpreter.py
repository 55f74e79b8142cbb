"""The Python that runs Fumehood, as it can be shown inside the walls: for the canary and the `python` runtime."""

from __future__ import annotations

import os
import sys

from ..errors import SandboxUnavailable
from .spec import Mount


def path() -> str:
    """Return the base interpreter, outside of any virtual environment."""
    return os.path.realpath(getattr(sys, "_base_executable", sys.executable))


def mounts() -> tuple[Mount, ...]:
    """Return what the base interpreter needs beyond the base system's folders."""
    if sys.base_prefix == "/usr":
        return ()
    base = os.path.realpath(sys.base_prefix)
    # An environment names its base by path, so it must be found inside where it is outside.
    if base.startswith(("/work/", "/tmp/", "/dev/", "/proc/", "/etc/")):  # noqa: S108 - the sandbox's own places
        raise SandboxUnavailable(
            f"this Python is installed in {base}, where the sandbox has folders of its own: use another Python"
        )
    return tuple(
        Mount(host=f"{base}/{part}", inside=f"{base}/{part}")
        for part in ("bin", "lib")
        if os.path.isdir(f"{base}/{part}")
    )
