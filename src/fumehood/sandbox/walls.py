"""Finds out which walls this host really puts up, by running a canary in a sandbox; refuses where one is missing.

Promised: `require` lets nothing run whose walls have not been seen to hold on this host since it booted, for this
user and this version. A verdict that all hold is remembered in a file, since a canary takes as long as an
execution; a missing wall is looked for anew each time. Besides, every start of a sandbox reads back its own walls.
"""

from __future__ import annotations

import os

from .. import errors
from ..protocol.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from .supervisor import Spawn

#: Every wall: what it keeps from whom. In the order in which `fumehood doctor` prints them.
WALLS = {
    "user-namespace": "its own users: no privilege of the host's",
    "mnt-namespace": "its own mounts",
    "pid-namespace": "its own processes: none other to see or signal",
    "net-namespace": "its own network stack, holding nothing but lo",
    "ipc-namespace": "its own shared memory and queues",
    "uts-namespace": "its own host name",
    "cgroup-namespace": "no view of the host's cgroups",
    "own-user": "not the host's root, whatever starts it",
    "files": "a made-up read-only tree: nothing of home, /etc, /var, /run",
    "disk": "sized temporary folders, bytes and files alike",
    "network": "neither the host's ports nor the outside",
    "proc": "only its own processes in /proc, no /proc/sys",
    "capabilities": "no capability in any set",
    "no-new-privileges": "no setuid program gains anything",
    "seccomp": "a list of allowed system calls",
    "landlock": "a second wall around files",
    "limits": "per-process limits, no core files",
}
#: Walls that the operator may give up by name, and what the others then still do.
CAN_GO_WITHOUT = {
    "landlock": "mounts alone decide about files",
    "seccomp": "the kernel's whole system-call surface is open to the guest",
    "proc": "the guest has no /proc, and neither its user nor its namespaces can be read back",
    "cgroup": "memory and processes are sampled by the supervisor although a cgroup could be had",
}


#: What the canary reads from /proc and cannot show without it.
SHOWN_BY_PROC = frozenset(
    {"own-user", "capabilities", "no-new-privileges", *(wall for wall in WALLS if wall.endswith("-namespace"))}
)


class Probe(Record):
    """What was seen of one wall. `remedy` is empty where it is up."""

    wall: str
    up: bool
    seen: str
    remedy: str = ""


def named(without: Iterable[str]) -> frozenset[str]:
    """Check names of walls to give up. Raises `InvalidRequest` naming those that can be."""
    names = frozenset([without] if isinstance(without, str) else without)
    if unknown := sorted(names - CAN_GO_WITHOUT.keys()):
        raise errors.InvalidRequest(f"wall {unknown[0]!r} cannot be given up: choose from {', '.join(CAN_GO_WITHOUT)}")
    return names


def missing(probes: Iterable[Probe], without: frozenset[str]) -> list[Probe]:
    """Return the walls that are down and were not given up."""
    given_up = without | (SHOWN_BY_PROC if "proc" in without else frozenset())
    return [probe for probe in probes if not probe.up and probe.wall not in given_up]


def require(spawn: Spawn, without: frozenset[str]) -> None:
    """Return where every wall but those given up was seen to hold; else raise `SandboxUnavailable`."""
    remembered = _Remembered(without)
    if remembered.holds():
        return
    from . import canary  # noqa: PLC0415 - once a boot

    down = missing(canary.probe(spawn, without), without)
    if down:
        # Where only /proc is down, what it would have shown is down for no reason of its own.
        first = next((probe for probe in down if probe.seen == "not mounted"), down[0])
        raise errors.SandboxUnavailable(
            f"this host does not put up the wall {first.wall!r} ({first.seen}), so nothing was run. {first.remedy} "
            "`fumehood doctor` shows all walls"
        )
    remembered.keep()


_SOURCES = ("init.py", "tree.py", "landlock.py", "kernel.py", "filters/x86_64.bpf", "isolation/namespaces.py")


class _Remembered:
    """The file that says for which host, boot, user and version all walls were seen to hold."""

    def __init__(self, without: frozenset[str]) -> None:
        cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        self._path = os.path.join(cache, "fumehood", "walls")
        self._key = self._make_key(without)

    @staticmethod
    def _make_key(without: frozenset[str]) -> str:
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
