"""Saves what a program left to a folder of the user's choice. The names are the guest's and so hostile."""

from __future__ import annotations

import os

from ..errors import InvalidRequest
from ..protocol.paths import why_not_inside
from ..sandbox import kernel
from .terminal import note, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..protocol.execution import OutputFile

# What a tool of the user's would run or obey by its place alone.
_OBEYED = (
    ".git",
    ".vscode",
    ".idea",
    ".husky",
    ".envrc",
    ".npmrc",
    "sitecustomize.py",
    ".bashrc",
    ".profile",
)


def save(files: Iterable[OutputFile], folder: str) -> None:
    """Write the files below `folder`, which is made if need be.

    A name that no input file could have is left out and said; no link in the folder is followed, so nothing outside of it
    can be written. A file that tools would obey unasked is saved too, and pointed out.
    """
    try:
        os.makedirs(folder, exist_ok=True)
        root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise InvalidRequest(f"--out {folder!r}: {error.strerror}") from error
    try:
        for file in files:
            _save(root, file)
    finally:
        os.close(root)


def _save(root: int, file: OutputFile) -> None:
    shown = printable(ascii(file.path))
    if (why := why_not_inside(file.path)) is not None:
        note(f"fumehood: not saved: {shown} {why}")
        return
    parts = file.path.split("/")
    try:
        for end in range(1, len(parts)):
            parent, name = "/".join(parts[: end - 1]) or ".", parts[end - 1]
            _make_folder(root, parent, name)
        folder = kernel.open_beneath(root, ("/".join(parts[:-1]) or ".").encode(), os.O_RDONLY | os.O_DIRECTORY)
        try:
            _replace(folder, parts[-1], file.data)
        finally:
            os.close(folder)
    except OSError as error:
        note(f"fumehood: not saved: {shown}: {os.strerror(error.errno or 0)}")
        return
    if any(part in _OBEYED for part in parts):
        note(f"fumehood: saved {shown}, which tools obey without asking: look at it before you use the folder")


def _make_folder(root: int, parent: str, name: str) -> None:
    descriptor = kernel.open_beneath(root, parent.encode(), os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.mkdir(name, dir_fd=descriptor)
    except FileExistsError:
        pass  # opened without following links in the next step, so a link here is found there
    finally:
        os.close(descriptor)


def _replace(folder: int, name: str, data: bytes) -> None:
    # Beside it and then renamed: never through a link or into a file with other names.
    scratch = f".fumehood-{os.urandom(8).hex()}"
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644, dir_fd=folder)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
        os.rename(scratch, name, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError:
        os.unlink(scratch, dir_fd=folder)
        raise
