"""The engine behind `fumehood.run`, `arun` and `session`: one a process, made at the first call, closed at exit."""

from __future__ import annotations

import atexit
import threading
from typing import TYPE_CHECKING

from .engine import SESSION_LIMITS, Engine
from .protocol.execution import ExecutionRequest
from .protocol.limits import Limits
from .protocol.network import Network

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .protocol.execution import ExecutionResult
    from .protocol.executor import OutputListener
    from .sessions import Session

_lock = threading.Lock()
_engine: Engine | None = None


def run(  # noqa: PLR0913 - the fields of a request
    code: str,
    language: str = "python",
    *,
    name: str | None = None,
    args: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    files: Mapping[str, str | bytes] | None = None,
    stdin: str | bytes = b"",
    limits: Limits | None = None,
    network: Network | None = None,
    explain: bool = False,
    on_output: OutputListener | None = None,
) -> ExecutionResult:
    """Run a program in a fresh sandbox and return its result.

    The parameters are the fields of `ExecutionRequest`; `on_output(stream, piece)` hears output as it arrives.
    A program that fails is a result (`.reason`, `.exit_code`); errors of `fumehood.errors` are raised for what the
    caller (`InvalidRequest`), the host (`RuntimeUnavailable`, `SandboxUnavailable`) or Fumehood did wrong.
    """
    request = ExecutionRequest(
        code=code, language=language, name=name, args=args, env=env or {}, files=files or {}, stdin=stdin,
        limits=limits or Limits(), network=network or Network(), explain=explain,
    )  # fmt: skip
    return default_engine().execute(request, on_output=on_output)


async def arun(  # noqa: PLR0913 - likewise
    code: str,
    language: str = "python",
    *,
    name: str | None = None,
    args: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    files: Mapping[str, str | bytes] | None = None,
    stdin: str | bytes = b"",
    limits: Limits | None = None,
    network: Network | None = None,
    explain: bool = False,
    on_output: OutputListener | None = None,
) -> ExecutionResult:
    """Do what `run` does without blocking the event loop (asyncio). Cancelling the task kills the sandbox.

    `on_output` is called from a worker thread.
    """
    request = ExecutionRequest(
        code=code, language=language, name=name, args=args, env=env or {}, files=files or {}, stdin=stdin,
        limits=limits or Limits(), network=network or Network(), explain=explain,
    )  # fmt: skip
    return await default_engine().execute_async(request, on_output=on_output)


def session(
    language: str = "python",
    *,
    limits: Limits = SESSION_LIMITS,
    env: Mapping[str, str] | None = None,
    files: Mapping[str, str | bytes] | None = None,
    network: Network | None = None,
    idle_seconds: float = 1800.0,
    lifetime_seconds: float = 86_400.0,
) -> Session:
    """Begin a session: a sandbox that stays, whose cells share state. The parameters are those of `Engine.session`.

    Use it in a `with`, or call `close`: what is left open ends with this process.
    """
    return default_engine().session(
        language, limits=limits, env=env, files=files, network=network, idle_seconds=idle_seconds,
        lifetime_seconds=lifetime_seconds,
    )  # fmt: skip


class Sandbox:
    """One kind of sandbox: `run` gives each program a fresh one, `session` begins one that stays.

        >>> sandbox = fumehood.Sandbox("python", files={"n.txt": "20"})
        >>> sandbox.run("print(int(open('n.txt').read()) * 2 + 2)").stdout
        '42\\n'

    What is given here holds for all of them; `engine` is where they live, the process's own by default.
    """

    def __init__(
        self, language: str = "python", *, limits: Limits | None = None, env: Mapping[str, str] | None = None,
        files: Mapping[str, str | bytes] | None = None, network: Network | None = None, engine: Engine | None = None,
    ) -> None:  # fmt: skip
        self._limits, self._network, self._engine = limits, network, engine
        self._kind = ExecutionRequest(
            code="", language=language, env=env or {}, files=files or {}, limits=limits or Limits(),
            network=network or Network(),
        )  # fmt: skip

    def run(
        self, code: str, *, args: Sequence[str] = (), stdin: str | bytes = b"", on_output: OutputListener | None = None
    ) -> ExecutionResult:
        """Do what `fumehood.run` does in a sandbox of this kind."""
        request = self._kind.replace(code=code, args=args, stdin=stdin)
        return self._home().execute(request, on_output=on_output)

    async def arun(
        self, code: str, *, args: Sequence[str] = (), stdin: str | bytes = b"", on_output: OutputListener | None = None
    ) -> ExecutionResult:
        """Do what `run` does without blocking the event loop. Cancelling the task kills the sandbox."""
        request = self._kind.replace(code=code, args=args, stdin=stdin)
        return await self._home().execute_async(request, on_output=on_output)

    def session(self, *, idle_seconds: float = 1800.0, lifetime_seconds: float = 86_400.0) -> Session:
        """Begin a session of this kind; use it in a `with`, or call `close`."""
        kind = self._kind
        return self._home().session(
            kind.language, limits=self._limits or SESSION_LIMITS, env=kind.env, files=kind.files, network=self._network,
            idle_seconds=idle_seconds, lifetime_seconds=lifetime_seconds,
        )  # fmt: skip

    def _home(self) -> Engine:
        return self._engine or default_engine()


def default_engine() -> Engine:
    """Return the process's engine."""
    global _engine  # noqa: PLW0603 - one a process is the point
    with _lock:
        if _engine is None:
            _engine = Engine()
            atexit.register(_engine.close)
        return _engine
