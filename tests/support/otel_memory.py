"""OpenTelemetry's SDK with everything kept in memory, and the observer that feeds it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from invoicing_async.telemetry import OpenTelemetry


class Telemetry:
    """Providers of a test's own, and the observer. `tracer` makes the spans of the user's own code."""

    def __init__(self, **options: Any) -> None:
        self._exporter, self._reader = InMemorySpanExporter(), InMemoryMetricReader()
        self.tracers = TracerProvider(shutdown_on_exit=False)
        self.tracers.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.meters = MeterProvider([self._reader], shutdown_on_exit=False)
        self.tracer = self.tracers.get_tracer("user")
        self.observer = OpenTelemetry(tracer_provider=self.tracers, meter_provider=self.meters, **options)

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        """In the order in which they ended."""
        return self._exporter.get_finished_spans()

    def named(self, *names: str) -> list[ReadableSpan]:
        return [span for span in self.spans if span.name in names]

    def below(self, span: ReadableSpan) -> list[ReadableSpan]:
        """The children of a span, in the order in which they began."""
        found = [other for other in self.spans if other.parent and other.parent.span_id == span.context.span_id]
        return sorted(found, key=lambda other: other.start_time or 0)

    @property
    def orphans(self) -> list[str]:
        """The names of spans whose parent was never seen."""
        known = {span.context.span_id for span in self.spans}
        return [span.name for span in self.spans if span.parent and span.parent.span_id not in known]

    @property
    def is_empty(self) -> bool:
        """True if the observer holds nothing of what was under way."""
        spans = self.observer._spans
        return not spans.calls and not spans.waits and not spans._wait_count

    def metrics(self) -> dict[str, Any]:
        data = self._reader.get_metrics_data()
        resources = data.resource_metrics if data else ()
        return {metric.name: metric for one in resources for scope in one.scope_metrics for metric in scope.metrics}

    def points(self, name: str) -> dict[frozenset[tuple[str, Any]], Any]:
        """What a metric came to by its attributes: a number, of a histogram its sum."""
        metric = self.metrics().get(name)
        found = metric.data.data_points if metric else ()
        return {
            frozenset(point.attributes.items()): point.sum if hasattr(point, "bucket_counts") else point.value
            for point in found
        }


def events(span: ReadableSpan) -> list[tuple[str, Mapping[str, Any]]]:
    return [(event.name, dict(event.attributes or {})) for event in span.events]


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def times(span: ReadableSpan) -> tuple[float, float]:
    """When it began and ended, in seconds since the epoch to the microsecond."""
    assert span.start_time is not None
    assert span.end_time is not None
    return round(span.start_time / 1e9, 6), round(span.end_time / 1e9, 6)
