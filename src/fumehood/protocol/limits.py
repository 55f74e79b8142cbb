"""What an execution may use at most. Fixed before its code runs; never derived from what the guest says."""

from __future__ import annotations

from ..errors import InvalidRequest
from .record import Record

MiB = 1 << 20


class Limits(Record):
    """Limits of one execution. Every one applies, always.

    - `wall_seconds`: from the program's start to its end; then the whole sandbox is killed.
    - `cpu_seconds`: of all its processes together.
    - `memory_bytes`: of all its processes together, files in the sandbox included (they live in memory).
    - `pids`: processes and threads.
    - `disk_bytes`, `disk_files`: what `/work`, `/tmp` and `/dev/shm` hold together.
    - `output_bytes`: each of standard output and standard error; more ends the execution.
    - `files_out_bytes`, `files_out`: what is taken out of `/work` at the end; the rest is reported, not taken.
    """

    wall_seconds: float = 30.0
    cpu_seconds: float = 60.0
    memory_bytes: int = 512 * MiB
    pids: int = 128
    disk_bytes: int = 128 * MiB
    disk_files: int = 16384
    output_bytes: int = 8 * MiB
    files_out_bytes: int = 64 * MiB
    files_out: int = 1000

    def __post_init__(self) -> None:
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            wanted = (int, float) if name.endswith("_seconds") else (int,)
            if isinstance(value, bool) or not isinstance(value, wanted) or not low <= value <= high:
                raise InvalidRequest(f"limit {name} is {value!r}: give a number from {low} to {high}")


_RANGES = {
    "wall_seconds": (0.01, 86_400),
    "cpu_seconds": (0.01, 86_400 * 64),
    "memory_bytes": (16 * MiB, 1 << 40),
    # Node alone starts eleven threads.
    "pids": (1, 32_768),
    "disk_bytes": (1 * MiB, 1 << 40),
    "disk_files": (64, 1 << 24),
    "output_bytes": (1, 1 << 30),
    "files_out_bytes": (0, 1 << 32),
    "files_out": (0, 100_000),
}
