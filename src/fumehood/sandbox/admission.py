"""Lets nothing run before this host's walls were seen to hold.

Promised: `require` returns only where a canary has seen every wall hold on this host since it booted, for this user
and this version. A verdict that all hold is remembered in a file, since a canary takes as long as an execution; a
missing wall is looked for anew each time. Besides, every start of a sandbox reads back its own walls.
"""

from __future__ import annotations

import os

from ..errors import SandboxUnavailable
from .walls import missing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .live import Spawn


def require(spawn: Spawn, without: frozenset[str], runsc: str = "") -> None:
    """Return where every wall but those given up was seen to hold, inside gVisor with `runsc`; else raise `SandboxUnavailable`."""
    remembered = _Remembered(without, runsc)
    if remembered.holds():
        return
    from . import canary  # noqa: PLC0415 - once a boot

    down = missing(canary.probe(spawn, without, runsc), without)
    if down:
        # Where only /proc is down, what it would have shown is down for no reason of its own.
        first = next((probe for probe in down if probe.seen == "not mounted"), down[0])
        raise SandboxUnavailable(
            f"this host does not put up the wall {first.wall!r} ({first.seen}), so nothing was run. {first.remedy} "
            "`fumehood doctor` shows all walls"
        )
    remembered.keep()


_SOURCES = ("init.py", "tree.py", "landlock.py", "kernel.py", "filters/x86_64-plain.bpf", "isolation/namespaces.py",
            "isolation/gvisor.py")  # fmt: skip


class _Remembered:
    """The file that says for which host, boot, user and version all walls were seen to hold."""

    def __init__(self, without: frozenset[str], runsc: str) -> None:
        cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        self._path = os.path.join(cache, "fumehood", "walls")
        self._key = self._make_key(without, runsc)

    @staticmethod
    def _make_key(without: frozenset[str], runsc: str) -> str:
        with open("/proc/sys/kernel/random/boot_id", encoding="utf-8") as file:
            boot = file.read().strip()
        try:
            with open("/proc/self/attr/current", encoding="utf-8", errors="replace") as file:
                label = file.read().strip("\n\0")
        except OSError:
            label = "none"  # no security module, or one that does not say
        here = os.path.dirname(os.path.abspath(__file__))
        # The newest of the files that put the walls up stands for the version, also in a working tree.
        changed = max(os.stat(f"{here}/{name}").st_mtime_ns for name in _SOURCES)
        parts = (
            boot,
            os.uname().release,
            str(os.geteuid()),
            label,
            here,
            str(changed),
            ",".join(sorted(without)),
            *([runsc, str(os.stat(runsc).st_mtime_ns)] if runsc else []),
        )
        return " ".join(parts)

    def holds(self) -> bool:
        try:
            with open(self._path, encoding="utf-8") as file:
                return self._key in file.read().splitlines()
        except OSError:
            return False

    def keep(self) -> None:
        try:
            os.makedirs(os.path.dirname(self._path), mode=0o700, exist_ok=True)
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(self._key + "\n")
        except OSError:
            pass  # a home that cannot be written costs a canary each time, nothing else
