"""One scheduler for any number of operations: due times, shared polls, timeouts, budgets, clean leaving."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest
from attrs import define, field
from fakes import FakeClock
from hypothesis import given, settings
from hypothesis import strategies as st
from leaks import others

from invoicing_async._einvoices.poll_scheduler import POLLS_PER_TASK, Result, Scheduler
from invoicing_async.errors import InvoicingError, PollTimeoutError, RateLimitError, TransportError
from invoicing_async.models import InvoiceRequest, RequestStatus
from invoicing_async.polling import Poller

pytestmark = pytest.mark.asyncio

A, B = "a", "b"
EVERY_SECOND = Poller(first=1, factor=1, jitter=0, timeout=None)


def new(request_id: str) -> InvoiceRequest:
    return InvoiceRequest(request_id=request_id, status=RequestStatus.NEW)


def done(request_id: str) -> InvoiceRequest:
    return InvoiceRequest(request_id=request_id, status=RequestStatus.SUCCESS)


@define(eq=False)
class Watching:
    """Somebody who waits, and what became of it."""

    schedule: Poller = EVERY_SECOND
    heard: list[tuple[str, Result]] = field(factory=list)

    def deliver(self, request_id: str, result: Result) -> None:
        self.heard.append((request_id, result))

    @property
    def error(self) -> Exception:
        ((_, result),) = self.heard
        assert isinstance(result, Exception)
        return result


@define
class Service:
    """Answers polls as its plan says: by default NEW until `ends` seconds on the clock. Notes when it was asked."""

    clock: FakeClock
    ends: float = float("inf")
    plan: dict[str, list[Result]] = field(factory=dict)
    asked: list[tuple[float, str]] = field(factory=list)
    heard: list[tuple[str, int]] = field(factory=list)
    inside: int = 0
    most: int = 0
    takes: float = 0.0

    async def poll(self, request_id: str, seconds: float) -> InvoiceRequest:
        self.asked.append((self.clock.elapsed, request_id))
        self.inside += 1
        self.most = max(self.most, self.inside)
        try:
            if self.takes:
                await self.clock.sleep(self.takes)
            else:
                await asyncio.sleep(0)
        finally:
            self.inside -= 1
        plan = self.plan.get(request_id)
        answer = plan.pop(0) if plan else done(request_id) if self.clock.elapsed >= self.ends else new(request_id)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def times(self, request_id: str = A) -> list[float]:
        return [when for when, number in self.asked if number == request_id]


def scheduler_for(service: Service, *, concurrency: int = 8) -> Scheduler:
    return Scheduler(
        service.poll,
        clock=service.clock,
        concurrency=concurrency,
        fatal=lambda error: False,
        on_answer=lambda answer, polls: service.heard.append((answer.request_id, polls)),
    )


async def settled(steps: int = 20) -> None:
    for _ in range(steps):
        await asyncio.sleep(0)


async def turn(clock: FakeClock, seconds: float, *, step: float = 0.25) -> None:
    """Let the clock go on in small steps, and everything happen that falls due."""
    await settled()
    end = clock.elapsed + seconds
    while clock.elapsed < end - 1e-9:
        clock.advance(min(step, end - clock.elapsed))
        await settled()


@asynccontextmanager
async def serving(*, concurrency: int = 8, **named: object) -> AsyncIterator[tuple[Service, Scheduler]]:
    """Yield a service and a scheduler on a clock turned by hand; afterwards nothing may be left."""
    service = Service(FakeClock(auto=False))
    for name, value in named.items():
        setattr(service, name, value)
    scheduler = scheduler_for(service, concurrency=concurrency)
    yield service, scheduler
    await scheduler.settle()
    await settled(3)
    assert len(scheduler) == 0
    assert scheduler._active == 0
    assert scheduler._operations._heap == []
    assert others() == set()


class TestSchedule:
    async def test_an_operation_is_polled_on_its_schedule_until_it_is_terminal(self) -> None:
        async with serving(ends=4.5) as (service, scheduler):
            watching = Watching(Poller(first=1, factor=2, ceiling=30, jitter=0))
            assert scheduler.watch(A, watching)
            await turn(service.clock, 20)
        assert service.times() == [1, 3, 7]
        assert watching.heard == [(A, done(A))]
        assert service.heard == [(A, 1), (A, 2), (A, 3)]

    async def test_nothing_runs_while_nothing_is_watched(self) -> None:
        async with serving() as (_, scheduler):
            assert len(scheduler) == 0
            assert others() == set()

    async def test_the_same_watcher_counts_once(self) -> None:
        async with serving(ends=0) as (service, scheduler):
            watching = Watching()
            assert scheduler.watch(A, watching) is True
            assert scheduler.watch(A, watching) is False
            await turn(service.clock, 2)
        assert len(watching.heard) == 1

    async def test_spread_draws_the_first_poll_from_the_first_wait(self) -> None:
        async with serving(ends=0) as (service, scheduler):
            service.clock._chances = [index / 100 for index in range(100)]
            for index in range(40):
                scheduler.watch(str(index), Watching(), spread=True)
            await turn(service.clock, 2, step=0.01)
        assert len({when for when, _ in service.asked}) > 30
        assert max(when for when, _ in service.asked) < 1.0

    async def test_a_sooner_operation_moves_the_timer_forward(self) -> None:
        async with serving(ends=0) as (service, scheduler):
            late, soon = Watching(Poller(first=10, jitter=0)), Watching()
            scheduler.watch(A, late)
            scheduler.watch(B, soon)
            await turn(service.clock, 1)
            assert soon.heard
            assert not late.heard
            await turn(service.clock, 9)
        assert service.asked == [(1, B), (10, A)]

    async def test_an_answer_under_a_busy_worker_does_not_hide_the_next_due_time(self) -> None:
        """A worker that goes on to a poll that hangs must not take the timer of its last operation with it."""
        async with serving(concurrency=2) as (service, scheduler):
            hang = asyncio.Event()

            async def poll(request_id: str, seconds: float) -> InvoiceRequest:
                service.asked.append((service.clock.elapsed, request_id))
                if request_id == B:
                    await hang.wait()
                    return done(B)
                return done(A) if len(service.times(A)) == 4 else new(A)

            scheduler._poll = poll
            first, second = Watching(), Watching()
            scheduler.watch(A, first)
            scheduler.watch(B, second)
            await turn(service.clock, 4)
            assert first.heard == [(A, done(A))]
            assert not second.heard
            hang.set()
            await settled()
        assert service.times(A) == [1, 2, 3, 4]

    async def test_at_most_so_many_polls_run_at_a_time(self) -> None:
        async with serving(concurrency=5, ends=0, takes=0.1) as (service, scheduler):
            watching = Watching()
            for index in range(200):
                scheduler.watch(str(index), watching)
            await turn(service.clock, 10, step=0.1)
        assert service.most == 5
        assert len(watching.heard) == 200

    async def test_polls_that_answer_from_memory_give_way_to_others(self) -> None:
        """A task ends after some polls, so that those who wait get their results meanwhile."""
        clock = FakeClock(auto=False)
        steps, at = 0, list[int]()

        async def poll(request_id: str, seconds: float) -> InvoiceRequest:
            at.append(steps)
            return done(request_id)

        scheduler = scheduler_for(Service(clock), concurrency=1)
        scheduler._poll = poll
        watching = Watching()
        for index in range(POLLS_PER_TASK * 3):
            scheduler.watch(str(index), watching)
        await settled()
        clock.advance(1)
        while len(watching.heard) < POLLS_PER_TASK * 3:
            steps += 1
            await asyncio.sleep(0)
        await scheduler.settle()
        assert max(Counter(at).values()) == POLLS_PER_TASK


class TestTimeouts:
    async def test_the_last_poll_falls_on_the_timeout_itself(self) -> None:
        async with serving() as (service, scheduler):
            watching = Watching(Poller(first=1, factor=2, jitter=0, timeout=5))
            scheduler.watch(A, watching)
            await turn(service.clock, 6)
        assert service.times() == [1, 3, 5]
        error = watching.error
        assert isinstance(error, PollTimeoutError)
        assert (error.request_id, error.polls, error.last) == (A, 3, new(A))
        assert str(error) == "request a is NEW after 5 s and 3 polls"

    async def test_an_operation_that_never_answered_has_no_last_answer(self) -> None:
        async with serving(plan={A: [TransportError("cut")] * 9}) as (service, scheduler):
            watching = Watching(Poller(first=1, factor=1, jitter=0, timeout=2))
            scheduler.watch(A, watching)
            await turn(service.clock, 3)
        assert isinstance(watching.error, PollTimeoutError)
        assert watching.error.last is None
        assert "not answered" in str(watching.error)

    async def test_each_watcher_has_its_own_timeout_from_when_it_came(self) -> None:
        async with serving(ends=20) as (service, scheduler):
            poller = Poller(first=3, factor=1, jitter=0, timeout=7)
            first, second, third = Watching(poller), Watching(poller), Watching()
            scheduler.watch(A, first)
            scheduler.watch(A, third)
            await turn(service.clock, 5)
            scheduler.watch(A, second)
            await turn(service.clock, 2)
            assert isinstance(first.error, PollTimeoutError)
            assert not second.heard
            await turn(service.clock, 4.5)
            assert not second.heard
            await turn(service.clock, 0.5)
            assert isinstance(second.error, PollTimeoutError)
            await turn(service.clock, 10)
            assert third.heard == [(A, done(A))]

    async def test_a_late_watcher_is_not_polled_without_a_pause(self) -> None:
        """The timeout of one who came late counts from its own beginning, and so does its schedule's last wait."""
        async with serving() as (service, scheduler):
            poller = Poller(first=1, factor=1, jitter=0, timeout=4)
            scheduler.watch(A, Watching(poller))
            await turn(service.clock, 3.5)
            scheduler.watch(A, Watching(poller))
            await turn(service.clock, 6)
        assert len(service.times()) < 12
        assert service.times()[-1] == 7.5
        assert all(later > sooner for sooner, later in pairwise(service.times()))

    async def test_a_shorter_wait_of_a_late_watcher_moves_the_next_poll_forward(self) -> None:
        async with serving(ends=4) as (service, scheduler):
            slow, quick = Watching(Poller(first=30, jitter=0)), Watching()
            scheduler.watch(A, slow)
            await turn(service.clock, 2)
            scheduler.watch(A, quick)
            await turn(service.clock, 3)
            assert slow.heard == quick.heard == [(A, done(A))]
        assert service.times() == [3, 4]

    async def test_a_longer_wait_of_a_late_watcher_changes_nothing(self) -> None:
        async with serving(ends=2) as (service, scheduler):
            slow, quick = Watching(Poller(first=30, jitter=0)), Watching()
            scheduler.watch(A, quick)
            scheduler.watch(A, slow)
            await turn(service.clock, 3)
            assert slow.heard == quick.heard == [(A, done(A))]
        assert service.times() == [1, 2]

    async def test_who_comes_during_a_poll_hears_its_answer(self) -> None:
        async with serving(ends=1, takes=1) as (service, scheduler):
            first, second = Watching(), Watching()
            scheduler.watch(A, first)
            await turn(service.clock, 1.5)
            scheduler.watch(A, second)
            await turn(service.clock, 1)
            assert second.heard == [(A, done(A))]
        assert service.times() == [1]

    async def test_a_service_that_hangs_does_not_hold_what_waits_for_its_turn(self) -> None:
        """Who waits longer for a turn than its timeout and a whole poll is told so without one."""
        async with serving(concurrency=1, takes=100) as (service, scheduler):
            poller = Poller(first=1, jitter=0, timeout=5, poll_timeout=30)
            watching = Watching(poller)
            for name in (A, B, "c", "d"):
                scheduler.watch(name, watching)
            await turn(service.clock, 101, step=1)
            assert len(service.asked) == 1
            assert [type(result) for _, result in watching.heard] == [PollTimeoutError] * 4
            assert {name for name, _ in watching.heard} == {A, B, "c", "d"}

    async def test_without_a_timeout_a_turn_is_waited_for(self) -> None:
        async with serving(concurrency=1, takes=100, ends=0) as (service, scheduler):
            watching = Watching()
            scheduler.watch(A, watching)
            scheduler.watch(B, watching)
            await turn(service.clock, 201, step=1)
            assert len(watching.heard) == 2


class TestErrors:
    async def test_transient_errors_are_polled_through_and_counted_in_a_row(self) -> None:
        cut = TransportError("cut")
        plan: list[Result] = [cut, cut, new(A), cut, cut, done(A)]
        async with serving(plan={A: plan}) as (service, scheduler):
            watching = Watching(Poller(first=1, factor=1, jitter=0, errors=2))
            scheduler.watch(A, watching)
            await turn(service.clock, 7)
        assert watching.heard == [(A, done(A))]
        assert service.times() == [1, 2, 3, 4, 5, 6]

    async def test_beyond_the_budget_the_last_error_is_raised(self) -> None:
        cuts = [TransportError(str(index)) for index in range(4)]
        async with serving(plan={A: list(cuts)}) as (service, scheduler):
            watching = Watching(Poller(first=1, factor=1, jitter=0, errors=2, error_time=0))
            scheduler.watch(A, watching)
            await turn(service.clock, 6)
        assert watching.error is cuts[2]

    async def test_each_watcher_has_its_own_budget(self) -> None:
        cut = TransportError("cut")
        async with serving(plan={A: [cut, cut, done(A)]}) as (service, scheduler):
            strict = Watching(Poller(first=1, factor=1, jitter=0, errors=0))
            tolerant = Watching(Poller(first=1, factor=1, jitter=0, errors=5))
            scheduler.watch(A, strict)
            scheduler.watch(A, tolerant)
            await turn(service.clock, 4)
        assert strict.error is cut
        assert tolerant.heard == [(A, done(A))]

    @pytest.mark.parametrize("error", [InvoicingError("final"), RuntimeError("a defect"), ValueError("bad")])
    async def test_what_polling_again_cannot_mend_ends_it_at_once_for_all(self, error: Exception) -> None:
        async with serving(plan={A: [error]}) as (service, scheduler):
            first, second = Watching(), Watching()
            scheduler.watch(A, first)
            scheduler.watch(A, second)
            await turn(service.clock, 2)
        assert first.error is second.error is error

    async def test_retry_after_is_a_floor_for_the_next_poll(self) -> None:
        slow_down = RateLimitError(status=429, retry_after=10)
        async with serving(plan={A: [slow_down, done(A)]}) as (service, scheduler):
            watching = Watching()
            scheduler.watch(A, watching)
            await turn(service.clock, 12)
        assert service.times() == [1, 11]

    async def test_nobody_who_comes_later_goes_below_the_floor(self) -> None:
        slow_down = RateLimitError(status=429, retry_after=10)
        async with serving(plan={A: [slow_down, done(A)]}) as (service, scheduler):
            scheduler.watch(A, Watching())
            await turn(service.clock, 2)
            scheduler.watch(A, Watching(), spread=True)
            await turn(service.clock, 10)
        assert service.times() == [1, 11]

    async def test_who_would_have_given_up_by_the_floor_hears_it_now(self) -> None:
        slow_down = RateLimitError(status=429, retry_after=10)
        async with serving(plan={A: [slow_down]}) as (service, scheduler):
            first, second = Watching(Poller(first=1, jitter=0, timeout=8)), Watching(Poller(first=1, timeout=5))
            patient = Watching(Poller(first=1, jitter=0, timeout=60))
            scheduler.watch(A, first)
            scheduler.watch(A, patient)
            await turn(service.clock, 2)
            assert isinstance(first.error, PollTimeoutError)
            scheduler.watch(A, second)
            assert isinstance(second.error, PollTimeoutError)
            assert not patient.heard
            await scheduler.unwatch(A, patient)

    async def test_a_retry_after_shorter_than_the_wait_changes_nothing(self) -> None:
        slow_down = RateLimitError(status=429, retry_after=0.5)
        async with serving(plan={A: [slow_down, done(A)]}) as (service, scheduler):
            scheduler.watch(A, Watching())
            await turn(service.clock, 3)
        assert service.times() == [1, 2]


class Waits(Poller):
    """A schedule that gives these waits in turn, and raises what is an error among them."""

    def __init__(self, *waits: float | Exception) -> None:
        super().__init__(timeout=None)
        object.__setattr__(self, "waits", list(waits))
        object.__setattr__(self, "learned", [])

    def delay(self, attempt: int, elapsed: float = 0.0, *, chance: float = 0.0) -> float:
        waits: list[float | Exception] = self.waits  # type: ignore[attr-defined]
        wait = waits.pop(0) if waits else None
        if isinstance(wait, Exception):
            raise wait
        return wait  # type: ignore[return-value]

    def learn(self, after: float, by: float, *, done: bool) -> None:
        self.learned.append((after, by, done))  # type: ignore[attr-defined]


class TestOwnSchedules:
    async def test_waits_that_end_end_the_wait(self) -> None:
        async with serving() as (service, scheduler):
            watching = Watching(Waits(1, 2))
            scheduler.watch(A, watching)
            await turn(service.clock, 5)
        assert service.times() == [1, 3]
        assert isinstance(watching.error, PollTimeoutError)

    async def test_no_wait_at_all_is_no_poll(self) -> None:
        async with serving() as (service, scheduler):
            watching = Watching(Waits())
            scheduler.watch(A, watching)
        assert service.asked == []
        assert isinstance(watching.error, PollTimeoutError)

    async def test_whose_waits_end_leaves_the_word_to_the_others(self) -> None:
        async with serving(ends=3) as (service, scheduler):
            short, long = Watching(Waits(1)), Watching()
            scheduler.watch(A, short)
            scheduler.watch(A, long)
            await turn(service.clock, 4)
        assert isinstance(short.error, PollTimeoutError)
        assert long.heard == [(A, done(A))]

    @pytest.mark.parametrize("polled", [0, 1])
    async def test_a_schedule_that_raises_ends_its_own_wait_only(self, polled: int) -> None:
        defect = ValueError("a bad wait")
        async with serving(ends=3) as (service, scheduler):
            bad, good = Watching(Waits(*[1.0] * polled, defect)), Watching()
            scheduler.watch(A, bad)
            scheduler.watch(A, good)
            await turn(service.clock, 4)
        assert bad.error is defect
        assert good.heard == [(A, done(A))]

    async def test_a_schedule_that_raises_after_a_failed_poll_is_heard_too(self) -> None:
        defect = ValueError("a bad wait")
        async with serving(plan={A: [TransportError("cut")]}) as (service, scheduler):
            bad = Watching(Waits(1.0, defect))
            scheduler.watch(A, bad)
            await turn(service.clock, 2)
        assert bad.error is defect

    async def test_a_schedule_hears_what_each_poll_found_since_the_last(self) -> None:
        async with serving(ends=2.5) as (service, scheduler):
            waits = Waits(1, 1, 1, 1)
            scheduler.watch(A, Watching(waits))
            await turn(service.clock, 4)
        assert waits.learned == [(0, 1, False), (1, 2, False), (2, 3, True)]  # type: ignore[attr-defined]


class TestLeaving:
    async def test_the_last_one_to_leave_cancels_the_poll_that_runs(self) -> None:
        async with serving(takes=10) as (service, scheduler):
            first, second = Watching(), Watching()
            scheduler.watch(A, first)
            scheduler.watch(A, second)
            await turn(service.clock, 2)
            await scheduler.unwatch(A, first)
            assert service.inside == 1
            await scheduler.unwatch(A, second)
            assert service.inside == 0
        assert first.heard == second.heard == []

    async def test_leaving_what_is_not_watched_does_nothing(self) -> None:
        async with serving() as (_, scheduler):
            await scheduler.unwatch(A, Watching())

    async def test_a_poll_cancelled_before_it_began_gives_its_place_back(self) -> None:
        async with serving(concurrency=1, ends=0) as (service, scheduler):
            watching = Watching()
            scheduler.watch(A, watching)
            await settled()
            service.clock.advance(1)
            while scheduler._active == 0:  # noqa: ASYNC110 - the very step matters
                await asyncio.sleep(0)
            await scheduler.unwatch(A, watching)
            await settled()
            assert service.asked == []
            assert scheduler._active == 0
            scheduler.watch(B, watching)
            await turn(service.clock, 2)
            assert watching.heard == [(B, done(B))]

    async def test_leaving_one_operation_leaves_the_others(self) -> None:
        async with serving(ends=2) as (service, scheduler):
            watching, other = Watching(), Watching()
            scheduler.watch(A, watching)
            scheduler.watch(B, watching)
            scheduler.watch(B, other)
            await turn(service.clock, 1.5)
            await scheduler.unwatch_all(watching)
            assert len(scheduler) == 1
            await turn(service.clock, 3)
        assert watching.heard == []
        assert other.heard == [(B, done(B))]

    async def test_an_operation_watched_anew_is_a_new_one(self) -> None:
        async with serving(ends=4) as (service, scheduler):
            first, second = Watching(), Watching()
            scheduler.watch(A, first)
            scheduler.watch(B, second)
            await turn(service.clock, 0.5)
            await scheduler.unwatch(A, first)
            scheduler.watch(A, first)
            await turn(service.clock, 6)
        assert service.times(A) == [1.5, 2.5, 3.5, 4.5]
        assert service.times(B) == [1, 2, 3, 4]

    @pytest.mark.parametrize("ending", [new(A), TransportError("late")], ids=["answer", "error"])
    async def test_a_cancelled_poll_that_ends_otherwise_says_nothing_to_who_came_anew(self, ending: Result) -> None:
        """What a poll says whose watchers have left belongs to nobody, not to those who ask anew."""
        async with serving(concurrency=4) as (service, scheduler):
            stubborn = asyncio.Event()

            async def poll(request_id: str, seconds: float) -> InvoiceRequest:
                service.asked.append((service.clock.elapsed, request_id))
                if len(service.asked) > 1:
                    return done(request_id)
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    await stubborn.wait()
                if isinstance(ending, Exception):
                    raise ending
                return ending

            scheduler._poll = poll
            first, second = Watching(), Watching()
            scheduler.watch(A, first)
            await turn(service.clock, 1)
            scheduler.leave(A, first)
            await settled()
            scheduler.watch(A, second)
            stubborn.set()
            await settled()
            assert second.heard == []
            await turn(service.clock, 1)
            assert second.heard == [(A, done(A))]
        assert service.heard == [(A, 1)]

    @pytest.mark.parametrize("steps", range(12))
    async def test_leaving_at_any_step_leaves_nothing(self, steps: int) -> None:
        async with serving(takes=0.5) as (service, scheduler):
            watching = Watching()
            scheduler.watch(A, watching)
            for _ in range(steps):
                service.clock.advance(0.25)
                await asyncio.sleep(0)
            await scheduler.unwatch(A, watching)


class Script:
    """What a property test does to a scheduler, and the model it must agree with."""

    def __init__(self, ends: Sequence[int], concurrency: int) -> None:
        self.ends = ends
        self.concurrency = concurrency

    async def run(self, turns: Callable[[FakeClock], object]) -> tuple[Service, list[Watching]]:
        clock = FakeClock(auto=False)
        service = Service(clock, takes=0.125)
        service.plan = {str(index): [*[new(str(index))] * end, done(str(index))] for index, end in enumerate(self.ends)}
        scheduler = scheduler_for(service, concurrency=self.concurrency)
        watchings = [Watching() for _ in self.ends]
        for index, watching in enumerate(watchings):
            scheduler.watch(str(index), watching)
        await turn(clock, (max(self.ends, default=0) + 2) * (1.25 + len(self.ends) / 8), step=0.125)
        turns(clock)
        await scheduler.settle()
        assert others() == set()
        return service, watchings


@settings(max_examples=30, deadline=None)
@given(ends=st.lists(st.integers(0, 4), max_size=8), concurrency=st.integers(1, 4))
async def test_every_operation_ends_once_after_exactly_its_polls(ends: list[int], concurrency: int) -> None:
    service, watchings = await Script(ends, concurrency).run(lambda clock: None)
    assert [watching.heard for watching in watchings] == [[(str(n), done(str(n)))] for n in range(len(ends))]
    assert Counter(number for _, number in service.asked) == {str(n): end + 1 for n, end in enumerate(ends)}
    assert service.most <= concurrency
