"""TypeScript: by Node's own type stripping where Node is new enough, else by Deno. Types are dropped, not checked."""

from __future__ import annotations

import os
import sys

from ..errors import RuntimeUnavailable
from . import interpreter, node
from .runtime import Start

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .runtime import Host, SessionStart

_STRIPS_TYPES = (22, 6)
_HELP = "install Node.js 22.6 or newer, or Deno (`pip install 'fumehood[deno]'`)"


class TypeScript:
    """Runs a program with the host's node or deno, with the packages of the user's own runtime `own` where one is named."""

    def __init__(self, own: str | None = None) -> None:
        self._own = own

    def start(self, code: str, name: str | None, host: Host) -> Start:  # noqa: ARG002 - the port's shape
        """See `Runtime.start`."""
        program = name or "main.ts"
        try:
            path, version = node.find()
        except RuntimeUnavailable:
            version = (0, 0)
        if version >= _STRIPS_TYPES:
            inside, mounts = interpreter.shown(path)
            return Start(
                argv=(inside, *node.OPTIONS, "--experimental-strip-types"),
                profile="v8",
                program=program,
                mounts=mounts + node.debian_modules() + node.own_modules(self._own),
            )
        # A pip-installed Deno lies beside our own interpreter, which need not be on PATH.
        search = os.pathsep.join([os.path.join(sys.prefix, "bin"), os.environ.get("PATH", os.defpath)])
        path = interpreter.find("deno", package=_HELP, search=search)
        inside, mounts = interpreter.shown(path)
        return Start(
            # The kernel's walls decide; Deno's own permissions would only ask.
            argv=(
                inside,
                "run",
                "--quiet",
                "--allow-all",
                "--no-check",
                "--no-config",
                "--no-lock",
                "--no-remote",
                # Packages are found in the folders above the program, as Node finds them.
                *(["--node-modules-dir=manual"] if self._own is not None else []),
            ),
            profile="v8",
            program=program,
            mounts=mounts + node.own_modules(self._own),
            environment={"DENO_DIR": "/tmp/deno", "DENO_NO_UPDATE_CHECK": "1", "NO_COLOR": "1"},  # noqa: S108 - the sandbox's
        )

    def session(self, host: Host) -> SessionStart | None:  # noqa: ARG002 - the port's shape
        """See `Runtime.session`: there are none yet."""
        return None


RUNTIME = TypeScript()
