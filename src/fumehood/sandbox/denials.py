"""Answers, one by one, the system calls that a sandbox's filter refuses, and remembers which they were.

For `fumehood run --explain`: the filter then asks this process instead of answering by itself. Promised: the answer is the
one that the ordinary filter gives, found by running it (`seccomp.decide`); no refused call is let through. Not promised: that
the arguments are what the program meant; they are not looked at but for that.
"""

from __future__ import annotations

import errno
import os
import struct

from ..protocol.execution import DeniedCall
from . import filters, kernel, seccomp, syscalls
from .syscall_numbers import NUMBERS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# From include/uapi/linux/seccomp.h: struct seccomp_notif and its answer, and the orders that carry them.
_NOTIFICATION, _ANSWER = struct.Struct("=QIIiIQ6Q"), struct.Struct("=QqiI")
_RECEIVE, _SEND, _IS_VALID = 0xC0502100, 0xC0182101, 0x40082102
# So many kinds of calls are told apart; a program can make up as many as there are numbers.
_MOST = 100
_COLUMN = {"x86_64": 0, "aarch64": 1}[kernel.MACHINE] if kernel.MACHINE in ("x86_64", "aarch64") else 0


class Denials:
    """What one sandbox was refused. `profile` and `sampled` name its filter."""

    def __init__(self, profile: str, *, sampled: bool) -> None:
        self._program = filters.load(kernel.MACHINE, profile, sampled=sampled)
        self._counts: dict[tuple[str, str], int] = {}

    def answer(self, listener: int) -> None:
        """Answer the call that waits at the listener's descriptor; nothing happens where its maker has died meanwhile."""
        import fcntl  # noqa: PLC0415 - a shared object that only explanations load

        buffer = bytearray(_NOTIFICATION.size)
        try:
            fcntl.ioctl(listener, _RECEIVE, buffer)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINTR):
                return
            raise
        mark, thread, _flags, number, arch, _at, *arguments = _NOTIFICATION.unpack(buffer)
        verdict = seccomp.decide(self._program, arch, number, tuple(arguments))
        if verdict & ~0xFFFF == seccomp.REFUSE:
            refusal = verdict & 0xFFFF
            self._count(_name(number), errno.errorcode[refusal])
            response = _ANSWER.pack(mark, 0, -refusal, 0)
            try:
                fcntl.ioctl(listener, _SEND, bytearray(response))
            except FileNotFoundError:
                pass
        else:
            self._count(_name(number), "killed")
            try:
                _kill(thread, lambda: fcntl.ioctl(listener, _IS_VALID, struct.pack("=Q", mark)))
            except (FileNotFoundError, ProcessLookupError, StopIteration):
                pass  # somebody else has killed it meanwhile

    def _count(self, name: str, answer: str) -> None:
        key = (name, answer)
        if key not in self._counts and len(self._counts) >= _MOST:
            key = ("others", answer)
        self._counts[key] = self._counts.get(key, 0) + 1

    def calls(self) -> tuple[DeniedCall, ...]:
        """Return what was refused, in the order in which it was first tried."""
        return tuple(
            DeniedCall(call=name, answer=answer, count=count, why=why(name))
            for (name, answer), count in self._counts.items()
        )


def why(name: str) -> str:
    """Return why a system call is refused, in the table's words."""
    for groups in (
        syscalls.REFUSED,
        syscalls.UNSUPPORTED,
        syscalls.HOSTILE,
        syscalls.ABSENT,
        *syscalls.PROFILES.values(),
    ):
        for reason, names in groups:
            if name in names.split():
                return reason
    return syscalls.CHECKED.get(name, "no group of the table names it")


def _name(number: int) -> str:
    name = next((name for name, numbers in NUMBERS.items() if numbers[_COLUMN] == number), None)
    return name or f"system call {number}"


def _kill(thread: int, check: Callable[[], object]) -> None:
    """Kill the process of a thread that waits for an answer, as the ordinary filter would; it never gets one."""
    with open(f"/proc/{thread}/status", encoding="utf-8", errors="replace") as file:
        process = next(int(line.split()[1]) for line in file if line.startswith("Tgid:"))
    pidfd = os.pidfd_open(process)
    try:
        # The thread still waits, so the number was its process's when it was looked up.
        check()
        kernel.send_signal(pidfd, 9)
    finally:
        os.close(pidfd)
