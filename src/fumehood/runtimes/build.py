"""Makes Python environments, all or nothing, with uv, from a lock with hashes.

Promised: whatever reads the index, unpacks archives or compiles runs behind the walls of any program, with a folder of its own to
write to and, where it fetches, a way to the package indexes and no other host; a build that fails leaves nothing behind and
shows uv's own words; only wheels are unpacked, so no code of a package runs while building.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
import threading
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..egress.gateway import Gateway
from ..errors import InvalidRequest, RuntimeUnavailable
from ..protocol.limits import Limits, MiB
from ..sandbox import admission, own_interpreter
from ..sandbox import files as sandbox_files
from ..sandbox.disk import take_over
from ..sandbox.isolation.namespaces import UserLease
from ..sandbox.launcher import Launcher
from ..sandbox.live import Live
from ..sandbox.spec import GATEWAY, Mount, Spec
from ..sandbox.supervisor import Outcome, Stdin, watch
from . import packages
from .sources import Sources

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Literal, Self

    from .runtime import Host

#: Of one step. A file of a package may be as large as the disk limit; memory bounds what is not on the host's disk.
_LIMITS = Limits(
    wall_seconds=900, cpu_seconds=7200, memory_bytes=3072 * MiB, pids=512, disk_bytes=16384 * MiB, output_bytes=64 * MiB
)
#: A build that leaves the host's disk less than this is ended.
_DISK_LEFT_BYTES = 256 * MiB
_LOOK_SECONDS = 0.1
_LOCK_BYTES = 16 * MiB
_UV, _PLACE = "/opt/fumehood/uv", "/opt/fumehood/build"
_NAME = re.compile(r"[a-z][a-z0-9-]{0,39}")
#: What uv says while it works, to the share of the work that is done by then; measured on the data runtime.
_MILESTONES = {"Resolved": 0.05, "Prepared": 0.3, "Installed": 0.4}
_UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


def build(path: str, name: str, lock: str | None, host: Host, sources: Sources | None = None) -> None:
    """Build the environment `name` at `path` from the file `lock` (None: the standard library alone).

    `sources` say where packages come from, where that is not uv's own setting.

    Several processes may ask at once: one builds, the others wait for it. Raises `RuntimeUnavailable`, `SandboxUnavailable` where
    this host's walls do not hold.
    """
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with (target.parent / ".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if not (target / "pyvenv.cfg").exists():
                _build(target, name, lock, host, sources or Sources())
    except OSError as error:
        raise RuntimeUnavailable(
            f"runtime {name!r} cannot be kept in {target.parent}: {error}. Set XDG_DATA_HOME to a folder you may write"
        ) from error


def build_own(name: str, requirements: str, host: Host, *, allowed_hosts: tuple[str, ...] = ()) -> str:
    """Build a runtime of the user's own from a requirements file, give it its name, and return its folder.

    What is required is resolved first to exact versions with hashes: their content names the revision. The name leads to the
    new revision once that is complete. `allowed_hosts` may be reached besides those that the requirements and uv's settings
    name. Raises `InvalidRequest` for a name, a file or a host that cannot be, `RuntimeUnavailable` with uv's own words for
    requirements that cannot be met.
    """
    from ..runtimes import languages  # noqa: PLC0415 - it imports every name here

    if not _NAME.fullmatch(name) or name in languages():
        raise InvalidRequest(
            f"runtime name {name!r}: take up to 40 of a-z, 0-9 and -, a letter first, and none of {', '.join(languages())}"
        )
    if not Path(requirements).is_file():
        raise InvalidRequest(f"requirements {requirements!r} is not a file")
    sources = Sources(requirements, allowed_hosts)
    with tempfile.TemporaryDirectory(prefix="fumehood-lock-") as scratch:
        lock = Path(scratch) / "requirements.lock"
        with _Workshop(name, Path(scratch), sources, host) as workshop:
            lock.write_bytes(workshop.resolve())
        path = Path(packages.folder(), packages.revision(name, _digest(lock)))
        build(str(path), name, str(lock), host, sources)
    names = path.parent / packages.NAMES
    names.mkdir(exist_ok=True)
    fresh = names / f".{name}-{os.getpid()}"
    fresh.write_text(path.name + "\n", encoding="utf-8")
    fresh.rename(names / name)
    return str(path)


def remove(name: str) -> list[str]:
    """Remove a revision, or all revisions of a runtime and its name; return the names of what is gone.

    Raises `InvalidRequest` naming what there is. A program that is running from it will miss its files.
    """
    folder = Path(packages.folder())
    known = installed()
    gone = [each for each in known if name in (each, runtime_of(each))]
    if not gone and packages.own(name) is None:
        raise InvalidRequest(f"no runtime or revision is called {name!r}: there are {', '.join(known) or 'none'}")
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        for each in gone:
            # Renamed first: what is half removed is never found by its name.
            doomed = folder / f".removed-{os.getpid()}-{each}"
            (folder / each).rename(doomed)
            shutil.rmtree(doomed)
        for runtime in {name, *map(runtime_of, gone)}:
            if packages.own(runtime) in gone or (runtime == name and packages.own(name) is not None):
                (folder / packages.NAMES / runtime).unlink()
    return gone


def installed() -> list[str]:
    """Return the names of all revisions that are there."""
    folder = packages.folder()
    if not os.path.isdir(folder):
        return []
    return sorted(name for name in os.listdir(folder) if not name.startswith(".") and name != packages.NAMES)


def runtime_of(revision: str) -> str:
    """Return the runtime that a revision belongs to."""
    # …-3.11.2-1234abcd-105bbca6a9b8: version, place, lock.
    return revision.rsplit("-", 3)[0]


def _build(target: Path, name: str, lock: str | None, host: Host, sources: Sources) -> None:
    sentence = _sentence(name)
    host.notice(sentence, 0.0)
    try:
        with (
            tempfile.TemporaryDirectory(dir=target.parent, prefix=".build-") as scratch,
            _Workshop(name, Path(scratch), sources, host) as workshop,
        ):
            environment = workshop.make(None if lock is None else Path(lock).read_bytes())
            if lock is not None:
                shutil.copyfile(lock, environment / "requirements.lock")
            if target.exists():
                shutil.rmtree(target)  # half of a folder that somebody removed by hand
            environment.rename(target)
    finally:
        host.notice(sentence, 1.0)


class _Workshop:
    """Runs the steps of one build, each in a sandbox of its own that writes to one folder of the host's."""

    def __init__(self, name: str, scratch: Path, sources: Sources, host: Host) -> None:
        self._name, self._sources, self._host = name, sources, host
        self._launcher = Launcher()
        self._place = scratch / "place"
        # One user for all steps: what one leaves the next goes on with.
        self._lease = UserLease()

    def __enter__(self) -> Self:
        try:
            admission.require(self._launcher.spawn, self._host.without)
            self._place.mkdir()
            user = self._lease.__enter__().user
            if user is not None:
                os.chown(self._place, user, user)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        self._launcher.close()
        self._lease.__exit__()

    def resolve(self) -> bytes:
        """Return the lock that the sources' requirements resolve to."""
        files = self._sources.requirements
        outcome = self._uv(
            "pip", "compile", "--python", own_interpreter.path(), "--generate-hashes", "--only-binary", ":all:",
            "--no-header", "--no-annotate", "-o", "requirements.lock", next(iter(files)), files=files,
        )  # fmt: skip
        try:
            return sandbox_files.get(outcome.work, "requirements.lock", _LOCK_BYTES)
        finally:
            os.close(outcome.work)

    def make(self, lock: bytes | None) -> Path:
        """Make the environment and return its folder, which is the host's own by then."""
        environment = f"{_PLACE}/environment"
        # Programs find it at another path than it is built at.
        self._run_uv(
            "venv", "--quiet", "--no-project", "--relocatable", "--python", own_interpreter.path(), environment,
            fetches=False,
        )  # fmt: skip
        if lock is not None:
            where = "\n".join(self._sources.where).encode()
            self._run_uv(
                "pip", "install", "--python", f"{environment}/bin/python", "--only-binary", ":all:", "--require-hashes",
                "--link-mode", "hardlink", "-r", "requirements.lock", "-r", "sources.txt",
                files={"requirements.lock": lock, "sources.txt": where},
            )  # fmt: skip
            self._compile(environment)
        made = self._place / "environment"
        take_over(made)
        return made

    def _compile(self, environment: str) -> None:
        # Apart from uv, without a way out, and without `site`, which would run what a package has put into a .pth file.
        total = sum(name.endswith(".py") for _folder, _folders, names in os.walk(self._place) for name in names)
        done = 0

        def hear(stream: Literal["stdout", "stderr"], piece: bytes) -> None:
            nonlocal done
            done += piece.count(b"Compiling ") if stream == "stdout" else 0
            self._host.notice(_sentence(self._name), min(0.99, 0.4 + 0.59 * done / max(1, total)))

        argv = (own_interpreter.path(), "-I", "-S", "-m", "compileall", "-j", "0", f"{environment}/lib")
        # Some packages carry files that are no Python of this version; that is told by its exit status, and is no fault.
        os.close(self._run(argv, {}, hear, fetches=False).work)

    def _run_uv(self, *arguments: str, files: dict[str, bytes] | None = None, fetches: bool = True) -> None:
        os.close(self._uv(*arguments, files=files, fetches=fetches).work)

    def _uv(self, *arguments: str, files: dict[str, bytes] | None = None, fetches: bool = True) -> Outcome:
        words = bytearray()
        shares = _Shares()

        def hear(_stream: Literal["stdout", "stderr"], piece: bytes) -> None:
            words.extend(piece)
            for share in shares.of(piece):
                self._host.notice(_sentence(self._name), share)

        refused: list[str] = []
        outcome = self._run((_UV, *arguments), files or {}, hear, fetches=fetches, refused=refused)
        if outcome.status != 0:
            os.close(outcome.work)
            raise RuntimeUnavailable(self._told(words.decode("utf-8", "replace"), refused))
        return outcome

    def _told(self, words: str, refused: list[str]) -> str:
        # In uv's own words, without what it said about its progress before.
        progress = ("Download", "Resolved", "Using Python")
        said = "".join(each for each in words.splitlines(keepends=True) if not each.lstrip().startswith(progress))
        advice = _advice(self._name)
        if refused:
            options = " ".join(f"--allow-host {each}" for each in refused)
            advice = (
                f"It asked for hosts that nothing names. To have them reached: `fumehood runtime build {options} …`"
            )
        return f"runtime {self._name!r} could not be built; uv says:\n{self._sources.outside(said).strip()}\n{advice}"

    def _run(
        self, argv: tuple[str, ...], files: dict[str, bytes],
        hear: Callable[[Literal["stdout", "stderr"], bytes], None], *, fetches: bool, refused: list[str] | None = None,
    ) -> Outcome:  # fmt: skip
        """Run one program inside to its end. The caller owns `Outcome.work`."""
        spec = self._spec(argv, files, fetches=fetches)
        live = Live(spec.limits, cgroup="cgroup" not in spec.without)
        with closing(live), Gateway(self._sources.hosts) as gateway, self._disk_watched() as full:
            live.start(spec, self._launcher.spawn, self._lease.user)
            outcome = watch(
                live,
                spec.limits,
                stdin=Stdin(),
                on_output=hear,
                cancel=full,
                on_listeners=lambda opened: gateway.serve(*opened),
            )
        if refused is not None:
            refused += [host if port == 443 else f"{host}:{port}" for host, port in gateway.refused]
        # A short step may end before the watcher looks.
        is_full = outcome.verdict == "cancelled" or self._disk_is_full()
        if is_full or outcome.verdict is not None or outcome.status is None:
            os.close(outcome.work)
            why = "it filled the disk" if is_full else outcome.detail or "it was killed"
            raise RuntimeUnavailable(f"runtime {self._name!r} could not be built: {why}")
        return outcome

    def _spec(self, argv: tuple[str, ...], files: dict[str, bytes], *, fetches: bool) -> Spec:
        from uv import find_uv_bin  # noqa: PLC0415 - needed here alone

        environment = {
            "PATH": "/usr/bin:/bin", "HOME": "/tmp", "LANG": "C.UTF-8", "NO_COLOR": "1", "UV_NO_CONFIG": "1",  # noqa: S108 - the sandbox's
            "UV_CACHE_DIR": f"{_PLACE}/cache", "UV_PYTHON_DOWNLOADS": "never",
        }  # fmt: skip
        mounts = [
            *own_interpreter.mounts(), Mount(host=os.path.realpath(find_uv_bin()), inside=_UV),
            Mount(host=str(self._place.resolve()), inside=_PLACE, writable=True),
        ]  # fmt: skip
        if fetches:
            proxy = "http://{}:{}".format(*GATEWAY)
            environment |= self._sources.environment | {"HTTPS_PROXY": proxy, "HTTP_PROXY": proxy}
            mounts += self._sources.mounts
            files = self._sources.laid | files
        return Spec(
            argv=argv, environment=environment, mounts=tuple(mounts), files=files, limits=_LIMITS,
            without=self._host.without, gateway=fetches,
        )  # fmt: skip

    @contextmanager
    def _disk_watched(self) -> Iterator[int]:
        """Give a descriptor that is readable once the host's disk is all but full."""
        full, over = os.eventfd(0, os.EFD_CLOEXEC), threading.Event()

        def look() -> None:
            while not over.wait(_LOOK_SECONDS):
                if self._disk_is_full():
                    os.eventfd_write(full, 1)

        watcher = threading.Thread(target=look, name="fumehood-disk", daemon=True)
        watcher.start()
        try:
            yield full
        finally:
            over.set()
            watcher.join()
            os.close(full)

    def _disk_is_full(self) -> bool:
        return shutil.disk_usage(self._place).free < _DISK_LEFT_BYTES


def _sentence(name: str) -> str:
    return f"Installing the packages of the {name} runtime (once; some seconds) …"


def _advice(name: str) -> str:
    if name != "python":
        return "Mend the requirements, or connect this machine to a package index, and try again"
    return (
        "Connect this machine to a package index once and try again, or take the standard library alone with "
        "`fumehood runtime build --standard-library`"
    )


class _Shares:
    """Turns what uv says, as it comes, into the share of the work that is done."""

    def __init__(self) -> None:
        self._rest = b""
        self._sizes: dict[str, float] = {}
        self._done = 0.0

    def of(self, piece: bytes) -> Iterator[float]:
        *lines, self._rest = (self._rest + piece).split(b"\n")
        for line in lines:
            first, *rest = line.decode("utf-8", "replace").split() or [""]
            if first == "Downloading" and len(rest) == 2:
                self._sizes[rest[0]] = _bytes(rest[1])
            elif first == "Downloaded" and rest and self._sizes:
                self._done += self._sizes.get(rest[0], 0.0)
                yield 0.05 + 0.2 * min(1.0, self._done / max(1.0, sum(self._sizes.values())))
            elif first in _MILESTONES:
                yield _MILESTONES[first]


def _bytes(text: str) -> float:
    number, unit = text.strip("()")[:-3], text.strip("()")[-3:]
    return float(number) * _UNITS.get(unit, 1) if number.replace(".", "", 1).isdigit() else 0.0


def _digest(lock: Path) -> str:
    import hashlib  # noqa: PLC0415 - as everything here: when building

    return hashlib.sha256(lock.read_bytes()).hexdigest()[:12]
