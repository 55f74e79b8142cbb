"""Python: the interpreter that runs Fumehood, in an environment of packages of its own."""

from __future__ import annotations

import os
import sys
import time

from ..sandbox import own_interpreter
from ..sandbox.spec import Mount
from . import packages
from .runtime import SessionStart, Start, Warmth

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from .runtime import Host

_INSIDE = "/opt/fumehood/python"
#: What a session's program imports besides.
_FOR_SESSIONS = ("ast", "asyncio", "inspect", "linecache", "signal", "socket", "subprocess", "termios", "fcntl")

#: What common programs import, of the standard library alone.
STANDARD = (
    "base64", "bisect", "collections", "contextlib", "copy", "csv", "dataclasses", "datetime", "decimal", "enum", "fractions",
    "functools", "hashlib", "heapq", "io", "itertools", "json", "math", "operator", "os", "pathlib", "random", "re",
    "statistics", "string", "textwrap", "threading", "time", "traceback", "typing", "uuid",
)  # fmt: skip
#: Read by the interpreter, the C library or the loader when they start. HOME: `site` looks for packages there.
SETTLED = ("PYTHON", "LC_", "LANG", "LD_", "MALLOC_", "GLIBC_TUNABLES", "HOME", "OPENSSL_")
# What most programs do somewhere: say numbers and containers, call, catch, loop.
_SAMPLE = """import collections, datetime, io, json, math, random, re
class Sample:
    def __init__(self): self.held = [1]
def total(numbers): return sum(n * n for n in numbers)
print(1, 1.5, 'a', [1], {'a': (1, None)}, True, f'{total([1, 2]):.2f}', Sample().held, file=io.StringIO())
try: int('x')
except ValueError as error: str(error)
print(end='', flush=True)
"""
# From 3.13 on a warm program that calls `sys.exit` dies of a segmentation fault: the interpreter's end takes another thread for
# the main one.
_MAY_BE_FORKED = sys.version_info < (3, 13)
# An environment that somebody removed is missed after this long at most.
_FOUND_SECONDS = 1.0
WARMTH = Warmth(preload=STANDARD, sample=_SAMPLE, settled=SETTLED)


class Python:
    """Runs a program with the base interpreter behind the virtual environment `name`; the rest comes on top."""

    def __init__(
        self, name: str, mounts: tuple[Mount, ...] = (), environment: Mapping[str, str] | None = None,
        warm: Warmth = WARMTH, session_preload: tuple[str, ...] = (),
    ) -> None:  # fmt: skip
        self._name, self._mounts, self._environment, self._warm = name, mounts, dict(environment or {}), warm
        self._session_preload = session_preload
        # Found again for most programs, which saves more than a tenth of a millisecond: what it depends on, until when, and it.
        self._found: tuple[tuple[bytes | None, ...], float, Start] | None = None

    def start(self, code: str, name: str | None, host: Host) -> Start:  # noqa: ARG002 - the port's shape
        """See `Runtime.start`."""
        if name is not None:
            return self._start_in(packages.ensure(self._name, host), name)
        places, now = (_variable(b"XDG_DATA_HOME"), _variable(b"HOME")), time.monotonic()
        if self._found is None or self._found[0] != places or self._found[1] < now:
            start = self._start_in(packages.ensure(self._name, host), None)
            if self._found is not None and self._found[2].revision == start.revision:
                start = self._found[2]
            self._found = (places, now + _FOUND_SECONDS, start)
        return self._found[2]

    def session(self, host: Host) -> SessionStart | None:
        """See `Runtime.session`."""
        start = self.start("", "session.py", host)
        warm = Warmth(
            preload=(*self._warm.preload, *_FOR_SESSIONS, *self._session_preload), sample=self._warm.sample,
            settled=self._warm.settled,
        )  # fmt: skip
        start = start.replace(warm=warm if _MAY_BE_FORKED else None, revision=f"{start.revision} for sessions")
        return SessionStart.of(start, "session.py", forkable=True)

    def _start_in(self, environment: str, name: str | None) -> Start:
        return Start(
            # Unbuffered: what was printed before a deadline must not be lost in the dead process.
            # No byte code: it would lie among the files that the program leaves.
            argv=(f"{_INSIDE}/bin/python", "-u", "-B"),
            program=name or "main.py",
            mounts=(*own_interpreter.mounts(), Mount(host=environment, inside=_INSIDE), *self._mounts),
            environment=self._environment,
            warm=self._warm if _MAY_BE_FORKED else None,
            revision=environment,
        )


def _variable(name: bytes) -> bytes | None:
    # What `os.environ` wraps: there a name that is not set costs two exceptions, a twentieth of a short program's time.
    data: dict[bytes, bytes] | None = getattr(os.environ, "_data", None)
    if data is None:  # somebody put something else in its place
        value = os.environ.get(os.fsdecode(name))
        return None if value is None else os.fsencode(value)
    return data.get(name)


RUNTIME = Python("python")
