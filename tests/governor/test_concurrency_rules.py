"""How the limit of a lane is found: each trial, what decides it, and what is remembered of it, by examples."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from math import ceil, exp, log

import pytest

from invoicing_async._governor.concurrency import BEGIN, ConcurrencyLimit, Window

TOP = 64


def answered(limit: ConcurrencyLimit, seconds: float, now: float = 1.0, *, most: int = 2000, busy: bool = True) -> int:
    """Let answers of this latency come until the limit changes, and count them; `most` if it does not."""
    before = limit.limit
    for number in range(1, most + 1):
        limit.succeed(seconds, now, busy=busy)
        if limit.limit != before:
            return number
    return most


def refused(limit: ConcurrencyLimit, now: float = 1.0, *, most: int = 500) -> int:
    """Let refusals come until the limit changes, and count them."""
    before = limit.limit
    for number in range(1, most + 1):
        limit.refuse(now)
        if limit.limit != before:
            return number
    return most


def course(limit: ConcurrencyLimit, latency: Callable[[float], float], steps: int, now: float = 1.0) -> list[float]:
    """The limits that follow each other where the latency depends on them."""
    found = [limit.limit]
    for _ in range(steps):
        answered(limit, latency(limit.limit), now)
        found.append(limit.limit)
    return found


def steady(_: float) -> float:
    return 0.05


def queueing(capacity: float) -> Callable[[float], float]:
    """A service that does so many at once and lets the rest wait."""
    return lambda limit: 0.05 * max(1.0, limit / capacity)


class TestWindow:
    def test_the_first_answers_began_under_another_limit(self) -> None:
        window = Window(2, 3, 30)
        for latency in (9.0, 9.0, 1.0, 2.0):
            window.add(latency, busy=True)
        assert (window.heard, window.answers, window.busy, window.latency) == (4, 2, 2, 1.5)
        assert not window.is_full
        window.add(3.0, busy=False)
        assert (window.latency, window.busy) == (2.0, 2)

    def test_more_answers_are_wanted_where_they_vary(self) -> None:
        """Thirty for a variance of one, and four hundred at most."""
        even, varied, wild = (Window(0, 4, 30) for _ in range(3))
        for number in range(4):
            even.add(-3.0, busy=True)
            varied.add(1.0 if number % 2 else -1.0, busy=True)
        assert (even.is_full, varied.is_full) == (True, False)
        for number in range(26):
            assert not varied.is_full
            varied.add(1.0 if number % 2 else -1.0, busy=True)
        assert varied.is_full
        for number in range(400):
            assert not wild.is_full
            wild.add(100.0 if number % 2 else -100.0, busy=True)
        assert wild.is_full

    def test_the_refused_share_is_of_all_that_was_heard(self) -> None:
        window = Window(1, 3, 30)
        assert window.share == 0.0
        window.refused = 1
        assert window.share == 1.0
        for _ in range(3):
            window.add(0.0, busy=True)
        assert window.share == 0.25

    @pytest.mark.parametrize(("busy", "was_busy"), [(2, False), (3, True), (9, True)])
    def test_a_third_of_busy_attempts_make_a_busy_window(self, busy: int, was_busy: bool) -> None:  # noqa: FBT001
        window = Window(0, 3, 30)
        for number in range(9):
            window.add(0.0, busy=number < busy)
        assert window.was_busy is was_busy


class TestGrowth:
    def test_it_doubles_while_the_latency_stays(self) -> None:
        """After twice as many answers as places, when what was begun under the limit before has ended."""
        limit = ConcurrencyLimit(TOP)
        counts = [(answered(limit, 0.05), limit.limit) for _ in range(3)]
        assert counts == [(8 + 16, 16.0), (16 + 32, 32.0), (32 + 64, 64.0)]
        assert limit.places == TOP
        assert answered(limit, 0.05, most=1000) == 1000

    @pytest.mark.parametrize(("top", "limits"), [(3, [3.0]), (10, [8.0, 10.0]), (20, [8.0, 16.0, 20.0])])
    def test_it_never_exceeds_its_bound(self, top: int, limits: list[float]) -> None:
        assert course(ConcurrencyLimit(top), steady, len(limits) - 1) == limits

    def test_attempts_that_left_places_free_say_nothing_of_the_limit(self) -> None:
        limit = ConcurrencyLimit(TOP)
        assert answered(limit, 0.05, busy=False, most=8 + 3 * 16) == 56
        assert answered(limit, 0.05) == 16

    def test_a_latency_that_grew_with_the_limit_is_a_queue(self) -> None:
        """Back to half as much again as the capacity, and from then on more carefully."""
        limit = ConcurrencyLimit(TOP)
        assert course(limit, queueing(8), 2) == [8.0, 16.0, pytest.approx(12.0)]

    def test_a_latency_that_grew_by_less_than_half_as_much_is_none(self) -> None:
        limit = ConcurrencyLimit(TOP)
        assert course(limit, lambda limit: 0.05 * (limit / 8) ** 0.49, 2) == [8.0, 16.0, 32.0]
        limit = ConcurrencyLimit(TOP)
        assert course(limit, lambda limit: 0.05 * (limit / 8) ** 0.51, 2) == [8.0, 16.0, 16.0]

    def test_after_a_queue_it_grows_by_a_third_once_the_wait_is_over(self) -> None:
        """Two seconds after the first one, four after the second."""
        limit = ConcurrencyLimit(TOP)
        course(limit, queueing(8), 2, now=1.0)
        assert limit.limit == pytest.approx(12.0)
        assert answered(limit, queueing(8)(12), now=2.9) == 2000
        answered(limit, queueing(8)(12), now=3.0)
        assert limit.limit == pytest.approx(16.0)
        answered(limit, queueing(8)(16), now=3.5)
        assert limit.limit == pytest.approx(12.0)
        assert answered(limit, queueing(8)(12), now=7.4) == 2000
        answered(limit, queueing(8)(12), now=7.6)
        assert limit.limit == pytest.approx(16.0)

    def test_latencies_that_vary_take_more_answers_and_more_still_once_a_queue_was_met(self) -> None:
        """Ten times the latency now and then: 30, and then 80 answers for a variance of one."""

        def varied(limit: ConcurrencyLimit, middle: float, now: float) -> int:
            before, count = limit.limit, 0
            while limit.limit == before:
                count += 1
                limit.succeed(middle * 10 ** (0.5 if count % 2 else -0.5), now, busy=True)
            return count

        limit, variance = ConcurrencyLimit(32), (log(10) / 2) ** 2
        assert varied(limit, 0.05, 1.0) == 8 + ceil(30 * variance)
        assert varied(limit, 0.05, 1.0) == 16 + ceil(30 * variance)
        slow = ConcurrencyLimit(TOP)
        course(slow, queueing(8), 2, now=1.0)
        assert varied(slow, queueing(8)(12), 3.0) == 16 + ceil(80 * variance)

    def test_an_answer_without_a_measurable_time_is_no_error(self) -> None:
        limit = ConcurrencyLimit(TOP)
        answered(limit, 0.0)
        assert limit.limit == 16.0


class TestCrowding:
    def at_twelve(self) -> ConcurrencyLimit:
        """One of a service that does eight at once, with the check ten seconds after."""
        limit = ConcurrencyLimit(TOP)
        course(limit, queueing(8), 2, now=1.0)
        return limit

    def test_a_latency_far_above_the_best_is_looked_into_when_the_check_is_due(self) -> None:
        """With two thirds of the limit."""
        limit = self.at_twelve()
        assert answered(limit, 0.3, now=10.9) == 2000
        answered(limit, 0.3, now=11.1)
        assert limit.limit == pytest.approx(8.0)

    def test_a_latency_that_does_not_fall_with_the_limit_is_the_new_best(self) -> None:
        """Documents are larger now: the limit is restored, and grows from there."""
        limit = self.at_twelve()
        answered(limit, 0.3, now=11.1)
        answered(limit, 0.3, now=12.0)
        assert limit.limit == pytest.approx(12.0)
        answered(limit, 0.3, now=13.0)
        assert limit.limit == pytest.approx(16.0)

    def test_a_latency_that_falls_with_the_limit_is_followed_down(self) -> None:
        """A service that does two at once now: down by thirds, then to half as much again as it does."""
        limit = self.at_twelve()
        found = course(limit, queueing(2), 8, now=11.1)
        assert found[:5] == pytest.approx([12.0, 8.0, 16 / 3, 32 / 9, 64 / 27])
        assert all(later < before for before, later in pairwise(found[:5]))
        assert found[5:7] == pytest.approx([128 / 81, 3.0])

    def test_it_goes_on_down_below_two_places(self) -> None:
        limit = ConcurrencyLimit(3)
        answered(limit, 0.05, most=3 + 16)
        assert course(limit, queueing(0.5), 2) == pytest.approx([3.0, 2.0, 4 / 3])

    def test_it_goes_no_further_down_than_to_a_latency_that_is_known_as_the_best(self) -> None:
        """Which stays the best one."""
        limit = ConcurrencyLimit(TOP)
        assert course(limit, queueing(16), 3, now=1.0) == [8.0, 16.0, 32.0, pytest.approx(24.0)]
        answered(limit, 0.3, now=12.0)
        assert limit.limit == pytest.approx(16.0)
        answered(limit, 0.055, now=12.5)
        assert limit.limit > 16.0
        assert limit._best is not None
        assert limit._best < log(0.055)

    def test_one_place_is_the_least(self) -> None:
        limit = ConcurrencyLimit(2)
        limit.crowd(0, 1.0)
        assert (limit.limit, limit.places) == (1.0, 1)
        assert answered(limit, 9.0, now=1.5, most=100) == 100


class TestRefusals:
    def test_a_few_refusals_are_no_reason(self) -> None:
        """Three, and a tenth of what was heard."""
        limit = ConcurrencyLimit(TOP)
        for _ in range(3):
            limit.refuse(1.0)
        assert limit.limit == BEGIN
        limit.refuse(1.0)
        assert limit.limit == BEGIN / 2

    def test_with_many_answers_more_refusals_are_few(self) -> None:
        limit = ConcurrencyLimit(TOP)
        for _ in range(20):
            limit.succeed(0.05, 1.0, busy=True)
        assert refused(limit) == 6

    def test_what_is_expected_of_refusals_and_what_chance_adds_are_no_reason(self) -> None:
        """Of 59 attempts a quarter and half as much again, two deviations, a tenth and three."""
        limit = ConcurrencyLimit(TOP)
        limit._ambient = 0.25
        for _ in range(20):
            limit.succeed(0.05, 1.0, busy=True)
        assert refused(limit) == 39

    def test_two_places_are_halved_and_one_is_not(self) -> None:
        """Where it cannot be fewer, what is refused is expected, up to half of all."""
        two, one = ConcurrencyLimit(2), ConcurrencyLimit(1)
        refused(two)
        assert two.limit == 1.0
        assert refused(one, most=50) == 50
        assert one._ambient == 0.5

    def test_refusals_that_stop_with_half_the_limit_were_for_the_limit(self) -> None:
        """It stays, and what was refused is not tried again for two seconds."""
        limit = ConcurrencyLimit(TOP)
        refused(limit, now=1.0)
        assert limit.limit == 4.0
        answered(limit, 0.05, now=1.5, most=24)
        assert limit.limit == 4.0
        answered(limit, 0.05, now=1.6)
        assert limit.limit == pytest.approx(16 / 3)
        found = course(limit, steady, 3, now=1.7)
        assert max(found) < 8.0
        found = course(limit, steady, 4, now=60.0)
        assert max(found) > 8.0

    def test_a_larger_limit_that_is_refused_gives_way_to_the_one_before(self) -> None:
        limit = ConcurrencyLimit(TOP)
        answered(limit, 0.05)
        assert limit.limit == 16.0
        refused(limit)
        assert limit.limit == 8.0
        assert course(limit, steady, 3, now=2.0) == pytest.approx([8.0, 32 / 3, 128 / 9, (128 / 9 + 16) / 2])
        assert answered(limit, 0.05, now=2.9) == 2000

    def test_what_was_refused_is_left_alone_for_longer_each_time(self) -> None:
        """Two seconds, then four."""
        limit = ConcurrencyLimit(TOP)
        answered(limit, 0.05, now=0.0)
        refused(limit, now=0.0)
        assert limit.limit == 8.0
        assert max(course(limit, steady, 8, now=1.9)) < 16.0
        while limit.limit < 16.0:
            answered(limit, 0.05, now=2.0)
        at = limit.limit
        refused(limit, now=2.0)
        assert limit.limit < at
        assert max(course(limit, steady, 8, now=5.9)) < at
        assert max(course(limit, steady, 8, now=6.1)) >= at

    def test_refusals_that_come_whatever_is_asked_are_expected_and_the_limit_restored(self) -> None:
        """After two halvings; a third of refusals then stops nothing."""
        limit = ConcurrencyLimit(TOP)
        refused(limit)
        found = [limit.limit]
        for number in range(1, 400):
            if number % 3:
                limit.succeed(0.05, 1.0, busy=True)
            else:
                limit.refuse(1.0)
            if limit.limit != found[-1]:
                found.append(limit.limit)
        assert found[:3] == [4.0, 2.0, 8.0]
        assert found[-1] == TOP

    def test_where_most_is_refused_it_is_halved_down_to_one(self) -> None:
        limit = ConcurrencyLimit(TOP)
        found = [limit.limit]
        for number in range(300):
            if number % 4 == 0:
                limit.succeed(0.05, 1.0, busy=True)
            else:
                limit.refuse(1.0)
            if limit.limit != found[-1]:
                found.append(limit.limit)
        assert found[:4] == [8.0, 4.0, 2.0, 1.0]

    def test_a_service_that_refused_all_but_some_gets_so_many(self) -> None:
        limit = ConcurrencyLimit(TOP)
        course(limit, steady, 3)
        limit.crowd(5, 2.0)
        assert (limit.limit, limit.places) == (5.0, 5)
        assert course(limit, steady, 1, now=3.9)[-1] == pytest.approx(5 * 4 / 3)
        assert max(course(limit, steady, 12, now=3.9)) < TOP

    def test_after_refusals_a_moderate_latency_is_not_looked_into(self) -> None:
        """They said what is too much; without them it is."""
        limits = []
        for is_refused in (True, False):
            limit = ConcurrencyLimit(TOP if is_refused else 4)
            if is_refused:
                refused(limit)
                answered(limit, 0.05, most=24)
            limit.top = TOP
            course(limit, queueing(4), 1)
            answered(limit, queueing(4)(limit.limit), most=60)
            before = limit.limit
            answered(limit, 0.05 * 1.4, now=20.0)
            limits.append(limit.limit > before)
        assert limits == [True, False]

    def test_an_outage_forgets_a_trial_and_restores_what_a_cut_took(self) -> None:
        cut, grown = ConcurrencyLimit(TOP), ConcurrencyLimit(TOP)
        refused(cut)
        answered(grown, 0.05)
        assert (cut.limit, grown.limit) == (4.0, 16.0)
        cut.restart()
        grown.restart()
        assert (cut.limit, grown.limit) == (8.0, 16.0)
        assert answered(grown, 5.0, most=48) == 48 or grown.limit > 16.0


def test_the_best_latency_follows_a_faster_service_by_half_and_a_slower_one_by_a_tenth() -> None:
    """A quarter above it is no longer the best of anything."""
    limit = ConcurrencyLimit(BEGIN)
    answered(limit, 0.05, most=8 + 16)
    best = log(0.05)
    assert limit._best == pytest.approx(best)
    for factor, moved in ((0.8, 0.5), (1.2, 0.1), (1.3, 0.0)):
        answered(limit, exp(best) * factor, most=16)
        best += moved * log(factor)
        assert limit._best == pytest.approx(best)
