"""What the service counts and measures, for Prometheus: https://prometheus.io/docs/instrumenting/exposition_formats/.

Promised: no label holds what a guest or a caller wrote, so there are only so many series, and nobody's code or secret is among
them. Counters are of this process alone; a restart begins them anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import choose_encoder

from .. import __version__
from ..runtimes import languages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from prometheus_client import Metric

# A warm program takes some 5 ms, a cold one 30, and one that computes up to 900 seconds.
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900)
#: What stands for a runtime of somebody's own: their names are the callers'.
OWN_RUNTIME = "runtime"


class Metrics:
    """One for each server, with a registry of its own. Any thread may call."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        Gauge("fumehood_info", "1, with the version.", ["version"], registry=self.registry).labels(__version__).set(1)
        self._executions = Counter(
            "fumehood_executions", "Executions and cells, by why they ended; not_run: they could not be run.",
            ["door", "language", "reason"], registry=self.registry,
        )  # fmt: skip
        self._execution_seconds = Histogram(
            "fumehood_execution_duration_seconds", "How long executions and cells took.", ["door", "language"],
            buckets=_SECONDS, registry=self.registry,
        )  # fmt: skip
        self._warm = Counter(
            "fumehood_executions_warm", "Executions forked from a warm interpreter.", ["language"],
            registry=self.registry,
        )  # fmt: skip
        self._running = Gauge("fumehood_executions_running", "Executions and cells that run.", registry=self.registry)
        self._refusals = Counter(
            "fumehood_egress_refusals", "Connections and requests of programs that the proxy refused.",
            registry=self.registry,
        )  # fmt: skip
        self._requests = Counter(
            "fumehood_requests", "Answered requests, by the pattern of their path.", ["route", "method", "status"],
            registry=self.registry,
        )  # fmt: skip
        self._request_seconds = Histogram(
            "fumehood_request_duration_seconds", "From a request's first byte to its answer's last.", ["route", "method"],
            buckets=_SECONDS, registry=self.registry,
        )  # fmt: skip

    def began(self) -> None:
        """Count an execution as running."""
        self._running.inc()

    def ended(self, door: str, language: str, reason: str, seconds: float, *, warm: bool, refusals: int) -> None:
        """Count it as one that has ended."""
        self._running.dec()
        if not reason:
            return
        name = kind_of(language)
        self._executions.labels(door, name, reason).inc()
        self._execution_seconds.labels(door, name).observe(seconds)
        if warm:
            self._warm.labels(name).inc()
        if refusals:
            self._refusals.inc(refusals)

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count a request. `route` and `method` are of closed sets."""
        self._requests.labels(route, method, str(status)).inc()
        self._request_seconds.labels(route, method).observe(seconds)

    def look(self, name: str, what: str, label: str, ask: Callable[[], Mapping[str, float]]) -> None:
        """Have a gauge whose values are asked for when somebody looks: by the label's values, or by "" without a label."""
        self.registry.register(_Asked(name, what, label, ask))

    def text(self, accept: str) -> tuple[bytes, str]:
        """Return all of it, and its media type."""
        encode, media_type = choose_encoder(accept)
        return encode(self.registry), media_type


class _Asked:
    def __init__(self, name: str, what: str, label: str, ask: Callable[[], Mapping[str, float]]) -> None:
        self._name, self._what, self._label, self._ask = name, what, label, ask

    def collect(self) -> Iterator[Metric]:
        family = GaugeMetricFamily(self._name, self._what, labels=[self._label] if self._label else None)
        for label, value in self._ask().items():
            family.add_metric([label] if self._label else [], value)
        yield family

    def describe(self) -> list[Metric]:
        """Say what it will give, without asking."""
        return [GaugeMetricFamily(self._name, self._what)]


def kind_of(language: str) -> str:
    """Return a language as it is counted: its own name, or one for all runtimes of somebody's own."""
    name = language.lower()
    return name if name in languages() else OWN_RUNTIME
