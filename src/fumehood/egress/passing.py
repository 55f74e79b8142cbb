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


class Passing:
    """One request that was said to `server`, at `place` (host, port). `stays`: the client's connection is to."""

    def __init__(
        self, client: Speaker, server: Speaker, line: Line, place: tuple[str, int], secrets: tuple[bytes, ...], *,
        stays: bool,
    ) -> None:  # fmt: skip
        self._client, self._server, self._line, self._place, self._stays = client, server, line, place, stays
        self._secrets, self._redactor = secrets, Redactor(secrets)

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
            for task in (body, answer):
                task.cancel()
            await asyncio.wait((body, answer))

    async def _send_body(self, look: Placeholders) -> None:
        client, server = self._client, self._server
        if client.state.they_are_waiting_for_100_continue:
            client.say(h11.InformationalResponse(status_code=100, headers=[]))
        await client.flush()
        while True:
            event = client.poll()
            if event is h11.NEED_DATA:
                await server.flush()
                event = await client.next()
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
        while isinstance(event := await self._event(), h11.Data):
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
        while True:
            event = await self._event()
            if isinstance(event, h11.InformationalResponse):
                if event.status_code == 101 and is_upgrade:
                    self._client.say(h11.InformationalResponse(status_code=101, headers=list(event.headers)))
                    await self._client.flush()
                    return None
            elif isinstance(event, h11.Response):
                headers = [
                    (name, masked(value, self._secrets))
                    for name, value in end_to_end(list(event.headers), is_answer=True)
                ]
                reason = masked(event.reason, self._secrets)
                self._client.say(h11.Response(status_code=event.status_code, reason=reason, headers=headers))
                return event
            else:
                self._break_off(ConnectionResetError("it closed the connection"))

    async def _event(self) -> object:
        """Return the server's next event; what was said to the client is sent before there is a wait."""
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
                await client.wire.write(data if self._redactor.is_idle else self._redactor.feed(bytes(data)))
            await client.wire.write(self._redactor.end())
        except OSError as error:
            self._break_off(error)
        server.renew()
        client.renew()

    def _break_off(self, error: Exception) -> NoReturn:
        """Tell the client that no answer comes, or that what came is not all."""
        self._server.wire.abort()
        why = f"host {self._place[0]} broke its answer off: {str(error) or type(error).__name__}"
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
            asyncio.create_task(_carry(client, server, self._line.sent, None)),
            asyncio.create_task(_carry(server, client, self._line.received, self._redactor)),
        ]
        try:
            done, _others = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in ways:
                task.cancel()
            await asyncio.wait(ways)
            server.wire.close()


def placeholder_denied(host: str, port: int) -> Denied:
    """Return why a request ends that has a placeholder in it."""
    return Denied(host, port, f"a credential's placeholder was sent to host {host}, which it is not for")


async def _carry(
    source: Speaker, target: Speaker, count: Callable[[int], None], redactor: Redactor | None
) -> None:  # fmt: skip
    while data := await source.wire.read():
        count(len(data))
        await target.wire.write(data if redactor is None else redactor.feed(data))
