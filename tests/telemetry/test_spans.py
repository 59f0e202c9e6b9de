"""Spans of calls, attempts and waits, through the SDK's in-memory exporter."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from contextlib import aclosing, suppress
from typing import Any

import pytest
import vtime
from attrs import evolve
from fakes import START, FakeClock, FakeResponse
from invoice_clients import STEADY, draft, sandboxed
from opentelemetry import context, trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.trace import SpanKind, StatusCode
from otel_memory import Telemetry, attributes, events, times
from outages import Calls, Unsteady, governed
from session_calls import BASE, CALL, DOWN, FINE, ONCE, body, scripted, sent

from invoicing_async import OAuthClientCredentials, OutagePolicy, RetryPolicy, Session
from invoicing_async._core.http import Request
from invoicing_async.errors import InvoicingError, ProtocolError, TransportError
from invoicing_async.events import CallStarted, Event, RequestStarted, RetryScheduled, combined
from invoicing_async.policies import Limits
from invoicing_async.sandbox import Answer, Faults, Operation, Reset, Unavailable
from invoicing_async.session._session import internals_of
from invoicing_async.telemetry import OpenTelemetry, _spans

LATE = FakeResponse(status=503, headers={"Retry-After": "3"}, pieces=DOWN.pieces)
THREE_POLLS = Faults(polls_until_done=(3, 3))


def error_of(span: ReadableSpan) -> tuple[Any, Any, Any]:
    return attributes(span).get("error.type"), span.status.status_code, span.status.description


@pytest.mark.asyncio
class TestCalls:
    async def test_a_call_is_a_span_with_its_attempts_below_at_their_times(self, clock: FakeClock) -> None:
        async def slow(_: Request) -> FakeResponse:
            clock.advance(2.0)
            return DOWN

        told = Telemetry(clock=clock)
        async with scripted(slow, FINE, clock=clock, on_event=told.observer) as session:
            await session.call(evolve(CALL, subject="order 7"), body)
        [call] = told.named("test")
        first, second = told.below(call)
        assert (call.parent, call.kind, times(call)) == (None, SpanKind.INTERNAL, (START, START + 2.25))
        assert [times(first), times(second)] == [(START, START + 2.0), (START + 2.25, START + 2.25)]
        assert [(span.name, span.kind) for span in (first, second)] == [("POST", SpanKind.CLIENT)] * 2
        assert attributes(call)["invoicing.subject"] == "order 7"
        assert (call.status.status_code, attributes(call)["invoicing.attempts"]) == (StatusCode.UNSET, 2)
        assert told.is_empty

    async def test_attempts_have_the_attributes_of_the_conventions_and_say_why_they_were_made(self) -> None:
        told = Telemetry()
        async with scripted(DOWN, FINE, clock=FakeClock(), on_event=told.observer) as session:
            await session.call(evolve(CALL, query="signature=secret"), body)
        first, second = told.below(*told.named("test"))
        common = {
            "http.request.method": "POST",
            "server.address": "service.test",
            "server.port": 443,
            "url.full": f"{BASE}/x",
        }
        assert attributes(first) == {
            **common,
            "invoicing.attempt": 1,
            "http.response.status_code": 503,
            "error.type": "503",
        }
        assert attributes(second) == {
            **common,
            "invoicing.attempt": 2,
            "http.request.resend_count": 1,
            "invoicing.retry.reason": "service_unavailable",
            "invoicing.retry.delay": 0.25,
            "http.response.status_code": 200,
        }
        assert [span.status.status_code for span in (first, second)] == [StatusCode.ERROR, StatusCode.UNSET]

    @pytest.mark.parametrize(
        ("answer", "status", "error", "words"),
        [
            (FakeResponse(status=404), 404, "404", None),
            (TransportError("cut", sent="unknown"), None, "TransportError", "cut"),
            (FakeResponse(pieces=(b"x", ProtocolError("odd"))), 200, "ProtocolError", "odd"),
        ],
    )
    async def test_a_failure_is_named_by_its_status_or_its_class(
        self, answer: Any, status: int | None, error: str, words: str | None
    ) -> None:
        told = Telemetry()
        async with scripted(answer, retry=ONCE, on_event=told.observer) as session:
            with pytest.raises(InvoicingError) as caught:
                await session.call(CALL, body)
        [call] = told.named("test")
        [attempt] = told.below(call)
        assert attributes(attempt).get("http.response.status_code") == status
        assert error_of(attempt) == (error, StatusCode.ERROR, words)
        assert error_of(call) == (type(caught.value).__name__, StatusCode.ERROR, str(caught.value))

    async def test_what_the_reader_raises_ends_both_spans(self) -> None:
        async def fail(_: object) -> None:
            raise OSError("disk full")

        told = Telemetry()
        async with scripted(FINE, on_event=told.observer) as session:
            with pytest.raises(OSError, match="disk full"):
                await session.call(CALL, fail)
        assert [error_of(span) for span in told.spans] == [("OSError", StatusCode.ERROR, "disk full")] * 2
        assert attributes(told.spans[0])["http.response.status_code"] == 200

    async def test_an_answer_that_the_reader_takes_is_no_error(self) -> None:
        told = Telemetry()
        async with scripted(FakeResponse(status=404), on_event=told.observer) as session:
            await session.call(evolve(CALL, answers=frozenset({404})), body)
        assert [span.status.status_code for span in told.spans] == [StatusCode.UNSET] * 2

    async def test_an_attempt_that_nothing_was_sent_of_is_an_event_of_its_call(self) -> None:
        """Its credential could not be had; the call for that is in the trace."""
        told = Telemetry()
        auth = OAuthClientCredentials(client_id="c", client_secret="s", tenant_connection_code="t")
        async with scripted(FakeResponse(status=400), auth=auth, on_event=told.observer) as session:
            with told.tracer.start_as_current_span("user"), pytest.raises(InvoicingError):
                await session.call(CALL, body)
        [user], [call] = told.named("user"), told.named("test")
        assert [span.name for span in told.below(user)] == ["test", "token"]
        assert told.below(call) == []
        assert events(call) == [
            ("invoicing.attempt.not_sent", {"invoicing.attempt": 1, "error.type": "AuthenticationError"})
        ]

    @pytest.mark.parametrize(
        ("method", "name", "known"), [("GET", "GET", "GET"), ("get", "HTTP", "_OTHER"), ("LOOK", "HTTP", "_OTHER")]
    )
    async def test_a_method_that_is_not_known_is_not_named(self, method: str, name: str, known: str) -> None:
        told = Telemetry()
        async with scripted(FINE, on_event=told.observer) as session:
            await session.call(evolve(CALL, method=method), body)
        [attempt] = told.below(*told.named("test"))
        assert (attempt.name, attributes(attempt)["http.request.method"]) == (name, known)

    @pytest.mark.parametrize(
        ("base_url", "address", "port", "url"),
        [
            ("http://user:secret@host.test/files", "host.test", 80, "http://host.test/files/x"),
            ("https://[::1]:8443", "::1", 8443, "https://[::1]:8443/x"),
        ],
    )
    async def test_a_link_elsewhere_is_shown_without_user_and_password(
        self, base_url: str, address: str, port: int, url: str
    ) -> None:
        told = Telemetry()
        async with scripted(FINE, on_event=told.observer) as session:
            await session.call(evolve(CALL, base_url=base_url, query="sig=secret", authorised=False), body)
        found = attributes(told.below(*told.named("test"))[0])
        assert (found["server.address"], found["server.port"], found["url.full"]) == (address, port, url)

    async def test_a_call_whose_beginning_was_not_told_makes_no_span(self) -> None:
        told = Telemetry()
        for event in (
            RequestStarted(operation="o", path="/", attempt=1, call_id=7),
            RetryScheduled(operation="o", path="/", attempt=1, delay=1.0, reason="status", call_id=7),
        ):
            told.observer(event)
        assert (told.spans, told.is_empty) == ((), True)


@pytest.mark.asyncio
class TestWhatIsDoneNow:
    async def test_a_call_is_below_the_span_it_is_made_in_and_an_attempt_is_what_is_done_while_it_lasts(self) -> None:
        told, seen = Telemetry(), list[Any]()

        async def look(_: Request) -> FakeResponse:
            seen.append(trace.get_current_span())
            return DOWN if len(seen) == 1 else FINE

        async with scripted(look, clock=FakeClock(), on_event=told.observer) as session:
            with told.tracer.start_as_current_span("user") as user:
                await session.call(CALL, body)
                assert trace.get_current_span() is user
        [call] = told.below(*told.named("user"))
        assert [span.context.span_id for span in told.below(call)] == [one.get_span_context().span_id for one in seen]

    async def test_what_a_failed_attempt_starts_meanwhile_is_not_below_it(self) -> None:
        """Between attempts what is done now is what it was: a batch starts workers there."""
        told, seen = Telemetry(), list[Any]()

        async def back_off(_: float) -> None:
            seen.append(trace.get_current_span())

        async with scripted(DOWN, FINE, clock=FakeClock(), on_event=told.observer) as session:
            with told.tracer.start_as_current_span("user") as user:
                await internals_of(session).call(CALL, body, sleep=back_off)
        assert seen == [user]

    async def test_a_cancelled_call_leaves_nothing(self) -> None:
        told = Telemetry()

        async def hang(_: object) -> FakeResponse:
            await asyncio.Event().wait()
            raise AssertionError

        async def work(session: Session) -> None:
            before = trace.get_current_span()
            with suppress(asyncio.CancelledError):
                await session.call(CALL, body)
            assert trace.get_current_span() is before

        async with scripted(hang, on_event=told.observer) as session:
            task = asyncio.create_task(work(session))
            while not sent(session):  # noqa: ASYNC110 - the transport tells
                await asyncio.sleep(0)
            task.cancel()
            await task
        assert [error_of(span) for span in told.spans] == [
            ("CancelledError", StatusCode.ERROR, "the call was cancelled")
        ] * 2
        assert told.is_empty

    async def test_a_call_that_ends_elsewhere_than_it_began_changes_nothing_there(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        """As a coroutine does that is closed by somebody else."""
        told = Telemetry()
        begun = CallStarted(operation="o", path="/", method="POST", base_url=BASE, call_id=7)

        async def elsewhere() -> None:
            told.observer(begun)
            told.observer(RequestStarted(operation="o", path="/", attempt=1, call_id=7))

        await asyncio.create_task(elsewhere())
        call = told.observer._spans.calls[7]
        with told.tracer.start_as_current_span("user") as user:
            told.observer._spans._end_attempt(call, None, None)
            assert trace.get_current_span() is user
        assert caplog.records == []


@pytest.mark.parametrize("many", [300, pytest.param(10_000, marks=pytest.mark.slow)])
def test_a_batch_with_retries_and_a_pause_is_one_trace_without_orphans(many: int) -> None:
    """Every retry has its reason, what waited says so, and nothing is held in the end."""
    heard: list[Event] = []
    service = Unsteady(down=(1.0, 61.0), bad=frozenset({b"7"}))

    async def work() -> tuple[Telemetry, Any]:
        told = Telemetry(clock=vtime.VirtualClock())
        observer = combined(told.observer, heard.append)
        async with governed(service, on_event=observer, limits=Limits(concurrency=16)) as session:
            with told.tracer.start_as_current_span("user"):
                return told, await Calls(session).run(many)

    told, (outcomes, ended) = vtime.run(work())
    assert (len(outcomes), ended, told.is_empty, told.orphans) == (many, None, True, [])
    [user], calls, attempts = told.named("user"), told.named("test"), told.named("POST")
    assert {span.parent.span_id for span in calls if span.parent} == {user.context.span_id}
    assert (len(calls), len(attempts)) == (many, service.sent)
    assert len({span.context.trace_id for span in told.spans}) == 1
    retries = [event for event in heard if isinstance(event, RetryScheduled)]
    scheduled = [found for call in calls for name, found in events(call) if name == "invoicing.retry"]
    assert Counter(found["invoicing.retry.reason"] for found in scheduled) == Counter(one.reason for one in retries)
    resent = [attributes(span) for span in attempts if "http.request.resend_count" in attributes(span)]
    assert len(resent) == len(retries) > 16
    assert all(found["invoicing.retry.reason"] == "service_unavailable" for found in resent)
    waited = [call for call in calls if "invoicing.resumed" in dict(events(call))]
    assert any("invoicing.paused" in dict(events(call)) for call in waited)
    assert all(dict(events(call))["invoicing.resumed"]["invoicing.pause.duration"] > 55 for call in waited)
    assert {times(call)[0] < 1.7e9 + 65 < times(call)[1] + 5 for call in waited} == {True}


@pytest.mark.parametrize("many", [100, pytest.param(10_000, marks=pytest.mark.slow)])
def test_a_batch_that_is_left_leaves_nothing(many: int) -> None:
    async def work() -> tuple[Telemetry, int]:
        told = Telemetry()
        async with governed(Unsteady(down=(0.3, 5.0)), on_event=told.observer) as session:
            client = Calls(session)
            outcomes = client.each(
                [str(number).encode() for number in range(many)], client.tried, on_not_started=lambda *_: None
            )
            async with aclosing(outcomes):
                for _ in range(many // 2):
                    await anext(outcomes)
            held = len(told.observer._spans.calls)
        return told, held

    told, held = vtime.run(work())
    assert (told.is_empty, held, told.orphans) == (True, 0, [])
    assert len(told.named("test")) >= many // 2


@pytest.mark.asyncio
class TestWaits:
    async def test_polls_are_below_the_wait_and_the_wait_below_what_it_is_made_in(self, clock: FakeClock) -> None:
        told = Telemetry(clock=clock)
        async with sandboxed(clock=clock, on_event=told.observer, faults=THREE_POLLS) as (one, fake):
            fake.script(Operation.STATUS, [Reset()])
            with told.tracer.start_as_current_span("user"):
                request = await one.submit(draft(7))
                await one.wait(request.request_id, poller=STEADY)
        [user] = told.named("user")
        submission, wait = told.below(user)
        assert (submission.name, attributes(submission)["invoicing.subject"]) == ("create_invoice", "INV-7")
        assert (wait.name, wait.kind, times(wait)) == ("wait_for_invoice", SpanKind.INTERNAL, (START, START + 4.0))
        found = attributes(wait)
        assert (found["invoicing.request.status"], found["invoicing.polls"]) == ("SUCCESS", 4)
        polls = told.below(wait)
        assert [times(poll)[0] for poll in polls] == [START + number for number in (1, 2, 3, 4)]
        assert [len(told.below(poll)) for poll in polls] == [1] * 4
        assert {poll.name for poll in polls} == {"invoice_status"}
        assert (told.orphans, told.is_empty) == ([], True)

    async def test_each_wait_of_many_is_a_span_of_its_own(self) -> None:
        told = Telemetry()
        async with sandboxed(on_event=told.observer) as (invoices, _):
            ids = [(await invoices.submit(draft(number))).request_id for number in range(1, 21)]
            with told.tracer.start_as_current_span("user"):
                assert len([one async for one in invoices.wait_many(ids, poller=STEADY)]) == 20
        waits = told.below(*told.named("user"))
        assert sorted(attributes(wait)["invoicing.subject"] for wait in waits) == sorted(ids)
        for wait in waits:
            polled = {attributes(poll)["invoicing.subject"] for poll in told.below(wait)}
            assert polled == {attributes(wait)["invoicing.subject"]}
        assert (told.orphans, told.is_empty) == ([], True)

    async def test_two_who_wait_for_one_request_have_a_span_each_and_its_polls_are_below_the_first(self) -> None:
        told = Telemetry()

        async def waiting(name: str) -> None:
            with told.tracer.start_as_current_span(name):
                await invoices.wait(request.request_id, poller=STEADY)

        async with sandboxed(on_event=told.observer) as (invoices, _):
            request = await invoices.submit(draft())
            await asyncio.gather(waiting("a"), waiting("b"))
        [first], [second] = (told.below(*told.named(name)) for name in "ab")
        assert (first.name, second.name) == ("wait_for_invoice", "wait_for_invoice")
        assert (len(told.below(first)), len(told.below(second))) == (2, 0)
        assert (told.orphans, told.is_empty) == ([], True)

    @pytest.mark.parametrize("retry", [None, ONCE], ids=["the session's", "its own"])
    async def test_a_status_that_is_asked_for_is_below_who_asks_though_others_wait(
        self, retry: RetryPolicy | None
    ) -> None:
        """With whichever policy it is asked for."""
        told, clock = Telemetry(), FakeClock(auto=False)
        async with sandboxed(on_event=told.observer, clock=clock) as (invoices, _):
            request = await invoices.submit(draft())
            waiting = asyncio.create_task(invoices.wait(request.request_id, poller=STEADY))
            await asyncio.sleep(0)
            with told.tracer.start_as_current_span("user"):
                await invoices.status(request.request_id, retry=retry)
            waiting.cancel()
            await asyncio.wait([waiting])
        assert [span.name for span in told.below(*told.named("user"))] == ["invoice_status"]

    @pytest.mark.parametrize("how", ["cancelled", "left", "failed", "spent"])
    async def test_a_wait_that_does_not_come_to_its_end_is_ended(self, how: str) -> None:
        told, clock = Telemetry(), FakeClock(auto=how in {"failed", "spent"})
        async with sandboxed(on_event=told.observer, clock=clock, faults=THREE_POLLS) as (one, fake):
            request = await one.submit(draft())
            if how == "failed":
                fake.script(Operation.STATUS, [Answer(status=403)] * 9)
            if how in {"failed", "spent"}:
                with pytest.raises(InvoicingError):
                    await one.wait(request.request_id, poller=evolve(STEADY, timeout=1.5))
            else:
                many = one.wait_many([request.request_id], poller=STEADY)
                work: Any = anext(many) if how == "left" else one.wait(request.request_id, poller=STEADY)
                waiting = asyncio.ensure_future(work)
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                waiting.cancel()
                await asyncio.wait([waiting])
        [wait] = told.named("wait_for_invoice")
        errors = {"failed": "PermissionDeniedError", "spent": "PollTimeoutError"}
        assert attributes(wait).get("error.type") == errors.get(how)
        assert told.is_empty

    async def test_beyond_a_number_waits_have_no_span(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_spans, "MOST_WAITS", 3)
        told = Telemetry()
        async with sandboxed(on_event=told.observer) as (invoices, _):
            ids = [(await invoices.submit(draft(number))).request_id for number in range(1, 9)]
            with told.tracer.start_as_current_span("user"):
                assert len([one async for one in invoices.wait_many(ids, poller=STEADY)]) == 8
        assert len(told.named("wait_for_invoice")) == 3
        assert (told.orphans, told.is_empty) == ([], True)
        assert sum(metric_count(told)) == 8

    async def test_polls_of_a_wait_without_a_span_are_below_nobody_elses(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """They are made by a task that whoever waited first has begun."""
        monkeypatch.setattr(_spans, "MOST_WAITS", 1)
        told = Telemetry()

        async def wait(request_id: str) -> None:
            with told.tracer.start_as_current_span("user"):
                await invoices.wait(request_id, poller=STEADY)

        async with sandboxed(on_event=told.observer) as (invoices, _):
            first, *others = [(await invoices.submit(draft(number))).request_id for number in range(1, 4)]
            await asyncio.gather(*map(wait, (first, *others)))
        [known] = told.named("wait_for_invoice")
        assert {attributes(poll)["invoicing.subject"] for poll in told.below(known)} == {first}
        assert all(told.below(user) in ([known], []) for user in told.named("user"))
        roots = {attributes(poll)["invoicing.subject"] for poll in told.named("invoice_status") if poll.parent is None}
        assert roots == {*others}

    async def test_what_waits_says_that_there_was_a_pause(self) -> None:
        told = Telemetry()
        async with sandboxed(on_event=told.observer, outage=OutagePolicy(after=3)) as (invoices, fake):
            request = await invoices.submit(draft())
            fake.script(Operation.STATUS, [Answer(body=b'{"status": "NEW"}'), *[Unavailable()] * 6])
            await invoices.wait(request.request_id, poller=STEADY)
        [wait] = told.named("wait_for_invoice")
        assert [name for name, _ in events(wait)] == ["invoicing.paused", "invoicing.resumed"]


def metric_count(told: Telemetry) -> list[int]:
    return [point.count for point in told.metrics()["invoicing.operation.duration"].data.data_points]


class Raising(SpanProcessor):
    """A user's own, with a fault in it."""

    def on_end(self, span: ReadableSpan) -> None:
        raise ZeroDivisionError(span.name)


@pytest.mark.asyncio
class TestSetUp:
    async def test_what_a_user_s_processor_raises_makes_no_orphan_and_hides_no_metric(self) -> None:
        told = Telemetry()
        told.tracers.add_span_processor(Raising())
        before = context.get_current()
        async with scripted(DOWN, FINE, clock=FakeClock(), on_event=told.observer) as session:
            assert await session.call(CALL, body) == b"fine"
        assert ([span.name for span in told.spans], told.orphans) == (["POST", "POST", "test"], [])
        assert told.metrics().keys() == {"http.client.request.duration", "invoicing.retries"}
        assert (context.get_current(), told.is_empty) == (before, True)

    async def test_what_a_user_s_meter_raises_makes_no_orphan(self, monkeypatch: pytest.MonkeyPatch) -> None:
        told = Telemetry()
        monkeypatch.setattr(told.observer._metrics._requests, "record", lambda *_: 1 / 0)
        async with scripted(DOWN, FINE, clock=FakeClock(), on_event=told.observer) as session:
            assert await session.call(CALL, body) == b"fine"
        assert ([span.name for span in told.spans], told.orphans) == (["POST", "POST", "test"], [])

    async def test_a_session_of_a_stores_says_whose_calls_it_makes(self) -> None:
        told = Telemetry()
        begun = CallStarted(operation="o", path="/", method="POST", base_url=BASE, call_id=7, store="shop 9")
        told.observer(begun)
        assert attributes(told.observer._spans.calls[7].span)["invoicing.store"] == "shop 9"  # type: ignore[arg-type]

    async def test_without_a_set_up_it_changes_nothing(self) -> None:
        observer = OpenTelemetry()
        async with scripted(DOWN, FINE, clock=FakeClock(), on_event=observer) as session:
            assert await session.call(CALL, body) == b"fine"

    async def test_the_calls_of_a_view_are_told_too(self, clock: FakeClock) -> None:
        told = Telemetry(clock=clock)
        async with scripted(LATE, clock=clock, on_event=told.observer) as session:
            view = session.with_options(retry=RetryPolicy(deadline=2.0))
            with pytest.raises(InvoicingError):
                await view.call(CALL, body)
        assert ([span.name for span in told.spans], told.is_empty) == (["POST", "test"], True)


def test_without_its_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.metrics", None)
    monkeypatch.delitem(sys.modules, "invoicing_async.telemetry._metrics", raising=False)
    with pytest.raises(ImportError, match=r"install invoicing-async\[otel\]"):
        OpenTelemetry()


def test_another_missing_module_is_named_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "invoicing_async.telemetry._metrics", None)
    with pytest.raises(ModuleNotFoundError, match=r"invoicing_async\.telemetry\._metrics"):
        OpenTelemetry()
