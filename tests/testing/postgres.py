"""A real PostgreSQL of Debian's package, of the tests' own: fresh, in a folder, reached by a socket in it."""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Self

#: Why there is none here; empty where there is one.
BINARIES = Path(max(glob.glob("/usr/lib/postgresql/*/bin"), default=""))
MISSING = "" if (BINARIES / "initdb").exists() else "PostgreSQL is not installed (Debian's package `postgresql`)"


class Postgres:
    """Runs while its `with` lasts; `stop` and `start` it in between as often as you want."""

    def __enter__(self) -> Self:
        self._place = Path(tempfile.mkdtemp(prefix="postgres-"))
        self._data = self._place / "data"
        # It refuses to run as root.
        self._as = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"] if os.getuid() == 0 else []
        if self._as:
            os.chown(self._place, 65534, 65534)
        # Where the temporary folder's parents are another user's, its own must be passable all the same.
        self._place.chmod(0o755)
        self._run("initdb", "-D", self._data, "-U", "fumehood", "-A", "trust", "-N", "--no-locale", "-E", "UTF8")
        self.start()
        return self

    def url(self, name: str = "postgres") -> str:
        """Return SQLAlchemy's URL of a database, made where it is not there."""
        if name != "postgres":
            self._run("createdb", "-h", self._place, "-U", "fumehood", name)
        return f"postgresql+psycopg://fumehood@/{name}?host={self._place}"

    def start(self) -> None:
        """Start it."""
        options = f"-c listen_addresses='' -c unix_socket_directories={self._place} -c fsync=off -c max_connections=200"
        self._run("pg_ctl", "-D", self._data, "-w", "-o", options, "-l", self._place / "log", "start")

    def stop(self) -> None:
        """Stop it at once, with every connection."""
        self._run("pg_ctl", "-D", self._data, "-w", "-m", "immediate", "stop")

    def _run(self, program: str, *arguments: str | Path) -> None:
        # The log is its own file: a pipe would stay open as long as the server.
        done = subprocess.run(
            [*self._as, BINARIES / program, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE if program != "pg_ctl" else subprocess.DEVNULL, cwd=self._place, check=False, timeout=60,
        )  # fmt: skip
        if done.returncode != 0:
            raise AssertionError(f"{program}: {(done.stderr or b'').decode()}")

    def __exit__(self, *_error: object) -> None:
        try:
            self.stop()
        finally:
            shutil.rmtree(self._place)
