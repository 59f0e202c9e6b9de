"""Beside the real instrumentation of aiohttp: no span is made twice, and none is lost."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, nullcontext
from typing import Any

import pytest
from attrs import define, field
from fakes import FakeResponse
from opentelemetry.instrumentation.aiohttp_client import AioHttpClientInstrumentor
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, format_span_id
from otel_memory import Telemetry, attributes
from session_calls import CALL, SUBMISSION, body

from invoicing_async import RetryPolicy, Session, StaticToken
from invoicing_async._core.http import Exchange, Request
from invoicing_async._transport import pooled
from invoicing_async._transport.server import serve

OURS, THEIRS = "invoicing_async", "opentelemetry.instrumentation.aiohttp_client"


@define
class Busy:
    """A service that is busy at every first call for a path. Keeps each `traceparent`."""

    told: list[str] = field(factory=list)
    _seen: set[str] = field(factory=set)

    def send(self, request: Request, exchange: Exchange) -> Any:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.told.append(headers.get("traceparent", ""))
        answer = FakeResponse(pieces=(b"ok",)) if request.path in self._seen else FakeResponse(status=429)
        self._seen.add(request.path)
        return nullcontext(answer)

    async def close(self) -> None: ...


@pytest.fixture
def instrumented() -> Iterator[Telemetry]:
    """With aiohttp's client instrumented; both agents tell the same exporters."""
    told = Telemetry()
    AioHttpClientInstrumentor().instrument(tracer_provider=told.tracers, meter_provider=told.meters)
    yield told
    AioHttpClientInstrumentor().uninstrument()


@asynccontextmanager
async def calling(**options: Any) -> AsyncIterator[tuple[Session, Busy]]:
    service = Busy()
    retry = RetryPolicy(attempts=3, first=0)
    async with serve(service) as url, Session(url, auth=StaticToken("t"), retry=retry, **options) as session:
        yield session, service


async def both_ways(session: Session) -> None:
    """What may be repeated goes past aiohttp's client where nobody listens to that; a submission never does."""
    assert await session.call(CALL, body) == b"ok"
    assert await session.call(SUBMISSION, body) == b"ok"


def by(spans: tuple[ReadableSpan, ...], scope: str) -> list[ReadableSpan]:
    return [span for span in spans if span.instrumentation_scope and span.instrumentation_scope.name == scope]


@pytest.mark.asyncio
async def test_an_attempt_is_the_one_client_span_of_its_request(instrumented: Telemetry) -> None:
    async with calling(on_event=instrumented.observer) as (session, service):
        with instrumented.tracer.start_as_current_span("user"):
            await both_ways(session)
    assert by(instrumented.spans, THEIRS) == []
    clients = [span for span in instrumented.spans if span.kind is SpanKind.CLIENT]
    assert [attributes(span)["http.response.status_code"] for span in clients] == [429, 200, 200]
    assert (len(service.told), instrumented.orphans, instrumented.is_empty) == (3, [], True)
    scopes = {name for name in instrumented.metrics() if name.startswith("http.client")}
    assert scopes == {"http.client.request.duration"}


@pytest.mark.asyncio
async def test_without_client_spans_theirs_are_below_ours_and_the_service_is_told_of_them(
    instrumented: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = instrumented
    from invoicing_async.telemetry import OpenTelemetry

    observer = OpenTelemetry(tracer_provider=told.tracers, meter_provider=told.meters, client_spans=False)
    async with calling(on_event=observer) as (session, service):
        with told.tracer.start_as_current_span("user"):
            await both_ways(session)
    attempts, requests = [span for span in by(told.spans, OURS) if span.name == "POST"], by(told.spans, THEIRS)
    assert [span.kind for span in attempts] == [SpanKind.INTERNAL] * 3
    assert [told.below(span) for span in attempts] == [[span] for span in requests]
    assert [span.kind for span in requests] == [SpanKind.CLIENT] * 3
    assert [one.split("-")[2] for one in service.told] == [format_span_id(span.context.span_id) for span in requests]
    assert told.orphans == []


@pytest.mark.asyncio
async def test_theirs_alone_need_no_line_of_ours(instrumented: Telemetry) -> None:
    async with calling() as (session, service):
        with instrumented.tracer.start_as_current_span("user"):
            await both_ways(session)
    [user] = instrumented.named("user")
    assert by(instrumented.spans, OURS) == []
    assert instrumented.below(user) == by(instrumented.spans, THEIRS)
    assert [one.split("-")[2] for one in service.told] == [
        format_span_id(span.context.span_id) for span in by(instrumented.spans, THEIRS)
    ]


@pytest.mark.asyncio
async def test_ours_alone_keeps_the_way_past_aiohttps_client(monkeypatch: pytest.MonkeyPatch) -> None:
    told, direct = Telemetry(), list[str]()
    begun = pooled.PooledPost.__aenter__

    async def noted(self: pooled.PooledPost) -> Any:
        direct.append("post")
        return await begun(self)

    monkeypatch.setattr(pooled.PooledPost, "__aenter__", noted)
    async with calling(on_event=told.observer) as (session, service):
        await both_ways(session)
    assert len(direct) == 2
    assert service.told == [""] * 3
    assert [attributes(span)["http.response.status_code"] for span in told.named("POST")] == [429, 200, 200]
