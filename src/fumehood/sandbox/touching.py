"""Which memory a program writes to from its order to its end, found out once in a zygote, and written to ahead in each fork.

A fork shares its pages with the zygote until it writes to them; each first write costs a fault. Promised: `touch` changes nothing
but whose pages they are. Where the kernel does not tell (`/proc/self/pagemap`), nothing is found and nothing touched.
"""

from __future__ import annotations

import ctypes
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_PAGE = os.sysconf("SC_PAGESIZE")
# From Documentation/admin-guide/mm/pagemap.rst: present, and mapped by this process alone.
_OWN = 1 << 63 | 1 << 56


def own_pages() -> set[int]:
    """Return the addresses of all pages of private memory that this process shares with no other."""
    own = set[int]()
    try:
        pagemap = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return own
    try:
        for start, end in private_ranges():
            entries = memoryview(os.pread(pagemap, (end - start) // _PAGE * 8, start // _PAGE * 8)).cast("Q")
            own.update(start + number * _PAGE for number, entry in enumerate(entries) if entry & _OWN == _OWN)
    except OSError:
        pass
    finally:
        os.close(pagemap)
    return own


def private_ranges() -> Iterator[tuple[int, int]]:
    """Yield (first address, first behind) of private memory that can be written to, but for stacks, which grow."""
    with open("/proc/self/maps", "rb") as file:
        for line in file:
            place, access, _offset, _device, _inode, *name = line.split(None, 5)
            if access == b"rw-p" and not (name and name[0].startswith(b"[stack")):
                first, behind = place.split(b"-")
                yield int(first, 16), int(behind, 16)


def touch(pages: Iterable[int]) -> None:
    """Write to each page what is there. This process has one thread, and has them all."""
    memmove = ctypes.memmove
    for page in pages:
        memmove(page, page, 1)
