"""The local executor: puts a runtime and a sandbox together for each execution.

Promised: one fresh sandbox an execution, gone when `execute` returns; any thread may call; nothing runs before the
host's walls have been seen to hold. Not promised: any speed beyond a cold start of the interpreter.
"""

from __future__ import annotations

import os

from .errors import InvalidFilePath, InvalidRequest
from .protocol.execution import ExecutionRequest, ExecutionResult, OutputFile, SkippedFile
from .runtimes import get
from .sandbox import admission, walls
from .sandbox.files import collect
from .sandbox.spec import Spec
from .sandbox.supervisor import Outcome, Stdin, supervise

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType
    from typing import Self

    from .protocol.execution import EndReason
    from .protocol.executor import OutputListener
    from .runtimes.runtime import Notice, Start
    from .sandbox.launcher import Launcher
    from .sandbox.supervisor import Spawn

#: What every program finds in its environment besides what its caller passed.
BASE_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "HOME": "/tmp", "LANG": "C.UTF-8", "TZ": "UTC"}  # noqa: S108 - the sandbox's

# As timeout(1), as a shell reports a SIGKILL, and two of our own that shells leave free.
_EXIT_CODES = {"timeout": 124, "out_of_memory": 137, "output_limit": 122}


class Engine:
    """Runs programs on this machine. Use it in a `with`, or call `close`.

    - `without`: walls to give up, by name, where this host cannot put them up (`fumehood doctor` names them).
    - `notice`: told in one sentence, with the share that is done, about what takes long: the installation of packages.
    - `spawn`: how sandboxes are forked; the default is a small process of one thread beside this one. A caller that
      has one thread and little memory may pass `isolation.namespaces.spawn` and save that process's start.

    Raises `SandboxUnavailable` from the first execution on where a wall is missing that was not given up.
    """

    def __init__(
        self,
        *,
        without: Iterable[str] = (),
        notice: Notice | None = None,
        spawn: Spawn | None = None,
    ) -> None:
        self.without = walls.named(without)
        self._notice = notice or _say_nothing
        self._launcher: Launcher | None = None
        if spawn is None:
            from .sandbox.launcher import Launcher  # noqa: PLC0415 - 20 ms that the command line need not pay

            self._launcher = Launcher()
            spawn = self._launcher.spawn
        #: How this engine forks sandboxes.
        self.spawn: Spawn = spawn

    def execute(
        self,
        request: ExecutionRequest,
        *,
        on_output: OutputListener | None = None,
        stdin_source: int | None = None,
        cancel: int | None = None,
    ) -> ExecutionResult:
        """Run the program to its end and return what came of it.

        `stdin_source`, a descriptor, is read and passed on while the program runs, after `request.stdin`. `cancel`, a
        descriptor, ends the execution once it is readable. Raises errors of `fumehood.errors`.
        """
        runtime = get(request.language)
        start = runtime.start(request.code, request.name, self._notice)
        admission.require(self.spawn, self.without)
        spec = self._spec(request, start)
        stdin = Stdin(_as_bytes(request.stdin), stdin_source)
        outcome = supervise(spec, self.spawn, stdin=stdin, on_output=on_output, cancel=cancel)
        try:
            return _result(request, spec, outcome)
        finally:
            os.close(outcome.work)

    async def execute_async(
        self, request: ExecutionRequest, *, on_output: OutputListener | None = None
    ) -> ExecutionResult:
        """Do what `execute` does without blocking the event loop. Cancelling the task ends the execution."""
        import asyncio  # noqa: PLC0415 - 35 ms that the command line need not pay

        cancel = os.eventfd(0, os.EFD_CLOEXEC)
        work = asyncio.create_task(asyncio.to_thread(self.execute, request, on_output=on_output, cancel=cancel))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            os.eventfd_write(cancel, 1)
            # The sandbox must be dead before this returns, whatever its result.
            await asyncio.wait([work])
            raise
        finally:
            os.close(cancel)

    def close(self) -> None:
        """End the engine and every execution that is still running."""
        if self._launcher is not None:
            self._launcher.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _spec(self, request: ExecutionRequest, start: Start) -> Spec:
        files = {path: _as_bytes(data) for path, data in request.files.items()}
        if start.program in files or any(path.startswith(f"{start.program}/") for path in files):
            raise InvalidFilePath(
                f"file path {start.program!r} is the program's own: rename the file, or the program with name=…"
            )
        files[start.program] = _as_bytes(request.code)
        if (size := sum(map(len, files.values()))) > request.limits.disk_bytes:
            raise InvalidRequest(f"files hold {size} bytes: disk_bytes allows {request.limits.disk_bytes}")
        return Spec(
            argv=(*start.argv, f"/work/{start.program}", *request.args),
            environment={**BASE_ENVIRONMENT, **start.environment, **request.env},
            mounts=start.mounts,
            files=files,
            limits=request.limits,
            profile=start.profile,
            without=self.without,
        )


def _result(request: ExecutionRequest, spec: Spec, outcome: Outcome) -> ExecutionResult:
    reason, exit_code, signal, detail = _why_it_ended(outcome, spec)
    limits = request.limits
    taken = collect(outcome.work, spec.files, total_bytes=limits.files_out_bytes, count=limits.files_out)
    return ExecutionResult(
        id=os.urandom(16).hex(),
        language=request.language.lower(),
        reason=reason,
        exit_code=exit_code,
        signal=signal,
        detail=detail,
        stdout_bytes=outcome.stdout,
        stderr_bytes=outcome.stderr,
        files=tuple(OutputFile(path=path, data=data) for path, data in taken.files.items()),
        skipped_files=tuple(SkippedFile(path=path, why=why) for path, why in taken.skipped.items()),
        duration_seconds=outcome.duration_seconds,
        cpu_seconds=outcome.cpu_seconds,
        peak_memory_bytes=outcome.peak_memory_bytes,
        network_refused=outcome.network_refused,
        tier=outcome.tier,
    )


def _why_it_ended(outcome: Outcome, spec: Spec) -> tuple[EndReason, int, str | None, str]:
    """Return (reason, exit code, signal's name, detail)."""
    limits = spec.limits
    if outcome.verdict in _EXIT_CODES:
        return outcome.verdict, _EXIT_CODES[outcome.verdict], "SIGKILL", outcome.detail  # type: ignore[return-value]  # the three keys are reasons
    status = outcome.status
    if outcome.oom_kills and (status is None or status != 0):
        detail = f"its processes and files needed more than {limits.memory_bytes} bytes of memory"
        return "out_of_memory", _EXIT_CODES["out_of_memory"], "SIGKILL", detail
    if status is None:
        return "signalled", 137, "SIGKILL", outcome.detail
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number in (9, 24) and outcome.cpu_seconds >= int(limits.cpu_seconds):  # SIGKILL, SIGXCPU
            return (
                "timeout",
                124,
                _signal_name(number),
                f"{limits.cpu_seconds:g} seconds of CPU time are used up",
            )
        name = _signal_name(number)
        return "signalled", 128 + number, name, f"signal {name} ended it"
    exit_code = os.WEXITSTATUS(status)
    if exit_code != 0 and outcome.disk_was_full:
        return (
            "disk_full",
            exit_code,
            None,
            f"its disk of {limits.disk_bytes} bytes and {limits.disk_files} files was full",
        )
    return "exited", exit_code, None, ""


def _signal_name(number: int) -> str:
    import signal  # noqa: PLC0415 - 3 ms that only a program which a signal ended need pay

    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _as_bytes(data: str | bytes) -> bytes:
    # A lone surrogate in source text is the program's problem: its interpreter shall see something and complain.
    return data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data


def _say_nothing(_sentence: str, _done: float) -> None:
    pass
