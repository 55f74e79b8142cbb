"""Python: the interpreter that runs Fumehood, in an environment of packages of its own."""

from __future__ import annotations

from ..sandbox import own_interpreter
from ..sandbox.spec import Mount
from . import packages
from .runtime import Start

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from .runtime import Notice

_INSIDE = "/opt/fumehood/python"


class Python:
    """Runs a program with the base interpreter behind the virtual environment `name`; `mounts` and `environment` come on top."""

    def __init__(self, name: str, mounts: tuple[Mount, ...] = (), environment: Mapping[str, str] | None = None) -> None:
        self._name, self._mounts, self._environment = name, mounts, dict(environment or {})

    def start(self, code: str, name: str | None, notice: Notice) -> Start:  # noqa: ARG002 - the port's shape
        """See `Runtime.start`."""
        environment = packages.ensure(self._name, notice)
        return Start(
            # Unbuffered: what was printed before a deadline must not be lost in the dead process.
            # No byte code: it would lie among the files that the program leaves.
            argv=(f"{_INSIDE}/bin/python", "-u", "-B"),
            program=name or "main.py",
            mounts=(*own_interpreter.mounts(), Mount(host=environment, inside=_INSIDE), *self._mounts),
            environment=self._environment,
        )


RUNTIME = Python("python")
