"""The first page's numbers, of one project; and the walls, which are the machine's."""

from __future__ import annotations

import datetime as dt
import threading
import time
from typing import TYPE_CHECKING, Any

from ...errors import FumehoodError
from ...sandbox import canary
from ...sandbox.walls import GVISOR_WALLS, WALLS
from . import plots

if TYPE_CHECKING:
    from ...sandbox.walls import Finding
    from ..service import Service
    from ..store.common import Caller

#: From how many executions the latency is told.
RECENT = 1000
_AGAIN_SECONDS = 60.0


class Walls:
    """What a canary has seen of each wall, as `fumehood doctor` shows it. Looked for once: it takes as long as an execution."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: list[Finding] = []
        self._problem, self._problem_until = "", 0.0

    def look(self, service: Service) -> dict[str, Any]:
        """Return the findings and what each wall is for; or why nothing could be seen."""
        with self._lock:
            if not self._found and time.monotonic() >= self._problem_until:
                self._probe(service)
            meanings = {**WALLS, **GVISOR_WALLS, "cgroup": "memory and processes of the whole tree"}
            walls = [
                {"name": each.wall, "up": each.up, "seen": each.seen, "remedy": each.remedy,
                 "meaning": meanings.get(each.wall, ""), "given_up": each.wall in service.engine.without}
                for each in self._found
            ]  # fmt: skip
            return {"walls": walls, "problem": self._problem}

    def _probe(self, service: Service) -> None:
        engine = service.engine
        try:
            self._found = [*canary.probe(engine.spawn, engine.without, engine.runsc), canary.memory_tier()]
            self._problem = ""
        except FumehoodError as error:
            self._problem, self._problem_until = str(error), time.monotonic() + _AGAIN_SECONDS


def numbers(service: Service, caller: Caller) -> dict[str, Any]:
    """Return today's numbers, the plots and what lives now."""
    now, project = dt.datetime.now(dt.UTC), caller.project_id
    buckets = service.store.executions.buckets(project, plots.since(now), 13)
    recent = service.store.executions.listed(project, limit=RECENT)
    took = sorted(each.duration_ms for each in recent)
    living = [each for each in service.sessions.listed(caller) if each.session.status != "dead"]
    return {
        "used": service.store.keys.used(project),
        "warm": service.engine.warm_sandboxes,
        "running": service.gate.running_now(project),
        "sessions": len(living),
        "busy": sum(each.session.status == "busy" for each in living),
        "median": plots.percentile(took, 0.5),
        "slow": plots.percentile(took, 0.95),
        "recent": recent[:6],
        "measured": len(took),
        "executions_plot": plots.executions(buckets, now),
        "latency_plot": plots.latency(buckets, now),
        "buckets": list(reversed(buckets)),
    }
