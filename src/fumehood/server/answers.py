"""JSON answers, and server-sent events. In ASCII: what a guest says may hold half a character, which has no UTF-8."""

from __future__ import annotations

import json
import math
from typing import Any

from starlette.responses import JSONResponse


class Json(JSONResponse):
    """An answer in JSON."""

    def render(self, content: Any) -> bytes:
        """Return the body."""
        return encoded(content).encode("ascii")


def encoded(value: Any) -> str:
    """Return a value as JSON; numbers that JSON has not, which a guest may say all the same, become null."""
    try:
        return json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    except ValueError:
        return json.dumps(_finite(value), ensure_ascii=True, separators=(",", ":"))


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, (list, tuple)) else value


def event(kind: str, value: Any, number: int | None = None) -> str:
    """Return a server-sent event (WHATWG HTML, 9.2)."""
    name = f"id: {number}\n" if number is not None else ""
    return f"{name}event: {kind}\ndata: {encoded(value)}\n\n"
