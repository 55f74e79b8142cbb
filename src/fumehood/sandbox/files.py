"""Takes what a program left in `/work` out to the host.

Everything here is hostile: names, links, sizes, kinds. Promised: no link is followed, nothing outside the folder
is opened, nothing but regular files with one name is read, no read blocks, and no more is read than the limits allow.
What is not taken is listed with the reason. Bytes are counted while reading; sizes that the file claims are not trusted.
"""

from __future__ import annotations

import errno
import itertools
import os
import stat

from ..errors import InvalidFilePath
from ..protocol.paths import why_not_inside
from ..protocol.record import Record
from . import kernel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
_DEPTH = 32
# What tmpfs adds to the size of a folder for each entry; two are there by themselves.
_ENTRY_BYTES = 20
# Entries looked at, taken or not: a folder full of empty files must not keep the host busy.
_ENTRIES = 20_000


class Collected(Record):
    """What was taken, by relative path, and what was not: path to the reason."""

    files: dict[str, bytes]
    skipped: dict[str, str]


def collect(work: int, given: Mapping[str, bytes], *, total_bytes: int, count: int) -> Collected:
    """Read the regular files below the open folder `work` that are new or differ from `given`.

    Paths are decoded as the file system's (`os.fsdecode`), so odd bytes survive as surrogates.
    """
    files: dict[str, bytes] = {}
    skipped: dict[str, str] = {}
    if _is_as_given(work, given):
        return Collected(files=files, skipped=skipped)
    room = total_bytes
    for looked_at, (path, problem) in enumerate(_walk(work, b"", 0)):
        name = os.fsdecode(path)
        if looked_at >= _ENTRIES:
            skipped[name] = f"and all after it: more than {_ENTRIES} entries"
            break
        if problem:
            skipped[name] = problem
            continue
        if name in given and _read(work, path, len(given[name])) == given[name]:
            continue
        data = _read(work, path, room)
        if isinstance(data, str):
            skipped[name] = data
        else:
            if len(files) >= count:
                skipped[name] = f"more than {count} files"
                continue
            files[name] = data
            room -= len(data)
    return Collected(files=files, skipped=skipped)


def _is_as_given(work: int, given: Mapping[str, bytes]) -> bool:
    """Whether nothing is there but those files as they were: so it is after most programs, and takes a quarter of a walk.

    Where it says so it is so on tmpfs, whose folders' size is how many entries they have.
    """
    if os.fstat(work).st_size != _ENTRY_BYTES * (2 + len(given)) or any("/" in path for path in given):
        return False
    return all(_read(work, os.fsencode(path), len(data)) == data for path, data in given.items())


def sizes(work: int) -> dict[str, int]:
    """Return the size of every regular file with one name below the open folder, by relative path."""
    found: dict[str, int] = {}
    for path, problem in itertools.islice(_walk(work, b"", 0), _ENTRIES):
        if not problem:
            try:
                descriptor = kernel.open_beneath(work, path, _OPEN)
            except OSError:
                continue  # gone, or not for us
            try:
                facts = os.fstat(descriptor)
                if stat.S_ISREG(facts.st_mode) and facts.st_nlink == 1:
                    found[os.fsdecode(path)] = facts.st_size
            finally:
                os.close(descriptor)
    return found


def get(work: int, path: str, most_bytes: int) -> bytes:
    """Return a file's content by the rules of `collect`. Raises `InvalidFilePath` with the reason where it cannot be taken."""
    if (why := why_not_inside(path)) is not None:
        raise InvalidFilePath(f"file path {path!r}: {why}; give a relative path inside the working directory")
    data = _read(work, os.fsencode(path), most_bytes)
    if isinstance(data, str):
        raise InvalidFilePath(f"file {path!r} cannot be taken: {data}")
    return data


def put(work: int, path: str, data: bytes) -> None:
    """Lay a file below the open folder, as its owner's, in the place of one that is there. Raises `InvalidFilePath`."""
    if (why := why_not_inside(path)) is not None:
        raise InvalidFilePath(f"file path {path!r}: {why}; give a relative path inside the working directory")
    *folders, name = os.fsencode(path).split(b"/")
    owner, is_root = os.fstat(work), os.geteuid() == 0
    parent = os.dup(work)
    if is_root:
        # As the folder's owner: that file system knows no other, and the host's rights are not for a guest's tree.
        kernel.set_file_user(owner.st_uid, owner.st_gid)
    try:
        for folder in folders:
            parent = _entered(parent, folder)
        _replace(parent, name, data)
    except OSError as error:
        raise InvalidFilePath(f"file {path!r} cannot be laid: {_reason(error)}") from error
    finally:
        if is_root:
            kernel.set_file_user(0, 0)
        os.close(parent)


def _entered(parent: int, folder: bytes) -> int:
    """Return a folder below `parent`, made where it is not there, and close `parent`."""
    try:
        os.mkdir(folder, 0o755, dir_fd=parent)
    except FileExistsError:
        pass  # or something else of that name, which the next line refuses
    inner = kernel.open_beneath(parent, folder, os.O_RDONLY | os.O_DIRECTORY)
    os.close(parent)
    return inner


def _replace(parent: int, name: bytes, data: bytes) -> None:
    # Under another name first: whoever reads meanwhile sees the old file or the new one.
    beside = b".fumehood-" + os.urandom(8).hex().encode()
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(beside, flags, 0o644, dir_fd=parent)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.rename(beside, name, src_dir_fd=parent, dst_dir_fd=parent)
    except BaseException:
        os.unlink(beside, dir_fd=parent)
        raise
    finally:
        os.close(descriptor)


def _walk(work: int, folder: bytes, depth: int) -> Iterator[tuple[bytes, str]]:
    """Yield (path, why it cannot be taken or nothing), folders' contents after their siblings, in order of names."""
    try:
        descriptor = kernel.open_beneath(work, folder or b".", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        yield folder, _reason(error)
        return
    try:
        # With a descriptor scandir gives names alone; none is resolved by path.
        with os.scandir(descriptor) as entries:
            kinds = {os.fsencode(entry.name): _kind(entry) for entry in entries}
    except OSError as error:
        yield folder, _reason(error)
        return
    finally:
        os.close(descriptor)
    for name, kind in sorted(kinds.items()):
        path = folder + b"/" + name if folder else name
        if kind != "folder":
            yield path, "" if kind == "file" else f"is a {kind}"
        elif depth + 1 > _DEPTH:
            yield path, f"is deeper than {_DEPTH} folders"
        elif name != b"__pycache__":
            yield from _walk(work, path, depth + 1)


def _kind(entry: os.DirEntry[str]) -> str:
    if entry.is_symlink():
        return "symbolic link"
    if entry.is_dir(follow_symlinks=False):
        return "folder"
    return "file" if entry.is_file(follow_symlinks=False) else "pipe, socket or device"


def _read(work: int, path: bytes, room: int) -> bytes | str:
    try:
        descriptor = kernel.open_beneath(work, path, _OPEN)
    except OSError as error:
        return _reason(error)
    try:
        facts = os.fstat(descriptor)
        # Looked at again, on the open file: the name may stand for something else than a moment ago.
        if not stat.S_ISREG(facts.st_mode):
            return "is not a regular file"
        if facts.st_nlink != 1:
            return f"has {facts.st_nlink} names (hard links)"
        if facts.st_size > room:
            return f"claims {facts.st_size} bytes, {room} are left to take"
        pieces: list[bytes] = []
        left = room
        # One byte more than it claims to hold, so that a small file does not take the memory of a large one to read.
        most = min(left, facts.st_size, 1 << 20) + 1
        while piece := os.read(descriptor, most):
            left -= len(piece)
            if left < 0:
                return f"has more than the {room} bytes that are left to take"
            pieces.append(piece)
            if len(piece) < most:
                break  # of a regular file that is its end
        return b"".join(pieces)
    except OSError as error:
        return _reason(error)
    finally:
        os.close(descriptor)


def _reason(error: OSError) -> str:
    known = {
        errno.ELOOP: "is a symbolic link",
        errno.EXDEV: "leads out of the working directory",
        errno.EACCES: "is not readable: the program took the permission away",
    }
    return known.get(error.errno or 0, os.strerror(error.errno or 0))
