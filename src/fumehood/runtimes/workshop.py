"""Runs the steps of one build of packages, each in a sandbox of its own.

Promised: whatever reads an index or unpacks an archive runs behind the walls of any program, with one folder of the host's to write
to and, where it fetches, a way to the package indexes and no other host. A build that would fill the disk is ended, and so is one
that its caller cancels. Not promised: that what the builder says is true; it repeats what indexes and packages say.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import threading
from abc import ABC, abstractmethod
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from ..egress.gateway import Gateway
from ..errors import RuntimeUnavailable
from ..protocol.limits import Limits, MiB
from ..protocol.record import Record
from ..sandbox import admission
from ..sandbox.disk import take_over
from ..sandbox.isolation.namespaces import UserLease
from ..sandbox.launcher import Launcher
from ..sandbox.live import Live
from ..sandbox.spec import GATEWAY, Mount, Spec
from ..sandbox.supervisor import Outcome, Stdin, watch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import Literal, Protocol, Self

    from .runtime import Host

    Stream = Literal["stdout", "stderr"]
    Hear = Callable[[Stream, bytes], None]

    class Sources(Protocol):
        """Where a build's packages come from, as it is seen from inside."""

        mounts: list[Mount]
        laid: dict[str, bytes]
        environment: dict[str, str]

        @property
        def hosts(self) -> frozenset[tuple[str, int]]:
            """Return the places that may be reached."""
            ...

        def outside(self, text: str) -> str:
            """Return what was said inside with the host's names for the host's places."""
            ...


#: Of one step. A file of a package may be as large as the disk limit; memory bounds what is not on the host's disk.
_LIMITS = Limits(
    wall_seconds=900, cpu_seconds=7200, memory_bytes=3072 * MiB, pids=512, disk_bytes=16384 * MiB, output_bytes=64 * MiB
)
#: A build that leaves the host's disk less than this is ended.
_DISK_LEFT_BYTES = 256 * MiB
#: How soon a full disk or a caller's word is noticed.
LOOK_SECONDS = 0.1
LOCK_BYTES = 16 * MiB
#: The folder to write to, inside.
PLACE = "/opt/fumehood/build"
# Of a line that is told as it comes, and of the builder's words in an error.
_LINE_CHARACTERS, _WORDS_CHARACTERS = 2000, 16_000
_LOGIN = re.compile(r"(?<=://)[^\s/@]{1,512}@")


class Orders(Record):
    """What a caller wants of a build besides.

    `log` hears the builder's words line by line; an index or a package may have put anything into them. `cancel`, a
    descriptor, ends the build once readable. `for_others`: whoever reads the words is not this host's operator, so they name
    none of its places and no option of a command.
    """

    log: Callable[[str], None] | None = None
    cancel: int | None = None
    for_others: bool = False


class Workshop(ABC):
    """A build of the runtime `name` below the folder `scratch`. Use it in a `with`; a builder's own steps come on top."""

    #: The builder, as errors call it.
    builder: str
    #: The file that the environment keeps its lock in, and what proves that one is complete.
    lock_name: str
    proof: str

    def __init__(self, name: str, scratch: Path, sources: Sources, host: Host, orders: Orders) -> None:
        self._name, self._sources, self._host, self._orders = name, sources, host, orders
        self._launcher = Launcher()
        self._place = scratch / "place"
        # One user for all steps: what one leaves the next goes on with.
        self._lease = UserLease()

    def __enter__(self) -> Self:
        try:
            admission.require(self._launcher.spawn, self._host.without)
            self._lease.__enter__()
            self._place.mkdir()
            self.give_away(self._place)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        self._launcher.close()
        self._lease.__exit__()

    @staticmethod
    @abstractmethod
    def revision(name: str, lock_id: str) -> str:
        """Return what the revision is called that a lock makes."""

    @abstractmethod
    def resolve(self) -> bytes:
        """Return the lock that what is required resolves to."""

    @abstractmethod
    def make(self, lock: bytes | None) -> Path:
        """Make the environment and return its folder, which is the host's own by then."""

    def run_builder(
        self, argv: tuple[str, ...], files: dict[str, bytes], on_piece: Callable[[bytes], None], *, fetches: bool = True,
    ) -> Outcome:  # fmt: skip
        """Run the builder inside to its end, and tell what it says. The caller owns `Outcome.work`. Raises `RuntimeUnavailable`."""
        words = bytearray()
        lines = {"stdout": Lines(self._tell), "stderr": Lines(self._tell)}

        def hear(stream: Stream, piece: bytes) -> None:
            words.extend(piece)
            lines[stream].take(piece)
            on_piece(piece)

        refused: list[str] = []
        outcome = self.run(argv, files, hear, fetches=fetches, refused=refused)
        for each in lines.values():
            each.end()
        if outcome.status != 0:
            os.close(outcome.work)
            raise RuntimeUnavailable(self._told(words.decode("utf-8", "replace"), refused))
        return outcome

    def run(
        self, argv: tuple[str, ...], files: dict[str, bytes], hear: Hear, *, fetches: bool, refused: list[str] | None = None,
    ) -> Outcome:  # fmt: skip
        """Run one program inside to its end. The caller owns `Outcome.work`."""
        spec = self._spec(argv, files, fetches=fetches)
        live = Live(spec.limits, cgroup="cgroup" not in spec.without)
        with closing(live), Gateway(self._sources.hosts) as gateway, self._watched() as over:
            live.start(spec, self._launcher.spawn, self._lease.user)
            outcome = watch(
                live,
                spec.limits,
                stdin=Stdin(),
                on_output=hear,
                cancel=over,
                on_listeners=lambda opened: gateway.serve(*opened),
            )
        if refused is not None:
            refused += [host if port == 443 else f"{host}:{port}" for host, port in gateway.refused]
        if (why := self._why_ended(outcome)) is not None:
            os.close(outcome.work)
            raise RuntimeUnavailable(f"runtime {self._name!r} could not be built: {why}")
        return outcome

    def made(self) -> Path:
        """Return the folder that was made, which is the host's own by then, with the plain modes of any folder."""
        folder = self._place / "environment"
        # A builder that was taken over by what it read could have left a link here, and it would be followed.
        if not is_plain_folder(folder):
            raise RuntimeUnavailable(f"runtime {self._name!r} could not be built: {self.builder} left no folder")
        take_over(folder)
        return folder

    def give_away(self, path: Path) -> None:
        """Make a folder or file the sandbox's own, before anything has run that could put a link there."""
        if self._lease.user is not None:
            os.chown(path, self._lease.user, self._lease.user)

    def settings(self) -> dict[str, str]:
        """Return the builder's environment."""
        return {"PATH": "/usr/bin:/bin", "HOME": "/tmp", "LANG": "C.UTF-8", "NO_COLOR": "1"}  # noqa: S108 - the sandbox's

    @abstractmethod
    def tools(self) -> list[Mount]:
        """Return what the builder needs of the host."""

    def profile(self) -> str:
        """Return the list of system calls that it needs."""
        return "plain"

    @abstractmethod
    def is_progress(self, line: str) -> bool:
        """Return whether a line of the builder's is about its progress, and tells nothing of what went wrong."""

    def advice(self) -> str:
        """Return the next step for whom a build failed."""
        return "Mend the requirements, or connect this machine to a package index, and try again"

    def notice(self, share: float) -> None:
        """Tell how far it is."""
        self._host.notice(sentence(self._name), share)

    def _spec(self, argv: tuple[str, ...], files: dict[str, bytes], *, fetches: bool) -> Spec:
        environment = self.settings()
        mounts = [*self.tools(), Mount(host=str(self._place.resolve()), inside=PLACE, writable=True)]
        if fetches:
            proxy = "http://{}:{}".format(*GATEWAY)
            environment |= self._sources.environment | {"HTTPS_PROXY": proxy, "HTTP_PROXY": proxy}
            mounts += self._sources.mounts
            files = self._sources.laid | files
        return Spec(
            argv=argv, environment=environment, mounts=tuple(mounts), files=files, limits=_LIMITS, profile=self.profile(),
            without=self._host.without, gateway=fetches,
        )  # fmt: skip

    def _tell(self, line: str) -> None:
        if self._orders.log is not None:
            self._orders.log(_LOGIN.sub("***@", line))

    def _told(self, words: str, refused: list[str]) -> str:
        # In the builder's own words, without what it said about its progress before.
        said = "".join(each for each in words.splitlines(keepends=True) if not self.is_progress(each))
        advice = self.advice()
        if refused and self._orders.for_others:
            advice = f"It asked for hosts that may not be reached: {', '.join(refused)}"
        elif refused:
            options = " ".join(f"--allow-host {each}" for each in refused)
            advice = (
                f"It asked for hosts that nothing names. To have them reached: `fumehood runtime build {options} …`"
            )
        said = _LOGIN.sub("***@", _readable(said)) if self._orders.for_others else self._sources.outside(said)
        said = said.strip()[-_WORDS_CHARACTERS:]
        return f"runtime {self._name!r} could not be built; {self.builder} says:\n{said}\n{advice}"

    def _why_ended(self, outcome: Outcome) -> str | None:
        # Both first: a step may end before the watcher looks.
        if is_readable(self._orders.cancel):
            return "it was cancelled"
        if self._disk_is_full():
            return "it filled the disk"
        if outcome.verdict == "cancelled":
            return "it filled the disk"  # and whoever shares the disk has made room since
        if outcome.verdict is not None or outcome.status is None:
            return outcome.detail or "it was killed"
        return None

    @contextmanager
    def _watched(self) -> Iterator[int]:
        """Give a descriptor that is readable once the host's disk is all but full, or the caller cancels."""
        end, over = os.eventfd(0, os.EFD_CLOEXEC), threading.Event()

        def look() -> None:
            while not over.wait(LOOK_SECONDS):
                if self._disk_is_full() or is_readable(self._orders.cancel):
                    os.eventfd_write(end, 1)

        watcher = threading.Thread(target=look, name="fumehood-build", daemon=True)
        watcher.start()
        try:
            yield end
        finally:
            over.set()
            watcher.join()
            os.close(end)

    def _disk_is_full(self) -> bool:
        return shutil.disk_usage(self._place).free < _DISK_LEFT_BYTES


def sentence(name: str) -> str:
    """Return what a build is about, for whoever waits for it."""
    return f"Installing the packages of the {name} runtime (once; some seconds) …"


def is_readable(descriptor: int | None, seconds: float = 0.0) -> bool:
    """Return whether a descriptor is readable, or gone; wait so long for it."""
    poll = select.poll()
    if descriptor is not None:
        poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def is_plain_folder(path: Path) -> bool:
    """Return whether there is a folder, and no link to one."""
    return path.is_dir() and not path.is_symlink()


class Lines:
    """Cuts what comes in pieces into lines that can be shown: bounded, and without what a terminal would obey."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell, self._rest = tell, b""

    def take(self, piece: bytes) -> None:
        """Take a piece, and tell the lines that it ends."""
        *lines, self._rest = (self._rest + piece).replace(b"\r", b"\n").split(b"\n")
        for line in lines:
            self._say(line)
        if len(self._rest) > 4 * _LINE_CHARACTERS:
            self.end()

    def end(self) -> None:
        """Tell what is left."""
        self._say(self._rest)
        self._rest = b""

    def _say(self, line: bytes) -> None:
        text = _readable(line.decode("utf-8", "replace")).rstrip()
        if text:
            self._tell(text[:_LINE_CHARACTERS])


def _readable(text: str) -> str:
    return "".join(each if each.isprintable() or each in "\n\t" else "�" for each in text)
