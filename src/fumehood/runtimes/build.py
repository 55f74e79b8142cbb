"""Makes environments of packages, all or nothing, gives them their names, and removes them.

Promised: a revision that is found is complete; a build that fails leaves nothing behind and shows the builder's own words; nobody
else touches a runtime meanwhile. What runs in a build, and behind which walls, is in `workshop`.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import struct
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InvalidRequest, RuntimeUnavailable
from ..protocol.record import Record
from . import packages
from .npm_sources import NpmSources, read_dependencies
from .npm_workshop import NpmWorkshop
from .sources import Sources as UvSources
from .uv_workshop import UvWorkshop
from .workshop import LOOK_SECONDS, Orders, Workshop, is_readable, sentence

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .runtime import Host
    from .workshop import Sources

_NAME = re.compile(r"[a-z][a-z0-9-]{0,39}")


class Plan(Record):
    """What is built, and how. `sources` are what `workshop` takes them from."""

    name: str
    workshop: type[Workshop]
    sources: Sources
    host: Host
    orders: Orders = Orders()

    def open(self, scratch: Path) -> Workshop:
        """Return a workshop below a folder."""
        return self.workshop(self.name, scratch, self.sources, self.host, self.orders)


def build(path: str, name: str, lock: str | None, host: Host) -> None:
    """Build the built-in environment `name` at `path` from the file `lock` (None: the standard library alone).

    Several processes may ask at once: one builds, the others wait for it. Raises `RuntimeUnavailable`, `SandboxUnavailable` where
    this host's walls do not hold.
    """
    plan, target = Plan(name=name, workshop=UvWorkshop, sources=UvSources(), host=host), Path(path)
    with _kept(plan, target.parent):
        _build(plan, target, None if lock is None else Path(lock).read_bytes())


def build_own(name: str, requirements: str, host: Host, *, allowed_hosts: tuple[str, ...] = ()) -> str:
    """Build a runtime of the user's own from a requirements file, give it its name, and return its folder.

    What is required is resolved first to exact versions with hashes: their content names the revision. The name leads to the
    new revision once that is complete. `allowed_hosts` may be reached besides those that the requirements and uv's settings
    name. Raises `InvalidRequest` for a name, a file or a host that cannot be, `RuntimeUnavailable` with uv's own words for
    requirements that cannot be met.
    """
    check_name(name)
    if not Path(requirements).is_file():
        raise InvalidRequest(f"requirements {requirements!r} is not a file")
    sources = UvSources(requirements, allowed_hosts)
    return build_named(Plan(name=name, workshop=UvWorkshop, sources=sources, host=host))


def build_own_for_node(
    name: str, package_json: str, host: Host, *, allowed_hosts: tuple[str, ...] = (), registry: str | None = None
) -> str:
    """Do the same for JavaScript, from the `dependencies` of a `package.json`, with npm.

    `registry` is the URL of npm's registry, None for that of npm's own settings.
    """
    check_name(name)
    if not Path(package_json).is_file():
        raise InvalidRequest(f"package.json {package_json!r} is not a file")
    sources = NpmSources(
        read_dependencies(package_json), registry=registry, allowed=allowed_hosts, beside=Path(package_json).parent
    )
    return build_named(Plan(name=name, workshop=NpmWorkshop, sources=sources, host=host))


def build_named(plan: Plan) -> str:
    """Build what is planned, lead its name to that, and return its folder."""
    try:
        with tempfile.TemporaryDirectory(prefix="fumehood-lock-") as scratch, plan.open(Path(scratch)) as workshop:
            lock = workshop.resolve()
        folder = Path(packages.folder())
        target = folder / plan.workshop.revision(plan.name, hashlib.sha256(lock).hexdigest()[:12])
        with _kept(plan, folder):
            _build(plan, target, lock)
            (folder / packages.NAMES).mkdir(exist_ok=True)
            fresh = folder / packages.NAMES / f".{plan.name}-{os.getpid()}"
            fresh.write_text(target.name + "\n", encoding="utf-8")
            fresh.rename(folder / packages.NAMES / plan.name)
    finally:
        plan.host.notice(sentence(plan.name), 1.0)
    return str(target)


def check_name(name: str) -> None:
    """Raise `InvalidRequest` where a runtime of the user's own cannot have this name."""
    from ..runtimes import languages  # noqa: PLC0415 - it imports every name here

    if not _NAME.fullmatch(name) or name in languages():
        raise InvalidRequest(
            f"runtime name {name!r}: take up to 40 of a-z, 0-9 and -, a letter first, and none of {', '.join(languages())}"
        )


def remove(name: str) -> list[str]:
    """Remove a revision, or all revisions of a runtime and its name; return the names of what is gone.

    Raises `InvalidRequest` naming what there is. A program that is running from it will miss its files.
    """
    known = installed()
    gone: list[str] = []
    if name in known:
        gone += _remove(runtime_of(name), name)
    if name in map(runtime_of, known) or packages.own(name) is not None:
        gone += _remove(name)
    elif not gone:
        raise InvalidRequest(f"no runtime or revision is called {name!r}: there are {', '.join(known) or 'none'}")
    return gone


def remove_runtime(name: str) -> list[str]:
    """Remove all revisions of a runtime, and its name; nothing where there is none. A build of it is waited for."""
    if not os.path.isdir(packages.folder()):
        return []
    return _remove(name)


def installed() -> list[str]:
    """Return the names of all revisions that are there."""
    folder = packages.folder()
    if not os.path.isdir(folder):
        return []
    return sorted(name for name in os.listdir(folder) if not name.startswith(".") and name != packages.NAMES)


def runtime_of(revision: str) -> str:
    """Return the runtime that a revision belongs to."""
    # …-3.11.2-1234abcd-105bbca6a9b8: version, place, lock; …-node.js-20-105bbca6a9b8: no name has a dot.
    return revision.rsplit("-", 3)[0]


def _build(plan: Plan, target: Path, lock: bytes | None) -> None:
    """Build an environment where it is not there. The caller holds the runtime's lock."""
    if (target / plan.workshop.proof).exists():
        return
    about = sentence(plan.name)
    plan.host.notice(about, 0.0)
    try:
        with (
            tempfile.TemporaryDirectory(dir=target.parent, prefix=".build-") as scratch,
            plan.open(Path(scratch)) as workshop,
        ):
            environment = workshop.make(lock)
            if lock is not None:
                _lay(environment / plan.workshop.lock_name, lock)
            if target.exists():
                shutil.rmtree(target)  # half of a folder that somebody removed by hand
            environment.rename(target)
    finally:
        plan.host.notice(about, 1.0)


def _lay(path: Path, data: bytes) -> None:
    # Never through a link that a package or a builder has put there.
    path.unlink(missing_ok=True)
    with path.open("xb") as file:
        file.write(data)


def _remove(runtime: str, revision: str | None = None) -> list[str]:
    """Remove one revision of a runtime or all, and the name with what it leads to; return what is gone."""
    folder = Path(packages.folder())
    with _locked(folder, runtime):
        gone = [each for each in installed() if runtime_of(each) == runtime and revision in (None, each)]
        if packages.own(runtime) is not None and (revision is None or packages.own(runtime) in gone):
            (folder / packages.NAMES / runtime).unlink()
        for each in gone:
            # Renamed first: what is half removed is never found by its name.
            doomed = folder / f".removed-{os.getpid()}-{each}"
            (folder / each).rename(doomed)
            shutil.rmtree(doomed)
    return gone


@contextmanager
def _kept(plan: Plan, folder: Path) -> Iterator[None]:
    """Hold the lock of a plan's runtime in a folder that is made where it is not there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder, plan.name, plan.orders.cancel):
            yield
    except OSError as error:
        raise RuntimeUnavailable(
            f"runtime {plan.name!r} cannot be kept in {folder}: {error}. Set XDG_DATA_HOME to a folder you may write"
        ) from error


@contextmanager
def _locked(folder: Path, runtime: str, cancel: int | None = None) -> Iterator[None]:
    """Keep every other process and thread from one runtime, and from no other, since a build may take a quarter of an hour."""
    # One byte of one file is a runtime's, far beyond its end. The lock belongs to this opening of the file, not to the process,
    # so it holds among threads, and it ends with the process.
    place = int.from_bytes(hashlib.sha256(runtime.encode()).digest()[:7], "big")
    with (folder / ".lock").open("w") as file:
        while not _locks(file.fileno(), fcntl.F_WRLCK, place):
            if is_readable(cancel, LOOK_SECONDS):
                raise RuntimeUnavailable(f"runtime {runtime!r} could not be built: it was cancelled")
        try:
            yield
        finally:
            # In so many words: a process that another thread has forked meanwhile has the file open, too.
            _locks(file.fileno(), fcntl.F_UNLCK, place)


def _locks(descriptor: int, kind: int, place: int) -> bool:
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", kind, os.SEEK_SET, place, 1, 0))
    except BlockingIOError:
        return False
    return True
