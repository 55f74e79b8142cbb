"""Passes one request's body on to the server, and its answer back to the client.

Promised: half a message is never taken for a whole one: where one end breaks off, so does this at the other; of an answer no bytes
pass that are the request's secret; a placeholder in a body that it is not for ends the request.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NoReturn

import h11

from .connecting import Unreachable
from .headers import end_to_end, length_of, stays
from .injection import Redactor, masked
from .policy import Denied

if TYPE_CHECKING:
    from collections.abc import Callable

    from .injection import Placeholders
    from .line import Line
    from .speaker import Speaker

# From here on a body does without h11, which copies it four times.
_LONG_BYTES = 1 << 18
_EVENTS_IN_A_ROW = 32
# How long the end of what came is held back: a secret that comes in two pieces comes faster.
_HELD_SECONDS = 0.05
# Of answers that come before the answer (RFC 9110, 15.2).
_MOST_INTERIM = 32


class Passing:
    """One request that was said to `server`, at `place` (host, port). `stays`: the client's connection is to."""

    def __init__(
        self, client: Speaker, server: Speaker, line: Line, place: tuple[str, int], secrets: tuple[bytes, ...], *,
        stays: bool,
    ) -> None:  # fmt: skip
        self._client, self._server, self._line, self._place, self._stays = client, server, line, place, stays
        self._secrets, self._redactor = secrets, Redactor(secrets)
        self._events = 0

    async def with_body(self, look: Placeholders) -> None:
        """Pass the request's body on while the answer may come. Raises as `answer` does, and `Denied`."""
        body = asyncio.create_task(self._send_body(look))
        answer = asyncio.create_task(self.answer())
        try:
            await asyncio.wait((body, answer), return_when=asyncio.FIRST_COMPLETED)
            if body.done() and body.exception() is not None:
                self._server.wire.abort()
                answer.cancel()
                await asyncio.wait((answer,))
                if self._client.state.our_state is not h11.SEND_RESPONSE:
                    self._client.wire.abort()
                body.result()
            await answer
        finally:
            await _end(body, answer)

    async def _send_body(self, look: Placeholders) -> None:
        client, server = self._client, self._server
        if client.state.they_are_waiting_for_100_continue:
            client.say(h11.InformationalResponse(status_code=100, headers=[]))
        await client.flush()
        while True:
            event = client.poll()
            if event is h11.NEED_DATA:
                try:
                    await server.flush()
                except OSError:
                    return  # it listens no more; what it has answered is read all the same
                event = await client.next()
            await self._take_turns()
            if isinstance(event, h11.Data):
                if look.are_in(bytes(event.data)):
                    raise placeholder_denied(*self._place)
                server.say(event)
            elif isinstance(event, h11.EndOfMessage):
                server.say(h11.EndOfMessage())
                await server.flush()
                return
            else:
                raise ConnectionResetError("the program broke its request off")

    async def answer(self, *, is_upgrade: bool = False) -> None:
        """Pass the server's answer to the client.

        Raises `Unreachable` where there is none, OSError where it broke off, or the client did.
        """
        response = await self._head(is_upgrade=is_upgrade)
        if response is None:
            await self._switch()
            return
        client, server = self._client, self._server
        left = length_of(response) if self._stays and stays(response) else 0
        while isinstance(event := await self._next_part(), h11.Data):
            if data := self._redactor.feed(bytes(event.data)):
                client.say(h11.Data(data=data))
                await client.flush()
            left -= len(event.data)
            if left >= _LONG_BYTES:
                await self._pour(left)
                return
        if not isinstance(event, h11.EndOfMessage):
            self._break_off(ConnectionResetError("it closed the connection"))
        if held := self._redactor.end():
            client.say(h11.Data(data=held))
        client.say(h11.EndOfMessage())
        await client.flush()
        if not server.begin_next():
            server.wire.abort()

    async def _head(self, *, is_upgrade: bool) -> h11.Response | None:
        """Say the answer's head; None where both ends speak another protocol from here on."""
        interim = 0
        while True:
            event = await self._event()
            if isinstance(event, h11.InformationalResponse):
                if event.status_code == 101 and is_upgrade:
                    headers = [*self._cleaned(event), (b"connection", b"Upgrade"), (b"upgrade", b"websocket")]
                    self._client.say(h11.InformationalResponse(status_code=101, headers=headers))
                    await self._client.flush()
                    return None
                interim += 1
                if interim > _MOST_INTERIM:
                    self._break_off(ConnectionResetError("it announces its answer without end"))
            elif isinstance(event, h11.Response):
                reason = masked(event.reason, self._secrets)
                headers = self._cleaned(event)
                self._client.say(h11.Response(status_code=event.status_code, reason=reason, headers=headers))
                return event
            else:
                self._break_off(ConnectionResetError("it closed the connection"))

    def _cleaned(self, answer: h11.Response | h11.InformationalResponse) -> list[tuple[bytes, bytes]]:
        """Return an answer's headers for the client, the secret neither in their values nor, in any case, in their names."""
        lower = tuple(each.lower() for each in self._secrets)
        kept = end_to_end(list(answer.headers), is_answer=True)
        return [
            (name, masked(value, self._secrets))
            for name, value in kept
            if not any(each in name.lower() for each in lower)
        ]

    async def _next_part(self) -> object:
        """Return the next event of the body; where none comes for a moment, what was held back goes on first."""
        if self._redactor.holds:
            try:
                async with asyncio.timeout(_HELD_SECONDS):
                    return await self._event()
            except TimeoutError:
                self._client.say(h11.Data(data=self._redactor.end()))
                await self._client.flush()
        return await self._event()

    async def _take_turns(self) -> None:
        """Let others have a turn now and then: a piece may hold thousands of events."""
        self._events += 1
        if self._events % _EVENTS_IN_A_ROW == 0:
            await asyncio.sleep(0)

    async def _event(self) -> object:
        """Return the server's next event; what was said to the client is sent before there is a wait."""
        await self._take_turns()
        try:
            event = self._server.poll()
            if event is h11.NEED_DATA:
                await self._client.flush()
                event = await self._server.next()
        except (h11.RemoteProtocolError, OSError) as error:
            self._break_off(error)
        return event

    async def _pour(self, left: int) -> None:
        """Pass on the rest of a long body, whose length both ends know."""
        client, server = self._client, self._server
        try:
            while left:
                data = await server.borrow()
                if not data or len(data) > left:
                    raise ConnectionResetError("it said another length than it has")
                left -= len(data)
                if self._redactor.is_idle:
                    await client.wire.write(data)
                    continue
                for part in self._redactor.feed_long(bytes(data)):
                    await client.wire.write(part)
            await client.wire.write(self._redactor.end())
        except OSError as error:
            self._break_off(error)
        server.renew()
        client.renew()

    def _break_off(self, error: Exception) -> NoReturn:
        """Tell the client that no answer comes, or that what came is not all."""
        self._server.wire.abort()
        # h11 quotes what came, and that may be anything.
        text = "it does not speak HTTP as it should" if isinstance(error, h11.ProtocolError) else str(error)
        why = f"host {self._place[0]} broke its answer off: {text or type(error).__name__}"
        if self._client.state.our_state is h11.SEND_RESPONSE:
            raise Unreachable(why) from error
        self._line.fail(why)
        self._client.wire.abort()
        raise ConnectionResetError(why) from error

    async def _switch(self) -> None:
        """Carry what a WebSocket says, both ways, until one side ends it."""
        client, server = self._client, self._server
        await server.wire.write(client.state.trailing_data[0])
        await client.wire.write(self._redactor.feed(server.state.trailing_data[0]))
        ways = [
            asyncio.create_task(_carry(client, server, self._line.sent, Redactor(()))),
            asyncio.create_task(_carry(server, client, self._line.received, self._redactor)),
        ]
        try:
            done, _others = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            await _end(*ways)
            server.wire.close()


async def _end(*tasks: asyncio.Task[None]) -> None:
    """End tasks, whatever they were about; what was wrong with one that nobody waited for is told by the other."""
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.exception()


def placeholder_denied(host: str, port: int) -> Denied:
    """Return why a request ends that has a placeholder in it."""
    return Denied(host, port, f"a credential's placeholder was sent to host {host}, which it is not for")


async def _carry(source: Speaker, target: Speaker, count: Callable[[int], None], redactor: Redactor) -> None:
    while True:
        try:
            async with asyncio.timeout(_HELD_SECONDS if redactor.holds else None):
                data = await source.wire.read()
        except TimeoutError:
            await target.wire.write(redactor.end())
            continue
        if not data:
            await target.wire.write(redactor.end())
            return
        count(len(data))
        await target.wire.write(redactor.feed(data))
