"""Python: the interpreter that runs Fumehood, in an environment of its own with `requests` and `httpx`."""

from __future__ import annotations

from ..sandbox import own_interpreter
from ..sandbox.spec import Mount
from . import packages
from .runtime import Start

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .runtime import Notice

_INSIDE = "/opt/fumehood/python"


class Python:
    """Runs a program with the base interpreter behind our own virtual environment."""

    def start(self, code: str, name: str | None, notice: Notice) -> Start:  # noqa: ARG002 - the port's shape
        """See `Runtime.start`."""
        environment = packages.ensure(notice)
        return Start(
            # Unbuffered: what was printed before a deadline must not be lost in the dead process.
            # No byte code: it would lie among the files that the program leaves.
            argv=(f"{_INSIDE}/bin/python", "-u", "-B"),
            program=name or "main.py",
            mounts=(*own_interpreter.mounts(), Mount(host=environment, inside=_INSIDE)),
        )


RUNTIME = Python()
