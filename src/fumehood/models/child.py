"""Another server as a child of ours: it has a process group of its own, its output is passed on, and it ends with us.

Promised: on every way out of the `with`, and when we are killed, each process of its group is asked to end and a moment later
made to. Not promised: what leaves the group, as a daemon does.
"""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import threading
from collections import deque
from contextlib import ExitStack
from typing import TYPE_CHECKING, BinaryIO, Self

from ..errors import ConfigurationError, InvalidRequest, ModelServerEnded

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

_LAST_LINES = 12
_LINE_BYTES = 4096
#: Between asking it to end and making it.
GRACE_SECONDS = 10.0
# Reads until we are gone, by whatever death: the kernel closes the other end. It is no process of the group, so that it is
# not ended with it. PR_SET_PDEATHSIG would reach the first process alone, and servers have workers.
_GUARD = """read _
kill -TERM -"$1"
while [ "$2" -gt 0 ] && kill -0 -"$1"; do sleep 1; set -- "$1" $(($2 - 1)); done
kill -KILL -"$1"
"""


def opened(log: Path) -> BinaryIO:
    """Open a file that output is added to, for its owner alone where it is new. Raises `InvalidRequest`."""
    try:
        return open(log, "ab", buffering=0, opener=lambda name, flags: os.open(name, flags, 0o600))
    except OSError as error:
        raise InvalidRequest(f"--log {log}: it cannot be written: {error.strerror}") from error


class Child:
    """Runs while its `with` lasts. Each line of its output goes to `heard`, or with `log` to that file and nowhere else."""

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        heard: Callable[[str], None],
        log: Path | None = None,
    ) -> None:
        self._command = tuple(command)
        self._environment = dict(environment)
        self._heard = heard
        self._log = log
        self._lines: deque[str] = deque(maxlen=_LAST_LINES)
        self._reader = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._file = stack.enter_context(opened(self._log)) if self._log is not None else None
            self._process = _started(self._command, self._environment)
            self._pidfd = os.pidfd_open(self._process.pid)
            stack.callback(os.close, self._pidfd)
            stack.callback(self._end)
            guard = stack.enter_context(_guarding(self._process.pid))
            stack.callback(guard.kill)
            # While the group is ended its guard is still there; once it has, its number may be another's. Twice is once.
            stack.callback(self._end)
            self._reader.start()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stack.close()

    def check(self) -> None:
        """Raise `ModelServerEnded` where it has ended, with its last lines."""
        self.wait(0)

    def wait(self, timeout_seconds: float | None = None) -> None:
        """Wait until it ends, then raise `ModelServerEnded`; return where it still runs when the time is over."""
        if self._ends_within(timeout_seconds):
            raise self._death()

    def _ends_within(self, timeout_seconds: float | None) -> bool:
        waiting = select.poll()
        waiting.register(self._pidfd, select.POLLIN)
        return bool(waiting.poll(None if timeout_seconds is None else timeout_seconds * 1000))

    def _end(self) -> None:
        if self._process.returncode is not None:
            return
        self._signal(signal.SIGTERM)
        self._ends_within(GRACE_SECONDS)
        # Before it is reaped: until then the group keeps its number, so this reaches its workers and nobody else.
        self._signal(signal.SIGKILL)
        self._process.wait()
        if self._reader.ident is not None:
            self._reader.join(GRACE_SECONDS)

    def _signal(self, number: int) -> None:
        try:
            os.killpg(self._process.pid, number)
        except (ProcessLookupError, PermissionError):
            pass

    def _read(self) -> None:
        if self._process.stdout is None:
            return
        with self._process.stdout as stream:
            while data := stream.readline(_LINE_BYTES):
                line = self._keep(data)
                try:
                    if self._file is None:
                        self._heard(line)
                    else:
                        self._file.write(data)
                except OSError:
                    # Nobody listens any more, or the disk is full: what is not read would stop the server.
                    pass

    def _keep(self, data: bytes) -> str:
        # A bar is drawn over and over in one line: its last state is what is there to see.
        line = re.split(r"\r(?=.)", data.decode("utf-8", "replace").rstrip("\r\n"))[-1]
        self._lines.append(line)
        return line

    def _death(self) -> ModelServerEnded:
        # What it said last is still on its way.
        self._reader.join(1)
        told = os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
        code = told.si_status if told is not None else 0
        how = f"exit code {code}" if told is not None and told.si_code == os.CLD_EXITED else f"signal {code}"
        last = "\n".join(f"  {line}" for line in self._lines) or "  (nothing)"
        return ModelServerEnded(f"{self._command[0]} ended by itself ({how}). Its last lines:\n{last}")


def _started(command: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        raise ConfigurationError(f"{command[0]} cannot be started: {error.strerror}") from error


def _guarding(group: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        ("/bin/sh", "-c", _GUARD, "guard", str(group), str(int(GRACE_SECONDS))),
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
