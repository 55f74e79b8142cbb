"""What is done with a guest's whole tree: copied into another sandbox, when a session is forked; made the host's own.

Promised: no link is followed; links between files, holes, modes and times stay. Sockets are left out: nobody listens on them in a
copy. Not promised: extended attributes. The files are the guest's, and nothing of it may run meanwhile.
"""

from __future__ import annotations

import errno
import os
import stat

from . import kernel

_PIECE = 1 << 30


def copy_tree(source: int, target: int) -> None:
    """Copy all below the open folder `source` into the open, empty folder `target`. Raises OSError where it cannot all be had."""
    linked: dict[int, bytes] = {}
    # Folders get their own mode and times last: they may forbid what comes before, and it changes their times.
    finished: list[tuple[bytes, os.stat_result]] = [(b".", os.fstat(source))]
    pending = [b""]
    while pending:
        folder = pending.pop()
        here = kernel.open_beneath(source, folder or b".", os.O_RDONLY | os.O_DIRECTORY)
        for name in os.listdir(here):
            path = os.path.join(folder, os.fsencode(name))
            facts = os.lstat(name, dir_fd=here)
            if stat.S_ISDIR(facts.st_mode):
                os.mkdir(path, 0o700, dir_fd=target)
                pending.append(path)
                finished.append((path, facts))
            elif facts.st_nlink > 1 and facts.st_ino in linked:
                os.link(linked[facts.st_ino], path, src_dir_fd=target, dst_dir_fd=target)
            else:
                linked[facts.st_ino] = path
                _copy(here, name, facts, target, path)
        os.close(here)
    for path, facts in reversed(finished):
        os.chmod(path, stat.S_IMODE(facts.st_mode), dir_fd=target)
        os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns), dir_fd=target)


def copy_data(source: int, target: int) -> None:
    """Copy what an open file holds into an open, empty one, holes as holes."""
    size, at = os.fstat(source).st_size, 0
    while at < size:
        try:
            at = os.lseek(source, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                break  # only a hole is left
            raise
        end = os.lseek(source, at, os.SEEK_HOLE)
        os.lseek(target, at, os.SEEK_SET)
        while at < end:
            copied = os.sendfile(target, source, at, min(end - at, _PIECE))
            if not copied:
                return
            at += copied
    os.ftruncate(target, size)


def take_over(folder: str | os.PathLike[str]) -> None:
    """Make all below a folder this user's own, with plain modes: no set-user-id bit of a guest's survives. No link is followed."""
    is_root = os.geteuid() == 0
    for _path, folders, names, here in os.fwalk(folder, follow_symlinks=False):
        if is_root:
            os.fchown(here, 0, 0)
        os.fchmod(here, 0o755)
        for name in (*folders, *names):
            if is_root:
                os.chown(name, 0, 0, dir_fd=here, follow_symlinks=False)
            mode = os.lstat(name, dir_fd=here).st_mode
            if stat.S_ISREG(mode):
                os.chmod(name, 0o755 if mode & 0o111 else 0o644, dir_fd=here)


def _copy(folder: int, name: str, facts: os.stat_result, target: int, path: bytes) -> None:
    if stat.S_ISLNK(facts.st_mode):
        os.symlink(os.readlink(name, dir_fd=folder), path, dir_fd=target)
    elif stat.S_ISFIFO(facts.st_mode):
        os.mkfifo(path, stat.S_IMODE(facts.st_mode), dir_fd=target)
    elif stat.S_ISREG(facts.st_mode):
        old = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        new = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=target)
        copy_data(old, new)
        os.fchmod(new, stat.S_IMODE(facts.st_mode))
        os.utime(new, ns=(facts.st_atime_ns, facts.st_mtime_ns))
        os.close(old)
        os.close(new)
