"""Attacks on whoever lays files into a sandbox, and on whoever takes some out while its program runs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

from ...errors import InvalidFilePath, InvalidRequest
from ...protocol.execution import ExecutionRequest
from ...protocol.limits import Limits, MiB
from ..host_side import secret_file, taken_from_host
from ..suite import Fell, Suite, at_most, holds, same
from ..target import LIMITS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ...sessions import Session
    from ..target import Target
    from ..unwalled import UnwalledSession

SUITE = Suite("files_in")

_T = TypeVar("_T")

# So long is swapped and looked, in turns that nobody arranges.
_RACE_SECONDS = 0.4


@SUITE.probe_each(
    "P22",
    {
        "an absolute path": "{planted}",
        "parent folders": "../../../../../../../..{planted}",
        "parent folders below one that is there": "there/../../../../../../../../..{planted}",
        "this folder": ".",
        "this folder and a name": "./planted",
        "nothing": "",
        "an empty part": "there//planted",
        "a folder's ending": "planted/",
        "a NUL": "planted\0.txt",
        "Windows' parent folders": "..\\..\\planted",
        "300 characters": "n" * 300,
        "a depth of 400 folders": "d/" * 400 + "planted",
        "a terminal's escape": "\x1b]0;title\x07",
        "a line break": "planted\nand more",
        "no text": "\ud800",
    },
    tried="give in a file that is named by {}", expected="refused as a name, and nothing on the host", wall="files-in",
)  # fmt: skip
def a_file_cannot_be_given_a_name_that_leads_astray(target: Target, pattern: str) -> None:
    with secret_file() as secret, target.session(limits=LIMITS) as session:
        planted = secret.with_name("planted")
        name = pattern.replace("{planted}", str(planted))
        _did(session, "import os\nos.mkdir('there')")
        _is_refused(lambda: session.put_file(name, b"planted"))
        same(taken_from_host(planted), [])
        _is_refused(lambda: session.get_file(name))
        _is_refused(lambda: ExecutionRequest(code="", files={name: b"planted"}))


@SUITE.probe(
    "P22", tried="give in a file below a link to a host's folder", expected="refused, and the folder as it was",
    wall="files-in",
)  # fmt: skip
def a_file_cannot_be_laid_through_a_linked_folder(target: Target) -> None:
    with secret_file() as secret, target.session(limits=LIMITS) as session:
        _did(session, f"import os\nos.symlink({str(secret.parent)!r}, 'folder')")
        _is_refused(lambda: session.put_file("folder/planted", b"planted"))
        same(taken_from_host(secret.with_name("planted")), [])


@SUITE.probe(
    "P22", tried="give in a file whose name is a link to a host's file", expected="the link is replaced, the file as it was",
    wall="files-in",
)  # fmt: skip
def a_file_laid_in_the_place_of_a_link_does_not_write_through_it(target: Target) -> None:
    with secret_file() as secret, target.session(limits=LIMITS) as session:
        text = secret.read_bytes()
        _did(session, f"import os\nos.symlink({str(secret)!r}, 'out.txt')")
        session.put_file("out.txt", b"new")
        same(secret.read_bytes(), text)
        same(session.get_file("out.txt"), b"new")


@SUITE.probe_each(
    "P14", {"P14 a host's file": "{secret}", "P13 the environment": "/proc/self/environ", "P14 /etc/passwd": "/etc/passwd"},
    tried="have the host read a link to {}", expected="refused", wall="files-out",
)  # fmt: skip
def a_link_is_not_read_from_a_session(target: Target, to: str) -> None:
    with secret_file() as secret, target.session(limits=LIMITS) as session:
        _did(session, f"import os\nos.symlink({to.format(secret=secret)!r}, 'out.txt')")
        _is_refused(lambda: session.get_file("out.txt"))


@SUITE.probe(
    "P14", tried="have the host read below a link to a folder of its own", expected="refused", wall="files-out"
)
def nothing_is_read_from_a_session_through_a_linked_folder(target: Target) -> None:
    with secret_file() as secret, target.session(limits=LIMITS) as session:
        _did(session, f"import os\nos.symlink({str(secret.parent)!r}, 'folder')")
        _is_refused(lambda: session.get_file("folder/secret"))


@SUITE.probe(
    "P14", tried="have the host list links to a file and a folder of its own", expected="neither is listed",
    wall="files-out",
)  # fmt: skip
def links_are_not_listed(target: Target) -> None:
    with secret_file() as secret, target.session(limits=LIMITS) as session:
        _did(session, f"import os\nos.symlink({str(secret)!r}, 'file')\nos.symlink({str(secret.parent)!r}, 'folder')")
        session.put_file("mine", b"1234")
        same(session.list_files(), {"mine": 4})


@SUITE.probe("P15", tried="have the host read a file with two names", expected="refused", wall="files-out")
def a_file_with_two_names_is_not_read_from_a_session(target: Target) -> None:
    with target.session(limits=LIMITS) as session:
        _did(session, "import os\nopen('one', 'w').write('x')\nos.link('one', 'two')")
        _is_refused(lambda: session.get_file("two"))
        same(session.list_files(), {})


@SUITE.probe(
    "P16", tried="have the host read a pipe that nobody writes to", expected="refused at once", wall="files-out"
)
def a_pipe_does_not_hang_whoever_reads_it(target: Target) -> None:
    with target.session(limits=LIMITS) as session:
        # Whoever does wait is let go in the end.
        _did(
            session,
            """if True:
            import os, threading
            os.mkfifo("pipe")
            threading.Timer(1.0, lambda: os.write(os.open("pipe", os.O_RDWR | os.O_NONBLOCK), b"x") and os._exit(0)).start()
        """,
        )
        started = time.monotonic()
        _is_refused(lambda: session.get_file("pipe"))
        at_most(time.monotonic() - started, 0.5)


@SUITE.probe(
    "P18", tried="have the host read a file that is one hole of 3 MiB, the limit being 1 MiB", expected="refused",
    wall="files-out",
)  # fmt: skip
def a_hole_is_not_read_from_a_session(target: Target) -> None:
    with target.session(limits=Limits(files_out_bytes=1 * MiB)) as session:
        _did(session, "import os\nos.truncate(os.open('hole', os.O_CREAT | os.O_RDWR), 3 << 20)")
        _is_refused(lambda: session.get_file("hole"))


@SUITE.probe("P29", tried="give in 24 MiB, the limit being 16 MiB", expected="refused", wall="disk")
def a_file_larger_than_the_disk_is_refused(target: Target) -> None:
    with target.session(limits=LIMITS) as session:
        _is_refused(lambda: session.put_file("large", bytes(24 * MiB)))
        same(session.list_files(), {})
        # It is whole, and has its disk back.
        session.put_file("small", b"x")
        same(session.get_file("small"), b"x")


# The place is now a file and now a link to the host's, exchanged in one step: at no time is there nothing.
_SWAP_FILE = """if True:
    import os, threading
    def swap():
        while True:
            os.symlink({secret!r}, "next")
            os.rename("next", "out.txt")
            with open("next", "w") as file:
                file.write("harmless")
            os.rename("next", "out.txt")
    threading.Thread(target=swap, daemon=True).start()
"""
_SWAP_FOLDER = """if True:
    import os, threading
    os.mkdir("folder")
    with open("folder/secret", "w") as file:
        file.write("harmless")
    os.symlink({folder!r}, "aside")
    def swap():
        while True:
            os.rename("folder", "next"), os.rename("aside", "folder"), os.rename("next", "aside")
    threading.Thread(target=swap, daemon=True).start()
"""


@SUITE.probe(
    "P14", tried="swap a file and a link to a host's file while the host reads it", expected="never the host's file",
    wall="files-out",
)  # fmt: skip
def a_file_swapped_for_a_link_while_it_is_read_is_not_the_hosts(target: Target) -> None:
    with secret_file() as secret, target.session(limits=LIMITS) as session:
        _did(session, _SWAP_FILE.format(secret=str(secret)))
        _never_reads(session, "out.txt", secret)


@SUITE.probe(
    "P14", tried="swap a folder and a link to a host's folder while the host reads below it",
    expected="never the host's file", wall="files-out",
)  # fmt: skip
def a_folder_swapped_for_a_link_while_it_is_read_is_not_the_hosts(target: Target) -> None:
    with secret_file() as secret, target.session(limits=LIMITS) as session:
        _did(session, _SWAP_FOLDER.format(folder=str(secret.parent)))
        _never_reads(session, "folder/secret", secret)


@SUITE.probe(
    "P14", tried="swap a file and a link to a host's file while the host lists them", expected="never the host's size",
    wall="files-out",
)  # fmt: skip
def a_file_swapped_for_a_link_while_it_is_listed_is_not_the_hosts(target: Target) -> None:
    with secret_file() as secret, target.session(limits=LIMITS) as session:
        size = secret.stat().st_size
        _did(session, _SWAP_FILE.format(secret=str(secret)))
        looks = _in_a_race(session.list_files)
        holds(any("out.txt" in look for look in looks), "the file was never listed")
        holds(all(look.get("out.txt") != size for look in looks), "the size of the host's file was told")


@SUITE.probe(
    "P22", tried="swap a folder and a link to a host's folder while the host lays files below it",
    expected="nothing in the host's folder", wall="files-in",
)  # fmt: skip
def a_folder_swapped_for_a_link_while_files_are_laid_is_not_the_hosts(target: Target) -> None:
    with secret_file() as secret, target.session(limits=LIMITS) as session:
        _did(session, _SWAP_FOLDER.format(folder=str(secret.parent)))
        holds(len(_in_a_race(lambda: session.put_file("folder/planted", b"x"))) > 0, "no file could ever be laid")
        same(taken_from_host(secret.with_name("planted")), [])


def _did(session: Session | UnwalledSession, code: str) -> None:
    """Run a cell that lays an attack out; what it could not lay out would show nothing."""
    result = session.run(code)
    holds(result.ok, f"the attack could not be laid out: {result.events}")


def _never_reads(session: Session | UnwalledSession, path: str, secret: Path) -> None:
    seen = set(_in_a_race(lambda: session.get_file(path)))
    holds(secret.read_bytes() not in seen, "the host's file was read")
    holds(b"harmless" in seen, "the program's own file was never read")


def _in_a_race(action: Callable[[], _T]) -> list[_T]:
    """Do this again and again; return what came of it, whenever the race was not lost."""
    seen: list[_T] = []
    end = time.monotonic() + _RACE_SECONDS
    while time.monotonic() < end:
        try:
            seen.append(action())
        except (InvalidRequest, OSError):
            continue  # the place was something else at this moment
    return seen


def _is_refused(action: Callable[[], object]) -> None:
    """Fall unless the name or the file is refused for what it is: not by an error that somebody stumbled over."""
    try:
        action()
    except InvalidFilePath:
        return
    except (OSError, ValueError) as error:
        raise Fell(f"nobody refused it: {type(error).__name__}: {error}") from error
    raise Fell("it was done")
