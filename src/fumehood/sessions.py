"""A session: a live sandbox whose cells share state.

Promised: any thread may call; a cell ends, or the session does, within its time; a session that ended answers with the
reason; one that was forked shares nothing with its copies from then on. Not promised: that what a cell claims to have shown
is what its code did: all of it is the guest's own word.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
import weakref
from concurrent.futures import Future
from typing import TYPE_CHECKING, TypeVar

from .errors import EgressFailed, ForkRefused, InvalidRequest, SandboxFailed, SessionBusy, SessionDead
from .protocol.network import Network
from .sandbox import files as sandbox_files
from .sandbox.incarnation import Incarnation
from .sandbox.template import Places, Template

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import TracebackType
    from typing import Self

    from .outward import WayOut
    from .protocol.limits import Limits
    from .protocol.session import CellResult, Death, Listener
    from .sandbox.incarnation import Opened
    from .sandbox.launcher import Launcher


_FORKS = 1000

Made = TypeVar("Made")


class Birth:
    """How sessions of one kind begin: `open` gives a fresh sandbox, `way_out` one to lead it out.

    Without a `launcher` they cannot be forked.
    """

    def __init__(
        self, language: str, open_sandbox: Callable[[], Opened], launcher: Launcher | None,
        way_out: Callable[[Network, Mapping[str, str]], WayOut],
    ) -> None:  # fmt: skip
        self.language, self.open, self.launcher, self.way_out = language, open_sandbox, launcher, way_out


class Session:
    """Made by `Engine.session`. Use it in a `with`, or call `close`."""

    def __init__(
        self, birth: Birth, limits: Limits, *, idle_seconds: float, lifetime_seconds: float,
        opened: Opened | None = None, way: WayOut | None = None,
    ) -> None:  # fmt: skip
        #: Its name, the same after `restart`, `fork` and `restore`.
        self.id = secrets.token_hex(16)
        self.language, self.limits = birth.language, limits
        #: What the latest fork did not take along, in words: threads, other processes, sockets and pipes.
        self.lost: tuple[str, ...] = ()
        self._birth, self._idle_seconds, self._lifetime_seconds = birth, idle_seconds, lifetime_seconds
        self._one_at_a_time, self._changes = threading.Lock(), threading.Lock()
        self._way = way
        # What its program has in its environment, and so what those have that are forked from it.
        self._placeholders: Mapping[str, str] = {} if way is None else way.placeholders
        self._live_in(opened or birth.open())

    def run(self, code: str, *, timeout: float | None = None, on_event: Listener | None = None) -> CellResult:
        """Run a cell to its end; `on_event` hears what it shows as it happens.

        `timeout`, in seconds (default: the limits' `wall_seconds`), interrupts it; what was there before stays. Raises
        `SessionDead` where the session has ended already, `SessionBusy` where another cell runs.
        """
        with self._alone():
            result = self._incarnation.run(code, self.limits.wall_seconds if timeout is None else timeout, on_event)
            if self._way is None:
                return result
            seen = self._way.part()
            return result.replace(connections=seen.connections, refusals=seen.refusals)

    @property
    def network(self) -> Network:
        """Return the hosts that its cells may reach."""
        return Network() if self._way is None else self._way.network

    def set_network(self, network: Network) -> None:
        """Allow these hosts from now on and no others; connections that they do not allow end. `Network()` allows none.

        Node's programs trust hosts with credentials where the session began with a network, an empty one at least. Raises
        `InvalidRequest`, `SessionDead`, `EgressFailed`; where it does, what was allowed before is.
        """
        with self._changes, self._incarnation.work():
            namespace = self._opened.live.network
            if self._way is not None:
                self._way.change(network, namespace)
            elif network.rules:
                way = self._birth.way_out(network, self._placeholders)
                way.change(network, namespace)
                self._way = way

    async def arun(
        self,
        code: str,
        *,
        timeout: float | None = None,
        on_event: Listener | None = None,
    ) -> CellResult:
        """Do what `run` does without blocking the event loop. Cancelling the task interrupts the cell."""
        import asyncio  # noqa: PLC0415 - for callers that have it loaded

        work = asyncio.create_task(asyncio.to_thread(self.run, code, timeout=timeout, on_event=on_event))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            self.interrupt()
            await asyncio.wait([work])
            raise

    def interrupt(self) -> None:
        """Interrupt the cell that runs, as Ctrl-C does; state stays. Nothing happens where none runs."""
        self._incarnation.interrupt()

    @property
    def status(self) -> str:
        """Return "idle", "busy" or "dead"."""
        return self._incarnation.status

    @property
    def death(self) -> Death | None:
        """Return why it is dead; None while it is not."""
        return self._incarnation.death

    @property
    def cpu_seconds(self) -> float:
        """What its processes have used of the processor since it began, or was restarted, forked or restored."""
        return self._incarnation.cpu_seconds

    def restart(self) -> None:
        """Begin anew, with nothing of what was: a fresh sandbox under the same id."""
        with self._changes:
            self._incarnation.end("closed", "it was restarted")
            self._live_in(self._birth.open())

    def fork(self, count: int = 1) -> list[Session]:
        """Return `count` new sessions that begin with all that this one holds at this moment, each in a sandbox of its own.

        Memory is copied on write, files are copied, files that are open stay so; random generators draw anew. What cannot be
        taken along, threads and child processes and sockets, is gone in this session too, and told in `lost`: it goes on as one
        of the copies. It keeps its `network`; the others reach no host until `set_network` allows one. Raises `ForkRefused`
        (it goes on as it was), `SessionBusy` while a cell runs, `SessionDead` where it is, or where its program does not go on.
        """
        if not 1 <= count <= _FORKS:
            raise InvalidRequest(f"a session cannot be forked {count} times at once: ask for 1 to {_FORKS}")
        return _to_its_end(lambda: self._fork(count), _close_all)

    def _fork(self, count: int) -> list[Session]:
        copies = self._become_a_copy(count, last=True)[1]
        forks: list[Session] = []
        try:
            while copies:
                forks.append(self._sibling(copies.pop()))
        except BaseException:
            for fork in forks:
                fork.close()
            raise
        finally:
            for each in copies:
                each.discard()
        return forks

    async def afork(self, count: int = 1) -> list[Session]:
        """Do what `fork` does without blocking the event loop."""
        import asyncio  # noqa: PLC0415 - as in `arun`

        return await asyncio.to_thread(self.fork, count)

    def checkpoint(self) -> Checkpoint:
        """Return all that this session holds at this moment, to go back to by `restore`. It costs and raises what `fork` does."""

        def work() -> Checkpoint:
            return Checkpoint(self.language, self._become_a_copy(0, last=False)[0])

        return _to_its_end(work, Checkpoint.close)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go back to a checkpoint, of this session or of another with its language; what came since is gone.

        A dead session lives again by it. Raises `ForkRefused` (it goes on as it was), `SessionBusy`.
        """
        if checkpoint.language != self.language:
            raise InvalidRequest(
                f"a session of {self.language} cannot go back to a checkpoint of {checkpoint.language}"
            )

        def work() -> None:
            with self._alone(), self._changes:
                (opened,) = checkpoint._template.copies()
                self._incarnation.end("closed", "it was restored to a checkpoint")
                self._live_in(opened)

        _to_its_end(work, lambda _nothing: None)

    async def acheckpoint(self) -> Checkpoint:
        """Do what `checkpoint` does without blocking the event loop."""
        import asyncio  # noqa: PLC0415 - as in `arun`

        return await asyncio.to_thread(self.checkpoint)

    async def arestore(self, checkpoint: Checkpoint) -> None:
        """Do what `restore` does without blocking the event loop."""
        import asyncio  # noqa: PLC0415 - as in `arun`

        await asyncio.to_thread(self.restore, checkpoint)

    def close(self) -> None:
        """End it and wait until every process inside is dead."""
        with self._changes:
            self._incarnation.end("closed", "its owner closed it")
            if self._way is not None:
                with contextlib.suppress(EgressFailed):
                    self._way.end()
                self._way.close()

    def put_file(self, path: str, data: bytes | str) -> None:
        """Lay a file into its working folder, in the place of one that is there. Raises `InvalidFilePath`."""
        content = data.encode() if isinstance(data, str) else data
        with self._incarnation.work() as work:
            sandbox_files.put(work, path, content)

    def get_file(self, path: str) -> bytes:
        """Return a file's content. Raises `InvalidFilePath` where there is none that can be taken."""
        with self._incarnation.work() as work:
            return sandbox_files.get(work, path, self.limits.files_out_bytes)

    def list_files(self) -> dict[str, int]:
        """Return every regular file in the working folder, with its size in bytes."""
        with self._incarnation.work() as work:
            return sandbox_files.sizes(work)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        if not self._one_at_a_time.acquire(blocking=False):
            raise SessionBusy(f"session {self.id} runs a cell already: wait for it, or interrupt it")
        try:
            yield
        finally:
            self._one_at_a_time.release()

    def _live_in(self, opened: Opened) -> None:
        self._opened = opened
        self.lost = opened.lost
        self._incarnation = Incarnation(opened, self.limits, self._idle_seconds, self._lifetime_seconds)
        self._incarnation.start()
        if self._way is not None:
            # In a network of its own, whatever it was forked from.
            self._way.close()
            self._way.begin(opened.live.network)

    def _go_on_in(self, opened: Opened) -> None:
        try:
            self._live_in(opened)
        except SandboxFailed as error:
            # The guest's doing: it came to a stand, and then did not go on.
            raise SessionDead(f"the session ended when it was to be forked: {error}") from error

    def _become_a_copy(self, others: int, *, last: bool) -> tuple[Template, list[Opened]]:
        """Bring the program to a stand for good, and go on in a first copy of it; return it, and other copies."""
        if self._birth.launcher is None:
            raise ForkRefused(
                "the session cannot be forked: its engine starts every sandbox by itself, or inside gVisor"
            )
        cgroups = self._opened.live.cgroup is not None
        with (
            self._alone(),
            self._changes,
            contextlib.closing(Places(1 + others, self.limits, cgroups=cgroups)) as places,
        ):
            held = self._incarnation.hold()
            try:
                template = Template(self._opened, held, self.limits, self._birth.launcher)
                try:
                    own, *copies = template.copies(1 + others, last=last, places=places)
                except BaseException:
                    template.thaw()
                    raise
            except BaseException:
                self._opened.ran_before = True
                self._go_on_in(self._opened)
                raise
            try:
                self._go_on_in(own)
            except BaseException:
                for each in copies:
                    each.discard()
                raise
            return template, copies

    def _sibling(self, opened: Opened) -> Session:
        sibling = Session(
            self._birth, self.limits, idle_seconds=self._idle_seconds, lifetime_seconds=self._lifetime_seconds,
            opened=opened,
        )  # fmt: skip
        sibling._placeholders = self._placeholders
        return sibling


def _close_all(sessions: list[Session]) -> None:
    for each in sessions:
        each.close()


def _to_its_end(work: Callable[[], Made], undo: Callable[[Made], object]) -> Made:
    """Do the work, whatever signal comes meanwhile: a fork that is cut short leaves a session that neither runs nor is dead.

    What raised here meanwhile, Ctrl-C say, is raised afterwards, once what was made is undone.
    """
    if threading.current_thread() is not threading.main_thread():
        return work()  # signals come to the main thread alone
    made: Future[Made] = Future()
    ended = threading.Event()

    def run() -> None:
        try:
            made.set_result(work())
        except BaseException as error:  # noqa: BLE001 - raised again by whoever waits
            made.set_exception(error)
        finally:
            ended.set()

    threading.Thread(target=run, name="fumehood-fork", daemon=True).start()
    interrupted: BaseException | None = None
    while not ended.is_set():
        try:
            ended.wait()
        except BaseException as error:  # noqa: BLE001 - raised below
            interrupted = error
    if interrupted is not None:
        if made.exception() is None:
            undo(made.result())
        raise interrupted
    return made.result()


class Checkpoint:
    """What a session held at one moment. It keeps that in memory until it is closed: use it in a `with`, or call `close`."""

    def __init__(self, language: str, template: Template) -> None:
        self.language, self._template = language, template
        self._end = weakref.finalize(self, template.close)

    def close(self) -> None:
        """Give it up. Sessions that were restored to it go on."""
        self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
