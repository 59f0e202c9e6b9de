"""Spans of calls, attempts and waits: each begins and ends with its event, and is forgotten then."""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Callable, Iterator, Mapping
from contextvars import Token
from typing import Any

from attrs import define
from opentelemetry import context as otel
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, TracerProvider, get_tracer, set_span_in_context

from .. import VERSION
from .._core.clock import Clock
from .._values.text import one_line
from ..events import (
    AttemptFailed,
    CallCancelled,
    CallFailed,
    CallStarted,
    Event,
    OperationPolled,
    Paused,
    RequestStarted,
    RequestSucceeded,
    Resumed,
    RetryScheduled,
    WaitEnded,
    WaitStarted,
)
from . import _names as names

__all__ = ["MOST_WAITS", "Spans"]

MOST_WAITS = 10_000
"""Waits that have a span at once: a million may be waited for, and each span takes some kilobytes."""

WAIT = "wait_for_invoice"
"""The name of a wait's span."""

_NO_HTTP = getattr(otel, "_SUPPRESS_HTTP_INSTRUMENTATION_KEY", None)
"""The key by which instrumentation of HTTP clients is asked to stay silent; OpenTelemetry has no public name for it."""

OnRequest = Callable[[float, Mapping[str, names.Value]], None]
"""Is told of the seconds and the attributes of each attempt."""


@define(eq=False)
class OpenAttempt:
    """An attempt that is under way, and the context in which it is what is done now."""

    span: Span
    begun: float
    context: Context
    token: Token[Context]

    def leave(self) -> None:
        """Make what was done before it what is done now, unless it ends elsewhere than it began."""
        if otel.get_current() is self.context:
            otel.detach(self.token)


@define(eq=False)
class OpenCall:
    """A call that is under way."""

    event: CallStarted
    span: Span
    target: Mapping[str, names.Value]
    sent: int = 0
    """How often its request was sent."""
    retry: RetryScheduled | None = None
    """Why it is sent again, and after which wait."""
    attempt: OpenAttempt | None = None

    def end(self, attempts: int, queued: float, error: BaseException | None, now: int) -> None:
        """End its span, at this time in nanoseconds."""
        ending: dict[str, names.Value] = {names.ATTEMPTS: attempts, names.QUEUED: queued}
        if error is not None:
            ending[names.ERROR_TYPE] = type(error).__qualname__
            if (sent := getattr(error, "sent", None)) is not None:
                ending[names.SENT] = sent
            self.span.set_status(Status(StatusCode.ERROR, one_line(str(error))))
        self.span.set_attributes(ending)
        self.span.end(now)


@define(eq=False)
class OpenWait:
    """A wait that is under way."""

    event: WaitStarted
    span: Span


class Spans:
    """The spans that are open. Every time is the clock's. `on_request` is told of each attempt that ended."""

    def __init__(
        self, provider: TracerProvider | None, clock: Clock, *, client_spans: bool, on_request: OnRequest | None
    ) -> None:
        self._tracer = get_tracer(names.SCOPE, VERSION, provider, names.SCHEMA)
        self._clock = clock
        self._client_spans = client_spans
        self._on_request = on_request
        self.calls: dict[int, OpenCall] = {}
        self.waits: dict[str, dict[int, OpenWait]] = {}
        """By the id of the request, then by their own."""
        self._wait_count = 0
        self._handlers: dict[type[Any], Callable[[Any], None]] = {
            CallStarted: self.call_started,
            RequestStarted: self.request_started,
            AttemptFailed: self.attempt_failed,
            RetryScheduled: self.retry_scheduled,
            RequestSucceeded: self.succeeded,
            CallFailed: self.failed,
            CallCancelled: self.cancelled,
            WaitStarted: self.wait_started,
            OperationPolled: self.polled,
            WaitEnded: self.wait_ended,
            Paused: self.paused,
            Resumed: self.resumed,
        }

    def tell(self, event: Event) -> None:
        """Take in an event; one of a call whose beginning was not told is left alone."""
        handler = self._handlers.get(type(event))
        if handler is not None:
            handler(event)

    def _now(self) -> int:
        """Return the time as spans have it, in nanoseconds since the epoch."""
        return int(self._clock.now() * 1e9)

    def call_started(self, event: CallStarted) -> None:
        above: Context | None = None  # what is done now
        if event.is_step:
            # Polls of all waits share some tasks, which any of those who wait may have begun.
            waits = self.waits.get(event.subject)
            above = set_span_in_context(next(iter(waits.values())).span) if waits else Context()
        attributes: dict[str, names.Value] = {names.OPERATION: event.operation, names.CALL_ID: event.call_id}
        if event.subject:
            attributes[names.SUBJECT] = event.subject
        if event.store:
            attributes[names.STORE] = event.store
        name = event.operation or event.method
        span = self._tracer.start_span(name, above, attributes=attributes, start_time=self._now())
        self.calls[event.call_id] = OpenCall(event, span, names.target(event))

    def request_started(self, event: RequestStarted) -> None:
        call = self.calls.get(event.call_id)
        if call is None:
            return
        attributes = {**call.target, names.ATTEMPT: event.attempt}
        if call.sent:
            attributes[names.RESENT] = call.sent
        if call.retry is not None:
            attributes[names.REASON], attributes[names.WAIT_BEFORE] = call.retry.reason or "", call.retry.delay
        method = str(call.target[names.METHOD])
        span = self._tracer.start_span(
            "HTTP" if method == names.OTHER_METHOD else method,
            set_span_in_context(call.span),
            kind=SpanKind.CLIENT if self._client_spans else SpanKind.INTERNAL,
            attributes=attributes,
            start_time=self._now(),
        )
        context = set_span_in_context(span)
        if self._client_spans and _NO_HTTP is not None:
            context = otel.set_value(_NO_HTTP, True, context)
        call.sent, call.retry = call.sent + 1, None
        call.attempt = OpenAttempt(span, self._clock.monotonic(), context, otel.attach(context))

    def attempt_failed(self, event: AttemptFailed) -> None:
        call = self.calls.get(event.call_id)
        if call is not None and not self._end_attempt(call, event.status, event.error):
            why = type(event.error).__qualname__
            call.span.add_event(names.UNSENT, {names.ATTEMPT: event.attempt, names.ERROR_TYPE: why}, self._now())

    def retry_scheduled(self, event: RetryScheduled) -> None:
        call = self.calls.get(event.call_id)
        if call is not None:
            call.retry = event
            why: dict[str, names.Value] = {names.REASON: event.reason or "", names.WAIT_BEFORE: event.delay}
            call.span.add_event(names.RETRY, {names.ATTEMPT: event.attempt, **why}, self._now())

    def succeeded(self, event: RequestSucceeded) -> None:
        self._end_call(event, event.attempts)

    def failed(self, event: CallFailed) -> None:
        self._end_call(event, event.attempts, event.error)

    def cancelled(self, event: CallCancelled) -> None:
        self._end_call(event, event.attempts, CancelledError("the call was cancelled"))

    def _end_attempt(self, call: OpenCall, status: int | None, error: BaseException | None) -> bool:
        """End the attempt that is under way, if there is one."""
        attempt, call.attempt = call.attempt, None
        if attempt is None:
            return False
        attempt.leave()
        ending: dict[str, names.Value] = {} if status is None else {names.STATUS: status}
        if error is not None:
            ending[names.ERROR_TYPE] = names.error_type(error, status)
            # What the status says needs no words.
            said = None if ending[names.ERROR_TYPE] == str(status) else one_line(str(error))
            attempt.span.set_status(Status(StatusCode.ERROR, said))
        attempt.span.set_attributes(ending)
        try:
            attempt.span.end(self._now())
        finally:
            if self._on_request is not None:
                self._on_request(self._clock.monotonic() - attempt.begun, {**call.target, **ending})
        return True

    def _end_call(
        self, event: RequestSucceeded | CallFailed | CallCancelled, attempts: int, error: BaseException | None = None
    ) -> None:
        call = self.calls.pop(event.call_id, None)
        if call is None:
            return
        try:
            self._end_attempt(call, event.status, error)
        finally:  # whatever a provider raises: without its end a call's attempts are orphans
            call.end(attempts, event.queued, error, self._now())

    def wait_started(self, event: WaitStarted) -> None:
        if self._wait_count >= MOST_WAITS:
            return
        attributes = {names.OPERATION: event.operation, names.SUBJECT: event.request_id}
        span = self._tracer.start_span(WAIT, attributes=attributes, start_time=self._now())
        self.waits.setdefault(event.request_id, {})[event.wait_id] = OpenWait(event, span)
        self._wait_count += 1

    def polled(self, event: OperationPolled) -> None:
        for wait in self.waits.get(event.request_id, {}).values():
            wait.span.set_attribute(names.POLLS, event.polls)

    def wait_ended(self, event: WaitEnded) -> None:
        waits = self.waits.get(event.request_id, {})
        wait = waits.pop(event.wait_id, None)
        if wait is None:
            return
        self._wait_count -= 1
        if not waits:
            del self.waits[event.request_id]
        if event.status:
            wait.span.set_attribute(names.REQUEST_STATUS, event.status)
        if event.error is not None:
            wait.span.set_attribute(names.ERROR_TYPE, type(event.error).__qualname__)
            wait.span.set_status(Status(StatusCode.ERROR, one_line(str(event.error))))
        wait.span.end(self._now())

    def paused(self, event: Paused) -> None:
        if event.paused:
            return  # it goes on, after a probe that failed
        for span in self._waiting(event.operation, event.store):
            span.add_event(names.PAUSED, {"invoicing.next_probe": event.next_probe}, self._now())

    def resumed(self, event: Resumed) -> None:
        for span in self._waiting(event.operation, event.store):
            span.add_event(names.RESUMED, {names.PAUSE: event.paused}, self._now())

    def _waiting(self, operation: str, store: str) -> Iterator[Span]:
        """Yield the spans of what waits while the service is down for this operation of this store."""
        for call in tuple(self.calls.values()):  # other threads' sessions may begin and end some meanwhile
            if (call.event.operation, call.event.store) == (operation, store):
                yield call.span
        for waits in tuple(self.waits.values()):
            for wait in tuple(waits.values()):
                if (wait.event.operation, wait.event.store) == (operation, store):
                    yield wait.span
