"""Which memory a program uses from its order to its end, found out once in a zygote, and used ahead in each fork.

A fork shares its pages with the zygote until it writes to them, and has none of a file's before it looks at them; each first
time costs a fault. Promised: `touch` and `look` change nothing but that. Where the kernel does not tell
(`/proc/self/pagemap`), nothing is found and nothing touched.
"""

from __future__ import annotations

import ctypes
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_PAGE = os.sysconf("SC_PAGESIZE")
# From Documentation/admin-guide/mm/pagemap.rst: present, and mapped by this process alone.
_PRESENT = 1 << 63
_OWN = _PRESENT | 1 << 56
# The kernel maps as many pages of a file at once, where they are in memory.
_AT_ONCE = 16 * _PAGE


def own_pages() -> set[int]:
    """Return the addresses of all pages of private memory that this process shares with no other."""
    return _pages(private_ranges(), _OWN)


def file_pages() -> set[int]:
    """Return the addresses of this process's pages of programs and libraries that cannot be written to."""
    return _pages(file_ranges(), _PRESENT)


def _pages(ranges: Iterable[tuple[int, int]], wanted: int) -> set[int]:
    found = set[int]()
    try:
        pagemap = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return found
    try:
        for start, end in ranges:
            entries = memoryview(os.pread(pagemap, (end - start) // _PAGE * 8, start // _PAGE * 8)).cast("Q")
            found.update(start + number * _PAGE for number, entry in enumerate(entries) if entry & wanted == wanted)
    except OSError:
        pass
    finally:
        os.close(pagemap)
    return found


def private_ranges() -> Iterator[tuple[int, int]]:
    """Yield (first address, first behind) of private memory that can be written to, but for stacks, which grow."""
    return _ranges(b"rw-p")


def file_ranges() -> Iterator[tuple[int, int]]:
    """Yield likewise what is mapped of programs and libraries and cannot be written to."""
    return _ranges(b"r-xp", b"r--p")


def inside(pages: Iterable[int], ranges: list[tuple[int, int]]) -> list[int]:
    """Return those of the pages that lie in one of the ranges."""
    return [page for page in pages if any(first <= page < behind for first, behind in ranges)]


def _ranges(*wanted: bytes) -> Iterator[tuple[int, int]]:
    with open("/proc/self/maps", "rb") as file:
        for line in file:
            place, access, _offset, _device, _inode, *name = line.split(None, 5)
            # Stacks grow; of `[vdso]` and its like nothing can be missing.
            if access in wanted and not (name and name[0].startswith((b"[stack", b"[v"))):
                first, behind = place.split(b"-")
                yield int(first, 16), int(behind, 16)


def touch(pages: Iterable[int]) -> None:
    """Write to each page what is there. This process has one thread, and has them all."""
    memmove = ctypes.memmove
    for page in pages:
        memmove(page, page, 1)


def look(pages: Iterable[int]) -> None:
    """Read a byte of each page, once where the kernel maps several at once."""
    for page in {each & -_AT_ONCE: each for each in pages}.values():
        ctypes.string_at(page, 1)
