"""What a failed poll means, over every status; and that an outage, a gateway or an early 404 ends no wait."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from uuid import UUID

import pytest
import vtime
from fakes import FakeResponse
from hypothesis import given
from hypothesis import strategies as st

from invoicing_async import ApiError, AsyncInvoices, Limits, Poller, Session, StaticToken, Unsettled
from invoicing_async._core.http import Exchange, Request
from invoicing_async._einvoices.poll_errors import FINAL, FINAL_WHEN_REPEATED, Meaning, meaning, status_of
from invoicing_async.errors import (
    DeadlineError,
    DraftError,
    InvoicingError,
    ProtocolError,
    RateLimitError,
    ServiceUnavailableError,
    SessionError,
    TransportError,
)

Handle = Callable[[Request], Awaitable[FakeResponse]]


def told(status: int, **named: object) -> Meaning:
    given = {"age": 100.0, "grace": 60.0, "before": None, **named}
    return meaning(ApiError(status=status), **given)  # type: ignore[arg-type]


@given(st.integers(200, 599))
def test_only_a_declared_refusal_is_final(status: int) -> None:
    """Over every status: the first time, and when the poll before said the same."""
    assert (told(status) is Meaning.FINAL) is (status in FINAL)
    assert (told(status, before=status) is Meaning.FINAL) is (status in FINAL or status in FINAL_WHEN_REPEATED)


@given(st.integers(200, 599), st.floats(0, 1e6), st.floats(0, 1e6), st.none() | st.integers(200, 599))
def test_only_an_early_404_is_not_yet(status: int, age: float, grace: float, before: int | None) -> None:
    found = told(status, age=age, grace=grace, before=before)
    assert (found is Meaning.NOT_YET) is (status == 404 and age < grace)


@pytest.mark.parametrize("status", [200, 400, 404, 422, 503])
def test_a_code_that_asks_to_come_back_counts_whatever_the_status(status: int) -> None:
    assert told_of(ServiceUnavailableError(status=status, code="SYS_DEP_503")) is Meaning.FAILED
    assert told_of(RateLimitError(status=status)) is Meaning.FAILED


@pytest.mark.parametrize(
    "error",
    [
        TransportError("cut"),
        DeadlineError("late"),
        ProtocolError("a page", status=200),
        ProtocolError("moved", status=302),
    ],
)
def test_no_answer_and_an_unreadable_one_are_errors_of_the_poll(error: InvoicingError) -> None:
    assert told_of(error) is Meaning.FAILED


@pytest.mark.parametrize("error", [SessionError("closed"), DraftError(), ValueError("bad"), RuntimeError("a defect")])
def test_the_callers_own_trouble_is_final(error: Exception) -> None:
    assert told_of(error) is Meaning.FINAL
    assert status_of(error) is None


def told_of(error: Exception) -> Meaning:
    return meaning(error, age=100.0, grace=60.0, before=status_of(error))


class Peer:
    """A transport that answers by a function of the path and of the time."""

    def __init__(self, answer: Callable[[str, float], FakeResponse]) -> None:
        self.answer = answer
        self.asked: list[float] = []

    @asynccontextmanager
    async def send(self, request: Request, exchange: Exchange) -> AsyncIterator[FakeResponse]:
        exchange.sent = True
        now = asyncio.get_running_loop().time()
        self.asked.append(now)
        yield self.answer(request.path, now)

    async def close(self) -> None:
        """Nothing is held open."""


def new() -> FakeResponse:
    return FakeResponse(pieces=(b'{"status":"NEW"}',))


def success() -> FakeResponse:
    return FakeResponse(pieces=(b'{"status":"SUCCESS"}',))


async def ends(peer: Peer, count: int, poller: object, limits: Limits | None = None) -> list[object]:
    clock = vtime.VirtualClock()
    async with Session("http://x/api", auth=StaticToken("t"), transport=peer, clock=clock, limits=limits) as session:
        ids = [str(UUID(int=number)) for number in range(count)]
        return [end async for end in AsyncInvoices(session).wait_many(ids, poller=poller)]  # type: ignore[arg-type]


@pytest.mark.parametrize("status", [401, 403, 404, 408, 429, 500, 502, 503, 504, 520, 302])
def test_one_bad_answer_ends_no_wait(status: int) -> None:
    seen: set[str] = set()

    def answer(path: str, now: float) -> FakeResponse:
        if path in seen:
            return success()
        seen.add(path)
        return FakeResponse(status=status)

    found = vtime.run(ends(Peer(answer), 1, Poller(not_found_grace=0)))
    assert not any(isinstance(end, Unsettled) for end in found)


@pytest.mark.parametrize("status", [404, 408, 500, 503, 520])
@pytest.mark.parametrize("lasting", [2.0, 30.0])
def test_an_outage_ends_no_wait_and_is_not_hammered(status: int, lasting: float) -> None:
    """Many waits at intervals of up to a second; of an outage of half a minute each meets fewer than 20 answers."""
    count = 500 if status == 503 else 100

    def answer(path: str, now: float) -> FakeResponse:
        if 1 < now < 1 + lasting:
            return FakeResponse(status=status)
        return new() if now < 2 + lasting else success()

    peer = Peer(answer)
    poller, limits = Poller(first=0.5, factor=1.2, ceiling=1, timeout=90), Limits(concurrency=count)
    found = vtime.run(ends(peer, count, poller, limits))
    assert len(found) == count
    assert not any(isinstance(end, Unsettled) for end in found)
    during = sum(1 < at < 1 + lasting for at in peer.asked)
    assert status == 404 or during < count * 20


def test_an_outage_that_lasts_ends_the_wait_by_number_and_time() -> None:
    peer = Peer(lambda path, now: FakeResponse(status=500))
    (end,) = vtime.run(ends(peer, 1, Poller(first=1, factor=1, timeout=None, errors=10, error_time=60)))
    assert isinstance(end, Unsettled)
    assert isinstance(end.error, ApiError)
    assert peer.asked[-1] - peer.asked[0] >= 60
    assert len(peer.asked) > 10


def test_an_unknown_request_ends_after_its_grace() -> None:
    peer = Peer(lambda path, now: FakeResponse(status=404))
    (end,) = vtime.run(ends(peer, 1, Poller(first=1, factor=1, not_found_grace=20, timeout=None)))
    assert isinstance(end, Unsettled)
    assert isinstance(end.error, ApiError)
    assert 20 <= peer.asked[-1] <= 23


def test_a_queue_of_ones_own_spends_nobodys_time() -> None:
    """A hundred finished requests at one a second, with every default: all settle, each by one poll."""
    peer = Peer(lambda path, now: success())
    found = vtime.run(ends(peer, 100, Poller(), Limits(per_second=1)))
    assert not any(isinstance(end, Unsettled) for end in found)
    assert len(peer.asked) == 100
    assert max(peer.asked) < 102
