"""What is seen of each request and each execution: counted, written to the log, traced; of what they hold, nothing."""

from __future__ import annotations

import contextlib
import contextvars
import re
import time
from typing import TYPE_CHECKING, Any

from ..errors import InvalidRequest
from .faults import Fault
from .ids import new_id
from .metrics import Metrics, kind_of
from .tracing import Tracing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from .logs import Log
    from .store.common import Caller
    from .tracing import Mark

# What a proxy in front may have named a request. No more than a name: it goes into the log and back into a header.
_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_DOORS = "fumehood.server.doors."
#: The pattern of paths that no route has.
NO_ROUTE = "none"


class Watch:
    """One for each server. Any thread may call."""

    def __init__(self) -> None:
        self.metrics, self.tracing = Metrics(), Tracing()

    @contextlib.contextmanager
    def execution(self, door: str, language: str) -> Iterator[Seen]:
        """Watch an execution or a cell; tell `Seen.ended` what came of it. One that is refused for what it asks is not counted."""
        self.metrics.began()
        began = time.monotonic()
        with self.tracing.execution(door, kind_of(language)) as mark:
            seen = Seen(mark)
            try:
                yield seen
            except (InvalidRequest, Fault):
                raise
            except Exception:
                seen.reason = "not_run"
                mark.failed()
                raise
            finally:
                seconds = time.monotonic() - began
                mark.facts(fumehood__reason=seen.reason or "refused", fumehood__duration_seconds=round(seconds, 6))
                self.metrics.ended(door, language, seen.reason, seconds, warm=seen.warm, refusals=seen.refusals)


class Seen:
    """What came of an execution."""

    def __init__(self, mark: Mark) -> None:
        self._mark = mark
        self.reason, self.warm, self.refusals = "", False, 0

    def ended(self, reason: str, *, warm: bool = False, refusals: int = 0) -> None:
        """Say why it ended, whether a warm interpreter ran it, and how many of its connections were refused."""
        self.reason, self.warm, self.refusals = reason, warm, refusals
        self._mark.facts(fumehood__warm=warm, fumehood__egress_refusals=refusals)


def carried(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function for another thread that goes on this one's trace."""
    context = contextvars.copy_context()
    return lambda *arguments: context.run(function, *arguments)


class Watched:
    """Stands before the application, outside of all else."""

    def __init__(self, app: ASGIApp, watch: Watch, log: Log) -> None:
        self._app, self._watch, self._log = app, watch, log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and see what comes of it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        given = headers.get("x-request-id", "")
        name = given if _NAME.fullmatch(given) else new_id()
        began, status = time.monotonic(), 0

        async def told(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message.get("headers", ()), (b"x-request-id", name.encode("ascii"))]}
            await send(message)

        with self._watch.tracing.request(_method(scope), headers) as mark:
            try:
                await self._app(scope, receive, told)
            finally:
                # Without an answer: it failed, or nobody was left to take one (nginx has 499 for that).
                self._ended(scope, name, status or 499, time.monotonic() - began, mark)

    def _ended(self, scope: Scope, name: str, status: int, seconds: float, mark: Mark) -> None:
        route = _route(scope)
        pattern, method = str(getattr(route, "path", "") or NO_ROUTE), _method(scope)
        caller: Caller | None = scope.get("state", {}).get("caller")
        self._watch.metrics.answered(pattern, method, status, seconds)
        mark.name(f"{method} {pattern}")
        mark.facts(http__route=pattern, http__response__status_code=status, fumehood__request_id=name)
        if status >= 500:
            mark.failed()
        self._log.request(
            request_id=name, method=method, route=pattern, status=status, duration_ms=round(seconds * 1000, 1),
            door=_door(route), project_id=caller and caller.project_id, key_id=caller and caller.key_id,
        )  # fmt: skip


def _route(scope: Scope) -> object | None:
    route: object | None = scope.get("route")
    endpoint = scope.get("endpoint")
    if route is None and endpoint is not None:
        # Starlette's own routes name their endpoint alone.
        route = next((each for each in scope["app"].routes if getattr(each, "endpoint", None) is endpoint), None)
    return route


def _method(scope: Scope) -> str:
    # It may be any word of the caller's.
    return scope["method"] if scope["method"] in _METHODS else "other"


def _door(route: object) -> str | None:
    module = getattr(getattr(route, "endpoint", None), "__module__", "")
    return module.removeprefix(_DOORS) if module.startswith(_DOORS) else None
