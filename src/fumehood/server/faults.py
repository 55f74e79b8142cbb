"""Errors as the service answers them: a status of HTTP, and a body `{code, message, kind}` with the code of gRPC's.

`kind` is the name of the class in `fumehood.errors`, and left out where there is none.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from .. import errors
from .answers import Json

if TYPE_CHECKING:
    from fastapi import FastAPI

# google.rpc.Code, by HTTP's status.
_CODES = {
    400: 3,
    401: 16,
    403: 7,
    404: 5,
    405: 12,
    408: 4,
    409: 10,
    410: 9,
    413: 8,
    415: 3,
    422: 3,
    429: 8,
    500: 13,
    503: 14,
}
#: The first that fits counts.
_STATUSES: tuple[tuple[type[errors.FumehoodError], int], ...] = (
    (errors.InvalidRequest, 400),
    (errors.SessionBusy, 409),
    (errors.ForkRefused, 409),
    (errors.SessionDead, 410),
    (errors.RuntimeUnavailable, 503),
    (errors.SandboxUnavailable, 503),
    (errors.SandboxFailed, 503),
    (errors.EgressFailed, 503),
    (errors.StoreUnavailable, 503),
)
#: What a retry would not mend, or would do a second time.
_FINAL = (errors.RuntimeUnavailable, errors.SandboxUnavailable, errors.SessionBusy, errors.ForkRefused)
log = logging.getLogger("fumehood.server")
Thing = TypeVar("Thing")


class Status(BaseModel):
    """What an error is answered with."""

    code: int
    message: str
    kind: str = ""


class Fault(Exception):
    """The caller's, or the service's state: answered with this status and message.

    `retry_after`: seconds after which to ask again; 0 asks clients not to.
    """

    def __init__(self, status: int, message: str, *, retry_after: int | None = None, kind: str = "") -> None:
        self.status, self.message, self.retry_after, self.kind = status, message, retry_after, kind
        super().__init__(message)

    @property
    def body(self) -> dict[str, Any]:
        """The answer's body."""
        return {"code": _CODES.get(self.status, 2), "message": self.message} | (
            {"kind": self.kind} if self.kind else {}
        )

    @property
    def headers(self) -> dict[str, str]:
        """The answer's headers."""
        if self.retry_after is None:
            return {}
        return {"retry-after": str(self.retry_after)} if self.retry_after else {"x-should-retry": "false"}


def fault_of(error: Exception) -> Fault:
    """Return an error as it is answered; what is none of ours is written to the log, and said to nobody."""
    if isinstance(error, Fault):
        return error
    if isinstance(error, errors.FumehoodError):
        if isinstance(error, errors.StoreUnavailable):
            # Its words name hosts and users; callers need none of them.
            log.error("the database: %s", error)
            return Fault(503, "the service's database does not answer: try again", kind=type(error).__name__)
        status = next((status for kind, status in _STATUSES if isinstance(error, kind)), 500)
        return Fault(
            status, str(error), retry_after=0 if isinstance(error, _FINAL) else None, kind=type(error).__name__
        )
    if isinstance(error, RecursionError):
        return Fault(400, "the request is nested too deeply", kind="InvalidRequest")
    log.error("a request failed", exc_info=error)
    return Fault(500, "something went wrong here; the log has it")


def found(thing: Thing | None, kind: str, name: str) -> Thing:
    """Return a thing that is there, or what says that it is. Raises a 404 where it is not."""
    if not thing:
        raise Fault(404, f"there is no {kind} {name!r}: GET /v1/{kind}s lists what there is")
    return thing


def lacking(scope: str) -> Fault:
    """Return a 403 for a key that may not do what is asked."""
    return Fault(403, f"this key may not do that: it lacks the scope {scope!r}; ask for a key that has it")


def install(app: FastAPI) -> None:
    """Have the application answer errors in this way."""
    for kind in (Fault, errors.FumehoodError, Exception):
        app.add_exception_handler(kind, lambda _request, error: answer(fault_of(error)))
    app.add_exception_handler(HTTPException, _http)  # type: ignore[arg-type]  # narrower than Starlette's type
    app.add_exception_handler(RequestValidationError, _invalid)  # type: ignore[arg-type]  # likewise


def answer(fault: Fault) -> Json:
    """Return a fault as an answer."""
    return Json(fault.body, status_code=fault.status, headers=fault.headers)


def _http(_request: Request, error: HTTPException) -> Json:
    answered = answer(Fault(error.status_code, str(error.detail)))
    answered.headers.update(error.headers or {})
    return answered


def _invalid(_request: Request, error: RequestValidationError) -> Json:
    first = error.errors()[0]
    place = ".".join(str(each) for each in first["loc"] if each != "body")[:200]
    # Without the value: it may be a secret.
    return answer(Fault(400, f"{place}: {first['msg']}" if place else str(first["msg"]), kind="InvalidRequest"))
