"""Pages that a fork shares with its maker are told from its own, and become its own by a touch that changes nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

# In a process of one thread, which a runner of tests is not.
CODE = """
import ctypes, mmap, os
from fumehood.sandbox import touching
page = mmap.PAGESIZE
held = mmap.mmap(-1, 64 * page, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for number in range(64): held[number * page] = number
start = ctypes.addressof(ctypes.c_char.from_buffer(held))
pages = {start + number * page for number in range(64)}
assert pages <= touching.own_pages()
read, write = os.pipe()
if os.fork() == 0:
    before = touching.own_pages() & pages
    held[3 * page] = 99
    written = touching.own_pages() & pages
    touching.touch(sorted(pages)[10:20])
    touched = touching.own_pages() & pages
    same = all(held[number * page] == (99 if number == 3 else number) for number in range(64))
    os.write(write, repr([sorted((each - start) // page for each in found) for found in (before, written, touched)] + [same]).encode())
    os._exit(0)
os.wait()
print(os.read(read, 4096).decode())
"""


def test_a_fork_s_own_pages_are_those_that_it_wrote_to_or_touched() -> None:
    said = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True).stdout
    if not Path("/proc/self/pagemap").exists():
        pytest.skip("this kernel does not tell whose pages are")
    assert said == f"[[], [3], {[3, *range(10, 20)]}, True]\n"


LOOKING = """
import math, mmap, os
from fumehood.sandbox import touching
read, write = os.pipe()
# Nobody has looked at what it computes this with, and the kernel maps no more of a file than it was asked for plus some around it.
if os.fork() == 0:
    before, ranges = touching.file_pages(), list(touching.file_ranges())
    file = os.open(os.path.realpath("/proc/self/exe"), os.O_RDONLY)
    held = mmap.mmap(file, 0, mmap.MAP_PRIVATE, mmap.PROT_READ)
    mapped = [pair for pair in touching.file_ranges() if pair not in ranges]
    new = touching.file_pages() - before
    first, behind = mapped[0]
    touching.look([first, first + mmap.PAGESIZE, behind - mmap.PAGESIZE])
    there = touching.file_pages()
    said = (
        [first in new, behind - mmap.PAGESIZE in new],
        [first in there, behind - mmap.PAGESIZE in there],
        touching.inside([first, behind, first - 1], mapped) == [first],
    )
    os.write(write, repr(said).encode())
    os._exit(0)
os.wait()
print(os.read(read, 4096).decode())
"""


def test_pages_of_files_that_were_looked_at_are_there_and_others_are_not() -> None:
    if not Path("/proc/self/pagemap").exists():
        pytest.skip("this kernel does not tell whose pages are")
    said = subprocess.run([sys.executable, "-c", LOOKING], capture_output=True, text=True, check=True).stdout
    assert said == "([False, False], [True, True], True)\n"
