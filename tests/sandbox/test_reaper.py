"""Process 1 of warm sandboxes is what its listing says, on both processors."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from fumehood.sandbox import init, reaper

#: What `objdump` calls the processor and its files, and the tool's name where it is another's.
MACHINES = {
    "x86_64": ("i386:x86-64", "elf64-x86-64", "x86_64-linux-gnu-objdump"),
    "aarch64": ("aarch64", "elf64-littleaarch64", "aarch64-linux-gnu-objdump"),
}
#: What it may call, by the numbers of each processor: mount, capset, prctl, write, wait4, rt_sigtimedwait, kill, getrusage, nanosleep,
#: exit_group.
CALLS = {
    "x86_64": [165, 126, 157, 1, 61, 128, 157, 61, 62, 61, 98, 1, 35, 231],
    "aarch64": [40, 91, 167, 64, 260, 137, 167, 260, 129, 260, 165, 64, 101, 94],
}


@pytest.mark.parametrize("machine", MACHINES)
def test_it_is_a_whole_program(machine: str) -> None:
    binary = reaper.program(machine)
    _identity, kind, _machine, _version, entry, segments = struct.unpack_from("<16sHHIQQ", binary)
    assert (kind, segments) == (2, 64)
    _type, rights, offset, address, _physical, size, memory = struct.unpack_from("<IIQQQQQ", binary, segments)
    assert rights == 5  # readable and executable: it has no memory to write to but its stack
    assert (offset, size, memory) == (0, len(binary), len(binary))
    assert address < entry < address + size
    assert binary.endswith(b"subset=pid,hidepid=invisible\0")


@pytest.mark.parametrize("machine", MACHINES)
def test_the_bytes_are_the_instructions_that_stand_beside_them(machine: str, tmp_path: Path) -> None:
    architecture, files, tool = MACHINES[machine]
    objdump = shutil.which(tool) or shutil.which("objdump")
    if (
        objdump is None
        or files not in subprocess.run([objdump, "-i"], capture_output=True, text=True, check=True).stdout
    ):
        pytest.skip(f"there is no objdump for {machine} here")
    listing = [line.split(None, 1) for line in reaper._CODE[machine].splitlines() if line.strip()]
    file = tmp_path / "code"
    file.write_bytes(b"".join(bytes.fromhex(code) for code, _text in listing))
    command = [
        objdump,
        "-D",
        "-b",
        "binary",
        "-m",
        architecture,
        "-M",
        "intel" if machine == "x86_64" else "no-aliases",
        file,
    ]
    dump = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    shown = re.findall(r"^ +[0-9a-f]+:\t(?:[0-9a-f]{2,8} )+ *\t(\w[\w.]*)", dump, re.MULTILINE)
    assert len(shown) == len(listing)
    numbers = re.findall(r"mov +eax, (\d+)  ;|mov x8, #(\d+)  ;", reaper._CODE[machine])
    assert [int(x or y) for x, y in numbers] == CALLS[machine]


def test_its_message_is_the_report() -> None:
    # The wait status and struct rusage: two times of two numbers, and fourteen more.
    assert init.REPORT.size == 4 + 18 * 8
