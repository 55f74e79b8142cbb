"""Requests, results and events as the JSON that our HTTP API carries; both its ends use this.

Bytes are `{"text": …}` where they are UTF-8, else `{"base64": …}`. What is read here came from the other end: a value of the wrong
shape raises `InvalidRequest` that names it.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import TYPE_CHECKING

from ..errors import InvalidRequest
from .credentials import StoredSecret
from .execution import DeniedCall, ExecutionResult, OutputFile, SkippedFile
from .network import Connection, Refusal
from .session import CellError, CellResult, Cleared, Display, Event, Output

if TYPE_CHECKING:
    from typing import Any

    from .execution import ExecutionRequest
    from .limits import Limits
    from .network import Network

_EVENTS: dict[str, type[Event]] = {"output": Output, "display": Display, "error": CellError, "cleared": Cleared}
_NAMES = {kind: name for name, kind in _EVENTS.items()}


def data_as_json(data: bytes | str) -> dict[str, str]:
    """Return bytes as JSON."""
    raw = data.encode() if isinstance(data, str) else data
    try:
        return {"text": raw.decode("utf-8")}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(raw).decode("ascii")}


def data_from_json(value: Any) -> bytes:
    """Undo it; a plain text stands for itself."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    try:
        if "base64" in value:
            return base64.b64decode(value["base64"], validate=True)
        return str(value["text"]).encode()
    except (TypeError, KeyError, ValueError, binascii.Error, UnicodeError) as error:
        raise InvalidRequest("content is neither {'text': …} nor {'base64': …}") from error


def request_as_json(request: ExecutionRequest) -> dict[str, Any]:
    """Return a request; credentials are in it."""
    values = request.as_dict()
    values["args"], values["env"] = list(request.args), dict(request.env)
    values["files"] = {path: data_as_json(data) for path, data in request.files.items()}
    values["stdin"] = data_as_json(request.stdin)
    values["limits"] = limits_as_json(request.limits)
    values["network"] = network_as_json(request.network)
    return values


def limits_as_json(limits: Limits) -> dict[str, Any]:
    """Return limits."""
    return limits.as_dict()


def network_as_json(network: Network, *, secrets: bool = True) -> dict[str, Any]:
    """Return a network; with `secrets` the credentials are in it, else their kinds alone."""
    rules = []
    for rule in network.rules:
        plain: dict[str, Any] = {
            name: list(each) if isinstance(each, tuple) else each for name, each in rule.as_dict().items()
        }
        if rule.credential is not None:
            plain["credential"] = {
                name: {"stored_secret": each.id} if isinstance(each, StoredSecret) else each
                for name, each in rule.credential.as_plain().items() if secrets or name in ("kind", "placeholder")
            }  # fmt: skip
        rules.append(plain)
    return {**network.as_dict(), "allow": rules}


def result_as_json(result: ExecutionResult, execution: str) -> dict[str, Any]:
    """Return a result under the id that it was kept by. Output that is no UTF-8 is there a second time, whole."""
    values = {**result.as_json(), "id": execution}
    for stream in ("stdout", "stderr"):
        data = data_as_json(getattr(result, f"{stream}_bytes"))
        if "base64" in data:
            values[f"{stream}_base64"] = data["base64"]
    return values


def result_from_json(values: Any) -> ExecutionResult:
    """Undo it."""
    try:
        fields = {name: values[name] for name in ExecutionResult._fields if name in values}
        for stream in ("stdout", "stderr"):
            text = values.get(f"{stream}_base64")
            fields[f"{stream}_bytes"] = data_from_json(values[stream] if text is None else {"base64": text})
        fields["files"] = tuple(
            OutputFile(path=_unprinted(each["path"]), data=data_from_json(each)) for each in values["files"]
        )
        fields["skipped_files"] = tuple(
            SkippedFile(path=_unprinted(each["path"]), why=each["why"]) for each in values["skipped_files"]
        )
        fields |= _traffic(values)
        if values.get("denied_calls") is not None:
            fields["denied_calls"] = tuple(DeniedCall(**each) for each in values["denied_calls"])
        return ExecutionResult(**fields)
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise InvalidRequest(f"what was answered is no result of an execution: {error}") from error


def event_as_json(event: Event) -> dict[str, Any]:
    """Return an event; `type` is "output", "display", "error" or "cleared"."""
    return {"type": _NAMES[type(event)], **event.as_dict()}


def event_from_json(values: Any) -> Event:
    """Undo it."""
    try:
        return _EVENTS[values["type"]](**{name: each for name, each in values.items() if name != "type"})
    except (TypeError, KeyError, AttributeError) as error:
        raise InvalidRequest(f"what was answered is no event of a cell: {error}") from error


def cell_as_json(cell: CellResult) -> dict[str, Any]:
    """Return what came of a cell, without its events."""
    return {
        "ok": cell.ok, "ended": cell.ended, "duration_seconds": cell.duration_seconds,
        "connections": [each.as_dict() for each in cell.connections],
        "refusals": [each.as_dict() for each in cell.refusals],
    }  # fmt: skip


def cell_from_json(values: Any, events: tuple[Event, ...]) -> CellResult:
    """Undo it."""
    try:
        return CellResult(
            ok=values["ok"], ended=values["ended"], duration_seconds=values["duration_seconds"], events=events,
            **_traffic(values),
        )  # fmt: skip
    except (TypeError, KeyError) as error:
        raise InvalidRequest(f"what was answered is no result of a cell: {error}") from error


def _traffic(values: Any) -> dict[str, Any]:
    return {
        "connections": tuple(
            Connection(**{**each, "methods": tuple(each["methods"])}) for each in values["connections"]
        ),
        "refusals": tuple(Refusal(**each) for each in values["refusals"]),
    }


def _unprinted(path: str) -> str:
    # As `ExecutionResult.as_json` writes names: a backslash as two, a byte that is no UTF-8 as the surrogate that stands for it.
    return _WRITTEN.sub(lambda found: "\\" if found[0] == "\\\\" else chr(int(found[0][-4:], 16)), path)


_WRITTEN = re.compile(r"\\\\|\\ud[0-9a-f]{3}")
