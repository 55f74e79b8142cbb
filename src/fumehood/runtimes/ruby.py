"""Ruby with its standard library."""

from __future__ import annotations

import os

from ..sandbox.spec import Mount
from . import interpreter
from .runtime import Start

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .runtime import Host, SessionStart

# Where Debian keeps the specifications of the gems that come with Ruby.
_DEBIAN_GEMS = "/usr/share/rubygems-integration"


class Ruby:
    """Runs a script with the host's ruby."""

    def start(self, code: str, name: str | None, host: Host) -> Start:  # noqa: ARG002 - the port's shape
        """See `Runtime.start`."""
        path = interpreter.find("ruby", package="install Debian's package `ruby`")
        inside, mounts = interpreter.shown(path, "lib")
        if os.path.isdir(_DEBIAN_GEMS):
            mounts += (Mount(host=_DEBIAN_GEMS, inside=_DEBIAN_GEMS),)
        return Start(argv=(inside,), program=name or "main.rb", mounts=mounts)

    def session(self, host: Host) -> SessionStart | None:  # noqa: ARG002 - the port's shape
        """See `Runtime.session`: there are none yet."""
        return None


RUNTIME = Ruby()
