"""Makes Python environments, all or nothing, with uv, from a lock with hashes.

Promised: a build that fails leaves nothing behind and shows uv's own words; only wheels are unpacked, so no code of a package
runs while building. Not promised: walls around uv itself, which reads the index and the archives as the caller's user.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InvalidRequest, RuntimeUnavailable
from . import packages

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .runtime import Notice

_SECONDS = 900
_NAME = re.compile(r"[a-z][a-z0-9-]{0,39}")
#: What uv says while it works, to the share of the work that is done by then; measured on the data runtime.
_MILESTONES = {"Resolved": 0.05, "Prepared": 0.3, "Installed": 0.5, "Bytecode": 0.99}
_SOURCES = ("-i ", "--index-url", "--extra-index-url", "-f ", "--find-links", "--no-index")
_UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


def build(path: str, name: str, lock: str | None, notice: Notice, sources: str | None = None) -> None:
    """Build the environment `name` at `path` from the file `lock` (None: the standard library alone).

    `sources` is a requirements file that says where packages come from, where that is not uv's own setting.

    Several processes may ask at once: one builds, the others wait for it. Raises `RuntimeUnavailable`.
    """
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with (target.parent / ".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if not (target / "pyvenv.cfg").exists():
                _build(target, name, lock, notice, sources)
    except OSError as error:
        raise RuntimeUnavailable(
            f"runtime {name!r} cannot be kept in {target.parent}: {error}. Set XDG_DATA_HOME to a folder you may write"
        ) from error


def build_own(name: str, requirements: str, notice: Notice) -> str:
    """Build a runtime of the user's own from a requirements file, give it its name, and return its folder.

    What is required is resolved first to exact versions with hashes: their content names the revision. The name leads to the
    new revision once that is complete. Raises `InvalidRequest` for a name or a file that cannot be, `RuntimeUnavailable` with
    uv's own words for requirements that cannot be met.
    """
    from ..runtimes import languages  # noqa: PLC0415 - it imports every name here

    if not _NAME.fullmatch(name) or name in languages():
        raise InvalidRequest(
            f"runtime name {name!r}: take up to 40 of a-z, 0-9 and -, a letter first, and none of {', '.join(languages())}"
        )
    if not Path(requirements).is_file():
        raise InvalidRequest(f"requirements {requirements!r} is not a file")
    with tempfile.TemporaryDirectory(prefix="fumehood-lock-") as scratch:
        lock = Path(scratch) / "requirements.lock"
        _uv(
            name, notice, "pip", "compile", "--python", _base_interpreter(), "--generate-hashes", "--only-binary", ":all:",
            "--no-header", "--no-annotate", "-o", str(lock), requirements,
        )  # fmt: skip
        path = Path(packages.folder(), packages.revision(name, _digest(lock)))
        sources = Path(scratch) / "sources.txt"
        sources.write_text(_sources(requirements), encoding="utf-8")
        build(str(path), name, str(lock), notice, str(sources))
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


def _build(target: Path, name: str, lock: str | None, notice: Notice, sources: str | None) -> None:
    sentence = _sentence(name)
    notice(sentence, 0.0)
    try:
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".build-") as scratch:
            environment = Path(scratch) / "environment"
            _uv(name, notice, "venv", "--quiet", "--no-project", "--python", _base_interpreter(), str(environment))
            if lock is not None:
                _uv(
                    name, notice, "pip", "install", "--python", str(environment / "bin" / "python"), "--only-binary",
                    ":all:", "--require-hashes", "--link-mode", "copy", "--compile-bytecode", "-r", lock,
                    *(["-r", sources] if sources else []),
                )  # fmt: skip
                shutil.copyfile(lock, environment / "requirements.lock")
            if target.exists():
                shutil.rmtree(target)  # half of a folder that somebody removed by hand
            environment.rename(target)
    finally:
        notice(sentence, 1.0)


def _uv(name: str, notice: Notice, *arguments: str) -> None:
    from uv import find_uv_bin  # noqa: PLC0415 - needed here alone

    # The machine's own certificates, as a company's proxy needs them; two names, for old and new uv.
    environment = {**os.environ, "UV_NATIVE_TLS": "1", "UV_SYSTEM_CERTS": "1", "NO_COLOR": "1"}
    words: list[str] = []
    try:
        with subprocess.Popen(
            [find_uv_bin(), *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            text=True, errors="replace", env=environment,
        ) as process:  # fmt: skip
            timer = threading.Timer(_SECONDS, process.kill)
            timer.start()
            try:
                for share in _shares(_heard(process, words)):
                    notice(_sentence(name), share)
            finally:
                timer.cancel()
    except OSError as error:
        raise RuntimeUnavailable(f"runtime {name!r} could not be built: {error}") from error
    if process.returncode != 0:
        # In uv's own words, without what it said about its progress before.
        said = "".join(word for word in words if not word.lstrip().startswith(("Download", "Resolved", "Using Python")))
        raise RuntimeUnavailable(f"runtime {name!r} could not be built; uv says:\n{said.strip()}\n{_advice(name)}")


def _sentence(name: str) -> str:
    return f"Installing the packages of the {name} runtime (once; some seconds) …"


def _advice(name: str) -> str:
    if name != "python":
        return "Mend the requirements, or connect this machine to a package index, and try again"
    return (
        "Connect this machine to a package index once and try again, or take the standard library alone with "
        "`fumehood runtime build --standard-library`"
    )


def _heard(process: subprocess.Popen[str], words: list[str]) -> Iterator[str]:
    for line in process.stderr or ():
        words.append(line)
        yield line


def _shares(lines: Iterator[str]) -> Iterator[float]:
    """Turn what uv says into the share of its work that is done."""
    sizes: dict[str, float] = {}
    done = 0.0
    for line in lines:
        first, *rest = line.split() or [""]
        if first == "Downloading" and len(rest) == 2:
            sizes[rest[0]] = _bytes(rest[1])
        elif first == "Downloaded" and rest and sizes:
            done += sizes.get(rest[0], 0.0)
            yield 0.05 + 0.2 * done / max(1.0, sum(sizes.values()))
        elif first in _MILESTONES:
            yield _MILESTONES[first]


def _bytes(text: str) -> float:
    number, unit = text.strip("()")[:-3], text.strip("()")[-3:]
    return float(number) * _UNITS.get(unit, 1) if number.replace(".", "", 1).isdigit() else 0.0


def _base_interpreter() -> str:
    return os.path.realpath(getattr(sys, "_base_executable", sys.executable))


def _sources(requirements: str) -> str:
    """Return the lines that say where packages come from; the lock has none, for it is shown inside, where no password may be."""
    lines = Path(requirements).read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(line for line in lines if line.strip().startswith(_SOURCES))


def _digest(lock: Path) -> str:
    import hashlib  # noqa: PLC0415 - as everything here: when building

    return hashlib.sha256(lock.read_bytes()).hexdigest()[:12]
