"""PHP's command line, with a fixed choice of its extensions and none of the host's php.ini."""

from __future__ import annotations

import os

from . import interpreter
from .runtime import Start

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .runtime import Host, SessionStart

_EXTENSION_ROOT = "/usr/lib/php"
# In an order in which each finds what it needs; those that are not installed are left out.
_EXTENSIONS = (
    "ctype", "mbstring", "tokenizer", "iconv", "fileinfo", "posix", "calendar", "gettext", "bcmath", "gmp", "intl",
    "dom", "xml", "simplexml", "xmlreader", "xmlwriter", "curl", "zip", "phar",
)  # fmt: skip


class Php:
    """Runs a script with the host's php."""

    def start(self, code: str, name: str | None, host: Host) -> Start:  # noqa: ARG002 - the port's shape
        """See `Runtime.start`."""
        path = interpreter.find("php", package="install Debian's package `php-cli`")
        settings = ["display_errors=stderr", "log_errors=0", "memory_limit=-1", *_extensions()]
        options = [word for setting in settings for word in ("-d", setting)]
        inside, mounts = interpreter.shown(path, "lib")
        return Start(argv=(inside, "-n", *options), program=name or "main.php", mounts=mounts)

    def session(self, host: Host) -> SessionStart | None:  # noqa: ARG002 - the port's shape
        """See `Runtime.session`: there are none yet."""
        return None


def _extensions() -> list[str]:
    if not os.path.isdir(_EXTENSION_ROOT):
        return []  # built in, as in most builds but Debian's
    # Named after the API's date; the newest belongs to the newest php.
    folders = sorted(entry for entry in os.listdir(_EXTENSION_ROOT) if entry.isdigit())
    if not folders:
        return []
    folder = f"{_EXTENSION_ROOT}/{folders[-1]}"
    present = [name for name in _EXTENSIONS if os.path.exists(f"{folder}/{name}.so")]
    return [f"extension_dir={folder}", *(f"extension={name}.so" for name in present)]


RUNTIME = Php()
