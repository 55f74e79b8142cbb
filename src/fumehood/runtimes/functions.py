"""Functions: code that defines `execute(input)`, called once with a JSON value, whose own value is the result.

What a function returns comes out as a file that it could have written itself: it is the guest's word, as all of its output.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from ..errors import InvalidRequest
from ..protocol.record import Record

if TYPE_CHECKING:
    from ..protocol.execution import ExecutionRequest, ExecutionResult

_OUTPUT = "function-output.json"
#: How deep a value may be nested: readers in many languages take no more than some hundreds.
_DEPTH = 100
_STATUSES = ("valid", "json_serialization_error")
#: The languages that functions may be written in, of those that every host may have.
LANGUAGES = ("python", "javascript", "typescript")


class FunctionResult(Record):
    """What a function returned. `status` is "valid", "json_serialization_error", or "error" where it did not return."""

    output: Any
    status: str


def requested(request: ExecutionRequest, value: Any, family: str) -> ExecutionRequest:
    """Return the request that runs a function: `request.code` defines it, `value` is its input.

    `family` is the one of `LANGUAGES` that the request's runtime speaks. Raises `InvalidRequest`.
    """
    if family not in LANGUAGES:
        raise InvalidRequest(f"functions are written in {', '.join(LANGUAGES)}, not in {family}")
    files = {**request.files, "function-input.json": json.dumps(value)}
    if family == "python":
        return request.replace(code=_guest("function.py"), files={**files, "function.py": request.code})
    # In one file with the function, which is no module and exports nothing.
    return request.replace(code=request.code + _guest("function.js"), files=files)


def returned(result: ExecutionResult) -> FunctionResult:
    """Return what came of it."""
    data = next((file.data for file in result.files if file.path == _OUTPUT), None)
    if data is None or not result.ok:
        return FunctionResult(output=None, status="error")
    try:
        said = json.loads(data, parse_constant=_no_number)
        status, output = said["status"], said["output"]
        _check_depth(output, _DEPTH)
    except _NotJson:
        return FunctionResult(output=None, status="json_serialization_error")
    except (ValueError, KeyError, TypeError, RecursionError):
        return FunctionResult(output=None, status="error")
    return FunctionResult(output=output, status=status if status in _STATUSES else "error")


class _NotJson(Exception):
    """A value that JSON's readers may not take."""


def _no_number(_name: str) -> None:
    raise _NotJson


def _check_depth(value: Any, left: int) -> None:
    if isinstance(value, (list, dict)):
        if left == 0:
            raise _NotJson
        for each in value.values() if isinstance(value, dict) else value:
            _check_depth(each, left - 1)


def _guest(name: str) -> str:
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "guest", name), encoding="utf-8") as file:
        return file.read()
