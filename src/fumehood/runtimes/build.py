"""Makes a Python environment in a folder, all or nothing."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import RuntimeUnavailable

if TYPE_CHECKING:
    from .runtime import Notice

_SECONDS = 300


def build(path: str, lock: str | None, notice: Notice) -> None:
    """Build the environment at `path` from `lock` (None: the standard library alone).

    Several processes may ask at once: one builds, the others wait for it. Raises `RuntimeUnavailable`.
    """
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with (target.parent / ".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if not (target / "pyvenv.cfg").exists():
                _build(target, lock, notice)
    except OSError as error:
        raise RuntimeUnavailable(
            f"the python runtime cannot be kept in {target.parent}: {error}. Set XDG_DATA_HOME to a folder you may write"
        ) from error


def _build(target: Path, lock: str | None, notice: Notice) -> None:
    notice("Installing the packages of the python runtime (once; some seconds) …")
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".build-") as scratch:
        environment = Path(scratch) / "environment"
        base = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
        _uv("venv", "--quiet", "--no-project", "--python", base, str(environment))
        if lock is not None:
            _uv(
                "pip", "install", "--quiet", "--python", str(environment / "bin" / "python"), "--only-binary", ":all:",
                "--require-hashes", "--link-mode", "copy", "--compile-bytecode", "-r", lock,
            )  # fmt: skip
        if target.exists():
            shutil.rmtree(target)  # half of a folder that somebody removed by hand
        environment.rename(target)


def _uv(*arguments: str) -> None:
    from uv import find_uv_bin  # noqa: PLC0415 - needed here alone

    try:
        answer = subprocess.run(
            [find_uv_bin(), *arguments], capture_output=True, text=True, timeout=_SECONDS, check=False,
            # The machine's own certificates, as a company's proxy needs them; two names, for old and new uv.
            env={**os.environ, "UV_NATIVE_TLS": "1", "UV_SYSTEM_CERTS": "1"},
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        raise RuntimeUnavailable(f"the python runtime could not be built: {error}") from error
    if answer.returncode != 0:
        raise RuntimeUnavailable(
            f"the python runtime could not be built; uv says:\n{answer.stderr.strip()}\n"
            "Connect this machine to a package index once and try again, or take the standard library alone with "
            "`fumehood runtime build --standard-library`"
        )
