"""OpenTelemetry's spans and metrics of what a session does, made of its events and of nothing else.

`Session(..., on_event=OpenTelemetry())`; with an observer of your own beside it, `events.combined` tells both. Only
`opentelemetry-api` is needed (`invoicing-async[otel]`), and imported when the first one is made.

- `_spans`: Spans of calls, attempts and waits, below what they were made in.
- `_metrics`: Counters, histograms and a gauge.
- `_names`: The attributes of both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._core.clock import Clock, RealClock
from ..events import Event

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

__all__ = ["OpenTelemetry"]


class OpenTelemetry:
    """An observer that makes spans and metrics of the events of any number of sessions.

    The providers are by default the global ones, also where these are set later. `clock` is by default the machine's;
    pass that of a session whose time is turned by hand.

    With `client_spans`, each attempt is the HTTP client's span, measured as `http.client.request.duration`; while it
    lasts, other instrumentation of HTTP clients is told, by OpenTelemetry's own key for that, to make none. Without, an
    attempt is an internal span: what instruments aiohttp makes the client's span below it, measures it, and names it to
    the service in `traceparent`.

    Raises `ImportError` naming the extra if `opentelemetry-api` is missing.
    """

    def __init__(
        self,
        *,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        client_spans: bool = True,
        clock: Clock | None = None,
    ) -> None:
        try:
            from ._metrics import Metrics
            from ._spans import Spans
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] != "opentelemetry":
                raise
            raise ImportError("telemetry needs opentelemetry-api; install invoicing-async[otel]") from error
        self._metrics = Metrics(meter_provider)
        self._spans = Spans(
            tracer_provider,
            clock or RealClock(),
            client_spans=client_spans,
            on_request=self._metrics.record_request if client_spans else None,
        )

    def __call__(self, event: Event) -> None:
        """Take in an event."""
        try:
            self._spans.tell(event)
        finally:  # what a provider of spans raises is none of the metrics'
            self._metrics.tell(event)
