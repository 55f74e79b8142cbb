"""Has a child go on in the memory and the place of this process, which lies suspended from then on: a fork that copies nothing.

By `clone` with shared memory and `vfork`'s suspension. Whoever is suspended must never run again, since its stack is the child's:
the host stops it before the child does anything of its own accord. Promised: to the C library the child is the same thread, with
its new number, its robust list and its restartable sequence; to the interpreter it is the child of a fork.
"""

from __future__ import annotations

import ctypes
import os

from . import kernel
from .syscall_numbers import NUMBERS

# From include/uapi/linux/sched.h; the end of a child is told by SIGCHLD.
_CLONE_VM, _CLONE_VFORK, _SIGCHLD = 0x100, 0x4000, 17
_CLONE_CHILD_SETTID, _CLONE_CHILD_CLEARTID = 0x01000000, 0x00200000
_PR_GET_TID_ADDRESS = 40
# From include/uapi/linux/rseq.h and the C library: the size of what is registered, and the signature before each abort handler.
_RSEQ_BYTES, _RSEQ_SIGNATURES = 32, (0x53053053, 0xD428BC00)
_MOST_PROCESSORS = 1 << 16
_COLUMN = int(kernel.MACHINE == "aarch64")

# Keeps the interpreter lock, as in `kernel`: whoever returns from `clone` in the child owns it.
_libc = ctypes.PyDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.pthread_self.restype = ctypes.c_ulong


class Place:
    """What the kernel was told of this thread, and so of the one thread of each fork that it makes: both are in the same place.

    Read before the filter of system calls, which refuses the question.
    """

    def __init__(self) -> None:
        address = ctypes.c_void_p()
        kernel.prctl(_PR_GET_TID_ADDRESS, ctypes.addressof(address))
        if address.value is None or ctypes.c_int.from_address(address.value).value != _call("gettid"):
            raise OSError("the C library does not keep the number of its thread where the kernel writes it")
        self._tid = address.value
        self._robust, self._robust_bytes = ctypes.c_void_p(), ctypes.c_size_t()
        _call("get_robust_list", 0, ctypes.byref(self._robust), ctypes.byref(self._robust_bytes))
        self._sequence = _sequence()

    def hand_on(self) -> None:
        """Return in a grandchild. This process and its child are suspended, and end should it end before they are stopped.

        The child between them is there to be killed: by that the grandchild comes to be process 1's.
        """
        # When this process ends the kernel is to look for nothing of it in memory that is another's by then.
        _call("set_tid_address", 0)
        _call("set_robust_list", 0, self._robust_bytes)
        ctypes.pythonapi.PyOS_BeforeFork()
        for tid in (0, self._tid):
            flags = _CLONE_VM | _CLONE_VFORK | _SIGCHLD | ((_CLONE_CHILD_SETTID | _CLONE_CHILD_CLEARTID) if tid else 0)
            # The last two stand the other way round on arm64: of these only the number's place is ever given.
            last = (0, tid) if kernel.MACHINE == "aarch64" else (tid, 0)
            if _call("clone", flags, 0, 0, *last) != 0:
                os._exit(1)
        ctypes.pythonapi.PyOS_AfterFork_Child()
        _call("set_robust_list", self._robust, self._robust_bytes)
        if self._sequence is not None:
            _call("rseq", self._sequence, _RSEQ_BYTES, 0, _RSEQ_SIGNATURES[_COLUMN])


def _sequence() -> int | None:
    """Return the address of this thread's restartable sequence; None where the C library uses none."""
    try:
        size = ctypes.c_uint.in_dll(_libc, "__rseq_size").value
        offset = ctypes.c_ssize_t.in_dll(_libc, "__rseq_offset").value
    except ValueError:
        return None  # older than 2.35, or another library
    if size == 0:
        return None
    pointer = _libc.pthread_self()
    if kernel.MACHINE == "aarch64":
        # There the thread pointer is behind what the library keeps of a thread, on x86-64 it is that itself.
        pointer += ctypes.c_uint32.in_dll(_libc, "_thread_db_sizeof_pthread").value
    address: int = pointer + offset
    if ctypes.c_uint32.from_address(address + 4).value >= _MOST_PROCESSORS:
        raise OSError("the C library's restartable sequence is not where it should be")
    return address


def _call(name: str, *arguments: object) -> int:
    number = NUMBERS[name][_COLUMN]
    longs = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    result: int = _libc.syscall(ctypes.c_long(number or -1), *longs)
    if result < 0:
        errno = ctypes.get_errno()
        raise OSError(errno, f"{name}: {os.strerror(errno)}")
    return result
