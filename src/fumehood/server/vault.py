"""The service's own secrets: a key in a file of mode 0600, or in FUMEHOOD_SERVER_KEY, by which stored secrets are encrypted.

Promised: the database alone gives no secret away, nor anything against which keys could be tried. Several keys, comma-separated,
newest first, are for rotation: new things are written with the first, old ones read with any.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from ..errors import ConfigurationError

if TYPE_CHECKING:
    from typing import Self


class Vault:
    """Encrypts and decrypts; `fingerprint` is what is kept of an API key."""

    def __init__(self, keys: list[str]) -> None:
        try:
            self._fernet = MultiFernet([Fernet(each) for each in keys])
        except ValueError as error:
            raise ConfigurationError(
                "FUMEHOOD_SERVER_KEY, or the file server.key, holds something else than keys: give 32 random bytes in URL-safe "
                "base64, as Fernet.generate_key() makes them, or restore the file from its backup"
            ) from error
        # By a key of their own, made of the newest: no stored secret is a visit, and none outlives a rotation.
        self._visits = Fernet(base64.urlsafe_b64encode(hashlib.sha256(b"fumehood visits" + keys[0].encode()).digest()))
        # By the oldest, so that API keys outlive a rotation.
        self._pepper = hashlib.sha256(b"fumehood api keys" + keys[-1].encode()).digest()

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Take the key from the environment, else from a file in the folder, which is made where it is not there."""
        if given := os.environ.get("FUMEHOOD_SERVER_KEY"):
            return cls([each.strip() for each in given.split(",")])
        path = folder / "server.key"
        if not path.exists():
            # Whole before it has its name: two services may begin at once.
            descriptor, fresh = tempfile.mkstemp(dir=folder, prefix=".server.key-")
            with open(descriptor, "wb") as file:
                file.write(Fernet.generate_key() + b"\n")
                file.flush()
                os.fsync(descriptor)
            with contextlib.suppress(FileExistsError):
                os.link(fresh, path)
            os.unlink(fresh)
        return cls(path.read_text(encoding="ascii").split())

    def lock(self, text: str) -> bytes:
        """Return a text encrypted."""
        return self._fernet.encrypt(text.encode())

    def unlock(self, data: bytes) -> str:
        """Undo that. Raises `ConfigurationError` where no key fits."""
        try:
            return self._fernet.decrypt(data).decode()
        except InvalidToken as error:
            raise ConfigurationError(
                "a stored secret was encrypted with another key than the service has: give the old one beside the new"
            ) from error

    def seal(self, text: str) -> str:
        """Return a text that only `unseal` reads, to be given to a browser."""
        return self._visits.encrypt(text.encode()).decode("ascii")

    def unseal(self, sealed: str) -> str | None:
        """Undo that; None where it was not sealed here."""
        try:
            return self._visits.decrypt(sealed.encode("ascii", "replace")).decode()
        except InvalidToken:
            return None

    def fingerprint(self, key: str) -> str:
        """Return what stands for an API key in the database."""
        return hmac.new(self._pepper, key.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()
