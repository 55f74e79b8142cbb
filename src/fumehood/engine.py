"""The local executor: puts a runtime and a sandbox together for each execution.

Promised: one fresh sandbox an execution, its processes dead when `execute` returns; any thread may call; nothing runs before
the host's walls have been seen to hold. Where the language allows it the sandbox was forked ahead from a warm interpreter;
until that is up, and for what it cannot take, the interpreter starts cold behind the same walls.
"""

from __future__ import annotations

import os

from .errors import InvalidFilePath, InvalidRequest, SandboxFailed, ZygoteDied
from .protocol.execution import ExecutionRequest, ExecutionResult, OutputFile, SkippedFile
from .protocol.limits import Limits
from .protocol.record import later
from .runtimes import get
from .runtimes.runtime import Host, say_nothing
from .sandbox import admission, walls
from .sandbox.files import collect
from .sandbox.init import CHANNEL
from .sandbox.isolation import gvisor
from .sandbox.isolation.namespaces import UserLease
from .sandbox.live import Live
from .sandbox.spec import Spec
from .sandbox.supervisor import Outcome, Stdin, supervise, watch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from types import TracebackType
    from typing import Self

    from .outward import ConnectionListener, Outward, Secrets, WayOut
    from .protocol.execution import EndReason
    from .protocol.executor import OutputListener
    from .protocol.network import Network, Traffic
    from .runtimes.runtime import Notice, SessionStart, Start, Warmth
    from .sandbox.incarnation import Opened
    from .sandbox.launcher import Launcher
    from .sandbox.live import Spawn
    from .sandbox.pool import Pool, Taken
    from .sandbox.spec import Mount
    from .sandbox.warm import Kit
    from .sessions import Session

#: What every program finds in its environment besides what its caller passed.
BASE_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "HOME": "/tmp", "LANG": "C.UTF-8", "TZ": "UTC"}  # noqa: S108 - the sandbox's

#: Whose kernel answers a program.
ISOLATIONS = ("namespaces", "gvisor")

#: What a session has where nobody says otherwise: a minute for a cell, an hour of processor time in all.
SESSION_LIMITS = Limits(wall_seconds=60.0, cpu_seconds=3600.0)

# As timeout(1), as a shell reports a SIGKILL, and two of our own that shells leave free.
_EXIT_CODES = {"timeout": 124, "out_of_memory": 137, "output_limit": 122}


class Engine:
    """Runs programs on this machine. Use it in a `with`, or call `close`.

    - `without`: walls to give up, by name, where this host cannot put them up (`fumehood doctor` names them).
    - `notice`: told in one sentence, with the share that is done, about what takes long: the installation of packages.
    - `warm_bytes`: memory that sandboxes which wait for programs may hold together (default 256 MiB); 0 keeps none warm.
    - `isolation`: whose kernel a program talks to: "namespaces", the host's (default), or "gvisor", gVisor's own inside the
      same namespaces, where `runsc` is installed. That one starts every program cold, and cannot fork sessions or explain.
    - `secrets`: texts of stored secrets by their ids, a mapping or a function that raises KeyError.
    - `nameserver`: who is asked for the addresses of allowed hosts, `ADDRESS` or `ADDRESS:PORT`; where it is "", whom the
      environment variable FUMEHOOD_NAMESERVER names, else this machine's own settings.
    - `on_connection`: told of each connection that a program made or tried, once its execution or cell has ended.
    - `spawn`: how sandboxes are forked; the default is a small process of one thread beside this one. A caller that
      has one thread and little memory may pass `isolation.namespaces.spawn` and save that process's start; then every
      program starts cold.

    Raises `SandboxUnavailable` from the first execution on where a wall is missing that was not given up.
    """

    def __init__(
        self,
        *,
        without: Iterable[str] = (),
        notice: Notice | None = None,
        warm_bytes: int = 256 << 20,
        isolation: str = "namespaces",
        secrets: Mapping[str, str] | Secrets | None = None,
        nameserver: str = "",
        on_connection: ConnectionListener | None = None,
        spawn: Spawn | None = None,
    ) -> None:
        self.without = walls.named(without)
        if isolation not in ISOLATIONS:
            raise InvalidRequest(f"isolation {isolation!r} is none of {', '.join(ISOLATIONS)}")
        self.isolation = isolation
        #: gVisor's program, where it is that isolation.
        self.runsc = gvisor.find() if isolation == "gvisor" else ""
        self._host = Host(notice=notice or say_nothing, without=self.without)
        self._warm_bytes = warm_bytes
        self._launcher: Launcher | None = None
        self._pool: Pool | None = None
        self._admitted = False
        self._kits: dict[str, Kit] = {}
        self._egress = (secrets, nameserver, on_connection)
        # One, once it is needed.
        self._outwards: dict[int, Outward] = {}
        self._owner = os.getpid()
        #: How this engine forks sandboxes.
        self.spawn: Spawn = spawn or self._equip()

    def _equip(self) -> Spawn:
        from .sandbox.launcher import Launcher  # noqa: PLC0415 - 20 ms that the command line need not pay
        from .sandbox.pool import Pool  # noqa: PLC0415 - likewise

        self._launcher = Launcher()
        # A wall that was given up is given up by cold sandboxes alone.
        if self._warm_bytes and self.without <= {"cgroup"} and self.isolation == "namespaces":
            self._pool = Pool(self._launcher, memory_bytes=self._warm_bytes, cgroups="cgroup" not in self.without)
        return self._launcher.spawn

    def _own(self) -> None:
        """In a process forked from the one that made this engine, leave that one's sandboxes alone and begin anew."""
        if self._owner == os.getpid():
            return
        self._owner = os.getpid()
        if self._pool is not None:
            self._pool.abandon()
        for outward in self._outwards.values():
            outward.abandon()
        if self._launcher is not None:
            self.spawn = self._equip()

    def _outward(self) -> Outward:
        """Return what leads sandboxes out, made when it is first needed."""
        if not self._outwards:
            from .outward import Outward  # noqa: PLC0415 - programs without network need not pay

            self._outwards.setdefault(0, Outward(*self._egress))
        return self._outwards[0]

    def _way_out(self, network: Network, placeholders: Mapping[str, str] | None = None) -> WayOut:
        if self.isolation == "gvisor" and placeholders is not None:
            raise InvalidRequest(
                "gVisor gives a session its network when it begins: begin it with network=Network(), at the least"
            )
        opens = self._launcher.open_listeners if self._launcher is not None else None
        return self._outward().way_out(network, opens, placeholders)

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
        start = runtime.start(request.code, request.name, self._host)
        if request.explain and ("seccomp" in self.without or self.isolation == "gvisor"):
            raise InvalidRequest(
                "explain lists what seccomp refuses, and that wall is not up: leave out explain, or what takes it down"
            )
        way = self._way_out(request.network) if request.network.rules else None
        self._admit()
        if way is not None:
            request = request.replace(env={**way.environment(), **request.env})
        files = _files(request, start)
        stdin = Stdin(_as_bytes(request.stdin), stdin_source)
        taken = self._take(request, start, files)
        try:
            if taken is not None:
                if way is not None:
                    way.begin(taken.live.network)
                outcome = _run_warm(taken, request, start, files, stdin, on_output, cancel)
            else:
                spec = self._spec(request, start, files)
                outcome = supervise(
                    spec, self.spawn, stdin=stdin, on_output=on_output, cancel=cancel,
                    on_listeners=None if way is None else way.open,
                )  # fmt: skip
            try:
                traffic = None if way is None else way.end()
                return _result(request, files, outcome, traffic, warm=taken is not None)
            finally:
                os.close(outcome.work)
        finally:
            if way is not None:
                way.close()
            # Last: it wakes a thread, which then wants the interpreter's lock.
            if taken is not None:
                taken.done()

    def session(
        self, language: str = "python", *, limits: Limits = SESSION_LIMITS, env: Mapping[str, str] | None = None,
        files: Mapping[str, str | bytes] | None = None, network: Network | None = None, idle_seconds: float = 1800.0,
        lifetime_seconds: float = 86_400.0,
    ) -> Session:  # fmt: skip
        """Begin a session: a sandbox that stays, whose cells share state.

        `network` are the hosts that its cells may reach; `Session.set_network` changes them.
        `limits.wall_seconds` is what a cell has, `limits.cpu_seconds` what all of them have together. It is killed when nothing
        was asked of it for `idle_seconds`, and after `lifetime_seconds` in any case. Raises errors of `fumehood.errors`.
        """
        from .sessions import Birth, Session  # noqa: PLC0415 - 10 ms that the command line need not pay

        request = ExecutionRequest(code="", language=language, env=env or {}, files=files or {}, limits=limits)
        begins = get(language).session(self._host)
        if begins is None:
            raise InvalidRequest(f"language {language!r} has no sessions")
        way = None if network is None else self._way_out(network)
        self._admit()
        if way is not None:
            request = request.replace(env={**way.environment(), **request.env})
        request = request.replace(code=begins.source.decode())
        laid = _files(request, begins.start)

        def open_sandbox() -> Opened:
            return self._open_session(request, begins, laid, networked=way is not None)

        # gVisor's processes cannot be copied, so its sessions cannot be forked.
        launcher = self._launcher if self.isolation == "namespaces" else None
        birth = Birth(request.language.lower(), open_sandbox, launcher, self._way_out)
        return Session(birth, limits, idle_seconds=idle_seconds, lifetime_seconds=lifetime_seconds, way=way)

    def _open_session(
        self, request: ExecutionRequest, begins: SessionStart, files: dict[str, bytes], *, networked: bool
    ) -> Opened:
        from .sandbox.incarnation import Opened  # noqa: PLC0415 - as above

        start, taken = begins.start, None
        if self._pool is not None and start.warm is not None and not _is_settled(request.env, start.warm.settled):
            taken = self._pool.fork(self._kit(start, start.warm), request.limits)
        if taken is not None:
            taken.live.order(f"/work/{start.program}", files, dict(request.env), (str(CHANNEL),))
            return Opened(taken.live, taken.done, plain_cells=begins.plain_cells, forkable=begins.forkable)
        limits = gvisor.outer_limits(request.limits) if self.isolation == "gvisor" else request.limits
        live = Live(limits, cgroup="cgroup" not in self.without, channel=True)
        lease = UserLease()

        def release() -> None:
            live.close()
            lease.__exit__()

        try:
            lease.__enter__()
            spec = self._spec(request.replace(args=(str(CHANNEL),)), start, files, leads_out=True)
            spec = spec.replace(forkable=begins.forkable, networked=networked)
            live.start(spec, self.spawn, lease.user)
        except BaseException:
            release()
            raise
        return Opened(live, release, plain_cells=begins.plain_cells, forkable=begins.forkable)

    def prepare(self, language: str = "python", limits: Limits | None = None) -> None:
        """Return when a warm sandbox of the language waits for a program.

        Without this the first programs start cold. Raises `SandboxFailed` where none can be had: `execute` then starts
        every program cold, and `InvalidRequest` where the language has no warm interpreter.
        """
        start = get(language).start("", None, self._host)
        self._admit()
        if self._pool is None or start.warm is None:
            why = "its interpreter cannot be forked" if start.warm is None else "this engine keeps nothing warm"
            raise InvalidRequest(f"language {language!r} has no warm sandboxes: {why}")
        self._pool.prepare(self._kit(start, start.warm), limits or Limits())

    @property
    def warm_sandboxes(self) -> int:
        """How many sandboxes wait for programs."""
        return 0 if self._pool is None else self._pool.waiting

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
        self._own()
        if self._pool is not None:
            self._pool.close()
        for outward in self._outwards.values():
            outward.close()
        if self._launcher is not None:
            self._launcher.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _admit(self) -> None:
        self._own()
        if not self._admitted:
            admission.require(self.spawn, self.without, self.runsc)
            # The verdict holds until the next boot, which no engine survives.
            self._admitted = True

    def _take(self, request: ExecutionRequest, start: Start, files: dict[str, bytes]) -> Taken | None:
        """Return a warm sandbox for this program, None where it must start cold."""
        if self._pool is None or start.warm is None or request.explain:
            return None
        if request.env and _is_settled(request.env, start.warm.settled):
            return None
        return self._pool.take(self._kit(start, start.warm), request.limits, files)

    def _kit(self, start: Start, warmth: Warmth) -> Kit:
        """Return what a zygote of this start is made from: one object for one revision."""
        kit = self._kits.get(start.revision)
        if kit is None:
            kit = self._kits.setdefault(start.revision, _kit(start, warmth, self._mounts(start)))
        return kit

    def _mounts(self, start: Start, *, leads_out: bool = False) -> tuple[Mount, ...]:
        """Return what a program is shown: where sandboxes stay or lead out, with the certificates that hosts are known by."""
        if leads_out or self._pool is not None:
            return (*start.mounts, *self._outward().mounts(start.mounts))
        return start.mounts

    def _spec(
        self, request: ExecutionRequest, start: Start, files: dict[str, bytes], *, leads_out: bool = False
    ) -> Spec:
        return Spec(
            argv=(*start.argv, f"/work/{start.program}", *request.args),
            environment={**BASE_ENVIRONMENT, **start.environment, **request.env},
            mounts=self._mounts(start, leads_out=leads_out or bool(request.network.rules)),
            files=files,
            limits=request.limits,
            profile=start.profile,
            without=self.without,
            ports=request.network.ports if request.network.rules else (),
            explain=request.explain,
            isolation=self.isolation,
            runsc=self.runsc,
        )


def _files(request: ExecutionRequest, start: Start) -> dict[str, bytes]:
    """Return all that is laid into `/work`: what came with the program, and the program."""
    files = {path: _as_bytes(data) for path, data in request.files.items()}
    if files and (start.program in files or any(path.startswith(f"{start.program}/") for path in files)):
        raise InvalidFilePath(
            f"file path {start.program!r} is the program's own: rename the file, or the program with name=…"
        )
    files[start.program] = _as_bytes(request.code)
    if (size := sum(map(len, files.values()))) > request.limits.disk_bytes:
        raise InvalidRequest(f"files hold {size} bytes: disk_bytes allows {request.limits.disk_bytes}")
    return files


def _is_settled(environment: Iterable[str], settled: tuple[str, ...]) -> bool:
    return any(name.startswith(settled) for name in environment)


def _kit(start: Start, warmth: Warmth, mounts: tuple[Mount, ...]) -> Kit:
    from .sandbox.warm import Kit  # noqa: PLC0415 - as the pool, which is there by now

    environment = {**BASE_ENVIRONMENT, **start.environment}
    spec = Spec(
        argv=start.argv, environment=environment, mounts=mounts, files={}, limits=Limits(), profile=start.profile
    )
    return Kit(spec=spec, preload=warmth.preload, sample=warmth.sample)


def _run_warm(
    taken: Taken, request: ExecutionRequest, start: Start, files: dict[str, bytes], stdin: Stdin,
    on_output: OutputListener | None, cancel: int | None,
) -> Outcome:  # fmt: skip
    try:
        taken.live.order(f"/work/{start.program}", files, dict(request.env), tuple(request.args))
        return watch(taken.live, request.limits, stdin=stdin, on_output=on_output, cancel=cancel)
    except SandboxFailed as error:
        if taken.lost():
            raise ZygoteDied(
                "the warm interpreter that this execution was forked from was killed, and it with it: run it again"
            ) from error
        raise


def _result(
    request: ExecutionRequest, files: dict[str, bytes], outcome: Outcome, traffic: Traffic | None, *, warm: bool
) -> ExecutionResult:
    limits = request.limits
    reason, exit_code, signal, detail = _why_it_ended(outcome, limits)
    taken = collect(outcome.work, files, total_bytes=limits.files_out_bytes, count=limits.files_out)
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
        peak_memory_bytes=later(outcome.peak_memory_bytes),
        network_refused=later(outcome.network_refused),
        connections=() if traffic is None else traffic.connections,
        refusals=() if traffic is None else traffic.refusals,
        connections_left_out=0 if traffic is None else traffic.left_out,
        tier=outcome.tier,
        warm=warm,
        denied_calls=outcome.denied_calls,
    )


def _why_it_ended(outcome: Outcome, limits: Limits) -> tuple[EndReason, int, str | None, str]:
    """Return (reason, exit code, signal's name, detail)."""
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
        return "signalled", 128 + number, name, f"signal {name} ended it{_hostile_call(name, outcome)}"
    exit_code = os.WEXITSTATUS(status)
    if exit_code != 0 and outcome.disk_was_full:
        return (
            "disk_full",
            exit_code,
            None,
            f"its disk of {limits.disk_bytes} bytes and {limits.disk_files} files was full",
        )
    return "exited", exit_code, None, ""


def _hostile_call(signal: str, outcome: Outcome) -> str:
    killed = [denied.call for denied in outcome.denied_calls or () if denied.answer == "killed"]
    if killed and signal == "SIGKILL":
        return f": it made the system call {killed[-1]}, which only attacks make"
    return ": it made a system call that only attacks make (explain says which)" if signal == "SIGSYS" else ""


def _signal_name(number: int) -> str:
    import signal  # noqa: PLC0415 - 3 ms that only a program which a signal ended need pay

    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _as_bytes(data: str | bytes) -> bytes:
    # A lone surrogate in source text is the program's problem: its interpreter shall see something and complain.
    return data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
