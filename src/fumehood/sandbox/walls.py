"""The walls by name: what each is against, which can be given up, and what a look at one found."""

from __future__ import annotations

from .. import errors
from ..protocol.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


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
#: What is looked for inside gVisor, whose kernel tells nothing of the host's.
GVISOR_WALLS = {
    "own-kernel": "gVisor's kernel answers the program, not the host's",
    **{wall: WALLS[wall] for wall in ("files", "disk", "network", "capabilities", "limits")},
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


class Finding(Record):
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


def missing(probes: Iterable[Finding], without: frozenset[str]) -> list[Finding]:
    """Return the walls that are down and were not given up."""
    given_up = without | (SHOWN_BY_PROC if "proc" in without else frozenset())
    return [probe for probe in probes if not probe.up and probe.wall not in given_up]
