"""The certificates that sandboxes trust: this machine's, and the egress proxy's once there is one.

One file for all sandboxes of an engine, shown read-only where programs look; what is added is there at once in those that run.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
import tempfile
import threading
import weakref
from typing import TYPE_CHECKING

from .spec import Mount

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Where programs of a sandbox find it; most look there by themselves.
BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
#: For those that do not: each names a file in a variable of its own.
ENVIRONMENT = dict.fromkeys(
    (
        "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "GIT_SSL_CAINFO", "PIP_CERT",
        "AWS_CA_BUNDLE", "DENO_CERT", "CARGO_HTTP_CAINFO", "npm_config_cafile",
    ),
    BUNDLE,
)  # fmt: skip
_PREFIX = "fumehood-certificates-"
# Where Debian, Fedora, SUSE and Alpine have theirs.
_BUNDLES = (BUNDLE, "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem")
# Python packages bring the world's certificates along, and look at nothing else.
_OF_PACKAGES = ("certifi/cacert.pem", "pip/_vendor/certifi/cacert.pem")


class Trust:
    """The file; `close` removes it. What an engine that was killed left behind the next one removes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._added = ""
        _sweep()
        descriptor, self.path = tempfile.mkstemp(prefix=_PREFIX)
        self._file = open(descriptor, "ab", buffering=0)  # noqa: SIM115 - it is open as long as this is
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        self._end = weakref.finalize(self, _remove, self.path, os.getpid())
        self._file.write(_of_this_machine())
        # Sandboxes have other users.
        os.fchmod(descriptor, 0o644)

    def add(self, certificate: str) -> None:
        """Have a certificate, as PEM, trusted as well."""
        with self._lock:
            if certificate != self._added:
                # In one write: a reader sees all of it or nothing.
                self._file.write(f"\n{certificate}".encode("ascii"))
                self._added = certificate

    def mounts(self, shown: Iterable[Mount]) -> tuple[Mount, ...]:
        """Return where it is to be shown in a sandbox that has these mounts."""
        places = [BUNDLE]
        for mount in shown:
            for name in _OF_PACKAGES:
                found = glob.glob(f"{glob.escape(mount.host)}/lib/python3*/site-packages/{name}")
                places += [mount.inside + each[len(mount.host) :] for each in found]
        return tuple(Mount(host=self.path, inside=each) for each in places)

    def close(self) -> None:
        """Remove the file. Sandboxes that run keep what they see."""
        self._end()
        self._file.close()


def _of_this_machine() -> bytes:
    """Return the certificates that this machine trusts."""
    for path in (os.environ.get("SSL_CERT_FILE", ""), *_BUNDLES):
        with contextlib.suppress(OSError), open(path, "rb") as file:
            return file.read()
    return b""


def _sweep() -> None:
    """Remove files that nobody has open: the kernel gives up the lock of one who is killed."""
    for path in glob.glob(f"{glob.escape(tempfile.gettempdir())}/{_PREFIX}*"):
        with contextlib.suppress(OSError), open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(path)


def _remove(path: str, owner: int) -> None:
    # A process that was forked from the owner leaves it alone.
    if os.getpid() == owner:
        with contextlib.suppress(OSError):
            os.unlink(path)
