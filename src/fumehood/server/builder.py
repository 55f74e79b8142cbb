"""Builds projects' runtimes in the background, one after another.

Promised: a revision that was answered for is built, or said to have failed: what a server left undone, another goes on with, or it
itself when it is back.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections import deque
from typing import TYPE_CHECKING

from ..errors import FumehoodError, RuntimeUnavailable, StoreUnavailable
from ..runtimes import packages, revisions
from ..runtimes.runtime import Host, say_nothing
from .faults import Fault
from .ids import new_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .store.keeping import Store
    from .store.runtimes import Revision

_LOOK_SECONDS, _SAY_SECONDS, _LINES = 2.0, 1.0, 5000
log = logging.getLogger("fumehood.server")


def name_of(revision: str) -> str:
    """Return the engine's name for a revision."""
    return f"rt-{revision.lower()}"


class Builder:
    """One for each server, with one thread."""

    def __init__(self, store: Store, without: Iterable[str]) -> None:
        self._store, self._id = store, new_id()
        self._host = Host(notice=say_nothing, without=frozenset(without))
        self._wake, self._lock = threading.Event(), threading.Lock()
        self._is_stopping = False
        self._latest_project = ""
        # The build that runs: its revision's id, and the descriptor that ends it.
        self._current: tuple[str, int] | None = None
        # Revisions that were built elsewhere, and are to be built here too.
        self._wanted: dict[str, Revision] = {}
        self._failed: dict[str, str] = {}
        self._thread = threading.Thread(target=self._work, name="fumehood-builder", daemon=True)

    def start(self) -> None:
        """Begin to build what is to be built."""
        self._thread.start()

    @property
    def works(self) -> bool:
        """Whether it builds what is to be built."""
        return self._thread.is_alive()

    def look(self) -> None:
        """Say that there is something new to build."""
        self._wake.set()

    def close(self) -> None:
        """Stop; what is being built begins anew when a server is there again."""
        self._is_stopping = True
        self._wake.set()
        self._end_build(None)
        if self._thread.is_alive():
            self._thread.join()

    def ready(self, revision: Revision) -> str:
        """Return the engine's name for a revision that programs may run on. Raises `RuntimeUnavailable`, or a 503 to try again."""
        name = name_of(revision.id)
        if revision.status == "failed":
            raise RuntimeUnavailable(f"runtime revision {revision.id} could not be built: its log says why")
        if revision.status != "succeeded":
            raise Fault(503, f"runtime revision {revision.id} is {revision.status}: ask again", retry_after=1)
        if packages.own(name) is None:
            if name in self._failed:
                raise RuntimeUnavailable(
                    f"runtime revision {revision.id} could not be built on this server: {self._failed[name]}; "
                    "add a revision, or start the server anew to try again"
                )
            self._wanted[name] = revision
            self._wake.set()
            raise Fault(503, f"runtime revision {revision.id} is being built on this server: ask again", retry_after=2)
        return name

    def remove(self, revision: str) -> None:
        """Remove what was built of a revision that is no more."""
        self._end_build(revision)
        revisions.remove_revision(name_of(revision))

    def _end_build(self, revision: str | None) -> None:
        with self._lock:
            if self._current is not None and revision in (None, self._current[0]):
                os.eventfd_write(self._current[1], 1)

    def _work(self) -> None:
        while not self._is_stopping:
            try:
                if self._build_one():
                    continue
            except StoreUnavailable as error:
                log.warning("runtimes are not built for now: %s", error)
            self._wake.wait(_LOOK_SECONDS)
            self._wake.clear()

    def _build_one(self) -> bool:
        while self._wanted:
            name, revision = self._wanted.popitem()
            try:
                self._make(revision, lambda _line: None)
            except FumehoodError as error:
                self._failed[name] = str(error)
        taken = self._store.runtimes.take(self._id, self._latest_project)
        if taken is not None:
            self._latest_project = taken.project_id
            self._build(taken)
        return taken is not None

    def _build(self, revision: Revision) -> None:
        words = _Words(self._say, revision.id)
        try:
            with words:
                self._make(revision, words.hear)
        except FumehoodError as error:
            if self._is_stopping:
                self._store.runtimes.end(self._id, revision.id, "pending", "")
                return
            words.hear(str(error))
            kept = self._store.runtimes.end(self._id, revision.id, "failed", words.text)
        else:
            kept = self._store.runtimes.end(self._id, revision.id, "succeeded", words.text)
        if not kept:
            # It was deleted meanwhile.
            revisions.remove_revision(name_of(revision.id))

    def _say(self, revision: str, text: str) -> None:
        if not self._store.runtimes.progress(self._id, revision, text):
            self._end_build(revision)

    def _make(self, revision: Revision, hear: Callable[[str], None]) -> None:
        with self._lock:
            self._current = revision.id, os.eventfd(0, os.EFD_CLOEXEC)
        try:
            if self._is_stopping:
                self._end_build(None)
            revisions.build_revision(
                name_of(revision.id),
                revision.manifest_name,
                revision.manifest,
                self._host,
                hear,
                cancel=self._current[1],
            )
        finally:
            with self._lock:
                os.close(self._current[1])
                self._current = None


class _Words:
    """What a builder says, written down each second, so that others see that it is at work."""

    def __init__(self, say: Callable[[str, str], None], revision: str) -> None:
        self._say, self._revision = say, revision
        self._lines: deque[str] = deque(maxlen=_LINES)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._write, name="fumehood-build-log", daemon=True)

    @property
    def text(self) -> str:
        return "\n".join(list(self._lines))

    def hear(self, line: str) -> None:
        # A database's texts have no NUL, and what is no Unicode has no place in them.
        self._lines.append(line.replace("\0", "").encode("utf-8", "replace").decode())

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_error: object) -> None:
        self._over.set()
        self._thread.join()

    def _write(self) -> None:
        while not self._over.wait(_SAY_SECONDS):
            with contextlib.suppress(StoreUnavailable):
                self._say(self._revision, self.text)
