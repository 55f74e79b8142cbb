"""The remote executor: programs and sessions on a `fumehood serve`, with the interface of the local engine.

Promised: the same results, events and errors as the engine's over there; output as it comes, byte for byte; a program whose caller
gives it up, or goes away, is ended over there. Not promised: that the server is honest. What it answers is checked for its form,
and is hostile text like all that a program prints.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
from typing import TYPE_CHECKING, Any

from ..errors import InvalidRequest, ServerMisbehaved, ServerUnreachable
from ..protocol import wire
from ..protocol.execution import ExecutionRequest, ExecutionResult
from ..protocol.limits import Limits
from . import answers
from .portal import ends_by
from .session import RemoteSession
from .transport import PLAIN_BYTES, Transport

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType
    from typing import Self

    from ..protocol.execution import Stream
    from ..protocol.executor import OutputListener
    from ..protocol.network import Network
    from .portal import Work

    Piece = tuple[Stream, bytes]

#: What a session has where nobody says otherwise, as at the engine.
SESSION_LIMITS = Limits(wall_seconds=60.0, cpu_seconds=3600.0)
# A byte of output may take six as JSON ("\\u0000"), and comes twice: as it is printed, and in the result.
_BYTES_A_BYTE = 6


class RemoteExecutor:
    """Runs programs on a `fumehood serve`. Use it in a `with`, or call `close`.

    - `url`: where it is, like `http://127.0.0.1:3003`; `key`: one of its API keys.
    - `timeout`: seconds for which it may say nothing before it is given up.

    Besides the engine's errors, its methods raise `ServerUnreachable`, `ServerRefused` and `ServerMisbehaved`.
    """

    def __init__(self, url: str, key: str = "", *, timeout: float = 300.0) -> None:
        if not timeout > 0:
            raise InvalidRequest(f"timeout is {timeout!r}: give a number of seconds above 0")
        self._transport = Transport(url, key, timeout)

    @property
    def url(self) -> str:
        """Where the server is."""
        return self._transport.url

    def execute(
        self,
        request: ExecutionRequest,
        *,
        on_output: OutputListener | None = None,
        stdin_source: int | None = None,
        cancel: int | None = None,
    ) -> ExecutionResult:
        """Run the program to its end and return what came of it.

        `stdin_source`, a descriptor, is read to its end before the program starts, and follows `request.stdin`: what is typed
        meanwhile does not reach it. `cancel`, a descriptor, ends the execution once it is readable.
        """
        printed: dict[str, bytearray] = {"stdout": bytearray(), "stderr": bytearray()}
        if stdin_source is not None:
            if (given := _read_to_its_end(stdin_source, cancel)) is None:
                return _cancelled(request, printed)
            request = request.replace(stdin=_as_bytes(request.stdin) + given)
        body = _body(request)
        was_cancelled: list[bool] = []

        async def run(say: Callable[[Piece], None]) -> ExecutionResult:
            with ends_by(cancel) as is_ended:
                try:
                    return await self._run(body, _most_bytes(request.limits), say)
                except asyncio.CancelledError:
                    was_cancelled.append(is_ended())
                    raise

        def hear(piece: Piece) -> None:
            stream, data = piece
            printed[stream] += data
            if on_output is not None:
                on_output(stream, data)

        work: Work[Piece, ExecutionResult] = self._transport.begin(run)
        try:
            return work.result(hear)
        except asyncio.CancelledError as error:
            if any(was_cancelled):
                return _cancelled(request, printed)
            raise self._transport.closed() from error
        except BaseException:
            # The caller's own Ctrl-C, or its listener failed: the program must not run on without anyone.
            work.cancel()
            raise

    async def execute_async(
        self, request: ExecutionRequest, *, on_output: OutputListener | None = None
    ) -> ExecutionResult:
        """Do what `execute` does without blocking the event loop. Cancelling the task ends the execution."""
        cancel = os.eventfd(0, os.EFD_CLOEXEC)
        work = asyncio.create_task(asyncio.to_thread(self.execute, request, on_output=on_output, cancel=cancel))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            os.eventfd_write(cancel, 1)
            await asyncio.wait([work])
            raise
        finally:
            os.close(cancel)

    def session(
        self, language: str = "python", *, limits: Limits = SESSION_LIMITS, env: Mapping[str, str] | None = None,
        files: Mapping[str, str | bytes] | None = None, network: Network | None = None, idle_seconds: float = 1800.0,
        lifetime_seconds: float = 86_400.0,
    ) -> RemoteSession:  # fmt: skip
        """Begin a session over there. The parameters are those of `Engine.session`."""
        request = ExecutionRequest(code="", language=language, env=env or {}, files=files or {}, limits=limits)
        body = {name: each for name, each in _body(request).items() if name in ("language", "limits", "env", "files")}
        body |= {"idle_seconds": idle_seconds, "lifetime_seconds": lifetime_seconds}
        if network is not None:
            body["network"] = wire.network_as_json(network)
        facts = answers.session(self._transport.ask("POST", "/v1/sessions", body))
        return RemoteSession(self._transport, facts, limits, network)

    def languages(self) -> tuple[str, ...]:
        """Return the names of all languages that the server knows."""
        return answers.texts(self._transport.ask("GET", "/v1/languages"), "languages")

    def close(self) -> None:
        """End every execution that is still running. Sessions stay: they are closed one by one."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def _run(self, body: dict[str, Any], most_bytes: int, say: Callable[[Piece], None]) -> ExecutionResult:
        stream = self._transport.events("POST", "/v1/executions", body, most_bytes=most_bytes)
        async with contextlib.aclosing(stream) as events:
            async for event in events:
                if event.name == "output":
                    say(_piece(event.data))
                elif event.name == "result":
                    return answers.result(event.data)
                elif event.name == "error":
                    status = answers.field(event.data, "status", int)
                    raise self._transport.refusal(event.data, status)
        raise ServerUnreachable(f"{self.url} broke off while the program ran, and has ended it")


def _piece(data: Any) -> Piece:
    stream = answers.field(data, "stream", str)
    if stream not in ("stdout", "stderr"):
        raise ServerMisbehaved(f"the server sent output of a stream {stream[:60]!r}")
    try:
        return stream, wire.data_from_json(data)
    except InvalidRequest as error:
        raise ServerMisbehaved(f"the server's answer breaks the API: {error}") from error


def _cancelled(request: ExecutionRequest, printed: Mapping[str, bytearray]) -> ExecutionResult:
    # As the engine tells it. The server's own result went with the connection.
    return ExecutionResult(
        id=os.urandom(16).hex(), language=request.language.lower(), reason="signalled", exit_code=137, signal="SIGKILL",
        detail="the caller cancelled it", stdout_bytes=bytes(printed["stdout"]), stderr_bytes=bytes(printed["stderr"]),
    )  # fmt: skip


def _body(request: ExecutionRequest) -> dict[str, Any]:
    # Texts of files and input as the engine writes them: halves of characters have bytes of their own.
    files = {path: _as_bytes(data) for path, data in request.files.items()}
    return wire.request_as_json(request.replace(files=files, stdin=_as_bytes(request.stdin)))


def _as_bytes(data: str | bytes) -> bytes:
    return data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data


def _most_bytes(limits: Limits) -> int:
    return PLAIN_BYTES + _BYTES_A_BYTE * (4 * limits.output_bytes + limits.files_out_bytes)


def _read_to_its_end(source: int, cancel: int | None) -> bytes | None:
    """Read a descriptor to its end; None where `cancel` was readable before."""
    poll = select.poll()
    pieces: list[bytes] = []
    poll.register(source, select.POLLIN)
    if cancel is not None:
        poll.register(cancel, select.POLLIN)
    while True:
        if any(ready == cancel for ready, _event in poll.poll()):
            return None
        try:
            piece = os.read(source, 1 << 20)
        except OSError as error:
            raise InvalidRequest(f"standard input cannot be read: {error.strerror}") from error
        if not piece:
            return b"".join(pieces)
        pieces.append(piece)
