"""Attacks on whoever collects what a program left: links, pipes, holes, and files with two names."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from ...protocol.limits import Limits
from ..host_side import secret_file
from ..suite import Suite, at_most, holds, same

if TYPE_CHECKING:
    from ...protocol.execution import ExecutionResult
    from ..target import Target

SUITE = Suite("files_out")


@SUITE.probe_each(
    "P14", {"P14 a host's file": "{secret}", "P13 the environment": "/proc/self/environ"},
    tried="leave a link to {} as a result", expected="it is not followed, and said", wall="files-out",
)  # fmt: skip
def a_link_is_not_followed(target: Target, to: str) -> None:
    with secret_file() as secret:
        result = target.run("os.symlink(sys.argv[1], 'out.txt')", args=[to.format(secret=secret)])
    holds("out.txt" not in {file.path for file in result.files}, "the link was followed")
    same(_skipped(result), {"out.txt": "is a symbolic link"})


@SUITE.probe("P14", tried="leave a link to a host's folder", expected="it is not entered", wall="files-out")
def a_linked_folder_is_not_entered(target: Target) -> None:
    with secret_file() as secret:
        result = target.run("os.symlink(sys.argv[1], 'folder')", args=[str(secret.parent)])
        holds(not any(secret.read_bytes() in file.data for file in result.files), "the folder was entered")
    same(list(_skipped(result)), ["folder"])


@SUITE.probe("P15", tried="leave a file with two names", expected="both are skipped, and said", wall="files-out")
def a_file_with_two_names_is_skipped_and_said(target: Target) -> None:
    result = target.run("open('one', 'w').write('x'); os.link('one', 'two')")
    same(_skipped(result), {"one": "has 2 names (hard links)", "two": "has 2 names (hard links)"})


@SUITE.probe("P16", tried="leave a pipe and a socket", expected="they are skipped, nobody waits", wall="files-out")
def pipes_and_sockets_do_not_hang_the_collector(target: Target) -> None:
    result = target.run("os.mkfifo('pipe'); socket.socket(socket.AF_UNIX).bind('socket')")
    same(set(_skipped(result)), {"pipe", "socket"})


@SUITE.probe("P18", tried="make a file with a hole of a tebibyte", expected="EFBIG", wall="limits")
def a_file_with_a_hole_of_a_tebibyte_is_refused(target: Target) -> None:
    result = target.run("""
        import signal
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        print(tried(lambda: os.truncate(os.open("sparse", os.O_CREAT | os.O_RDWR), 1 << 40)))
    """)
    same(result.stdout, "EFBIG\n")
    at_most(sum(len(file.data) for file in result.files), 1 << 20)


@SUITE.probe("P18", tried="leave four times the bytes that may be taken", expected="no more taken", wall="files-out")
def no_more_is_taken_than_the_limit(target: Target) -> None:
    result = target.run(
        "for n in range(20): open(f'{n:02}', 'wb').write(bytes(100_000))", limits=Limits(files_out_bytes=500_000)
    )
    at_most(sum(len(file.data) for file in result.files), 500_000)
    holds(len(result.skipped_files) >= 15, "what was not taken was not said")


@SUITE.probe(
    "P14",
    tried="swap a result for a link to a host's file, from a process that goes on after the end",
    expected="the file as it was",
    wall="files-out",
)
def a_link_swapped_in_after_the_end_is_not_followed(target: Target) -> None:
    with secret_file() as secret:
        result = target.run(
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
    same([file.data for file in result.files], [b"harmless"])


@SUITE.probe(
    "P20",
    tried="name files by a line break, a terminal's escape, no text at all, 255 characters",
    expected="taken as they are, printed safely",
    wall="files-out",
)
def names_of_every_kind_come_out_as_they_are_and_print_safely(target: Target) -> None:
    names = [b"line\nbreak", b"\x1b]0;title\x07", b"\xff\xfe", b"n" * 255]
    result = target.run(f"""
        for name in {names}:
            open(name, "wb").write(b"x")
        print(os.getcwd())
    """)
    same({file.path for file in result.files}, {os.fsdecode(name) for name in names})
    holds(b"\x1b" not in json.dumps(result.as_json()).encode(), "the escape was printed")
    same(result.stdout, "/work\n")


@SUITE.probe(
    "P20", tried="dig a well of 300 folders", expected="the collection ends above its ground", wall="files-out"
)
def a_well_of_folders_ends_the_collection_and_nothing_else(target: Target) -> None:
    result = target.run("""
        for depth in range(300):
            os.mkdir("d" * 100)
            os.chdir("d" * 100)
        open("bottom", "w").write("x")
    """)
    same(result.exit_code, 0)
    same(["deeper than" in why for why in _skipped(result).values()], [True])
    same(result.files, ())


@SUITE.probe("P19", tried="leave nine times the files that may be taken", expected="no more taken", wall="files-out")
def a_folder_full_of_empty_files_is_not_all_taken(target: Target) -> None:
    result = target.run("for n in range(900): open(str(n), 'w').close()", limits=Limits(files_out=100))
    same((len(result.files), len(result.skipped_files)), (100, 800))


@SUITE.probe("P18", tried="leave a file that is one hole of 3 MiB", expected="it counts as 3 MiB", wall="files-out")
def a_hole_in_a_file_does_not_count_as_nothing(target: Target) -> None:
    result = target.run(
        "os.truncate(os.open('hole', os.O_CREAT | os.O_RDWR), 3 << 20)", limits=Limits(files_out_bytes=1 << 20)
    )
    same(result.files, ())
    same(list(_skipped(result)), ["hole"])


@SUITE.probe(
    "P14", tried="leave a link to a link to a host's file, and one that climbs there", expected="neither is followed",
    wall="files-out",
)  # fmt: skip
def a_chain_of_links_is_not_followed(target: Target) -> None:
    with secret_file() as secret:
        result = target.run(
            """
            os.mkdir("a")
            os.symlink(sys.argv[1], "a/first")
            os.symlink("a/first", "second")
            os.symlink("../" * 32 + sys.argv[1][1:], "a/climbing")
            """,
            args=[str(secret)],
        )
        holds(not any(secret.read_bytes() in file.data for file in result.files), "a link was followed")
    same(set(_skipped(result)), {"a/first", "second", "a/climbing"})


@SUITE.probe(
    "P14", tried="move the working folder away and leave a link to a host's folder in its place",
    expected="nothing of the host's is taken", wall="files-out",
)  # fmt: skip
def a_working_folder_swapped_for_a_link_is_not_followed(target: Target) -> None:
    with secret_file() as secret:
        result = target.run(
            """
            place = os.getcwd()
            print(tried(lambda: os.rename(place, place + "-away")))
            print(tried(lambda: os.symlink(sys.argv[1], place)))
            if os.path.islink(place):
                os.unlink(place + "-away/main")
                os.rmdir(place + "-away")
            """,
            args=[str(secret.parent)],
        )
        holds(not any(secret.read_bytes() in file.data for file in result.files), "the host's folder was taken")
    same(result.exit_code, 0)


@SUITE.probe(
    "P19",
    tried="leave 20100 names, more than anybody should look at",
    expected="the look ends before",
    wall="files-out",
)
def a_look_at_too_many_names_ends(target: Target) -> None:
    result = target.run(
        "for n in range(20_100): os.symlink('x', str(n))", limits=Limits(disk_files=40_000, files_out=100_000)
    )
    same(["more than 20000 entries" in why for why in list(_skipped(result).values())[20_000:]], [True])


def _skipped(result: ExecutionResult) -> dict[str, str]:
    return {skipped.path: skipped.why for skipped in result.skipped_files}
