"""One client connection whose requests are seen: each is decided on, given its credential, passed on and answered.

Promised: a request goes to the host that its connection is for, and nowhere else; what says where a message ends is written anew by
h11 on both sides, so that nobody hears another request than was looked at here; what is refused is answered with
403 and the reason.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl
from typing import TYPE_CHECKING

import h11

from ..protocol.hosts import authority
from .connecting import Unreachable
from .injection import Injection, Placeholders, Redactor, masked
from .policy import Denied
from .speaker import Speaker

if TYPE_CHECKING:
    from ..protocol.network import Allow
    from .exit import Exit
    from .line import Line

    Headers = list[tuple[bytes, bytes]]

DEFAULT_PORT = {"https": 443, "http": 80}
_HOP_BY_HOP = {
    b"connection", b"keep-alive", b"proxy-connection", b"proxy-authorization", b"proxy-authenticate", b"te", b"trailer",
    b"transfer-encoding", b"upgrade", b"expect", b"content-length", b"http2-settings",
}  # fmt: skip
_REASON_CHARACTERS = 200


class _Answer(Exception):
    """What the program is told in place of the host's answer."""

    def __init__(self, status: int, reason: str, text: str) -> None:
        self.status, self.reason, self.text = status, reason, text


class Exchange:
    """Serves one client. `host` is whom the connection is for; "" where each request says it, as a proxy's do.

    `problem` is answered to every request, where nothing can be asked of the host.
    """

    def __init__(
        self, out: Exit, line: Line, client: Speaker, *, scheme: str, host: str, port: int, problem: str = ""
    ) -> None:
        self._out, self._line, self._client = out, line, client
        self._scheme, self._host, self._port, self._problem = scheme, host, port, problem
        self._server: Speaker | None = None
        self._place = ("", 0)

    async def serve(self) -> None:
        """Answer requests until the client has no more. Raises what `Exit` tells apart."""
        try:
            while isinstance(event := await self._client.next(), h11.Request):
                try:
                    await self._attend(event)
                except _Answer as answer:
                    await self._say(answer)
                if not self._client.begin_next():
                    break
        except h11.RemoteProtocolError as error:
            self._line.fail(f"the program does not speak HTTP as it should: {error}")
            if self._client.state.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                await self._say(_Answer(error.error_status_hint, "Bad Request", str(error)))
        finally:
            if self._server is not None:
                self._server.abort()
            await self._client.close(reads_on=self._client.state.their_state is not h11.DONE)

    async def _attend(self, request: h11.Request) -> None:
        headers, method = list(request.headers), request.method.decode("ascii")
        try:
            host, port, target = self._read(request.target.decode("ascii"), headers)
        except ValueError as error:
            self._line.fail(f"a request was refused: {error}")
            raise _Answer(400, "Bad Request", f"the request was refused: {error}") from error
        self._line.asks(host, port, method)
        if self._problem:
            raise _Answer(502, "Bad Gateway", self._problem)
        rule: Allow | None = None
        try:
            rule = self._out.policy.request(host, port, self._scheme, method, target)
            self._look_for_placeholders(rule, host, port, target, headers)
            await self._pass_on(request, rule, (host, port), target, headers)
        except Denied as denied:
            self._line.refuse(denied)
            raise _Answer(403, f"Refused by Fumehood: {denied.why}", refusal_text(denied)) from denied
        except Unreachable as error:
            self._line.fail(str(error))
            raise _Answer(502, "Bad Gateway", str(error)) from error

    def _read(self, target: str, headers: Headers) -> tuple[str, int, str]:
        """Return (host, port, target without them). Raises ValueError."""
        names = [name for name, _value in headers]
        if b"content-length" in names and b"transfer-encoding" in names:
            raise ValueError("it says twice where it ends, by Content-Length and Transfer-Encoding")
        named = [value.decode("latin-1") for name, value in headers if name == b"host"]
        if len(named) != 1:
            raise ValueError("it has no Host header, or several")
        usual = DEFAULT_PORT[self._scheme]
        if not self._host:
            scheme, slashes, rest = target.partition("://")
            place, slash, path = rest.partition("/")
            if not slashes or scheme.lower() != "http":
                raise ValueError("a proxy takes CONNECT, and requests for http:// URLs")
            host, port = authority(place.partition("?")[0], usual)
            target = slash + path if slash else f"/{place[len(place.partition('?')[0]) :]}"
        elif not target.startswith("/") and target != "*":
            raise ValueError("its target is no path")
        else:
            host, port = self._host, self._port
        try:
            says = authority(named[0], usual)
        except ValueError as error:
            raise ValueError(f"its Host header {named[0]!r} is none: {error}") from error
        if says != (host, port):
            raise ValueError(f"its Host header says {named[0]!r}, and it came for {host}:{port}")
        return host, port, target

    def _look_for_placeholders(self, rule: Allow, host: str, port: int, target: str, headers: Headers) -> None:
        look = Placeholders(self._out.policy.foreign_placeholders(rule))
        parts = [target.encode(), *(part for header in headers for part in header)]
        for name, value in headers:
            if name in (b"authorization", b"proxy-authorization") and value[:6].lower() == b"basic ":
                with contextlib.suppress(ValueError):
                    parts.append(base64.b64decode(value[6:]))
        # Apart, so that none is made up of two parts.
        if look.are_in(b"\0".join(parts)):
            raise _placeholder_denied(host, port)

    async def _pass_on(
        self, request: h11.Request, rule: Allow, place: tuple[str, int], target: str, headers: Headers
    ) -> None:
        injection = Injection(rule.credential) if rule.credential is not None else None
        upgrade = _wants_websocket(headers)
        if upgrade and not rule.websocket:
            raise Denied(*place, f"WebSockets to host {place[0]} are not allowed: its rule must say websocket")
        passed = _end_to_end(headers)
        if injection is not None:
            passed, target = injection.headers(passed), injection.target(target)
        usual = place[1] == DEFAULT_PORT[self._scheme]
        passed = [(b"host", f"{place[0]}{'' if usual else f':{place[1]}'}".encode()), *passed, *_framing(headers)]
        if upgrade:
            passed += [(b"connection", b"Upgrade"), (b"upgrade", b"websocket")]
        server = await self._server_at(place, rule)
        server.say(h11.Request(method=request.method, target=target.encode(), headers=passed))
        secrets = injection.secrets if injection is not None else ()
        if not _has_body(headers):
            self._client.poll()  # its end
            server.say(h11.EndOfMessage())
            await server.flush()
            await self._pass_back(server, secrets, is_upgrade=upgrade)
        else:
            await self._with_body(server, rule, place, secrets)

    async def _server_at(self, place: tuple[str, int], rule: Allow) -> Speaker:
        if self._server is not None:
            if self._place == place and self._server.is_fresh:
                return self._server
            await self._server.close()
            self._server = None
        host, port = place
        sock = await self._out.connector.connect(host, port, rule.addresses)
        context = self._out.trusted if self._scheme == "https" else None
        try:
            self._server = await Speaker.connected(sock, context, host, self._line.received)
        except (OSError, TimeoutError) as error:
            sock.close()
            why = error.verify_message if isinstance(error, ssl.SSLCertVerificationError) else error
            raise Unreachable(f"host {host} cannot be spoken to by TLS: {why}") from error
        self._place = place
        return self._server

    async def _with_body(
        self, server: Speaker, rule: Allow, place: tuple[str, int], secrets: tuple[bytes, ...]
    ) -> None:
        """Pass the request's body on while the answer may come."""
        look = Placeholders(self._out.policy.foreign_placeholders(rule))
        body = asyncio.create_task(self._send_body(server, look, place))
        answer = asyncio.create_task(self._pass_back(server, secrets))
        try:
            await asyncio.wait((body, answer), return_when=asyncio.FIRST_COMPLETED)
            if body.done() and body.exception() is not None:
                # Half a request must not be taken for a whole one.
                server.abort()
                self._server = None
                answer.cancel()
                await asyncio.wait((answer,))
                if self._client.state.our_state is not h11.SEND_RESPONSE:
                    self._client.abort()
                body.result()
            await answer
        finally:
            for task in (body, answer):
                task.cancel()
            await asyncio.wait((body, answer))

    async def _send_body(self, server: Speaker, look: Placeholders, place: tuple[str, int]) -> None:
        client = self._client
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
                    raise _placeholder_denied(*place)
                server.say(event)
            elif isinstance(event, h11.EndOfMessage):
                server.say(h11.EndOfMessage())
                await server.flush()
                return
            else:
                raise ConnectionResetError("the program broke its request off")

    async def _pass_back(self, server: Speaker, secrets: tuple[bytes, ...], *, is_upgrade: bool = False) -> None:
        """Pass the server's answer to the client."""
        client, redactor = self._client, Redactor(secrets)
        while True:
            try:
                event = server.poll()
                if event is h11.NEED_DATA:
                    await client.flush()
                    event = await server.next()
            except (h11.RemoteProtocolError, OSError, TimeoutError) as error:
                self._break_off(error)
            if isinstance(event, h11.InformationalResponse):
                if event.status_code == 101 and is_upgrade:
                    client.say(h11.InformationalResponse(status_code=101, headers=list(event.headers)))
                    await client.flush()
                    await self._switch(server, redactor)
                    return
            elif isinstance(event, h11.Response):
                headers = [
                    (name, masked(value, secrets)) for name, value in _end_to_end(list(event.headers), answer=True)
                ]
                client.say(
                    h11.Response(status_code=event.status_code, reason=masked(event.reason, secrets), headers=headers)
                )
            elif isinstance(event, h11.Data):
                if data := redactor.feed(bytes(event.data)):
                    client.say(h11.Data(data=data))
                    await client.flush()
            elif isinstance(event, h11.EndOfMessage):
                if held := redactor.end():
                    client.say(h11.Data(data=held))
                client.say(h11.EndOfMessage())
                await client.flush()
                if not server.begin_next():
                    server.abort()
                    self._server = None
                return
            else:
                self._break_off(ConnectionResetError("it closed the connection"))

    def _break_off(self, error: Exception) -> None:
        """Tell the client that no answer comes, or that what came is not all. Raises."""
        if self._server is not None:
            self._server.abort()
            self._server = None
        why = f"host {self._place[0]} broke its answer off: {str(error) or type(error).__name__}"
        if self._client.state.our_state is h11.SEND_RESPONSE:
            raise Unreachable(why) from error
        self._line.fail(why)
        self._client.abort()
        raise ConnectionResetError(why) from error

    async def _switch(self, server: Speaker, redactor: Redactor) -> None:
        """Carry what a WebSocket says, both ways, until one side ends it."""
        for mine, other in ((self._client, server), (server, self._client)):
            early, _closed = mine.state.trailing_data
            other.writer.write(early if mine is self._client else redactor.feed(early))
        ways = [
            asyncio.create_task(_carry(self._client, server, self._line.sent, None)),
            asyncio.create_task(_carry(server, self._client, self._line.received, redactor)),
        ]
        try:
            done, _others = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in ways:
                task.cancel()
            await asyncio.wait(ways)

    async def _say(self, answer: _Answer) -> None:
        body = f"fumehood: {answer.text}\n".encode("utf-8", "replace")
        client = self._client
        headers = [
            ("content-type", "text/plain; charset=utf-8"), ("content-length", str(len(body))),
            ("x-fumehood", _one_line(answer.text)),
        ]  # fmt: skip
        if client.state.their_state is not h11.DONE:
            headers.append(("connection", "close"))  # its body is not read
        client.say(h11.Response(status_code=answer.status, reason=_one_line(answer.reason).encode(), headers=headers))
        client.say(h11.Data(data=body))
        client.say(h11.EndOfMessage())
        await client.flush()


def refusal_text(denied: Denied) -> str:
    """Return what a program is told of a refusal."""
    if not denied.rule:
        return denied.why
    return f"{denied.why}. To allow it: --allow-host {denied.rule}, or Network(allow=[{denied.rule!r}])"


async def _carry(source: Speaker, target: Speaker, count: object, redactor: Redactor | None) -> None:
    while data := await source.reader.read(1 << 16):
        count(len(data))  # type: ignore[operator]  # a counter of `Line`
        target.writer.write(data if redactor is None else redactor.feed(data))
        await target.writer.drain()


def _end_to_end(headers: Headers, *, answer: bool = False) -> Headers:
    """Return the headers that are for the other end; of an answer those too that say how long it is."""
    listed = {each.strip().lower() for name, value in headers if name == b"connection" for each in value.split(b",")}
    dropped = (_HOP_BY_HOP | listed | {b"host"}) - (
        {b"content-length", b"transfer-encoding", b"host"} if answer else set()
    )
    return [(name, value) for name, value in headers if name not in dropped]


def _framing(headers: Headers) -> Headers:
    return [(name, value) for name, value in headers if name in (b"content-length", b"transfer-encoding")]


def _has_body(headers: Headers) -> bool:
    return any(value.strip() != b"0" or name == b"transfer-encoding" for name, value in _framing(headers))


def _wants_websocket(headers: Headers) -> bool:
    return any(name == b"upgrade" and value.strip().lower() == b"websocket" for name, value in headers)


def _placeholder_denied(host: str, port: int) -> Denied:
    return Denied(host, port, f"a credential's placeholder was sent to host {host}, which it is not for")


def _one_line(text: str) -> str:
    return "".join(each if " " <= each <= "~" else "?" for each in text)[:_REASON_CHARACTERS]
