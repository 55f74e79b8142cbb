"""Builds the environment of the `python` runtime, once, with uv, from a lock file with hashes.

Promised: a revision is named after its content and never changes; a build that fails leaves nothing behind; only
wheels are unpacked, so no code of a package runs while building.
"""

from __future__ import annotations

import binascii
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .runtime import Notice

LOCK = os.path.join(os.path.dirname(os.path.abspath(__file__)), "python.lock")
#: The first 12 digits of the lock file's SHA-256, held against the file by the tests; hashing takes 2 ms to import.
LOCK_ID = "105bbca6a9b8"


def folder() -> str:
    """Return where runtimes are kept: below XDG_DATA_HOME or `~/.local/share`."""
    data = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    return os.path.join(data, "fumehood", "runtimes")


def revision() -> str:
    """Return the name of the environment that this interpreter and this lock file make."""
    major, minor, micro = sys.version_info[:3]
    # Two interpreters of one version may lie in two places, and an environment names its base by path.
    place = binascii.crc32(sys.base_prefix.encode())
    return f"python-{major}.{minor}.{micro}-{place:08x}-{LOCK_ID}"


def ensure(notice: Notice) -> str:
    """Return the folder of the environment, building it first where it is not there.

    Raises `RuntimeUnavailable` with the builder's own words where it cannot be built.
    """
    path = os.path.join(folder(), revision())
    if not os.path.exists(os.path.join(path, "pyvenv.cfg")):
        from . import build  # noqa: PLC0415 - needed once in the life of a revision

        build.build(path, LOCK, notice)
    return path
