"""The environments of packages that programs run in: which there are, where they are kept, how each is found.

Promised: a revision is named after the content of its lock and never changes; a name leads to one revision at a time. The
built-in ones are made when first used, others by `fumehood runtime build`, with `--name NAME`, for Python
or for Node.js.
"""

from __future__ import annotations

import binascii
import os
import sys

from ..errors import RuntimeUnavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .runtime import Host

_HERE = os.path.dirname(os.path.abspath(__file__))
#: Built-in environment to the first 12 digits of its lock file's SHA-256. The tests hold them against the files; hashing
#: takes 2 ms to import.
LOCK_IDS = {"python": "105bbca6a9b8", "python-data": "af1fe8ebd8cf"}
#: Below `folder()`: one small file a name of the user's own, which holds the revision's name.
NAMES = "names"
# In names of revisions: no name of a runtime has a dot.
_NODE = "node.js"


def lock(name: str) -> str:
    """Return the path of a built-in environment's lock file."""
    return os.path.join(_HERE, f"{name}.lock")


def folder() -> str:
    """Return where runtimes are kept: below XDG_DATA_HOME or `~/.local/share`."""
    data = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    return os.path.join(data, "fumehood", "runtimes")


def revision(name: str = "python", lock_id: str | None = None) -> str:
    """Return the name of the environment that this interpreter and a lock make; without `lock_id` a built-in's."""
    # Two interpreters of one version may lie in two places, and an environment names its base by path.
    return f"{name}-{_interpreter()}-{lock_id or LOCK_IDS[name]}"


def node_revision(name: str, major: int, lock_id: str) -> str:
    """Return the name of what a lock makes for this major version of Node.js."""
    return f"{name}-{_NODE}-{major}-{lock_id}"


def is_for_node(revision_name: str) -> bool:
    """Return whether a revision is of packages for Node.js, not for Python."""
    return revision_name.rsplit("-", 3)[1:2] == [_NODE]


def own_language(name: str) -> str | None:
    """Return what programs of a runtime of the user's own are written in, "python" or "javascript"; None where there is none."""
    found = own(name)
    return None if found is None else "javascript" if is_for_node(found) else "python"


def own(name: str) -> str | None:
    """Return the revision that a name of the user's own leads to, None where there is no such name."""
    if not name or "/" in name or "\0" in name or name.startswith("."):
        return None
    try:
        with open(os.path.join(folder(), NAMES, name), encoding="utf-8") as file:
            return file.read().strip()
    except OSError:
        return None


def ensure(name: str, host: Host) -> str:
    """Return the folder of an environment; a built-in one is built first where it is not there.

    Raises `RuntimeUnavailable` with the builder's own words where it cannot be built, or with the next step where it is the
    user's own and gone, or was made for another Python.
    """
    if name in LOCK_IDS:
        path = os.path.join(folder(), revision(name))
        if not os.path.exists(os.path.join(path, "pyvenv.cfg")):
            from . import build  # noqa: PLC0415 - needed once in the life of a revision

            build.build(path, name, lock(name), host)
        return path
    found = own(name) or ""
    path = os.path.join(folder(), found)
    if not found.startswith(f"{name}-{_interpreter()}-") or not os.path.exists(os.path.join(path, "pyvenv.cfg")):
        raise RuntimeUnavailable(
            f"runtime {name!r} was not built for this Python: `fumehood runtime build --requirements FILE --name {name}`"
        )
    return path


def ensure_for_node(name: str, major: int) -> str:
    """Return the folder of packages of the user's own for Node.js. Raises `RuntimeUnavailable` as `ensure` does."""
    found = own(name) or ""
    path = os.path.join(folder(), found, "node_modules")
    if not found.startswith(node_revision(name, major, "")) or not os.path.isdir(path):
        raise RuntimeUnavailable(
            f"runtime {name!r} was not built for this Node.js: `fumehood runtime build --package-json FILE --name {name}`"
        )
    return path


def _interpreter() -> str:
    major, minor, micro = sys.version_info[:3]
    return f"{major}.{minor}.{micro}-{binascii.crc32(sys.base_prefix.encode()):08x}"
