"""Whether the service can work: its database answers, the walls hold, and somebody builds runtimes.

Promised: an answer within three seconds, whatever the database does.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from ..errors import FumehoodError, StoreUnavailable
from ..sandbox import admission
from .store import health

if TYPE_CHECKING:
    from .service import Service

_DATABASE_SECONDS = 2.0
# Nobody need have a key to ask: an answer holds for all who ask in the same moment.
_FRESH_SECONDS = 1.0
# Where walls are missing, looking anew takes as long as an execution.
_WALLS_AGAIN_SECONDS = 10.0
log = logging.getLogger("fumehood.server")


class Readiness:
    """Looks at what the service cannot work without."""

    def __init__(self, service: Service) -> None:
        self._service, self._lock = service, threading.Lock()
        self._parts: dict[str, bool] = {}
        self._fresh_until = 0.0
        self._walls, self._walls_until = False, 0.0
        # A look at the database that has not come back.
        self._looking: threading.Thread | None = None

    def parts(self) -> dict[str, bool]:
        """Return each part, and whether it works."""
        with self._lock:
            if time.monotonic() >= self._fresh_until:
                self._parts = {
                    "database": self._database(),
                    "walls": self._walls_hold(),
                    "builder": self._service.builder.works,
                }
                self._fresh_until = time.monotonic() + _FRESH_SECONDS
            return self._parts

    def _database(self) -> bool:
        if self._looking is not None and self._looking.is_alive():
            return False
        found: list[bool] = []

        def look() -> None:
            try:
                health.answers(self._service.store.database)
                found.append(True)
            except StoreUnavailable as error:
                log.warning("not ready: %s", error)

        self._looking = threading.Thread(target=look, name="fumehood-look", daemon=True)
        self._looking.start()
        self._looking.join(_DATABASE_SECONDS)
        return bool(found)

    def _walls_hold(self) -> bool:
        # Once they were seen to hold they do until the next boot.
        if self._walls or time.monotonic() < self._walls_until:
            return self._walls
        engine = self._service.engine
        try:
            admission.require(engine.spawn, engine.without, engine.runsc)
            self._walls = True
        except FumehoodError as error:
            log.warning("not ready: %s", error)
            self._walls_until = time.monotonic() + _WALLS_AGAIN_SECONDS
        return self._walls
