"""What a sandbox's processes use, read from the host's /proc: the fallback where no cgroup counts, and CPU always.

Not promised: what the kernel itself holds for a process (socket and pipe buffers) is not seen. Memory files that
nobody maps would not be either, so where this is all there is, seccomp refuses to make them.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGESIZE")


def tree_usage(first: int) -> tuple[float, int]:
    """Return (CPU seconds, resident bytes) of `first` and all that descends from it; a process may end meanwhile.

    CPU includes children that were waited for. Pages that processes share count once where the kernel tells (PSS).
    """
    cpu_ticks, resident = 0, 0
    pending, seen = [first], set[int]()
    while pending:
        pid = pending.pop()
        if pid in seen:
            continue
        seen.add(pid)
        try:
            cpu_ticks += _cpu_ticks(pid)
            if pid != first:  # process 1 is ours; its pages are shared with us
                resident += _resident_bytes(pid) + _table_bytes(pid)
            pending.extend(_children(pid))
        except (OSError, ValueError, IndexError):
            continue  # it ended between two reads
    return cpu_ticks / _TICKS, resident


def tree(first: int) -> list[int]:
    """Return `first` and all that descends from it."""
    found, pending = list[int](), [first]
    while pending:
        pid = pending.pop()
        found.append(pid)
        try:
            pending.extend(each for each in _children(pid) if each not in found)
        except OSError:
            continue  # it ended between two reads
    return found


#: What a sandbox may hold of locks on parts of files: no group counts the 192 bytes of each.
MOST_LOCKS = 10_000
_LOCKS_READ = 2 << 20


def holds_too_many_locks(first: int) -> bool:
    """Whether `first` and all that descends from it hold more than `MOST_LOCKS`."""
    with open("/proc/locks", "rb") as file:
        lines = file.read(_LOCKS_READ).splitlines()
    if len(lines) <= MOST_LOCKS:
        return False
    # 1: POSIX  ADVISORY  WRITE 4242 00:1a:7 0 0
    owners = set(map(b"%d".__mod__, tree(first)))
    return sum(words[4] in owners for words in map(bytes.split, lines) if len(words) > 4) > MOST_LOCKS


def shares_by_session() -> bool:
    """Whether the kernel shares processors by session first: to stand back within one's own helps nobody."""
    try:
        with open("/proc/sys/kernel/sched_autogroup_enabled", "rb") as file:
            return file.read().strip() != b"0"
    except OSError:
        return False


def stand_back(first: int) -> None:
    """Have `first` and all that descends from it run where nobody else wants to. They cannot undo it, nor can an ordinary user."""
    for pid in tree(first):
        try:
            for thread in os.listdir(f"/proc/{pid}/task"):
                os.sched_setscheduler(int(thread), os.SCHED_IDLE, os.sched_param(0))
        except OSError:
            continue  # it ended between two looks


def states(pid: int) -> set[str]:
    """Return the states of a process's threads, as letters of proc(5): "T" is stopped, "Z" and "X" have ended."""
    found = set[str]()
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/stat", "rb") as file:
                found.add(file.read().rpartition(b")")[2].split()[0].decode())
    except OSError:
        found.add("X")
    return found


def _cpu_ticks(pid: int) -> int:
    with open(f"/proc/{pid}/stat", "rb") as file:
        # The name in brackets is the guest's choice and may hold anything, a ')' too: take the last.
        fields = file.read().rpartition(b")")[2].split()
    return sum(int(field) for field in fields[11:15])


def _resident_bytes(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            counted = [int(line.split()[1]) for line in file if line.startswith((b"Pss:", b"SwapPss:"))]
            return sum(counted) * 1024 if counted else _pages(pid)
    except OSError:
        return _pages(pid)


def _table_bytes(pid: int) -> int:
    """Return what the kernel holds of page tables for a process: a gigabyte of reserved memory may need none, or two million."""
    with open(f"/proc/{pid}/status", "rb") as file:
        return next((int(line.split()[1]) * 1024 for line in file if line.startswith(b"VmPTE:")), 0)


def _pages(pid: int) -> int:
    with open(f"/proc/{pid}/statm", "rb") as file:
        return int(file.read().split()[1]) * _PAGE


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
            found += [int(word) for word in file.read().split()]
    return found


def network_refused(counters: Iterable[int]) -> int:
    """Return how many packets and connections a network namespace's kernel refused for want of a route.

    `counters` are its `/proc/net/snmp` and `snmp6`, open.
    """
    total = 0
    for place, descriptor in enumerate(counters):
        text = os.pread(descriptor, 1 << 14, 0)
        if text != _UNUSED.get(place):
            count = _refused(text)
            total += count
            if not count:
                _UNUSED[place] = text
    return total


# What the counters of networks that nobody has used say, by their place: as a rule one text each, which need not be taken apart.
_UNUSED: dict[int, bytes] = {}


def _refused(text: bytes) -> int:
    # Version 4 has a line of names and one of values, version 6 a line each.
    names, values = text.split(b"\n", 2)[:2]
    if names.startswith(b"Ip: "):
        return int(values.split()[names.split().index(b"OutNoRoutes")])
    return int(text.partition(b"Ip6OutNoRoutes")[2].split(None, 1)[0])


def private_bytes(first: int) -> int:
    """Return what `first` and all that descends from it hold in memory and share with no other process."""
    total, pending = 0, [first]
    while pending:
        pid = pending.pop()
        try:
            with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
                total += 1024 * sum(int(line.split()[1]) for line in file if line.startswith(b"Private_"))
            pending.extend(_children(pid))
        except (OSError, ValueError, IndexError):
            continue  # it ended, or cannot be looked at
    return total
