"""The service's log: a line on standard error for each request, and one for what goes wrong.

Promised: no line holds code, input, output, a secret, a header, a query, or an address that a caller made up: a request is told by
its route's pattern, an error by its class and the places that it went through, without its own words, which may quote any of
those. Who reads slowly holds nobody up: lines wait in memory, and those that are too many are left out and counted.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import logging
import os
import queue
import threading
import time
import traceback
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    Format = Literal["json", "text", "none"]

_MOST_WAITING = 20_000
_LAST_WORDS_SECONDS = 2.0
# Whose sentences hold nothing of a caller's.
_OURS = ("fumehood", "uvicorn")


class Lines:
    """Writes lines to a descriptor from a thread of its own. Any thread may call."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._waiting: queue.Queue[str | None] = queue.Queue(_MOST_WAITING)
        #: How many were left out.
        self.left_out = 0
        # It may be stuck in a write that nobody reads, and must not keep the process.
        self._thread = threading.Thread(target=self._write, name="fumehood-log", daemon=True)
        self._thread.start()

    def put(self, line: str) -> None:
        """Have a line written."""
        try:
            self._waiting.put_nowait(line)
        except queue.Full:
            self.left_out += 1

    def close(self) -> None:
        """Write what waits, as far as somebody reads it."""
        with contextlib.suppress(queue.Full):
            self._waiting.put(None, timeout=_LAST_WORDS_SECONDS)
        self._thread.join(_LAST_WORDS_SECONDS)

    def _write(self) -> None:
        while (line := self._waiting.get()) is not None:
            data = line.encode("utf-8", "replace") + b"\n"
            while data:
                try:
                    data = data[os.write(self._descriptor, data) :]
                except BlockingIOError:
                    time.sleep(0.01)  # somebody made it non-blocking: a terminal that is shared
                except OSError:
                    return  # its reader has gone, and nobody is left to be told


class Log:
    """One for each server, in one format."""

    def __init__(self, form: Format, lines: Lines) -> None:
        self._form, self._lines = form, lines

    def request(self, **facts: Any) -> None:
        """Write a line for a request: what is None is left out."""
        if self._form == "none":
            return
        status = facts["status"]
        self.write("info" if status < 500 else "error", "request", {k: v for k, v in facts.items() if v is not None})

    def write(self, level: str, event: str, facts: dict[str, Any]) -> None:
        """Write a line."""
        at = dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        if self._form == "json":
            self._lines.put(json.dumps({"time": at, "level": level, "event": event, **facts}))
        else:
            words = " ".join(f"{name}={_word(value)}" for name, value in facts.items())
            self._lines.put(f"{at} {level} {event} {words}")


def _word(value: Any) -> str:
    text = str(value)
    return text if text.isprintable() and text and not set(text) & set(' "=') else json.dumps(value)


@contextlib.contextmanager
def to(descriptor: int, form: Format) -> Iterator[Log]:
    """Write the log there; all that this process's libraries would log goes the same way. With "none" errors alone are written."""
    lines = Lines(descriptor)
    log = Log(form, lines)
    handler, root = _Handler(log), logging.getLogger()
    before, level = root.handlers[:], root.level
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    try:
        yield log
    finally:
        root.handlers = before
        root.setLevel(level)
        lines.close()


class _Handler(logging.Handler):
    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self._log = log
        self._latest: BaseException | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record down, without what may be a guest's or a caller's in it."""
        error = record.exc_info[1] if record.exc_info else None
        if error is not None and error is self._latest:
            return  # who answered for it told of it, and uvicorn does so once more
        facts: dict[str, Any] = {"logger": record.name}
        if record.name.partition(".")[0] in _OURS:
            facts["message"] = record.getMessage().strip()
        else:
            facts["place"] = f"{record.filename}:{record.lineno}"
        if error is not None:
            facts["errors"] = told(error)
        self._latest = error
        self._log.write(record.levelname.lower(), "log", facts)


def told(error: BaseException | None) -> list[str]:
    """Return an error and those that led to it, each with its class and the places it went through, the innermost last."""
    lines: list[str] = []
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        frames = traceback.extract_tb(error.__traceback__)
        places = " > ".join(f"{os.path.basename(each.filename)}:{each.lineno} {each.name}" for each in frames[-8:])
        lines.append(f"{type(error).__module__}.{type(error).__qualname__}: {places}")
        error = error.__cause__ or error.__context__
    return lines
