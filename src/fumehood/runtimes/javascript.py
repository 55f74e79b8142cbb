"""JavaScript on Node.js: CommonJS or modules, whichever the program is written in, top-level await included."""

from __future__ import annotations

import re

from . import interpreter, node
from .runtime import SessionStart, Start

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .runtime import Host

_TYPESCRIPT = (".ts", ".mts", ".cts")
# From here on Node tells modules from scripts by itself, by trying.
_DETECTS = (20, 10)
# For older ones: what only a module may have at the start of a line.
_MODULE_ONLY = re.compile(r"^(?:import[\s{*'\"]|export\s|await\s|(?:const|let|var)\s[^=]*=\s*await\s)", re.MULTILINE)


class JavaScript:
    """Runs a program with the host's node, with the packages of the user's own runtime `own` where one is named.

    A program of such a runtime whose name ends as TypeScript's do is TypeScript.
    """

    def __init__(self, own: str | None = None) -> None:
        self._own = own

    def start(self, code: str, name: str | None, host: Host) -> Start:
        """See `Runtime.start`."""
        if self._own is not None and name is not None and name.endswith(_TYPESCRIPT):
            from .typescript import TypeScript  # noqa: PLC0415 - for those alone

            return TypeScript(self._own).start(code, name, host)
        path, version = node.find()
        detects = version >= _DETECTS
        is_module = not detects and _MODULE_ONLY.search(code) is not None
        inside, mounts = interpreter.shown(path)
        return Start(
            argv=(inside, *node.OPTIONS, *(["--experimental-detect-module"] if detects else [])),
            profile="v8",
            program=name or ("main.mjs" if is_module else "main.js"),
            mounts=mounts + node.debian_modules() + node.own_modules(self._own),
        )

    def session(self, host: Host) -> SessionStart | None:
        """See `Runtime.session`."""
        return SessionStart.of(self.start("", "session.js", host), "session.js")


RUNTIME = JavaScript()
