"""The option by which a command's programs run on a `fumehood serve` instead of on this machine."""

from __future__ import annotations

import os
import sys

from ..engine import ISOLATIONS
from .arguments import Option, UsageError
from .isolation import ISOLATION as CHOICE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..client.executor import RemoteExecutor
    from .arguments import Arguments

SERVER = Option(
    name="server",
    metavar="URL",
    help="Run on a `fumehood serve` there, with the key in FUMEHOOD_API_KEY; else where FUMEHOOD_SERVER says. '' is this machine.",
)

#: As `isolation.ISOLATION`, but whether it was given can be seen.
ISOLATION = CHOICE.replace(default=None)

# What says how this machine's walls are put up.
_LOCAL = ("isolation", "without", "cgroup")


def isolation_of(arguments: Arguments) -> str:
    """Return the isolation that was chosen."""
    return str(arguments.isolation or ISOLATIONS[0])


def url_of(arguments: Arguments) -> str:
    """Return the server that was named; "" where it is this machine."""
    given = arguments.server
    return str(os.environ.get("FUMEHOOD_SERVER", "") if given is None else given)


def server_of(arguments: Arguments) -> str:
    """Return the same for programs. Raises `UsageError` where the walls are spoken of that they would not have."""
    url = url_of(arguments)
    for name in _LOCAL if url else ():
        if getattr(arguments, name, None):
            given = arguments.server is not None
            way = "leave out one of them" if given else "leave it out, or say --server '' to run here"
            raise UsageError(
                f"--{name} is about this machine's walls, and the program would run on the server {url!r}: {way}"
            )
    return url


def remote(arguments: Arguments) -> RemoteExecutor | None:
    """Return the executor of the server that was named; None where programs run here. Raises `UsageError`."""
    url = server_of(arguments)
    if not url:
        return None
    from ..client.executor import RemoteExecutor  # noqa: PLC0415 - 200 ms that programs on this machine need not pay

    return RemoteExecutor(url, os.environ.get("FUMEHOOD_API_KEY", ""))


def leave_in_good_order() -> None:
    """Have a closed terminal, or a kill, end this process by way of its `with`s: a session over there outlives it otherwise."""
    import signal  # noqa: PLC0415 - 3 ms that `run` need not pay

    for number in (signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, lambda number, _frame: sys.exit(128 + number))
