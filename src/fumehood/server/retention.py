"""Forgets executions that are older than the operator wants them to be kept.

Promised: what is due is gone within an hour while a server runs, or within a minute where nothing is to be kept. What a project has
used stays counted, and the audit log is kept.
"""

from __future__ import annotations

import datetime as dt
import logging
import threading
from typing import TYPE_CHECKING

from ..errors import StoreUnavailable
from .store.common import written

if TYPE_CHECKING:
    from types import TracebackType

    from .store.keeping import Store

_LOOK_SECONDS, _LOOK_OFTEN_SECONDS = 3600.0, 60.0
log = logging.getLogger("fumehood.server")


class Retention:
    """Works while its `with` lasts. `days`: how long an execution is kept; 0 keeps none, None keeps all for ever."""

    def __init__(self, store: Store, days: float | None) -> None:
        self._store, self._days = store, days
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, name="fumehood-retention", daemon=True)

    def forget(self) -> int:
        """Forget what is due now; return how many."""
        if self._days is None:
            return 0
        return self._store.executions.forget_before(written(dt.datetime.now(dt.UTC) - dt.timedelta(days=self._days)))

    def __enter__(self) -> None:
        if self._days is not None:
            self._thread.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    def _work(self) -> None:
        pause = _LOOK_SECONDS if self._days else _LOOK_OFTEN_SECONDS
        while True:
            try:
                self.forget()
            except StoreUnavailable as error:
                log.warning("executions are not forgotten for now: %s", error)
            if self._over.wait(pause):
                return
