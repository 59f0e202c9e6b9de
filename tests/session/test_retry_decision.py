"""What follows from a failed attempt, over the whole space of what the decision depends on, and when one may begin."""

from __future__ import annotations

import asyncio
from itertools import product

import pytest
from fakes import FakeClock

from invoicing_async._core.admission import WIDE, Admission
from invoicing_async._core.http import Repeat
from invoicing_async._core.outcomes import may_repeat
from invoicing_async.errors import (
    AuthenticationError,
    DeadlineError,
    IncompleteDocumentError,
    InvoicingError,
    OversizedDocumentError,
    ProtocolError,
    RateLimitError,
    ServiceUnavailableError,
    TransportError,
)
from invoicing_async.policies import Limits, RetryPolicy
from invoicing_async.session import RENEWALS, StaleIntentError
from invoicing_async.session._retry import Failure

BUSY = RateLimitError("busy", status=429, retry_after=7.0)
ERRORS: list[InvoicingError] = [
    TransportError("lost", sent="unknown"),
    TransportError("refused", sent="no"),
    StaleIntentError("old", sent="no"),
    DeadlineError("late", sent="no"),
    ProtocolError("nonsense"),
    AuthenticationError("who", status=401),
    ServiceUnavailableError("down", status=503),
    BUSY,
    OversizedDocumentError("long"),
    IncompleteDocumentError("short"),
]
SPACE = [
    Failure(
        error=error,
        repeat=repeat,
        policy=RetryPolicy(attempts=3, first=1.0, ceiling=4.0),
        made=made,
        stale=stale,
        at_once=at_once,
        ready=ready,
        left=left,
    )
    for error, repeat, made, stale, at_once, ready, left in product(
        ERRORS, Repeat, range(1, 16), (0, 1, RENEWALS, RENEWALS + 3), (False, True), (False, True), (None, 0.0, 2.0)
    )
    if at_once <= stale <= made
]


def test_only_what_may_be_repeated_is_and_nothing_after_the_deadline_or_without_a_credential() -> None:
    for failure in SPACE:
        allowed = failure.ready and not isinstance(failure.error, DeadlineError)
        assert failure.repeatable == (allowed and may_repeat(failure.error, failure.repeat))


def test_an_attempt_counts_unless_it_never_had_a_chance_up_to_a_limit() -> None:
    for failure in SPACE:
        assert failure.counted == failure.made - min(failure.stale, RENEWALS)
        assert failure.is_last(0.0) == (failure.counted >= 3 or failure.left == 0.0)


def test_no_wait_that_would_end_at_or_after_the_deadline_is_begun() -> None:
    for failure in SPACE:
        spent = failure.counted >= 3
        assert failure.is_last(1.9) == (spent or failure.left == 0.0)
        assert failure.is_last(2.0) == (spent or failure.left is not None)


@pytest.mark.parametrize("chance", [0.0, 0.5, 0.999])
def test_the_wait_is_none_after_an_attempt_without_a_chance_and_otherwise_as_the_policy_says(chance: float) -> None:
    for failure in SPACE:
        wait = failure.wait(chance)
        if failure.at_once:
            assert wait == 0.0
            continue
        backoff = min(4.0, 2.0 ** (max(1, failure.counted) - 1)) * chance
        assert wait == (max(7.0, backoff) if failure.error is BUSY else pytest.approx(backoff))


class TestAdmission:
    @pytest.mark.asyncio
    @pytest.mark.parametrize("per_second", [None, 5.0])
    @pytest.mark.parametrize("concurrency", [1, WIDE, WIDE + 8])
    @pytest.mark.parametrize("is_full", [False, True])
    async def test_only_one_of_many_that_waits_for_nothing_but_a_place_prepares_in_line(
        self, clock: FakeClock, concurrency: int, per_second: float | None, *, is_full: bool
    ) -> None:
        admission = Admission(Limits(concurrency=concurrency, per_second=per_second), clock)
        if is_full:
            for _ in range(concurrency):
                assert admission.places.try_acquire()
        prepared: list[None] = []

        async def prepare() -> None:
            prepared.append(None)

        entering = asyncio.create_task(admission.acquire(prepare))
        await asyncio.sleep(0)
        if is_full:
            assert not entering.done()
            admission.release()
        may = is_full and concurrency > WIDE and per_second is None
        assert (await entering, len(prepared)) == (may, int(may))
        admission.release()
        assert admission.places.free == (1 if is_full else concurrency)

    @pytest.mark.asyncio
    async def test_what_is_entered_at_once_is_a_free_place_without_a_rate_limit(self, clock: FakeClock) -> None:
        free, paced = Admission(Limits(concurrency=1), clock), Admission(Limits(concurrency=1, per_second=9), clock)
        assert [free.try_acquire(), free.try_acquire(), paced.try_acquire()] == [True, False, False]
        free.release()
        assert free.try_acquire()
