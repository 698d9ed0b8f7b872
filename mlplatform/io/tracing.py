"""Traces: what a request led to, through all processes, where OTEL_EXPORTER_OTLP_ENDPOINT says.

Without it nothing is loaded and nothing is kept; what a client sent as `traceparent` is handed on all the
same. A trace goes from process to process by the W3C's `traceparent`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

_provider: TracerProvider | None = None
SCOPE = "mlplatform"


def configure(service: str, endpoint: str | None) -> None:
    """Sends the spans of this process, as those of `service`, to an OTLP endpoint; None: nowhere."""
    global _provider
    if endpoint is None or _provider is not None:
        return
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    # The rest of OTEL_… is read by the exporter itself.
    _provider = TracerProvider(resource=Resource.create({"service.name": f"mlplatform-{service}"}))
    _provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))


@contextmanager
def span(
    name: str, parent: str | None = None, kind: str = "INTERNAL", **attributes: Any
) -> Iterator[str | None]:
    """A part of the trace.

    Args:
        parent: a `traceparent`; None: the span around this one, or none.
        kind: `SERVER`, `CLIENT`, `PRODUCER`, `CONSUMER` or `INTERNAL`.

    Yields:
        The `traceparent` of what happens inside; without tracing, the parent's.
    """
    if _provider is None:
        yield parent
        return
    from opentelemetry.trace import SpanKind
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    propagator = TraceContextTextMapPropagator()
    context = propagator.extract({"traceparent": parent}) if parent else None
    tracer = _provider.get_tracer(SCOPE)
    with tracer.start_as_current_span(name, context, SpanKind[kind], attributes=attributes):
        carrier: dict[str, str] = {}
        propagator.inject(carrier)
        yield carrier.get("traceparent")


def tell(attributes: Mapping[str, Any], name: str | None = None, failed: bool = False) -> None:
    """What is known of the innermost span only later."""
    if _provider is None:
        return
    from opentelemetry.trace import Status, StatusCode, get_current_span

    current = get_current_span()
    current.set_attributes(dict(attributes))
    if name:
        current.update_name(name)
    if failed:
        current.set_status(Status(StatusCode.ERROR))


def flush() -> None:
    """Sends what has not been sent yet, from a process that may end without the interpreter's farewell."""
    if _provider is not None:
        _provider.force_flush()
