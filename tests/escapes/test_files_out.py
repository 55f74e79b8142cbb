"""Attacks on whoever collects what a program left: links, pipes, holes, and files with two names."""

from __future__ import annotations

import json
import os
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fumehood import Limits

from .conftest import Attack


@pytest.fixture
def secret() -> Iterator[Path]:
    """A file of the host's with a text that is nowhere else."""
    with tempfile.NamedTemporaryFile("w", prefix="host-", dir="/var/tmp") as file:
        file.write(secrets.token_hex(16))
        file.flush()
        yield Path(file.name)


@pytest.mark.parametrize("target", ["{secret}", "/proc/self/environ"], ids=["p14_host_file", "p13_environment"])
def test_a_link_is_not_followed(attack: Attack, secret: Path, target: str) -> None:
    result = attack("os.symlink(sys.argv[1], 'out.txt')", args=[target.format(secret=secret)])
    assert "out.txt" not in {file.path for file in result.files}
    assert [(s.path, s.why) for s in result.skipped_files] == [("out.txt", "is a symbolic link")]


def test_p14_a_linked_folder_is_not_entered(attack: Attack, secret: Path) -> None:
    result = attack("os.symlink(sys.argv[1], 'folder')", args=[str(secret.parent)])
    assert not any(secret.read_bytes() in file.data for file in result.files)
    assert [s.path for s in result.skipped_files] == ["folder"]


def test_p15_a_file_with_two_names_is_skipped_and_said(attack: Attack) -> None:
    result = attack("open('one', 'w').write('x'); os.link('one', 'two')")
    assert {s.path: s.why for s in result.skipped_files} == {
        "one": "has 2 names (hard links)",
        "two": "has 2 names (hard links)",
    }


def test_p16_pipes_and_sockets_do_not_hang_the_collector(attack: Attack) -> None:
    result = attack("os.mkfifo('pipe'); socket.socket(socket.AF_UNIX).bind('socket')")
    assert {s.path for s in result.skipped_files} == {"pipe", "socket"}


def test_p18_a_file_with_a_hole_of_a_tebibyte_is_refused(attack: Attack) -> None:
    result = attack("""
        import signal
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        print(tried(lambda: os.truncate(os.open("sparse", os.O_CREAT | os.O_RDWR), 1 << 40)))
    """)
    assert result.stdout == "EFBIG\n"
    assert sum(len(file.data) for file in result.files) < 1 << 20


def test_p18_no_more_is_taken_than_the_limit(attack: Attack) -> None:
    result = attack(
        "for n in range(20): open(f'{n:02}', 'wb').write(bytes(100_000))", limits=Limits(files_out_bytes=500_000)
    )
    assert sum(len(file.data) for file in result.files) <= 500_000
    assert len(result.skipped_files) >= 15


def test_p14_a_link_swapped_in_after_the_end_is_not_followed(attack: Attack, secret: Path) -> None:
    result = attack(
        """
        import time
        open("out.txt", "w").write("harmless")
        if os.fork() == 0:
            # Whoever waits for this one, or lets it live while files are collected, finds the link.
            time.sleep(1)
            os.symlink(sys.argv[1], "link")
            os.rename("link", "out.txt")
            time.sleep(0.2)
            os._exit(0)
        """,
        args=[str(secret)],
    )
    assert [file.data for file in result.files] == [b"harmless"]


def test_p20_names_of_every_kind_come_out_as_they_are_and_print_safely(attack: Attack) -> None:
    names = [b"line\nbreak", b"\x1b]0;title\x07", b"\xff\xfe", b"n" * 255]
    result = attack(f"""
        for name in {names}:
            open(name, "wb").write(b"x")
        print(os.getcwd())
    """)
    assert {file.path for file in result.files} == {os.fsdecode(name) for name in names}
    printed = json.dumps(result.as_json()).encode()
    assert b"\x1b" not in printed
    assert result.stdout == "/work\n"


def test_p20_a_well_of_folders_ends_the_collection_and_nothing_else(attack: Attack) -> None:
    result = attack("""
        for depth in range(300):
            os.mkdir("d" * 100)
            os.chdir("d" * 100)
        open("bottom", "w").write("x")
    """)
    assert result.exit_code == 0
    assert ["deeper than" in skipped.why for skipped in result.skipped_files] == [True]
    assert result.files == ()


def test_p19_a_folder_full_of_empty_files_is_not_all_taken(attack: Attack) -> None:
    result = attack("for n in range(900): open(str(n), 'w').close()", limits=Limits(files_out=100))
    assert len(result.files) == 100
    assert len(result.skipped_files) == 800


def test_p18_a_hole_in_a_file_does_not_count_as_nothing(attack: Attack) -> None:
    result = attack(
        "os.truncate(os.open('hole', os.O_CREAT | os.O_RDWR), 3 << 20)", limits=Limits(files_out_bytes=1 << 20)
    )
    assert result.files == ()
    assert [skipped.path for skipped in result.skipped_files] == ["hole"]
