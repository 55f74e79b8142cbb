"""What attacks are run against: the sandbox, started in one of its ways, or, to see each of them succeed, nothing at all."""

from __future__ import annotations

import textwrap
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

from ..engine import Engine
from ..errors import RuntimeUnavailable
from ..protocol.execution import ExecutionRequest
from ..protocol.limits import Limits, MiB
from ..runtimes import get
from ..runtimes.runtime import Host, say_nothing
from ..sandbox import canary
from .host_side import is_the_hosts_root
from .outside import NameServer
from .suite import Fell, LeftOut
from .unwalled import UnwalledExecutor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..protocol.execution import ExecutionResult
    from ..sessions import Session
    from .unwalled import UnwalledSession

#: The ways in which a sandbox comes about: an interpreter started in it, one forked warm, one whose memory is sampled
#: although a cgroup could count it, one inside gVisor, and none.
WAYS = ("cold", "warm", "sampled", "gvisor", "unwalled")

#: Small, so that floods end soon.
LIMITS = Limits(wall_seconds=10, cpu_seconds=10, memory_bytes=96 * MiB, pids=48, disk_bytes=16 * MiB, disk_files=1000)

# Names for what every attack needs; `tried` returns the errno's name of a failed action, or "done".
_PRELUDE = """
import ctypes, errno, os, socket, sys, platform
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
def tried(action):
    try:
        action()
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error.errno))
    return "done"
def raw(x86_64, aarch64, *args):
    number = {"x86_64": x86_64, "aarch64": aarch64}[platform.machine()]
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(a) if isinstance(a, int) else a for a in args])
    return "done" if result >= 0 else errno.errorcode[ctypes.get_errno()]
"""


class Target:
    """One way of running programs. Use it in a `with`."""

    def __init__(self, way: str) -> None:
        self.way = way
        #: Whether there is anything to attack.
        self.walled = way != "unwalled"
        #: Whom the engine asks for names.
        self.names = NameServer()
        #: Whether policies allow what an attack on them needs, to see that it gets through then. For tests of the probes.
        self.lenient = False
        self._engine = engine_of(way, self.names.address) if self.walled else None
        self._tier: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        if self._engine is not None:
            self._engine.close()
        self.names.close()

    @property
    def tiers(self) -> tuple[str, ...]:
        """What of `Probe.open_in` holds here: the way, how memory is bounded, "user" where an ordinary user runs sandboxes."""
        if not self.walled:
            return ()
        return (self.way, self.tier, *([] if is_the_hosts_root() else ["user"]))

    @property
    def tier(self) -> str:
        """How memory is bounded: "cgroup" or "sampled"; "" without walls."""
        if self._tier is None:
            self._tier = self.run("").tier if self.walled else ""
        return self._tier

    def run(
        self, code: str, *, language: str = "python", limits: Limits = LIMITS, warm: bool = True, **fields: object
    ) -> ExecutionResult:
        """Run a program of the enemy's; Python's gets a few names for free (`_PRELUDE`).

        Raises `LeftOut` where the language is not installed, `Fell` where a warm sandbox was to be attacked and a cold one came,
        unless `warm` says that this program cannot have one.
        """
        text = textwrap.dedent(code)
        whole = _PRELUDE + text if language == "python" else text
        request = ExecutionRequest(code=whole, language=language, limits=limits, **fields)  # type: ignore[arg-type]  # the callers' own
        executor = self._engine or UnwalledExecutor()
        try:
            result = executor.execute(request)
        except RuntimeUnavailable as error:
            raise LeftOut(str(error)) from error
        if self.way == "warm" and language == "python" and warm and not result.warm:
            raise Fell("the sandbox that was to be attacked warm was started cold")
        return result

    @contextmanager
    def session(self, language: str = "python", **fields: object) -> Iterator[Session | UnwalledSession]:
        """Begin a session of the enemy's; close it at the end."""
        opened = self._engine or UnwalledExecutor()
        with opened.session(language, **fields) as session:  # type: ignore[arg-type]  # the callers' own
            yield session


def ways_here() -> tuple[str, ...]:
    """Return the ways in which sandboxes of the default isolation can come about on this host."""
    ways = ["cold"]
    if get("python").start("", None, Host(notice=say_nothing)).warm is not None:
        ways.append("warm")
    if canary.memory_tier().up:
        ways.append("sampled")
    return tuple(ways)


def engine_of(way: str, nameserver: str = "") -> Engine:
    """Return an engine whose sandboxes come about in this way, and which asks that name server."""
    engine = Engine(
        warm_bytes=256 * MiB if way == "warm" else 0,
        without={"cgroup"} if way == "sampled" else (),
        isolation="gvisor" if way == "gvisor" else "namespaces",
        nameserver=nameserver,
    )
    if way == "warm":
        engine.prepare("python", LIMITS)
    return engine
