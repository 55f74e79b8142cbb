"""Finds whose a key is, and remembers that for a moment."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from starlette.concurrency import run_in_threadpool

from .store.keys import Quotas

if TYPE_CHECKING:
    from .store.common import Caller
    from .store.keeping import Store

#: For so long a server takes a key for good without asking the database: another server's revocation counts after that.
_TRUSTED_SECONDS = 1.0
_MOST_KNOWN = 10_000


class Doorman:
    """Finds whose a key is."""

    def __init__(self, store: Store) -> None:
        self._store, self._lock = store, threading.Lock()
        self._known: dict[str, tuple[float, Caller, Quotas]] = {}

    async def look_up(self, key: str) -> tuple[Caller, Quotas] | None:
        """Return who has a key, and its project's quotas; None where nobody has."""
        known = self._known.get(key)
        if known is not None and time.monotonic() < known[0]:
            return known[1], known[2]
        return await run_in_threadpool(self._ask, key)

    def look_up_id(self, key_id: str) -> tuple[Caller, Quotas] | None:
        """Return the same for a key's id; asked anew each time, so that a revoked key's visit is over at once."""
        caller = self._store.keys.caller_by_id(key_id)
        return None if caller is None else (caller, self._quotas(caller))

    def forget(self) -> None:
        """Ask anew from now on: a key or a quota was changed here."""
        with self._lock:
            self._known.clear()

    def _ask(self, key: str) -> tuple[Caller, Quotas] | None:
        until = time.monotonic() + _TRUSTED_SECONDS
        caller = self._store.keys.caller(key)
        if caller is None:
            return None
        quotas = self._quotas(caller)
        with self._lock:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[key] = (until, caller, quotas)
        return caller, quotas

    def _quotas(self, caller: Caller) -> Quotas:
        project = self._store.keys.project(caller.project_id)
        return Quotas() if project is None else project.quotas
