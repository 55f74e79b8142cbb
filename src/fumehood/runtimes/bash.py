"""Bash, with the base system's commands."""

from __future__ import annotations

from . import interpreter
from .runtime import SessionStart, Start

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .runtime import Host


class Bash:
    """Runs a script with the host's bash."""

    def start(self, code: str, name: str | None, host: Host) -> Start:  # noqa: ARG002 - the port's shape
        """See `Runtime.start`."""
        path = interpreter.find("bash", package="install Debian's package `bash`")
        inside, mounts = interpreter.shown(path)
        return Start(argv=(inside, "--noprofile", "--norc"), program=name or "main.sh", mounts=mounts)

    def session(self, host: Host) -> SessionStart | None:
        """See `Runtime.session`."""
        return SessionStart.of(self.start("", "session.sh", host), "session.sh", plain_cells=True)


RUNTIME = Bash()
