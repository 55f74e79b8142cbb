"""Spans of requests and executions, for OpenTelemetry: https://opentelemetry.io/docs/specs/semconv/http/http-spans/.

They are sent by OTLP over HTTP where OTEL_EXPORTER_OTLP_ENDPOINT or OTEL_EXPORTER_OTLP_TRACES_ENDPOINT says where to, and given to
the process's own tracer provider where there is one already. Promised: no span holds code, input, output, a path, a query or an
error's words; without a configuration nothing is loaded and nothing happens.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from opentelemetry.trace import Span, Tracer

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_LAST_WORDS_SECONDS = 3.0
log = logging.getLogger("fumehood.server")


class Mark:
    """A span that facts are told of; one of nothing where nobody traces."""

    def __init__(self, span: Span | None = None) -> None:
        self._span = span

    def name(self, name: str) -> None:
        """Name it anew."""
        if self._span is not None:
            self._span.update_name(name)

    def facts(self, **facts: Any) -> None:
        """Tell facts; a name's "__" stands for a dot, and what is None is left out."""
        if self._span is not None:
            self._span.set_attributes({k.replace("__", "."): v for k, v in facts.items() if v is not None})

    def failed(self) -> None:
        """Say that it went wrong."""
        if self._span is not None:
            from opentelemetry.trace import StatusCode  # noqa: PLC0415 - it is there by now

            self._span.set_status(StatusCode.ERROR)


class Tracing:
    """Makes spans by a tracer; none without one."""

    def __init__(self, tracer: Tracer | None = None, provider: Any = None) -> None:
        self._tracer, self._provider = tracer, provider

    @contextlib.contextmanager
    def request(self, method: str, headers: Mapping[str, str]) -> Iterator[Mark]:
        """A request's span, which goes on the caller's trace where its headers name one (W3C Trace Context)."""
        if self._tracer is None:
            yield Mark()
            return
        from opentelemetry.trace import SpanKind  # noqa: PLC0415 - as above
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

        carrier = {name: headers[name] for name in ("traceparent", "tracestate") if name in headers}
        context = TraceContextTextMapPropagator().extract(carrier)
        with self._tracer.start_as_current_span(
            method, context, kind=SpanKind.SERVER, attributes={"http.request.method": method}, record_exception=False,
            set_status_on_exception=False,
        ) as span:  # fmt: skip
            yield Mark(span)

    @contextlib.contextmanager
    def execution(self, door: str, language: str) -> Iterator[Mark]:
        """An execution's span."""
        if self._tracer is None:
            yield Mark()
            return
        facts = {"fumehood.door": door, "fumehood.language": language}
        with self._tracer.start_as_current_span(
            "execution", attributes=facts, record_exception=False, set_status_on_exception=False
        ) as span:
            yield Mark(span)

    def close(self) -> None:
        """Send what was not sent yet, as far as somebody takes it."""
        if self._provider is None:
            return
        # A collector that does not answer is waited for much longer.
        closing = threading.Thread(target=self._provider.shutdown, name="fumehood-traces-end", daemon=True)
        closing.start()
        closing.join(_LAST_WORDS_SECONDS)


def set_up() -> Tracing:
    """Return what the environment asks for, and the process has."""
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return Tracing()
    provider = _installed()
    if provider is not None:
        return Tracing(provider.get_tracer("fumehood"))
    if not any(os.environ.get(name) for name in _ENDPOINTS) or os.environ.get("OTEL_TRACES_EXPORTER") == "none":
        return Tracing()
    protocol = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    if protocol not in (None, "", "http/protobuf"):
        log.warning("no traces are sent: OTEL_EXPORTER_OTLP_PROTOCOL names another protocol than http/protobuf")
        return Tracing()
    return _exporting()


def _installed() -> Any:
    """Return the provider that somebody installed in this process; None where nobody did."""
    module = sys.modules.get("opentelemetry.trace")
    if module is None:
        return None
    provider = module.get_tracer_provider()
    return None if isinstance(provider, (module.ProxyTracerProvider, module.NoOpTracerProvider)) else provider


def _exporting() -> Tracing:
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - asked for
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ImportError:
        log.warning("no traces are sent: install fumehood[opentelemetry], or take OTEL_EXPORTER_OTLP_ENDPOINT away")
        return Tracing()
    named = {} if os.environ.get("OTEL_SERVICE_NAME") else {SERVICE_NAME: "fumehood"}
    provider = TracerProvider(resource=Resource.create(named), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    # Its own and not the process's: libraries would write paths and queries into spans of theirs.
    return Tracing(provider.get_tracer("fumehood"), provider)
