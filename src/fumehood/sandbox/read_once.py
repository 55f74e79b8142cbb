"""Numbers that the kernel keeps of a sandbox until it is taken away, for results that nobody may ever ask for them."""

from __future__ import annotations

import _thread
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class ReadOnce:
    """A number that open files of the kernel's tell about a sandbox, read when all of its processes are dead.

    That takes 10 to 50 us, more than a program's first line, so it is done once nobody waits for the result: by whoever takes
    the sandbox away, by whoever asks before, or before this process forks itself. `number` makes it of the descriptors. Any
    thread may call.
    """

    def __init__(self, number: Callable[[list[int]], int]) -> None:
        self._number = number
        # Of the kind that a handler of signals may take again.
        self._lock = _thread.RLock()
        self._opened: list[int] = []
        self._value = 0
        self._owner = os.getpid()

    def add(self, opened: Iterable[int]) -> None:
        """Take over descriptors of those files, before anybody else knows of this."""
        self._opened += opened

    def later(self) -> Callable[[], int]:
        """Return what returns the number, once all is over."""
        if not _PROMISED:
            _read_before_forks()
        _PROMISED.add(self)
        return self

    def __call__(self) -> int:
        """Return it, and close the files; 0 where there were none, they were closed unread, or the kernel would not say."""
        if self._owner == os.getpid():  # else what is open may be another's
            self._end(read=True)
        return self._value

    def close(self) -> None:
        """Close them unread, where nobody has asked."""
        self._end(read=False)

    def _end(self, *, read: bool) -> None:
        if self._owner != os.getpid():
            # A fork of the process, of one thread, and a thread that it has not may hold the lock.
            self._lock, self._owner = _thread.RLock(), os.getpid()
        with self._lock:
            _PROMISED.discard(self)
            opened, self._opened = self._opened, []
            try:
                if read and opened:
                    self._value = self._number(opened)
            except (OSError, ValueError, IndexError):
                pass  # whoever takes the sandbox away has more to do
            finally:
                for descriptor in opened:
                    os.close(descriptor)


# Those that results were given out with and nobody has read.
_PROMISED: set[ReadOnce] = set()
_reads_before_forks: list[bool] = []


def _read_before_forks() -> None:
    # Once a process, and not when this is loaded: zygotes load it, and programs would have it.
    if not _reads_before_forks:
        _reads_before_forks.append(True)
        os.register_at_fork(before=lambda: [each() for each in _PROMISED.copy()])
