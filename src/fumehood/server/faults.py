"""Errors as the service answers them: a status of HTTP, and a body `{code, message}` with the code of gRPC's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from .. import errors

if TYPE_CHECKING:
    from fastapi import FastAPI

# google.rpc.Code, by HTTP's status.
_CODES = {400: 3, 401: 16, 403: 7, 404: 5, 405: 12, 409: 10, 413: 8, 415: 3, 422: 3, 429: 8, 500: 13, 503: 14}


class Fault(Exception):
    """The caller's, or the service's state: answered with this status and message."""

    def __init__(self, status: int, message: str) -> None:
        self.status, self.message = status, message
        super().__init__(message)


def install(app: FastAPI) -> None:
    """Have the application answer errors in this way."""
    app.add_exception_handler(Fault, lambda _request, error: _answer(error.status, error.message))
    app.add_exception_handler(HTTPException, lambda _request, error: _answer(error.status_code, str(error.detail)))
    app.add_exception_handler(RequestValidationError, _invalid)  # type: ignore[arg-type]  # narrower than Starlette's type
    app.add_exception_handler(errors.FumehoodError, _ours)  # type: ignore[arg-type]  # likewise
    app.add_exception_handler(
        Exception, lambda _request, _error: _answer(500, "something went wrong here; the log has it")
    )


def _answer(status: int, message: str) -> JSONResponse:
    return JSONResponse({"code": _CODES.get(status, 2), "message": message}, status_code=status)


def _invalid(_request: Request, error: RequestValidationError) -> JSONResponse:
    first = error.errors()[0]
    place = ".".join(str(each) for each in first["loc"] if each != "body")
    # Without the value: it may be a secret.
    return _answer(400, f"{place}: {first['msg']}" if place else str(first["msg"]))


def _ours(_request: Request, error: errors.FumehoodError) -> JSONResponse:
    if isinstance(error, errors.InvalidRequest):
        return _answer(400, str(error))
    if isinstance(error, errors.RuntimeUnavailable):
        # Nothing that a retry would mend.
        answer = _answer(503, str(error))
        answer.headers["x-should-retry"] = "false"
        return answer
    return _answer(503 if isinstance(error, (errors.SandboxFailed, errors.EgressFailed)) else 500, str(error))
