"""What stands between callers and the application: how much they may send, and how slowly they may read.

Promised: a body is bounded, and so is what one project sends at one time; an answer of which its caller reads nothing for a minute
is given up. Else a caller could have the server hold as much as it likes, whatever its project's quotas.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException
from starlette.requests import Request

from .dashboard import cookies

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from .service import Service

#: What a request's body may hold: the contract's code, input, files and variables at their most, as JSON.
BODY_BYTES = 64 << 20
#: And what it may where nobody knows who sends it: a key to log in with.
STRANGERS_BYTES = 64 << 10
#: What the bodies of one project may hold together, from their first byte until they are answered.
PROJECT_BYTES = 4 * BODY_BYTES
#: An answer is given to its connection in pieces, each when the one before it was read.
PIECE_BYTES, READ_SECONDS = 256 << 10, 60.0


class Bounded:
    """One for each application, before all of it."""

    def __init__(self, app: ASGIApp, service: Service, read_seconds: float = READ_SECONDS) -> None:
        self._app, self._service, self._read_seconds = app, service, read_seconds
        # Project to the bytes of its bodies. The event loop's alone.
        self._held: dict[str, int] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        project = await self._project(scope)
        most = STRANGERS_BYTES if project is None else BODY_BYTES
        taken = held = 0

        async def counted() -> Message:
            nonlocal taken, held
            message = await receive()
            size = len(message.get("body", b""))
            taken += size
            # FastAPI lets an HTTPException pass, and takes others for a body that cannot be read.
            if taken > most:
                raise HTTPException(
                    413, f"a request's body holds {most >> 10} KiB at most", headers={"connection": "close"}
                )
            if project is not None and size:
                held += size
                self._held[project] = self._held.get(project, 0) + size
                if self._held[project] > PROJECT_BYTES:
                    raise HTTPException(
                        429,
                        f"the project's requests hold more than {PROJECT_BYTES >> 20} MiB at one time",
                        headers={"connection": "close", "retry-after": "1"},
                    )
            return message

        reader = _Reader(send, self._read_seconds)
        try:
            await self._app(scope, counted, reader.send)
        except Exception:
            # Sending to a caller who is gone fails; what else went wrong was answered, and logged, by the application itself.
            if not reader.is_gone:
                raise
        finally:
            if project is not None and held:
                self._held[project] -= held
                if not self._held[project]:
                    del self._held[project]

    async def _project(self, scope: Scope) -> str | None:
        """Return whose body it is to be; None where nobody is known, or bodies have no place."""
        if scope["method"] in ("GET", "HEAD", "DELETE"):
            return None
        request = Request(scope)
        scheme, _space, key = request.headers.get("authorization", "").partition(" ")
        if scheme:
            # One door takes a key without a scheme before it.
            named = key.strip() if scheme.lower() == "bearer" else request.headers["authorization"].strip()
            found = await self._service.doorman.look_up(named) if named else None
            return None if found is None else found[0].project_id
        visit = cookies.visit_of(request, self._service.vault)
        return None if visit is None else f"visit {visit.key_id}"


class _Reader:
    """Whoever reads an answer, as fast as they do."""

    def __init__(self, send: Send, seconds: float) -> None:
        self._send, self._seconds = send, seconds
        #: Whether they read nothing for too long.
        self.is_gone = False

    async def send(self, message: Message) -> None:
        """Pass a message on. Raises `TimeoutError` where nobody reads it."""
        body = message.get("body", b"") if message["type"] == "http.response.body" else b""
        if len(body) <= PIECE_BYTES:
            await self._pass(message)
            return
        view = memoryview(body)
        for begin in range(0, len(body), PIECE_BYTES):
            more = begin + PIECE_BYTES < len(body) or message.get("more_body", False)
            await self._pass({**message, "body": bytes(view[begin : begin + PIECE_BYTES]), "more_body": more})

    async def _pass(self, message: Message) -> None:
        try:
            async with asyncio.timeout(self._seconds):
                await self._send(message)
        except TimeoutError:
            self.is_gone = True
            raise
