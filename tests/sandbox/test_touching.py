"""What a process wrote to and looked at is told from the rest, and becomes its own by a touch that changes nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

# In processes of one thread, which a runner of tests is not.
WRITING = """
import ctypes, mmap, os
from fumehood.sandbox import touching
page = mmap.PAGESIZE
held = mmap.mmap(-1, 64 * page, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for number in range(64): held[number * page] = number
start = ctypes.addressof(ctypes.c_char.from_buffer(held))
read, write = os.pipe()
def numbers(pages): return sorted((each - start) // page for each in pages if start <= each < start + 64 * page)
if os.fork() == 0:
    looking = touching.Pages()
    held[2 * page] = 98
    looking.begin()
    held[2 * page] = 99
    held[3 * page] = 99
    written = numbers(looking.end()[0])
    touching.touch(start + number * page for number in range(10, 20))
    touched = numbers(looking.end()[0])
    same = all(held[number * page] == (99 if number in (2, 3) else number) for number in range(64))
    os.write(write, repr((written, touched, same)).encode())
    os._exit(0)
os.wait()
print(os.read(read, 4096).decode())
"""
LOOKING = """
import mmap, os, tempfile
from fumehood.sandbox import touching
page = mmap.PAGESIZE
with tempfile.NamedTemporaryFile() as file:
    file.write(bytes(256 * page))
    file.flush()
    held = mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ)
    line = next(line for line in open("/proc/self/maps") if line.split()[-1] == file.name)
    first, behind = (int(each, 16) for each in line.split()[0].split("-"))
    places = [first, behind - page, first + 128 * page]
    looking = touching.Pages()
    looking.begin()
    before = looking.end()[1]
    touching.look([first, first + page, behind - page])
    after = looking.end()[1]
    print([each in before for each in places], [each in after for each in places])
"""


def said_by(code: str) -> str:
    if not Path("/proc/self/pagemap").exists():
        pytest.skip("this kernel does not tell whose pages are")
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_pages_that_were_written_to_or_touched_are_found_and_say_what_they_said() -> None:
    assert said_by(WRITING) == f"([3], {[3, *range(10, 20)]}, True)\n"


def test_pages_of_files_that_were_looked_at_are_found_and_others_are_not() -> None:
    assert said_by(LOOKING) == "[False, False, False] [True, True, False]\n"
