"""Makes Python environments with uv, from a lock with hashes.

Promised: only wheels are unpacked, so no code of a package runs while building.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ..sandbox import files as sandbox_files
from ..sandbox import own_interpreter
from ..sandbox.spec import Mount
from . import packages
from .workshop import LOCK_BYTES, PLACE, Orders, Workshop

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ..sandbox.supervisor import Outcome
    from .runtime import Host
    from .sources import Sources
    from .workshop import Stream

_UV = "/opt/fumehood/uv"
#: What uv says while it works, to the share of the work that is done by then; measured on the data runtime.
_MILESTONES = {"Resolved": 0.05, "Prepared": 0.3, "Installed": 0.4}
_UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


class UvWorkshop(Workshop):
    """Builds with uv."""

    builder = "uv"
    lock_name = "requirements.lock"
    proof = "pyvenv.cfg"

    def __init__(self, name: str, scratch: Path, sources: Sources, host: Host, orders: Orders) -> None:
        super().__init__(name, scratch, sources, host, orders)
        self._requirements, self._where = sources.requirements, sources.where

    @staticmethod
    def revision(name: str, lock_id: str) -> str:
        """See `Workshop.revision`."""
        return packages.revision(name, lock_id)

    def resolve(self) -> bytes:
        """See `Workshop.resolve`."""
        outcome = self._uv(
            "pip", "compile", "--python", own_interpreter.path(), "--generate-hashes", "--only-binary", ":all:",
            "--no-header", "--no-annotate", "-o", "requirements.lock", next(iter(self._requirements)),
            files=self._requirements,
        )  # fmt: skip
        try:
            return sandbox_files.get(outcome.work, "requirements.lock", LOCK_BYTES)
        finally:
            os.close(outcome.work)

    def make(self, lock: bytes | None) -> Path:
        """See `Workshop.make`."""
        environment = f"{PLACE}/environment"
        # Programs find it at another path than it is built at.
        self._run_uv(
            "venv", "--quiet", "--no-project", "--relocatable", "--python", own_interpreter.path(), environment,
            fetches=False,
        )  # fmt: skip
        if lock is not None:
            where = "\n".join(self._where).encode()
            self._run_uv(
                "pip", "install", "--python", f"{environment}/bin/python", "--only-binary", ":all:", "--require-hashes",
                "--link-mode", "hardlink", "-r", "requirements.lock", "-r", "sources.txt",
                files={"requirements.lock": lock, "sources.txt": where},
            )  # fmt: skip
            self._compile(environment)
        return self.made()

    def settings(self) -> dict[str, str]:
        """See `Workshop.settings`."""
        own = {"UV_NO_CONFIG": "1", "UV_CACHE_DIR": f"{PLACE}/cache", "UV_PYTHON_DOWNLOADS": "never"}
        return super().settings() | own

    def tools(self) -> list[Mount]:
        """See `Workshop.tools`."""
        from uv import find_uv_bin  # noqa: PLC0415 - needed here alone

        return [*own_interpreter.mounts(), Mount(host=os.path.realpath(find_uv_bin()), inside=_UV)]

    def is_progress(self, line: str) -> bool:
        """See `Workshop.is_progress`."""
        return line.lstrip().startswith(("Download", "Resolved", "Using Python"))

    def advice(self) -> str:
        """See `Workshop.advice`."""
        if self._name != "python":
            return super().advice()
        return (
            "Connect this machine to a package index once and try again, or take the standard library alone with "
            "`fumehood runtime build --standard-library`"
        )

    def _compile(self, environment: str) -> None:
        # Apart from uv, without a way out, and without `site`, which would run what a package has put into a .pth file.
        total = sum(name.endswith(".py") for _folder, _folders, names in os.walk(self._place) for name in names)
        done = 0

        def hear(stream: Stream, piece: bytes) -> None:
            nonlocal done
            done += piece.count(b"Compiling ") if stream == "stdout" else 0
            self.notice(min(0.99, 0.4 + 0.59 * done / max(1, total)))

        argv = (own_interpreter.path(), "-I", "-S", "-m", "compileall", "-j", "0", f"{environment}/lib")
        # Some packages carry files that are no Python of this version; that is told by its exit status, and is no fault.
        os.close(self.run(argv, {}, hear, fetches=False).work)

    def _run_uv(self, *arguments: str, files: dict[str, bytes] | None = None, fetches: bool = True) -> None:
        os.close(self._uv(*arguments, files=files, fetches=fetches).work)

    def _uv(self, *arguments: str, files: dict[str, bytes] | None = None, fetches: bool = True) -> Outcome:
        shares = _Shares()

        def hear(piece: bytes) -> None:
            for share in shares.of(piece):
                self.notice(share)

        return self.run_builder((_UV, *arguments), files or {}, hear, fetches=fetches)


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
