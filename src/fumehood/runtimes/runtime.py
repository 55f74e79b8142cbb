"""The port behind which every language stands, and what it hands to the engine."""

from __future__ import annotations

import os

from ..protocol.record import Record
from ..sandbox.spec import Mount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    #: Told in one sentence about what takes over a second (packages being installed), and the share of it that is done:
    #: 0 first, 1 last, also where it failed.
    Notice = Callable[[str, float], None]

    class Runtime(Protocol):
        """One language."""

        def start(self, code: str, name: str | None, host: Host) -> Start:
            """Say how to run a program with this source text.

            `name` is the file name that the caller wants, None for the language's own. Raises `RuntimeUnavailable`
            naming the package to install where the interpreter is missing.
            """
            ...

        def session(self, host: Host) -> SessionStart | None:
            """Say how to run a program that executes a session's cells; None where the language has no sessions."""
            ...


def say_nothing(_sentence: str, _done: float) -> None:
    """Be the notice of whom nobody listens to."""


class Host(Record):
    """What a runtime that must be built first has of its host: whom to tell, and the walls that its operator gave up."""

    notice: Notice
    without: frozenset[str] = frozenset()


class SessionStart(Record):
    """How to start a session: its program's start and source text. Its last argument is the number of its channel's descriptor.

    `plain_cells`: cells are sent to it as they are, not as JSON. `forkable`: it comes to a stand when asked, to be forked.
    """

    start: Start
    source: bytes
    plain_cells: bool = False
    forkable: bool = False

    @classmethod
    def of(
        cls, start: Start, program: str, *, plain_cells: bool = False, forkable: bool = False
    ) -> SessionStart:  # fmt: skip
        """Return the start of a session by one of the programs in `guest`."""
        here = os.path.dirname(os.path.abspath(__file__))
        with open(os.path.join(here, "guest", program), "rb") as file:
            return cls(start=start, source=file.read(), plain_cells=plain_cells, forkable=forkable)


class Warmth(Record):
    """What a warm interpreter of a runtime has done before its programs come.

    - `preload`: modules that it has imported; only such as leave nothing behind that a fork must not share.
    - `sample`: a program that each fork runs ahead, so that the memory which programs write to is its own by then.
    - `settled`: beginnings of names of environment variables that are read when the interpreter or those modules start: a
      program that is given one starts cold.
    """

    preload: tuple[str, ...]
    sample: str
    settled: tuple[str, ...]


class Start(Record):
    """How to start one program: `argv` without the program's arguments, and the file that holds its text in `/work`.

    `profile` is the list of system calls that it needs, one of `sandbox.syscalls.PROFILES`. `warm` says how its programs can be
    forked from an interpreter that runs already; None where they cannot. Starts of one `revision` differ in `program` alone.
    """

    argv: tuple[str, ...]
    program: str
    mounts: tuple[Mount, ...] = ()
    profile: str = "plain"
    environment: dict[str, str] = {}  # noqa: RUF012 - never written: the record is frozen
    warm: Warmth | None = None
    revision: str = ""
