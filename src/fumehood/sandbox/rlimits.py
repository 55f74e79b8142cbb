"""Per-process limits, always set, whatever else bounds the whole tree."""

from __future__ import annotations

import math
import resource

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..protocol.limits import Limits

_OPEN_FILES = 1024
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
        resource.RLIMIT_CORE: 0,
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
    for limit, value in values.items():
        hard = resource.getrlimit(limit)[1]
        bounded = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (bounded, bounded))
