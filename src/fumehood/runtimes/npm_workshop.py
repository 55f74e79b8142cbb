"""Makes folders of packages for Node.js with npm, from a lock with hashes.

Promised: no script of a package runs while building. Not promised: packages that their own scripts would compile or fetch more for.
"""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING

from ..errors import RuntimeUnavailable
from ..sandbox import files as sandbox_files
from ..sandbox.spec import Mount
from . import interpreter, node, packages
from .workshop import LOCK_BYTES, PLACE, Orders, Workshop, is_plain_folder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ..sandbox.supervisor import Outcome
    from .npm_sources import NpmSources
    from .runtime import Host

_NPM = "/opt/fumehood/npm"
_SCRIPT = "bin/npm-cli.js"
# Debian's npm is spread over these.
_DEBIAN = ("/usr/share/nodejs", "/usr/share/node-gyp", "/usr/share/npm")
_SETTINGS = {
    # Files that are not there, and not the same one: npm refuses to read one twice.
    "userconfig": "/tmp/npm/user", "globalconfig": "/tmp/npm/global", "cache": f"{PLACE}/cache",  # noqa: S108 - the sandbox's
    "ignore_scripts": "true", "audit": "false", "fund": "false", "update_notifier": "false", "progress": "false",
    "color": "false", "logs_max": "0", "loglevel": "http",
    # A lock is about what packages hold, not where this host gets them.
    "omit_lockfile_registry_resolved": "true",
    # What comes out of a repository is prepared by its own scripts, and settings in it have been obeyed.
    "git": "/bin/false",
    # A host that is refused stays so.
    "fetch_retries": "2", "fetch_retry_mintimeout": "500", "fetch_retry_maxtimeout": "2000",
}  # fmt: skip


class NpmWorkshop(Workshop):
    """Builds with npm."""

    builder = "npm"
    lock_name = "package-lock.json"
    proof = "package-lock.json"

    def __init__(self, name: str, scratch: Path, sources: NpmSources, host: Host, orders: Orders) -> None:
        self._node, _version = node.find()
        self._script = _find_script(self._node)
        super().__init__(name, scratch, sources, host, orders)
        self._manifest = sources.manifest

    @staticmethod
    def revision(name: str, lock_id: str) -> str:
        """See `Workshop.revision`."""
        return packages.node_revision(name, node.find()[1][0], lock_id)

    def resolve(self) -> bytes:
        """See `Workshop.resolve`."""
        files = {"package.json": self._manifest}
        outcome = self._npm("install", "--package-lock-only", files=files, on_piece=lambda _piece: None)
        try:
            return sandbox_files.get(outcome.work, "package-lock.json", LOCK_BYTES)
        finally:
            os.close(outcome.work)

    def make(self, lock: bytes | None) -> Path:
        """See `Workshop.make`."""
        lock = lock or b"{}"
        folder = self._place / "environment"
        folder.mkdir()
        for name, data in {"package.json": self._manifest, "package-lock.json": lock}.items():
            (folder / name).write_bytes(data)
            self.give_away(folder / name)
        self.give_away(folder)
        # Of each package npm asks for what versions there are, and for one of them.
        fetched, total = 0, 2 * max(1, len(json.loads(lock).get("packages", {})) - 1)

        def hear(piece: bytes) -> None:
            nonlocal fetched
            fetched += piece.count(b"npm http fetch ")
            self.notice(min(0.95, 0.05 + 0.9 * fetched / total))

        os.close(self._npm("ci", "--prefix", f"{PLACE}/environment", files={}, on_piece=hear).work)
        return self.made()

    def made(self) -> Path:
        """See `Workshop.made`; the packages in it are a folder, too, which is shown to programs by itself."""
        made = super().made()
        modules = made / "node_modules"
        if not os.path.lexists(modules):
            modules.mkdir()  # nothing was required
        if not is_plain_folder(modules):
            raise RuntimeUnavailable(f"runtime {self._name!r} could not be built: npm left no folder of packages")
        return made

    def settings(self) -> dict[str, str]:
        """See `Workshop.settings`."""
        return super().settings() | {f"npm_config_{name}": value for name, value in _SETTINGS.items()}

    def tools(self) -> list[Mount]:
        """See `Workshop.tools`."""
        _inside, mounts = interpreter.shown(self._node)
        return [*mounts, *_shown(self._script)[1]]

    def profile(self) -> str:
        """See `Workshop.profile`."""
        return "v8"

    def is_progress(self, line: str) -> bool:
        """See `Workshop.is_progress`."""
        return line.startswith("npm http ")

    def _npm(self, *arguments: str, files: dict[str, bytes], on_piece: Callable[[bytes], None]) -> Outcome:
        inside, _mounts = interpreter.shown(self._node)
        script, _mounts = _shown(self._script)
        return self.run_builder((inside, *node.OPTIONS, script, *arguments), files, on_piece)


def _find_script(node_path: str) -> str:
    """Return the path of npm's own program, links resolved. Raises `RuntimeUnavailable`."""
    # A version manager's `npm` on PATH may be a shim that looks for a home directory; npm itself then lies beside its node.
    beside = os.path.join(os.path.dirname(os.path.dirname(node_path)), "lib", "node_modules", "npm", _SCRIPT)
    for path in (shutil.which("npm"), beside):
        if path is not None and os.path.realpath(path).endswith(f"/npm/{_SCRIPT}") and os.path.isfile(path):
            return os.path.realpath(path)
    raise RuntimeUnavailable(
        "`npm` is not installed, which runtimes of packages for Node.js are built with: install Debian's package `npm`"
    )


def _shown(script: str) -> tuple[str, tuple[Mount, ...]]:
    """Return where npm's program is found inside, and what must be mounted for that."""
    if script.startswith("/usr/lib/"):
        return script, node.debian_modules()
    if script.startswith("/usr/share/"):
        return script, tuple(Mount(host=each, inside=each) for each in _DEBIAN if os.path.isdir(each))
    return f"{_NPM}/{_SCRIPT}", (Mount(host=script.removesuffix(f"/{_SCRIPT}"), inside=_NPM), *node.debian_modules())
