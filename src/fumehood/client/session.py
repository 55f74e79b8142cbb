"""A session on another machine. Its cells go on over there whether or not a connection lasts; it does until it is closed."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ..errors import (
    FumehoodError,
    InvalidFilePath,
    InvalidRequest,
    ServerError,
    ServerRefused,
    ServerUnreachable,
    SessionDead,
)
from ..protocol import wire
from ..protocol.network import Network
from ..protocol.paths import why_not_inside
from ..protocol.session import Death
from . import answers
from .transport import PLAIN_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from ..protocol.limits import Limits
    from ..protocol.session import CellResult, Event, Listener
    from .events import ServerEvent
    from .portal import Work
    from .transport import Transport

#: What is waited before a stream that broke is asked for again.
_PAUSES_SECONDS = (0.1, 0.5, 2.0, 5.0)
# A byte of output may take six as JSON ("\\u0000").
_BYTES_A_BYTE = 6
# What a cell that its caller has given up has to end, each time that it is interrupted.
_INTERRUPTS, _GRACE_SECONDS = 2, 1.0


class RemoteSession:
    """Made by `RemoteExecutor.session`; does what `Session` does. Use it in a `with`, or call `close`: it outlives this process."""

    def __init__(
        self, transport: Transport, facts: answers.Facts, limits: Limits, network: Network | None = None
    ) -> None:
        #: Its name at the server, the same after `restart` and `restore`.
        self.id = facts.id
        self.language, self.limits = facts.language, limits
        #: See `Session.lost`.
        self.lost = facts.lost
        self._transport, self._network, self._is_closed = transport, network or Network(), False
        self._path = f"/v1/sessions/{facts.id}"

    def run(self, code: str, *, timeout: float | None = None, on_event: Listener | None = None) -> CellResult:
        """See `Session.run`. Where the connection breaks it is made anew, and no event is lost or comes twice.

        Raises `ServerUnreachable` where it cannot be: then the cell may still run.
        """
        self._check_open()
        heard: list[Event] = []

        def hear(event: Event) -> None:
            heard.append(event)
            if on_event is not None:
                on_event(event)

        cell = _Cell(self._transport, self._path, {"code": code, "timeout": timeout}, self.limits)
        work: Work[Event, Any] = self._transport.begin(cell.run)
        try:
            result = work.result(hear)
        except asyncio.CancelledError as error:
            raise self._transport.closed() from error
        except BaseException:
            # The caller's own Ctrl-C, or its listener failed: the cell must not run on without anyone.
            if not work.is_over(0):
                self._stop(work)
            raise
        return answers.cell(result, heard)

    async def arun(
        self,
        code: str,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - the cell's own, which interrupts it
        on_event: Listener | None = None,
    ) -> CellResult:
        """Do what `run` does without blocking the event loop. Cancelling the task interrupts the cell."""
        work = asyncio.create_task(asyncio.to_thread(self.run, code, timeout=timeout, on_event=on_event))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            with contextlib.suppress(FumehoodError):
                await asyncio.to_thread(self.interrupt)
            await asyncio.wait([work])
            raise

    def interrupt(self) -> None:
        """Interrupt the cell that runs, as Ctrl-C does; state stays. Nothing happens where none runs."""
        if not self._is_closed:
            with contextlib.suppress(SessionDead):
                self._transport.ask("POST", f"{self._path}/interrupt", {})

    @property
    def status(self) -> str:
        """Return "idle", "busy" or "dead"."""
        return self._state()[0]

    @property
    def death(self) -> Death | None:
        """Return why it is dead; None while it is not."""
        return self._state()[1]

    @property
    def network(self) -> Network:
        """Return the hosts that its cells may reach, as this side set them."""
        return self._network

    def set_network(self, network: Network) -> None:
        """See `Session.set_network`."""
        self._check_open()
        self._transport.ask("PUT", f"{self._path}/network", wire.network_as_json(network))
        self._network = network

    def restart(self) -> None:
        """Begin anew, with nothing of what was: a fresh sandbox under the same id."""
        self._check_open()
        self.lost = answers.session(self._transport.ask("POST", f"{self._path}/restart", {})).lost

    def fork(self, count: int = 1) -> list[RemoteSession]:
        """See `Session.fork`. Each copy is closed by itself."""
        self._check_open()
        answer = self._transport.ask("POST", f"{self._path}/fork", {"count": count})
        self.lost = answers.session(answers.field(answer, "session", dict)).lost
        facts = [answers.session(each) for each in answers.field(answer, "sessions", list)]
        return [RemoteSession(self._transport, each, self.limits) for each in facts]

    async def afork(self, count: int = 1) -> list[RemoteSession]:
        """Do what `fork` does without blocking the event loop."""
        return await asyncio.to_thread(self.fork, count)

    def checkpoint(self) -> RemoteCheckpoint:
        """See `Session.checkpoint`. The server keeps it until it is closed, or this session is."""
        self._check_open()
        name = answers.name(self._transport.ask("POST", f"{self._path}/checkpoints", {}))
        self.lost = answers.session(self._transport.ask("GET", self._path)).lost
        return RemoteCheckpoint(self._transport, self._path, name, self.language)

    async def acheckpoint(self) -> RemoteCheckpoint:
        """Do what `checkpoint` does without blocking the event loop."""
        return await asyncio.to_thread(self.checkpoint)

    def restore(self, checkpoint: RemoteCheckpoint) -> None:
        """See `Session.restore`."""
        if checkpoint.language != self.language:
            raise InvalidRequest(
                f"a session of {self.language} cannot go back to a checkpoint of {checkpoint.language}"
            )
        self._check_open()
        answer = self._transport.ask("POST", f"{self._path}/restore", {"checkpoint_id": checkpoint.id})
        self.lost = answers.session(answer).lost

    async def arestore(self, checkpoint: RemoteCheckpoint) -> None:
        """Do what `restore` does without blocking the event loop."""
        await asyncio.to_thread(self.restore, checkpoint)

    def close(self) -> None:
        """End it and wait until every process inside is dead."""
        if not self._is_closed:
            _delete(self._transport, self._path)
            self._is_closed = True

    def put_file(self, path: str, data: bytes | str) -> None:
        """Lay a file into its working folder, in the place of one that is there. Raises `InvalidFilePath`."""
        self._check_open()
        content = data.encode() if isinstance(data, str) else data
        self._transport.fetch(
            "PUT", self._file(path), content, {"content-type": "application/octet-stream"}
        )  # fmt: skip

    def get_file(self, path: str) -> bytes:
        """Return a file's content. Raises `InvalidFilePath` where there is none that can be taken."""
        self._check_open()
        return self._transport.fetch("GET", self._file(path), most_bytes=self.limits.files_out_bytes + PLAIN_BYTES)

    def list_files(self) -> dict[str, int]:
        """Return every regular file in the working folder, with its size in bytes."""
        self._check_open()
        files = answers.field(self._transport.ask("GET", f"{self._path}/files"), "files", list)
        return {answers.field(each, "path", str): answers.field(each, "size", int) for each in files}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # What went wrong already is told, not that it cannot be tidied up either.
        with contextlib.suppress(*((ServerError,) if error is not None else ())):
            self.close()

    def _file(self, path: str) -> str:
        # Before it is a part of a URL, where `..` would lead to another place of the API.
        if (why := why_not_inside(path)) is not None:
            raise InvalidFilePath(f"file path {path!r}: {why}; give a relative path inside the working directory")
        return f"{self._path}/files/{quote(path)}"

    def _state(self) -> tuple[str, Death | None]:
        if self._is_closed:
            return "dead", Death(reason="closed", detail="its owner closed it")
        try:
            facts = answers.session(self._transport.ask("GET", self._path))
        except ServerRefused as error:
            if error.status != 404:
                raise
            return "dead", Death(reason="closed", detail=str(error))
        return facts.status, facts.death

    def _check_open(self) -> None:
        if self._is_closed:
            raise SessionDead("the session is dead (closed: its owner closed it): begin another")

    def _stop(self, work: Work[Event, Any]) -> None:
        with contextlib.suppress(FumehoodError):
            for _ in range(_INTERRUPTS):
                self.interrupt()
                if work.is_over(_GRACE_SECONDS):
                    return
        work.cancel()


class RemoteCheckpoint:
    """What a session held at one moment, kept by the server. Use it in a `with`, or call `close`."""

    def __init__(self, transport: Transport, session: str, name: str, language: str) -> None:
        self.id, self.language = name, language
        self._transport, self._path, self._is_closed = transport, f"{session}/checkpoints/{name}", False

    def close(self) -> None:
        """Give it up. Sessions that were restored to it go on."""
        if not self._is_closed:
            _delete(self._transport, self._path)
            self._is_closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(*((ServerError,) if error is not None else ())):
            self.close()


def _delete(transport: Transport, path: str) -> None:
    try:
        transport.ask("DELETE", path)
    except ServerRefused as error:
        # It is gone, and that is what was wanted.
        if error.status != 404:
            raise


class _Cell:
    """A cell over there, and how much of it has been heard."""

    def __init__(self, transport: Transport, session: str, body: dict[str, Any], limits: Limits) -> None:
        self._transport, self._session, self._body = transport, session, body
        self._most_bytes = PLAIN_BYTES + _BYTES_A_BYTE * 4 * limits.output_bytes
        self._id, self._heard = "", 0

    async def run(self, say: Callable[[Event], None]) -> Any:
        """Run it, and return its result as JSON. A stream that breaks is asked for again a few times."""
        tries = 0
        while True:
            before = self._heard
            try:
                return await self._follow(say)
            except ServerUnreachable as error:
                if not self._id:
                    # Nobody knows whether it began: to send it again might run it twice.
                    raise
                tries = tries + 1 if self._heard == before else 1
                if tries > len(_PAUSES_SECONDS):
                    raise ServerUnreachable(f"{error}; the cell may still run, under the id {self._id}") from error
                await asyncio.sleep(_PAUSES_SECONDS[tries - 1])

    async def _follow(self, say: Callable[[Event], None]) -> Any:
        if self._id:
            path, headers = f"{self._session}/cells/{self._id}/events", {"last-event-id": str(self._heard)}
            stream = self._transport.events("GET", path, headers=headers, most_bytes=self._most_bytes)
        else:
            stream = self._transport.events("POST", f"{self._session}/cells", self._body, most_bytes=self._most_bytes)
        async with contextlib.aclosing(stream) as events:
            async for event in events:
                if event.name == "result":
                    return event.data
                self._take(event, say)
        raise ServerUnreachable(f"{self._transport.url} broke off while the cell ran")

    def _take(self, event: ServerEvent, say: Callable[[Event], None]) -> None:
        if event.name == "cell":
            self._id = answers.name(event.data)
        elif isinstance(event.data, dict) and "type" in event.data:
            # One that comes again is known by its number.
            if event.number > self._heard:
                self._heard = event.number
                say(answers.event(event.data))
        elif event.name == "error":
            raise self._transport.refusal(event.data, answers.field(event.data, "status", int))
