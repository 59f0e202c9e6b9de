"""Metrics through the SDK's in-memory reader: instruments, units, buckets, and attributes that stay few."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fakes import FakeClock, FakeResponse
from invoice_clients import STEADY, draft, sandboxed
from otel_memory import Telemetry
from session_calls import CALL, DOWN, FINE, ONCE, body, scripted

from invoicing_async.errors import SubmissionInDoubtError, TransportError
from invoicing_async.events import (
    DocumentSaved,
    Event,
    LimitChanged,
    Paused,
    Reason,
    Resumed,
    RetryScheduled,
    SubmissionInDoubt,
    WaitEnded,
)
from invoicing_async.sandbox import DropBeforeAnswer, Faults, Operation
from invoicing_async.telemetry._metrics import HTTP_BUCKETS, LONG_BUCKETS

LANE: dict[str, Any] = {"operation": "generate_invoice", "store": "shop 9"}
WAIT: dict[str, Any] = {"operation": "invoice_status", "store": "", "wait_id": 1, "request_id": "r"}


def known(**attributes: Any) -> frozenset[tuple[str, Any]]:
    return frozenset((name.replace("__", "."), value) for name, value in attributes.items())


def retry(reason: Reason) -> Event:
    return RetryScheduled(operation="o", path="/", attempt=1, delay=1.0, reason=reason)


GENERATE = known(invoicing__operation="generate_invoice")


@pytest.mark.parametrize(
    ("events", "name", "points"),
    [
        (
            [retry("timeout"), retry("status"), retry("status")],
            "invoicing.retries",
            {
                known(invoicing__operation="o", invoicing__retry__reason="timeout"): 1,
                known(invoicing__operation="o", invoicing__retry__reason="status"): 2,
            },
        ),
        ([Paused(**LANE, next_probe=1), Paused(**LANE, next_probe=2, paused=1)], "invoicing.pauses", {GENERATE: 1}),
        ([Resumed(**LANE, paused=61.5)], "invoicing.pause.duration", {GENERATE: 61.5}),
        (
            [LimitChanged(**LANE, concurrency=4), LimitChanged(**LANE, concurrency=7)],
            "invoicing.concurrency.limit",
            {GENERATE: 7},
        ),
        ([DocumentSaved(order_id="a", path=Path("x"), size=10)] * 3, "invoicing.documents.saved", {known(): 3}),
        ([DocumentSaved(order_id="a", path=Path("x"), size=10)] * 3, "invoicing.documents.bytes", {known(): 30}),
        (
            [
                WaitEnded(**WAIT, status="SUCCESS", elapsed=2.0),
                WaitEnded(**WAIT, status="FAILED", elapsed=3.0),
                WaitEnded(**WAIT, status="NEW", elapsed=300.0, error=TimeoutError()),
                WaitEnded(**WAIT, status="", elapsed=1.0),
            ],
            "invoicing.operation.duration",
            {known(invoicing__request__status="SUCCESS"): 2.0, known(invoicing__request__status="FAILED"): 3.0},
        ),
        (
            [SubmissionInDoubt(key="a"), SubmissionInDoubt(key="b", status=502)],
            "invoicing.submissions.in_doubt",
            {known(): 1, known(http__response__status_code=502): 1},
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_each_instrument_is_fed_by_its_event(events: list[Event], name: str, points: dict[Any, float]) -> None:
    told = Telemetry()
    for event in events:
        told.observer(event)
    assert told.points(name) == points


def test_units_and_buckets() -> None:
    """Seconds, bytes and annotations in UCUM; each says what it is."""
    told = Telemetry()
    told.observer._metrics.record_request(1.0, {})
    for event in (
        retry("timeout"), Paused(**LANE, next_probe=1.0),
        Resumed(**LANE, paused=1.0), LimitChanged(**LANE, concurrency=4), SubmissionInDoubt(key="a"),
        DocumentSaved(order_id="a", path=Path("x"), size=10), WaitEnded(**WAIT, status="SUCCESS", elapsed=2.0),
    ):  # fmt: skip
        told.observer(event)
    found = told.metrics()
    assert {name: metric.unit for name, metric in found.items()} == {
        "http.client.request.duration": "s",
        "invoicing.retries": "{retry}",
        "invoicing.pauses": "{pause}",
        "invoicing.pause.duration": "s",
        "invoicing.concurrency.limit": "{call}",
        "invoicing.documents.saved": "{document}",
        "invoicing.documents.bytes": "By",
        "invoicing.operation.duration": "s",
        "invoicing.submissions.in_doubt": "{submission}",
    }
    assert all(metric.description.endswith(".") for metric in found.values())
    bounds = {name: metric.data.data_points[0].explicit_bounds for name, metric in found.items() if metric.unit == "s"}
    assert bounds == {
        "http.client.request.duration": HTTP_BUCKETS,
        "invoicing.pause.duration": LONG_BUCKETS,
        "invoicing.operation.duration": LONG_BUCKETS,
    }


@pytest.mark.asyncio
class TestRequests:
    async def test_each_attempt_is_measured_by_the_conventions_attributes(self, clock: FakeClock) -> None:
        async def slow(_: object) -> FakeResponse:
            clock.advance(2.0)
            return DOWN

        told = Telemetry(clock=clock)
        cut = TransportError("cut", sent="unknown")
        async with scripted(slow, cut, FINE, clock=clock, on_event=told.observer) as session:
            await session.call(CALL, body)
        server = {"http__request__method": "POST", "server__address": "service.test", "server__port": 443}
        assert told.points("http.client.request.duration") == {
            known(**server, http__response__status_code=503, error__type="503"): 2.0,
            known(**server, error__type="TransportError"): 0.0,
            known(**server, http__response__status_code=200): 0.0,
        }

    async def test_a_thousand_calls_make_no_more_series_than_one(self) -> None:
        """No attribute is an id."""
        told = Telemetry()
        async with sandboxed(on_event=told.observer, faults=Faults(polls_until_done=(1, 1))) as (invoices, _):
            ids = [(await invoices.submit(draft(number))).request_id for number in range(1, 101)]
            assert len([one async for one in invoices.wait_many(ids, poller=STEADY)]) == 100
        points = {name: told.points(name) for name in told.metrics()}
        assert {name: len(found) for name, found in points.items() if name != "invoicing.concurrency.limit"} == {
            "http.client.request.duration": 1,
            "invoicing.operation.duration": 1,
        }
        assert len(points.get("invoicing.concurrency.limit", ())) <= 2

    async def test_without_client_spans_requests_are_measured_by_whom_else_makes_those(self) -> None:
        told = Telemetry(client_spans=False)
        async with scripted(FINE, on_event=told.observer) as session:
            await session.call(CALL, body)
        assert "http.client.request.duration" not in told.metrics()


@pytest.mark.asyncio
async def test_a_lost_answer_is_counted_as_a_doubt() -> None:
    told = Telemetry()
    async with sandboxed(on_event=told.observer, retry=ONCE) as (invoices, fake):
        fake.script(Operation.SUBMIT, [DropBeforeAnswer()])
        with pytest.raises(SubmissionInDoubtError):
            await invoices.submit(draft())
    assert told.points("invoicing.submissions.in_doubt") == {known(): 1}
