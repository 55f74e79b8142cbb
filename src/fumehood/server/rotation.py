"""Gives the service a new key of its own: stored secrets are encrypted anew, API keys go on.

Promised: at any moment at which this is broken off, the file and the database fit each other, and it can be done again.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from typing import TYPE_CHECKING

from cryptography.fernet import Fernet

from ..errors import ConfigurationError
from .store.secrets import Secrets
from .vault import Vault

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .store.database import Database


def rotate(folder: Path, database: Database) -> int:
    """Put a new key first into the folder's `server.key`; return how many secrets were encrypted anew.

    The oldest key stays, as what API keys were hashed with; those between are dropped. Raises `ConfigurationError`.
    """
    if os.environ.get("FUMEHOOD_SERVER_KEY"):
        raise ConfigurationError(
            "the service's key is given by FUMEHOOD_SERVER_KEY, which is not ours to change: put a new key before the old ones "
            "there, comma-separated; new secrets are encrypted with it"
        )
    path = folder / "server.key"
    old = path.read_text(encoding="ascii").split() if path.exists() else []
    if not old:
        raise ConfigurationError(f"there is no {path} to rotate: the first start of `fumehood serve` makes it")
    Vault(old)  # whose form is checked before anything changes
    keys = [Fernet.generate_key().decode("ascii"), *old]
    _write(path, keys)
    count = Secrets(database, Vault(keys)).encrypt_anew()
    _write(path, [keys[0], keys[-1]])
    return count


@contextlib.contextmanager
def in_use(folder: Path, *, alone: bool) -> Iterator[None]:
    """Mark a folder's keys as in use. Raises `ConfigurationError` where `alone` is wanted and a server runs, or the keys change.

    A server has read the keys; one that goes on after a rotation could not read what was encrypted since.
    """
    descriptor = os.open(folder / "server.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError as error:
            who = "a server works with" if alone else "--rotate-server-key is changing"
            raise ConfigurationError(f"{who} the keys in {folder}: wait for its end, or stop it") from error
        yield
    finally:
        os.close(descriptor)


def _write(path: Path, keys: list[str]) -> None:
    """Write the file whole or not at all."""
    descriptor, fresh = tempfile.mkstemp(dir=path.parent, prefix=".server.key-")
    try:
        with open(descriptor, "w", encoding="ascii") as file:
            file.write("\n".join(keys) + "\n")
            file.flush()
            os.fsync(descriptor)
        os.replace(fresh, path)
    except BaseException:
        os.unlink(fresh)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
