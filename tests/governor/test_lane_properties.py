"""What holds of a lane and its parts whatever happens."""

from __future__ import annotations

from collections import Counter
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from invoicing_async._core.fair import FairQueue
from invoicing_async._core.rate_limiter import RateLimiter
from invoicing_async._governor.budget import CAPACITY, RetryBudget
from invoicing_async._governor.concurrency import ConcurrencyLimit
from invoicing_async._governor.lane import Answer, Lane, Ticket
from invoicing_async.health import LaneState
from invoicing_async.policies import OutagePolicy

ANSWERS = st.sampled_from(Answer)
Steps = list[tuple[float, int, Answer, float, float | None]]
STEPS = st.lists(
    st.tuples(
        st.floats(0, 5), st.integers(0, 12), ANSWERS, st.floats(0, 1, exclude_max=True), st.none() | st.floats(0, 1e9)
    ),
    max_size=200,
)
POLICIES = st.builds(
    OutagePolicy,
    after=st.integers(1, 30),
    probe=st.floats(0.01, 10),
    ceiling=st.floats(0.01, 60),
    patience=st.just(60.0),
)


def driven(lane: Lane, steps: Steps) -> tuple[float, list[Ticket]]:
    """Let a lane live through some steps: begin what may begin, and end one with an answer."""
    now, under_way = 0.0, list[Ticket]()
    for seconds, which, answer, chance, retry_after in steps:
        now += seconds
        while lane.wait(now) == 0 and lane.in_use < lane.top + 5:
            under_way.append(lane.begin(now))
        assert 0 <= lane.in_use <= lane.top
        assert 1 <= lane.limit <= lane.top
        assert 1 <= lane.allowed <= lane.limit
        assert len([ticket for ticket in under_way if ticket.is_probe]) <= 1
        if under_way:
            ticket = under_way.pop(which % len(under_way))
            lane.end(ticket, answer, now, iter([chance, chance]).__next__, retry_after=retry_after)
    return now, under_way


@given(POLICIES, st.integers(1, 70), st.booleans(), STEPS)
def test_no_more_are_under_way_than_may_be(policy: OutagePolicy, top: int, adaptive: bool, steps: Steps) -> None:  # noqa: FBT001
    """Neither more than the limit, which is never below one or above the bound, nor two probes at once."""
    driven(Lane(policy, top, adaptive=adaptive), steps)


@given(POLICIES, st.integers(1, 70), STEPS)
def test_no_lane_is_paused_for_ever(policy: OutagePolicy, top: int, steps: Steps) -> None:
    """Whatever happened, once all have ended an attempt may begin after a Retry-After or a probe's distance at most."""
    lane = Lane(policy, top)
    now, under_way = driven(lane, steps)
    for ticket in under_way:
        lane.end(ticket, Answer.SILENT, now, lambda: 0.5)
    assert lane.wait(now) <= max(policy.patience, policy.ceiling, policy.probe) + 1e-6
    now += lane.wait(now)
    assert lane.wait(now) == 0


@given(POLICIES, st.integers(1, 70), STEPS)
def test_successes_bring_every_lane_back(policy: OutagePolicy, top: int, steps: Steps) -> None:
    """After as many successes as there are places the lane is open, with as many places as its limit has."""
    lane = Lane(policy, top)
    now, under_way = driven(lane, steps)
    for ticket in under_way:
        lane.end(ticket, Answer.SILENT, now, lambda: 0.5)
    for _ in range(top + 3):
        now += lane.wait(now)
        lane.end(lane.begin(now), Answer.SUCCESS, now + 0.01, lambda: 0.5)
    assert lane.state(now) is LaneState.OPEN
    assert lane.allowed == lane.limit


@given(
    st.lists(st.tuples(st.sampled_from(["succeed", "refuse", "crowd", "restart"]), st.floats(1e-9, 1e4), st.booleans()))
)
def test_the_limit_stays_between_one_and_its_bound(steps: list[tuple[str, float, bool]]) -> None:
    """Whatever is heard."""
    limit, now = ConcurrencyLimit(40), 0.0
    for what, seconds, busy in steps:
        now += seconds
        match what:
            case "succeed":
                limit.succeed(seconds, now, busy=busy)
            case "refuse":
                limit.refuse(now)
            case "crowd":
                limit.crowd(int(seconds) % 50, now)
            case _:
                limit.restart()
        assert 1 <= limit.limit <= 40
        assert limit.places == int(limit.limit)


@given(st.lists(st.tuples(st.floats(0, 10), st.booleans()), max_size=300))
def test_a_budget_has_never_less_than_no_token(steps: list[tuple[float, bool]]) -> None:
    """Nor more than its capacity; and what waits as long as it says gets one."""
    budget, now = RetryBudget(tokens=2.0), 0.0
    for seconds, is_success in steps:
        now += seconds
        if is_success:
            budget.refund()
        else:
            budget.take(now)
        assert 0 <= budget.tokens <= CAPACITY
    assert budget.take(now + budget.wait(now) + 1e-6)


def test_retries_are_a_share_of_the_traffic() -> None:
    """Where attempts fail nine times out of ten, retries are no more than the successes, and what comes by itself."""
    budget, retries, successes = RetryBudget(), 0, 0
    for number in range(100_000):
        if number % 10 == 0:
            budget.refund()
            successes += 1
        else:
            retries += budget.take(number / 1_000)
    assert retries <= successes + CAPACITY + 100


@given(st.lists(st.tuples(st.floats(0, 3), st.floats(0, 3)), max_size=100), st.floats(0.1, 1000), st.integers(1, 20))
def test_a_rate_is_kept_in_every_span(pauses: list[tuple[float, float]], per_second: float, burst: int) -> None:
    """In no span begin more than `burst` and one, and what the rate allows in it."""
    rate, now, begun = RateLimiter(per_second, burst), 0.0, list[float]()
    for quiet, late in pauses:
        now += quiet
        due = now + rate.wait(now)
        now = due + late / per_second
        rate.take(due, now)
        begun.append(now)
    for first, since in enumerate(begun):
        for last in range(first, len(begun)):
            assert last - first + 1 <= burst + 1 + (begun[last] - since) * per_second + 1e-6


def test_a_burst_is_as_many_at_once_as_it_says() -> None:
    """After a quiet time; then one after another."""
    rate = RateLimiter(10.0, 5)
    begun = 0
    while rate.wait(100.0) == 0:
        rate.take(100.0, 100.0)
        begun += 1
    assert begun == 5
    assert rate.wait(100.0) == pytest.approx(0.1)


@given(st.lists(st.integers(1, 200), min_size=2, max_size=6))
def test_equal_stores_have_equal_shares(waiting: list[int]) -> None:
    """However many each has waiting: as long as all wait, their turns differ by one at most."""
    queue = FairQueue[int, int]()
    for store, many in enumerate(waiting):
        for number in range(many):
            queue.push(store, store * 1_000 + number)
    had = Counter[int]()
    while queue.lines and max(had.values(), default=0) < min(waiting):
        had[queue.pop() // 1_000] += 1
    assert max(had.values()) - min(had[store] for store in range(len(waiting))) <= 1


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=200))
def test_a_line_keeps_its_order(steps: list[tuple[int, bool]]) -> None:
    """Each store's own come out in the order in which they went in, and none is lost."""
    queue, put, got = FairQueue[int, tuple[int, int]](), Counter[int](), Counter[int]()
    for store, is_pop in steps:
        if is_pop and queue.lines:
            owner, number = queue.pop()
            assert number == got[owner]
            got[owner] += 1
        elif not is_pop:
            queue.push(store, (store, put[store]))
            put[store] += 1
    while queue.lines:
        got[queue.pop()[0]] += 1
    assert got == put


@settings(max_examples=20)
@given(st.integers(1, 64), st.integers(1, 30))
def test_into_an_outage_go_no_more_than_were_under_way(top: int, after: int) -> None:
    """At the bound, every failure closes its place: what is sent after the first one are probes."""
    lane, now = Lane(OutagePolicy(after=after), top, adaptive=False), 0.0
    under_way = [lane.begin(now) for _ in range(top)]
    sent = top
    while now < 600:
        if under_way:
            lane.end(under_way.pop(0), Answer.REFUSED, now, lambda: 0.5)
        wait = lane.wait(now)
        if wait == 0:
            under_way.append(lane.begin(now))
            sent += 1
        elif not under_way:
            assert wait < inf
            now += wait
    assert sent <= top + max(0, after - top) + 600 / 3.4 + 3
