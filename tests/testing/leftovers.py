"""What this process holds of the kernel's: what is left after sandboxes are gone is counted with it."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


class Held(NamedTuple):
    """What an engine takes of the machine, as numbers that come back to where they were when it is closed."""

    descriptors: int
    cgroups: int
    mounts: int
    threads: int
    children: tuple[str, ...]
    guests: tuple[str, ...]


def held() -> Held:
    """Count what this process holds now."""
    return Held(
        descriptors=len(os.listdir("/proc/self/fd")),
        cgroups=len(groups(os.getpid())),
        mounts=Path("/proc/self/mountinfo").read_text(encoding="utf-8").count("\n"),
        threads=threading.active_count(),
        children=tuple(_children(str(os.getpid()))),
        guests=tuple(sorted(_guests())),
    )


def _children(pid: str) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()


def _guests() -> Iterator[str]:
    """Yield the names of processes below our own in other process namespaces than ours."""
    pending, own = _children(str(os.getpid())), os.readlink("/proc/self/ns/pid")
    while pending:
        pid = pending.pop()
        try:
            pending += _children(pid)
            if os.readlink(f"/proc/{pid}/ns/pid") != own:
                yield Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip()
        except OSError:
            continue


def settled() -> Held:
    """Count what this process holds when nothing has changed for half a second: an engine made before may be at work.

    Raises:
        AssertionError: It changed for 20 seconds.
    """
    now, since = held(), time.monotonic()
    until = since + 20
    while time.monotonic() < since + 0.5:
        assert time.monotonic() < until, f"what this process holds goes on changing: {now}"
        time.sleep(0.05)
        if (again := held()) != now:
            now, since = again, time.monotonic()
    return now


def assert_nothing_is_left(before: Held, within: float = 5) -> None:
    """Fail unless this process holds no more than it held before, at some moment of the next seconds.

    Less is well: something of another engine's may have gone by itself.
    """
    until = time.monotonic() + within
    while (more := _more(now := held(), before)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not more, f"{now} is more than {before}, of before: {', '.join(more)}"


def _more(now: Held, before: Held) -> list[str]:
    numbers = ("descriptors", "cgroups", "mounts", "threads")
    more = [name for name in numbers if getattr(now, name) > getattr(before, name)]
    return more + [
        name for name in ("children", "guests") if Counter(getattr(now, name)) - Counter(getattr(before, name))
    ]


def groups(pid: int) -> list[Path]:
    """Return the cgroups that a process made for its sandboxes."""
    # Not by glob: it stumbles over groups that end while it looks.
    found = os.walk("/sys/fs/cgroup")
    return [
        Path(folder, name) for folder, names, _files in found for name in names if name.startswith(f"fumehood-{pid}-")
    ]
