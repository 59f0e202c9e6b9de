"""What is leased of a shared rate is spent evenly, what is late is forfeited, and no more is leased than is used."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from invoicing_async._core.leased_rate import ASKING, LATE, LONGEST, SPAN, LeasedRate
from invoicing_async._core.shared_lanes import Lease


def lease(permits: int, begins: float, ends: float, took: float = 0.0) -> Lease:
    return Lease(permits=permits, begins=begins, ends=ends, took=took)


def spent(rate: LeasedRate, now: float, until: float = inf) -> list[float]:
    """Use each permit when its time comes, and give those times."""
    times = []
    while (wait := rate.wait(now)) < inf and now + wait < until:
        now += wait
        rate.take()
        times.append(now)
    return times


def test_a_lease_is_spent_evenly_over_its_time() -> None:
    rate = LeasedRate(100.0)
    assert rate.wait(5.0) == inf
    rate.add(lease(4, 7.0, 9.0))
    assert spent(rate, 5.0) == [7.0, 7.5, 8.0, 8.5]
    assert (rate.wait(8.5), rate.forfeited) == (inf, 0)


def test_the_next_lease_goes_on_where_the_last_one_ends() -> None:
    rate = LeasedRate(2.0)
    rate.add(lease(2, 0.0, 1.0))
    rate.add(lease(2, 3.0, 4.0))
    assert spent(rate, 0.0) == [0.0, 0.5, 3.0, 3.5]


def test_permits_whose_time_is_past_are_forfeited() -> None:
    rate = LeasedRate(10.0)
    rate.add(lease(10, 0.0, 1.0))
    assert spent(rate, 0.72) == pytest.approx([0.72, 0.8, 0.9])
    assert rate.forfeited == 7


def test_a_lease_that_is_past_is_of_no_use() -> None:
    rate = LeasedRate(10.0)
    rate.add(lease(10, 0.0, 1.0))
    assert rate.wait(60.0) == inf
    assert rate.forfeited == 10


def test_waking_a_little_late_loses_nothing() -> None:
    rate = LeasedRate(1000.0)
    rate.add(lease(100, 0.0, 0.1))
    now = 0.0
    for number in range(100):
        now += rate.wait(now) + (LATE * 0.99 if number % 20 == 5 else 0.0)
        assert not rate.wait(now)
        rate.take()
    assert (rate.forfeited, rate.wait(now)) == (0, inf)


@given(st.floats(1.0, 2000.0), st.integers(1, 60), st.lists(st.floats(0.0, 0.3), max_size=40))
def test_no_second_has_more_than_the_rate_and_what_may_be_late(rate: float, size: int, pauses: list[float]) -> None:
    """However late whoever uses them comes: leases follow each other without a gap."""
    leased, now, free_at = LeasedRate(rate), 0.0, 0.0
    used: list[float] = []
    for pause in [*pauses, *[0.0] * 60]:
        now += pause
        if leased.is_short(now):
            begins = max(free_at, now)
            free_at = begins + size / rate
            leased.add(lease(size, begins, free_at))
        wait = leased.wait(now)
        if wait < inf:
            now += wait
            leased.take()
            used.append(now)
    most = rate * (1 + max(LATE, 1 / rate)) + 1 + 1e-6
    assert all(sum(begin <= at < begin + 1 for at in used) <= most for begin in used)


def test_after_a_quiet_time_a_burst_may_begin_at_once() -> None:
    rate = LeasedRate(10.0, burst=3)
    rate.add(lease(6, 0.0, 0.6))
    assert spent(rate, 0.0) == pytest.approx([0.0, 0.0, 0.0, 0.1, 0.2, 0.3])


def test_the_next_lease_is_asked_for_when_the_last_one_begins() -> None:
    rate = LeasedRate(10.0)
    assert rate.is_short(0.0)
    rate.add(lease(10, 1.0, 2.0))
    assert (rate.is_short(0.9), rate.is_short(1.0)) == (False, True)


def test_no_more_is_leased_than_a_span_of_the_rate_and_than_is_of_use() -> None:
    """A lease that was used up may be larger; one that was not says what is of use."""
    rate, now, sizes = LeasedRate(100.0), 0.0, []
    for _ in range(6):
        sizes.append(rate.wanted(1))
        rate.add(lease(sizes[-1], now, now + sizes[-1] / 100))
        now = spent(rate, now)[-1] + 0.01
    assert sizes == [1, 2, 4, 8, 10, 10]
    assert (rate.wanted(7), LeasedRate(100.0).wanted(7), LeasedRate(100.0).wanted(70)) == (10, 7, 10)
    rate.add(lease(10, now, now + 0.1))
    assert len(spent(rate, now, now + 0.025)) == 3
    assert rate.wait(now + 1) == inf
    assert (rate.wanted(1), rate.wanted(5)) == (3, 5)


def test_a_rate_below_one_in_a_span_is_leased_one_by_one() -> None:
    assert LeasedRate(0.5).wanted(64) == 1


@pytest.mark.parametrize(("took", "span"), [(0.001, SPAN), (0.2, ASKING * 0.2), (5.0, LONGEST)])
def test_where_asking_takes_long_more_is_leased_at_a_time(took: float, span: float) -> None:
    rate = LeasedRate(1000.0)
    rate.add(lease(1000, 0.0, 1.0, took))
    assert rate.wanted(5000) == int(1000 * span)


def test_the_rate_is_that_of_the_last_lease() -> None:
    """Somebody else may have changed it."""
    rate = LeasedRate(1000.0)
    rate.add(lease(5, 0.0, 1.0))
    assert rate.wanted(5000) == 1
    assert spent(rate, 0.0) == pytest.approx([0.0, 0.2, 0.4, 0.6, 0.8])
