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
from .headers import end_to_end, framing, has_body, stays, wants_websocket, without_overrides
from .injection import Injection, Placeholders
from .passing import Passing, placeholder_denied
from .policy import Denied
from .speaker import Speaker
from .wire import Wire

if TYPE_CHECKING:
    from typing import Self

    from ..protocol.network import Allow
    from .line import Line
    from .means import Means

    Headers = list[tuple[bytes, bytes]]

DEFAULT_PORT = {"https": 443, "http": 80}
_REASON_CHARACTERS = 200
_MOST_HEADERS = 200


class Answer(Exception):
    """What the program is told in place of the host's answer."""

    def __init__(self, status: int, reason: str, text: str) -> None:
        self.status, self.reason, self.text = status, reason, text

    @classmethod
    def refusal(cls, denied: Denied) -> Self:
        """Return what is told of a refusal."""
        return cls(403, f"Refused by Fumehood: {denied.why}", refusal_text(denied))

    @classmethod
    def unreachable(cls, error: Unreachable) -> Self:
        """Return what is told where the host cannot be reached."""
        return cls(502, "Bad Gateway", str(error))


class Exchange:
    """Serves one client. `host` is whom the connection is for; "" where each request says it, as a proxy's do.

    `always` is answered to every request, where nothing can be asked of the host.
    """

    def __init__(
        self, means: Means, line: Line, client: Speaker, *, scheme: str, host: str, port: int,
        always: Answer | None = None,
    ) -> None:  # fmt: skip
        self._means, self._line, self._client = means, line, client
        self._scheme, self._host, self._port, self._always = scheme, host, port, always
        self._server: Speaker | None = None
        # Where it is: another rule may not lead there.
        self._reached: tuple[tuple[str, int], tuple[str, ...]] = (("", 0), ())

    async def serve(self) -> None:
        """Answer requests until the client has no more. Raises what `Exit` tells apart."""
        try:
            while isinstance(event := await self._client.next(), h11.Request):
                try:
                    await self._attend(event)
                except Answer as answer:
                    await self._say(answer)
                if not self._client.begin_next():
                    break
                # One piece may hold a thousand requests.
                await asyncio.sleep(0)
        except h11.RemoteProtocolError as error:
            self._line.fail(f"the program does not speak HTTP as it should: {error}")
            if self._client.state.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                await self._say(Answer(error.error_status_hint, "Bad Request", str(error)))
        finally:
            if self._server is not None:
                self._server.wire.abort()
            await self._client.close(reads_on=self._client.state.their_state in (h11.SEND_BODY, h11.ERROR))

    async def _attend(self, request: h11.Request) -> None:
        headers, method = list(request.headers), request.method.decode("ascii")
        if not has_body(headers):
            self._client.poll()  # its end
        try:
            host, port, target = self._read(request.target.decode("ascii"), headers)
        except ValueError as error:
            self._line.fail(f"a request was refused: {error}")
            raise Answer(400, "Bad Request", f"the request was refused: {error}") from error
        self._line.asks(host, port, method)
        if self._always is not None:
            raise self._always
        rule: Allow | None = None
        try:
            rule = self._means.policy.request(host, port, self._scheme, method, target)
            self._look_for_placeholders(rule, host, port, target, headers)
            self._line.rule = rule
            await self._pass_on(request, rule, (host, port), target, headers)
        except Denied as denied:
            self._line.refuse(denied)
            raise Answer.refusal(denied) from denied
        except Unreachable as error:
            self._line.fail(str(error))
            raise Answer.unreachable(error) from error
        finally:
            self._line.rule = None

    def _read(self, target: str, headers: Headers) -> tuple[str, int, str]:
        """Return (host, port, target without them). Raises ValueError."""
        names = [name for name, _value in headers]
        if len(names) > _MOST_HEADERS:
            raise ValueError(f"it has more than {_MOST_HEADERS} headers")
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
        look = Placeholders(self._means.policy.foreign_placeholders(rule))
        parts = [target.encode(), *(part for header in headers for part in header)]
        for name, value in headers:
            if name in (b"authorization", b"proxy-authorization") and value[:6].lower() == b"basic ":
                with contextlib.suppress(ValueError):
                    parts.append(base64.b64decode(value[6:]))
        # Apart, so that none is made up of two parts.
        if look.are_in(b"\0".join(parts)):
            raise placeholder_denied(host, port)

    async def _pass_on(
        self, request: h11.Request, rule: Allow, place: tuple[str, int], target: str, headers: Headers
    ) -> None:
        injection = Injection(rule.credential) if rule.credential is not None else None
        upgrade = wants_websocket(headers)
        if upgrade and not rule.websocket:
            raise Denied(*place, f"WebSockets to host {place[0]} are not allowed: its rule must say websocket")
        passed = end_to_end(headers)
        if rule.methods or rule.paths:
            passed = without_overrides(passed)
        if injection is not None:
            passed, target = injection.headers(passed), injection.target(target)
        usual = place[1] == DEFAULT_PORT[self._scheme]
        passed = [(b"host", f"{place[0]}{'' if usual else f':{place[1]}'}".encode()), *passed, *framing(headers)]
        if upgrade:
            passed += [(b"connection", b"Upgrade"), (b"upgrade", b"websocket")]
        server = await self._server_at(place, rule)
        server.say(h11.Request(method=request.method, target=target.encode(), headers=passed))
        secrets = injection.secrets if injection is not None else ()
        passing = Passing(self._client, server, self._line, place, secrets, stays=stays(request))
        if not has_body(headers):
            server.say(h11.EndOfMessage())
            await server.flush()
            await passing.answer(is_upgrade=upgrade)
        else:
            await passing.with_body(Placeholders(self._means.policy.foreign_placeholders(rule)))

    async def _server_at(self, place: tuple[str, int], rule: Allow) -> Speaker:
        if self._server is not None:
            if self._reached == (place, rule.addresses) and self._server.is_fresh:
                return self._server
            self._server.wire.close()
        host, port = place
        sock = await self._means.connector.connect(host, port, rule.addresses, self._means.lookups)
        context = self._means.trusted if self._scheme == "https" else None
        try:
            wire = await Wire.opened(sock, context, host)
        except OSError as error:
            why = error.verify_message if isinstance(error, ssl.SSLCertVerificationError) else error
            raise Unreachable(f"host {host} cannot be spoken to by TLS: {why}") from error
        self._server, self._reached = Speaker(h11.CLIENT, wire, self._line.received), (place, rule.addresses)
        return self._server

    async def _say(self, answer: Answer) -> None:
        body = f"fumehood: {answer.text}\n".encode("utf-8", "replace")
        client = self._client
        headers = [
            ("content-type", "text/plain; charset=utf-8"), ("content-length", str(len(body))),
            ("x-fumehood", _one_line(answer.text)),
        ]  # fmt: skip
        if client.state.their_state in (h11.SEND_BODY, h11.ERROR):
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


def _one_line(text: str) -> str:
    return "".join(each if " " <= each <= "~" else "?" for each in text)[:_REASON_CHARACTERS]
