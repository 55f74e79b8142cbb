"""Whatever a program leaves in its working folder: what is taken out is what regular files with one name inside hold, and no more."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st

from fumehood.errors import InvalidFilePath
from fumehood.sandbox import files

from .budget import FUZZ

TOTAL_BYTES, COUNT = 5_000, 6
_NAMES = st.sampled_from(
    [b"a", b"b", b"folder", b"deep", b".hidden", b"n\nl", b"\x1b[2J", b"\xff\xfe", b"x" * 255, b"__pycache__", b" "]
)
_PATHS = st.lists(_NAMES, min_size=1, max_size=3).map(b"/".join)
_TARGETS = (
    st.sampled_from([b"{outside}", b"{outside}/secret", b"a", b".", b"..", b"/proc/self/environ", b"folder", b"loop"])
    | _PATHS
)
_STEPS = st.one_of(
    st.tuples(st.just("file"), _PATHS, st.binary(max_size=50) | st.just(b"z" * 4_000)),
    st.tuples(st.just("hole"), _PATHS, st.integers(0, 1 << 40)),
    st.tuples(st.just("folder"), _PATHS, st.none()),
    st.tuples(st.sampled_from(["link", "name"]), _PATHS, _TARGETS),
    st.tuples(st.sampled_from(["pipe", "remove"]), _PATHS, st.none()),
    st.tuples(st.just("mode"), _PATHS, st.integers(0, 0o7777)),
)
SECRET = b"what only the host knows"


@FUZZ
@example([("folder", b"folder", None), ("mode", b"folder", 0)], {})
@given(st.lists(_STEPS, max_size=12), st.dictionaries(_PATHS.map(os.fsdecode), st.binary(max_size=5), max_size=2))
def test_what_is_taken_out_is_what_files_inside_hold(
    steps: list[tuple[str, bytes, object]], given_files: dict[str, bytes]
) -> None:
    with folders() as (work, outside):
        laid = [("file", os.fsencode(path), data) for path, data in given_files.items()]
        for step in (*laid, *steps):
            with contextlib.suppress(OSError):
                take(step, os.fsencode(work), os.fsencode(outside))
        descriptor = os.open(work, os.O_RDONLY | os.O_DIRECTORY)
        try:
            taken = files.collect(descriptor, given_files, total_bytes=TOTAL_BYTES, count=COUNT)
            sizes = files.sizes(descriptor)
        finally:
            os.close(descriptor)
        assert len(taken.files) <= COUNT
        assert sum(map(len, taken.files.values())) <= TOTAL_BYTES
        for path, data in taken.files.items():
            assert_is_inside(work, path, data)
            assert given_files.get(path) != data
        assert not any(SECRET in data for data in taken.files.values())
        # What is not among these is among those, or is what came with the program.
        for path in sizes.keys() - taken.files.keys() - taken.skipped.keys():
            assert_is_inside(work, path, given_files[path])


@FUZZ
@given(st.lists(_STEPS, max_size=8), _PATHS.map(os.fsdecode) | st.text(max_size=30))
def test_a_file_that_is_asked_for_is_inside_or_refused(steps: list[tuple[str, bytes, object]], path: str) -> None:
    with folders() as (work, outside):
        for step in steps:
            with contextlib.suppress(OSError):
                take(step, os.fsencode(work), os.fsencode(outside))
        descriptor = os.open(work, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with contextlib.suppress(InvalidFilePath):
                data = files.get(descriptor, path, TOTAL_BYTES)
                assert SECRET not in data
                assert_is_inside(work, path, data)
            with contextlib.suppress(InvalidFilePath):
                files.put(descriptor, path, b"laid")
                assert_is_inside(work, path, b"laid")
        finally:
            os.close(descriptor)
        assert sorted(os.listdir(outside)) == ["secret"]
        assert (outside / "secret").read_bytes() == SECRET


@contextlib.contextmanager
def folders() -> Iterator[tuple[Path, Path]]:
    """Give a working folder, and another of the host's beside it that holds a secret."""
    # On tmpfs where there is one, as a sandbox's folder is.
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    place = Path(tempfile.mkdtemp(prefix="fuzz-", dir=memory)).resolve()
    work, outside = place / "work", place / "outside"
    work.mkdir()
    outside.mkdir()
    (outside / "secret").write_bytes(SECRET)
    try:
        yield work, outside
    finally:
        # From the top: a folder without rights opens only once its mode is changed.
        for folder, names, _files in os.walk(place):
            for inner in (os.path.join(folder, name) for name in names):
                if not os.path.islink(inner):
                    os.chmod(inner, 0o700)
        shutil.rmtree(place)


def take(step: tuple[str, bytes, object], work: bytes, outside: bytes) -> None:
    """Do one step of a program's, in its folder. By no link and without waiting, since this is no sandbox."""
    kind, name, what = step
    path = os.path.join(work, name)
    if os.path.realpath(os.path.dirname(path)) != os.path.dirname(path):
        return
    if kind in ("file", "hole"):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
        with open(descriptor, "wb") as file:
            if os.fstat(descriptor).st_nlink > 1:
                return  # the host's own, which no guest can give a name to
            if isinstance(what, bytes):
                file.write(what)
            elif isinstance(what, int):
                file.truncate(what)
    elif kind == "folder":
        os.mkdir(path)
    elif kind == "link" and isinstance(what, bytes):
        os.symlink(what.replace(b"{outside}", outside), path)
    elif kind == "name" and isinstance(what, bytes):
        os.link(os.path.join(work, what.replace(b"{outside}", outside)), path, follow_symlinks=False)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "remove":
        os.remove(path)
    elif kind == "mode" and isinstance(what, int) and not os.path.islink(path):
        os.chmod(path, what)


def assert_is_inside(work: Path, path: str, data: bytes) -> None:
    """Fail unless a path names a file of the folder's own that holds the data, by no link."""
    here = work
    for part in Path(path).parts:
        here.chmod(0o700)
        here = here / part
        assert not here.is_symlink()
    assert here.resolve().is_relative_to(work.resolve())
    facts = here.lstat()
    assert facts.st_nlink == 1
    here.chmod(0o600)
    assert here.read_bytes() == data
