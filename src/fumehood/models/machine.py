"""What this machine has for a model: accelerators and memory, as its kernel and `nvidia-smi` tell.

Promised: it is only looked at, within seconds, and what cannot be learnt is said to be unknown. Not promised: accelerators
of other makers.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from ..protocol.record import Record

_DRIVEN = Path("/proc/driver/nvidia/gpus")
_MEMINFO = Path("/proc/meminfo")
_ASK = ("nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits")
# The first call after a start wakes the driver.
_ASK_SECONDS = 20
_MIB = 1 << 20


class Machine(Record):
    """`accelerator_bytes` is the smallest one's memory, `memory_bytes` what is free of the machine's own; 0 where unknown."""

    accelerators: int
    accelerator_bytes: int
    memory_bytes: int


def this_machine() -> Machine:
    """Look. `CUDA_VISIBLE_DEVICES` hides accelerators from us as it does from the server."""
    sizes = _sizes()
    count = len(sizes) or _driven()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        count = min(count, len([each for each in visible.split(",") if each.strip() not in ("", "-1")]))
    return Machine(
        accelerators=count,
        accelerator_bytes=min(sizes) * _MIB if sizes and count else 0,
        memory_bytes=_free(),
    )


def _sizes() -> list[int]:
    """Return each accelerator's memory in MiB; nothing where there is no driver to tell."""
    try:
        told = subprocess.run(_ASK, stdin=subprocess.DEVNULL, capture_output=True, timeout=_ASK_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    lines = told.stdout.split() if told.returncode == 0 else []
    # A driver that knows a number says it for each.
    return [int(line) for line in lines] if all(line.isdigit() for line in lines) else []


def _driven() -> int:
    try:
        return len(os.listdir(_DRIVEN))
    except OSError:
        return 0


def _free() -> int:
    try:
        words = dict(line.split(":", 1) for line in _MEMINFO.read_text(encoding="ascii").splitlines())
        return int(words["MemAvailable"].split()[0]) << 10
    except (OSError, ValueError, LookupError):
        return 0
