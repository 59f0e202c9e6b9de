"""Counters, histograms and a gauge. No attribute is an id, so there are few series however many calls are made."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from opentelemetry.metrics import Histogram, Meter, MeterProvider, get_meter

from .. import VERSION
from ..events import (
    DocumentSaved,
    Event,
    LimitChanged,
    Paused,
    Resumed,
    RetryScheduled,
    SubmissionInDoubt,
    WaitEnded,
)
from ..models import RequestStatus
from . import _names as names

__all__ = ["HTTP_BUCKETS", "LONG_BUCKETS", "Metrics"]

HTTP_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
"""Seconds, as the semantic conventions advise for requests."""

LONG_BUCKETS = (0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)
"""Seconds, for what takes from a moment to an hour."""

ENDS = frozenset({RequestStatus.SUCCESS.value, RequestStatus.FAILED.value})


def _duration(meter: Meter, name: str, buckets: Sequence[float], description: str) -> Histogram:
    return meter.create_histogram(name, "s", description, explicit_bucket_boundaries_advisory=buckets)


class Metrics:
    """The instruments, each fed by one kind of event, but for that of requests."""

    def __init__(self, provider: MeterProvider | None) -> None:
        meter = get_meter(names.SCOPE, VERSION, provider, names.SCHEMA)
        self._requests = _duration(
            meter, "http.client.request.duration", HTTP_BUCKETS, "Duration of HTTP client requests."
        )
        self._retries = meter.create_counter("invoicing.retries", "{retry}", "Attempts made again, by their reason.")
        self._pauses = meter.create_counter("invoicing.pauses", "{pause}", "Pauses begun while the service is down.")
        self._paused = _duration(
            meter,
            "invoicing.pause.duration",
            LONG_BUCKETS,
            "Duration of pauses, from the first failure to the first answer.",
        )
        self._limit = meter.create_gauge(
            "invoicing.concurrency.limit", "{call}", "Calls that may be under way at once, as last changed."
        )
        self._documents = meter.create_counter("invoicing.documents.saved", "{document}", "Whole documents saved.")
        self._bytes = meter.create_counter("invoicing.documents.bytes", "By", "Bytes of the documents saved.")
        self._operations = _duration(
            meter,
            "invoicing.operation.duration",
            LONG_BUCKETS,
            "Duration of an operation from when it is awaited, NEW, to its end, SUCCESS or FAILED.",
        )
        self._doubts = meter.create_counter(
            "invoicing.submissions.in_doubt", "{submission}", "Submissions that left and had no usable answer."
        )
        self._handlers: dict[type[Any], Callable[[Any], None]] = {
            RetryScheduled: self.retry_scheduled,
            Paused: self.lane_paused,
            Resumed: self.lane_resumed,
            LimitChanged: self.limit_changed,
            DocumentSaved: self.document_saved,
            WaitEnded: self.wait_ended,
            SubmissionInDoubt: self.in_doubt,
        }

    def tell(self, event: Event) -> None:
        """Take in an event."""
        handler = self._handlers.get(type(event))
        if handler is not None:
            handler(event)

    def record_request(self, seconds: float, attributes: Mapping[str, names.Value]) -> None:
        """Take in an attempt; of its attributes those count that are no more than there are servers and answers."""
        self._requests.record(seconds, {name: value for name, value in attributes.items() if name != names.URL})

    def retry_scheduled(self, event: RetryScheduled) -> None:
        self._retries.add(1, {names.OPERATION: event.operation, names.REASON: event.reason or ""})

    def lane_paused(self, event: Paused) -> None:
        if not event.paused:
            self._pauses.add(1, {names.OPERATION: event.operation})

    def lane_resumed(self, event: Resumed) -> None:
        self._paused.record(event.paused, {names.OPERATION: event.operation})

    def limit_changed(self, event: LimitChanged) -> None:
        self._limit.set(event.concurrency, {names.OPERATION: event.operation})

    def document_saved(self, event: DocumentSaved) -> None:
        self._documents.add(1)
        self._bytes.add(event.size)

    def wait_ended(self, event: WaitEnded) -> None:
        if event.error is None and event.status in ENDS:
            self._operations.record(event.elapsed, {names.REQUEST_STATUS: event.status})

    def in_doubt(self, event: SubmissionInDoubt) -> None:
        self._doubts.add(1, {} if event.status is None else {names.STATUS: event.status})
