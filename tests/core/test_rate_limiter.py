"""The rate limiter spaces places evenly, never lets a burst through, and loses none to who gives up."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from invoicing_async._core.rate_limiter import RateLimiter


def taken(limiter: RateLimiter, now: float, *, late: float = 0.0) -> float:
    """Wait for the next place, wake `late` seconds after it, take it, and give when that was."""
    due = now + limiter.wait(now)
    limiter.take(due, due + late)
    return due + late


def test_the_first_place_is_at_once_and_the_next_an_interval_later() -> None:
    limiter = RateLimiter(4.0)
    assert [taken(limiter, 10.0) - 10.0 for _ in range(4)] == [0.0, 0.25, 0.5, 0.75]


def test_a_pause_saves_up_nothing() -> None:
    limiter = RateLimiter(2.0)
    taken(limiter, 0.0)
    assert [taken(limiter, 100.0), taken(limiter, 100.0)] == [100.0, 100.5]


def test_who_only_looks_takes_nothing() -> None:
    limiter = RateLimiter(1.0)
    taken(limiter, 0.0)
    assert [limiter.wait(0.25) for _ in range(9)] == [0.75] * 9


def test_waking_late_does_not_slow_the_pace() -> None:
    """A hundred places of 10 ms, each taken 1 ms late, still end after a second."""
    limiter, now = RateLimiter(100.0), 0.0
    for _ in range(101):
        now = taken(limiter, now, late=0.001)
    assert now == pytest.approx(1.001)


def test_a_loop_that_was_blocked_makes_up_for_one_place_only() -> None:
    limiter = RateLimiter(1.0)
    taken(limiter, 0.0)
    now = taken(limiter, 0.0, late=60.0)
    assert [limiter.wait(now), taken(limiter, now), limiter.wait(now)] == [0.0, now, 1.0]


@given(st.floats(0.1, 1000.0), st.lists(st.tuples(st.floats(0.0, 5.0), st.booleans()), max_size=50))
def test_begins_are_an_interval_apart_and_in_order(per_second: float, asked: list[tuple[float, bool]]) -> None:
    """Whoever gives up after waiting changes nothing for those who do not."""
    limiter, now, begins = RateLimiter(per_second), 0.0, []
    for gap, gives_up in asked:
        now += gap
        assert limiter.wait(now) >= 0
        if not gives_up:
            now = taken(limiter, now)
            begins.append(now)
    apart = [later - earlier for earlier, later in pairwise(begins)]
    assert all(gap >= 1.0 / per_second - 1e-9 for gap in apart)


@given(st.floats(0.1, 1000.0), st.integers(1, 50))
def test_no_place_is_later_than_it_must_be(per_second: float, number: int) -> None:
    limiter = RateLimiter(per_second)
    assert [taken(limiter, 0.0) for _ in range(number)][-1] == pytest.approx((number - 1) / per_second)
