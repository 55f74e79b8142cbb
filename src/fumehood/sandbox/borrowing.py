"""Children that borrow this process's memory: to make one copies nothing, and it is a process of its own in all else.

Promised: what such a child does to its namespaces, user, root, current folder and descriptors is its own; what it does to memory
stays. Not promised: that this process can go on after one that was killed halfway; whoever runs one ends with it then.
"""

from __future__ import annotations

import ctypes
import mmap
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# From include/uapi/linux/sched.h; the end of the child is told by SIGCHLD.
_CLONE_VM, _CLONE_VFORK, _SIGCHLD = 0x100, 0x4000, 17
# An interpreter's frames are on the heap, but not those of its C functions.
_STACK_BYTES = 1 << 19

# Keeps the interpreter lock, as in `kernel`: the child owns it, and this process has it again when it goes on.
_libc = ctypes.PyDLL(None, use_errno=True)
_BODY = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p)


def run(body: Callable[[], int]) -> int:
    """Run `body` in a child while this process lies suspended; return the child's wait status, 0 where SIGCHLD is ignored.

    `body` returns the exit status and raises nothing. This process has one thread, and waits for children of no one else. Where the
    status is a signal's, memory is as `body` left it halfway: end at once.
    """
    stack = mmap.mmap(-1, _STACK_BYTES, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    first = ctypes.c_char.from_buffer(stack)
    try:
        function = _BODY(lambda _none: body())
        top = ctypes.c_void_p((ctypes.addressof(first) + _STACK_BYTES) & ~15)
        # On a stack of its own: what it leaves on this one this process would return to.
        pid: int = _libc.clone(function, top, _CLONE_VM | _CLONE_VFORK | _SIGCHLD, None)
        if pid < 0:
            errno = ctypes.get_errno()
            raise OSError(errno, f"clone: {os.strerror(errno)}")
        try:
            return os.waitpid(pid, 0)[1]
        except ChildProcessError:
            return 0  # the kernel took it away: SIGCHLD is ignored here
    finally:
        del first
        stack.close()
