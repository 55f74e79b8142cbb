"""Which memory a program uses from its order to its end, found out once in a zygote, and used ahead in each fork.

A fork shares its pages with the zygote until it writes to them, and has none of a file's before it looks at them; each first
time costs a fault. Promised: `touch` and `look` change nothing but that. Where the kernel does not tell
(`/proc/self/pagemap`), nothing is found and nothing touched.
"""

from __future__ import annotations

import ctypes
import mmap
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_PAGE = os.sysconf("SC_PAGESIZE")
# From Documentation/admin-guide/mm/pagemap.rst: eight bytes a page; present, and mapped by this process alone.
_ENTRY_BYTES = 8
_PRESENT = 1 << 63
_OWN = _PRESENT | 1 << 56
# The kernel maps as many pages of a file at once, where they are in memory.
_AT_ONCE = 16 * _PAGE


class Pages:
    """The pages that this process has mapped when this is made, looked at twice: `begin`, and `end`.

    All that can be is done before: what the looking writes to by itself could not be told from what came before it. What comes to
    be mapped later other forks have not.
    """

    def __init__(self) -> None:
        #: Private memory that can be written to, but for stacks, which grow; and what is mapped of files and cannot be.
        self._private, self._files = list(_ranges(b"rw-p")), list(_ranges(b"r-xp", b"r--p"))
        self._pagemap = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
        self._first, self._second = self._room(), self._room()

    def begin(self) -> None:
        """Look for the first time."""
        self._look(self._first)

    def end(self) -> tuple[list[int], list[int]]:
        """Look again; return the addresses of pages that were written to since then, and of those of files that were looked at."""
        self._look(self._second)
        return self._new(self._private, 0, _OWN), self._new(self._files, len(self._private), _PRESENT)

    def _room(self) -> list[tuple[memoryview, int]]:
        # Of whole pages of its own: no other object is beside what is written here.
        places = []
        for start, behind in (*self._private, *self._files):
            size = (behind - start) // _PAGE * _ENTRY_BYTES
            room = memoryview(mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
            places.append((room, start // _PAGE * _ENTRY_BYTES))
        return places

    def _look(self, places: list[tuple[memoryview, int]]) -> None:
        for room, offset in places:
            os.preadv(self._pagemap, (room,), offset)

    def _new(self, ranges: list[tuple[int, int]], place: int, wanted: int) -> list[int]:
        found: list[int] = []
        for (start, _behind), (before, _), (after, _) in zip(
            ranges, self._first[place:], self._second[place:], strict=False
        ):
            pairs = zip(before.cast("Q"), after.cast("Q"), strict=True)
            found += [
                start + number * _PAGE
                for number, (then, now) in enumerate(pairs)
                if then & wanted != wanted and now & wanted == wanted
            ]
        return found


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
