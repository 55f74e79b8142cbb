"""Per-process limits, always set, whatever else bounds the whole tree."""

from __future__ import annotations

import math
import resource

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..protocol.limits import Limits

_OPEN_FILES = 1024
# What a user's processes have on their way through sockets together may exceed the limit of whoever sends by a quarter of a
# thousand. Beyond its own limit everybody of that user is refused: the host's programs and the start of other sandboxes, which
# have 1024, must not be.
_OPEN_FILES_OF_SHARED_USER = 512
# Not 0: where the host pipes core files to a helper, the kernel passes on whatever that says, but for 1.
_CORE_BYTES = 1
_STACK_BYTES = 8 << 20
_LOCKED_BYTES = 64 << 10
_QUEUED_SIGNALS = 1024


def apply(limits: Limits, *, sampled: bool, forkable: bool, keepers: int) -> None:
    """Set them for this process and all that come from it, soft and hard alike.

    `forkable`: where a cgroup counts processes it alone does, since this limit would bound a session and all its copies together.
    `sampled`: no cgroup bounds memory, so a backstop catches what grows faster than a sample is taken. `keepers` of the
    sandbox's processes are ours.
    """
    values = {
        resource.RLIMIT_CORE: _CORE_BYTES,
        # The kernel counts whole seconds and each process by itself; the supervisor counts the sum.
        resource.RLIMIT_CPU: max(1, math.ceil(limits.cpu_seconds)),
        # Bounds a memfd too, which no address-space limit sees.
        resource.RLIMIT_FSIZE: limits.disk_bytes,
        resource.RLIMIT_NOFILE: _OPEN_FILES,
        resource.RLIMIT_STACK: _STACK_BYTES,
        resource.RLIMIT_MEMLOCK: _LOCKED_BYTES,
        resource.RLIMIT_MSGQUEUE: 0,
        resource.RLIMIT_SIGPENDING: _QUEUED_SIGNALS,
        resource.RLIMIT_NICE: 0,
        resource.RLIMIT_RTPRIO: 0,
    }
    if sampled or not forkable:
        values[resource.RLIMIT_NPROC] = limits.pids + keepers
    if sampled:
        # Far above the limit proper: interpreters reserve more than they touch.
        values[resource.RLIMIT_DATA] = max(4 * limits.memory_bytes, limits.memory_bytes + (1 << 30))
    _set(values)


def narrow(*, shares_user: bool) -> None:
    """Take from a program what its sandbox needed to start.

    `shares_user`: the kernel counts what it uses together with the caller's other processes.
    """
    if shares_user:
        _set({resource.RLIMIT_NOFILE: _OPEN_FILES_OF_SHARED_USER})


def apply_to_gvisor(limits: Limits) -> None:
    """Do the same for gVisor's processes, which reserve memory in files far larger than what they touch."""
    _set(
        {
            resource.RLIMIT_CORE: _CORE_BYTES,
            resource.RLIMIT_CPU: max(1, math.ceil(limits.cpu_seconds)),
            resource.RLIMIT_NOFILE: 8 * _OPEN_FILES,
            resource.RLIMIT_NPROC: limits.pids,
            resource.RLIMIT_MSGQUEUE: 0,
            resource.RLIMIT_NICE: 0,
            resource.RLIMIT_RTPRIO: 0,
        }
    )


def _set(values: dict[int, int]) -> None:
    for limit, value in values.items():
        hard = resource.getrlimit(limit)[1]
        bounded = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (bounded, bounded))
