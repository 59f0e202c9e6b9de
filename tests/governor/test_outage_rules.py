"""When a lane pauses, probes and begins again, and its retries, turns and rate: by examples."""

from __future__ import annotations

from math import inf, log

import pytest

from invoicing_async._core.fair import FairQueue
from invoicing_async._core.rate_limiter import RateLimiter
from invoicing_async._governor.budget import RetryBudget
from invoicing_async._governor.concurrency import BEGIN
from invoicing_async._governor.lane import Answer, Lane, Ticket
from invoicing_async._governor.outage import MEMORY, SHORTEST, Outage
from invoicing_async.health import LaneState
from invoicing_async.policies import OutagePolicy

POLICY = OutagePolicy(after=3, probe=2.0, ceiling=10.0, patience=60.0)
TOP = 64


def soonest() -> float:
    """A chance that leaves the least of a distance."""
    return 0.0


def middle() -> float:
    return 0.5


def paused(now: float = 10.0) -> Outage:
    """One that three failures, a second apart, have paused at `now`."""
    outage = Outage(POLICY)
    found = [outage.fail(now - later, soonest, top=TOP, probe=False) for later in (2.0, 1.0, 0.0)]
    assert found == [False, False, True]
    return outage


def resumed() -> Outage:
    """One whose first probe was answered."""
    outage = paused()
    outage.probe()
    outage.probed()
    assert outage.answer(TOP, begun=11.7)
    return outage


class TestOutage:
    def test_without_a_failure_all_is_open(self) -> None:
        outage = Outage(POLICY)
        assert (outage.state(0.0), outage.wait(0.0), outage.paused_since(0.0)) == (LaneState.OPEN, 0.0, None)
        assert (outage.is_calm, outage.is_stopped) == (True, False)

    def test_failures_in_a_row_pause_from_the_first_of_them_on(self) -> None:
        outage = paused()
        assert (outage.state(10.0), outage.is_stopped, outage.is_calm) == (LaneState.PAUSED, True, False)
        assert (outage.since, outage.paused_since(10.0), outage.streak) == (8.0, 8.0, 3)

    def test_an_answer_between_begins_the_count_again(self) -> None:
        outage = Outage(POLICY)
        for now in (1.0, 2.0, 4.0):
            assert not outage.fail(now, soonest, top=TOP, probe=False)
            assert not outage.is_calm
            if now == 2.0:
                assert not outage.answer(TOP, begun=3.0)
                assert (outage.is_calm, outage.streak, outage.closed) == (True, 0, 0)
        assert not outage.fail(5.0, soonest, top=TOP, probe=False)
        assert outage.fail(6.0, soonest, top=TOP, probe=False)
        assert outage.since == 4.0

    @pytest.mark.parametrize(("chance", "share"), [(0.0, 0.85), (0.5, 0.925), (1.0, 1.0)])
    def test_the_first_probe_is_a_jittered_distance_away(self, chance: float, share: float) -> None:
        assert SHORTEST == 0.85
        outage = Outage(OutagePolicy(after=1, probe=2.0))
        assert outage.fail(5.0, lambda: chance, top=1, probe=False)
        assert outage.wait(5.0) == pytest.approx(2.0 * share)
        assert outage.wait(5.0 + 2.0 * share) == 0.0

    def test_each_probe_that_fails_doubles_the_distance_up_to_the_ceiling(self) -> None:
        outage, now, waits = paused(), 10.0, []
        for _ in range(5):
            waits.append(outage.wait(now))
            now += waits[-1]
            outage.probe()
            assert (outage.state(now), outage.wait(now)) == (LaneState.PROBING, inf)
            assert not outage.fail(now, soonest, top=TOP, probe=True)
            outage.probed()
            assert outage.state(now) is LaneState.PAUSED
        assert waits == pytest.approx([0.85 * seconds for seconds in (2, 4, 8, 10, 10)])

    def test_what_fails_during_a_pause_without_being_its_probe_changes_nothing(self) -> None:
        outage = paused()
        assert not outage.fail(11.0, soonest, top=TOP, probe=False)
        assert outage.wait(11.0) == pytest.approx(0.7)
        assert outage.since == 8.0

    def test_an_answer_ends_the_pause_and_each_one_after_it_opens_a_place(self) -> None:
        outage = resumed()
        assert (outage.since, outage.streak, outage.places) == (None, 0, 1)
        assert (outage.state(12.0), outage.wait(12.0), outage.is_calm) == (LaneState.RESUMING, 0.0, False)
        for places in (2, 3):
            assert not outage.answer(3, begun=12.0)
            assert (outage.places, outage.is_calm) == (places, False)
        assert not outage.answer(3, begun=12.0)
        assert (outage.places, outage.is_calm, outage.state(12.0)) == (inf, True, LaneState.OPEN)

    def test_a_slow_start_gives_way_to_one_failure_more_than_its_places(self) -> None:
        """And goes on with the distance that the pause before had reached."""
        outage = paused()
        for now in (12.0, 16.0):
            outage.probe()
            outage.fail(now, soonest, top=TOP, probe=True)
            outage.probed()
        outage.answer(TOP, begun=20.0)
        assert not outage.fail(21.0, soonest, top=TOP, probe=False)
        assert outage.fail(22.0, soonest, top=TOP, probe=False)
        assert outage.wait(22.0) == pytest.approx(0.85 * 8.0)

    def test_a_pause_long_after_another_begins_with_the_first_distance(self) -> None:
        outage = paused()
        outage.probe()
        outage.fail(12.0, soonest, top=TOP, probe=True)
        outage.probed()
        for _ in range(3):
            outage.answer(1, begun=20.0)
        assert outage.is_calm
        for now in (30.0, 31.0, 32.0):
            outage.fail(now, soonest, top=TOP, probe=False)
        assert outage.wait(32.0) == pytest.approx(0.85 * 2.0)

    def test_as_many_failures_as_places_pause_whatever_earlier_attempts_say(self) -> None:
        """Answers to what was begun before the first failure end the row, and open no place."""
        outage = Outage(POLICY)
        for number in range(5):
            assert not outage.fail(10.0 + number, soonest, top=6, probe=False)
            assert not outage.answer(6, begun=9.0)
            assert (outage.streak, outage.closed, outage.is_calm) == (0, number + 1, False)
        assert outage.fail(15.0, soonest, top=6, probe=False)
        assert not outage.answer(6, begun=9.0)
        assert outage.is_stopped

    def test_where_failures_are_nothing_unusual_any_answer_opens_the_places(self) -> None:
        """From two in a hundred on; each failure and each answer moves the share by a two-hundredth."""
        outage = Outage(OutagePolicy(after=20))
        for number in range(5):
            outage.fail(float(number), soonest, top=TOP, probe=False)
            outage.answer(TOP, begun=100.0)
        assert outage.share == pytest.approx(1 - (1 - 1 / MEMORY) ** 5)
        outage.fail(200.0, soonest, top=TOP, probe=False)
        outage.answer(TOP, begun=0.0)
        assert (outage.closed, outage.is_calm) == (0, True)

    def test_a_retry_after_holds_everybody_and_begins_slowly(self) -> None:
        """It is no outage; one place is open when it is over."""
        outage = Outage(POLICY)
        outage.hold(5.0, 1.0)
        assert (outage.wait(2.0), outage.state(2.0), outage.paused_since(2.0)) == (4.0, LaneState.PAUSED, 1.0)
        assert (outage.is_stopped, outage.is_calm) == (False, False)
        assert (outage.state(6.0), outage.paused_since(6.0), outage.wait(6.0)) == (LaneState.RESUMING, None, 0.0)
        assert outage.places == 1

    def test_a_later_retry_after_prolongs_the_hold_and_never_shortens_it(self) -> None:
        outage = Outage(POLICY)
        outage.hold(5.0, 1.0)
        outage.hold(1.0, 2.0)
        assert outage.wait(2.0) == 4.0
        outage.hold(9.0, 3.0)
        assert (outage.wait(3.0), outage.paused_since(4.0)) == (9.0, 1.0)
        outage.hold(0.5, 12.0)
        assert (outage.wait(12.25), outage.paused_since(12.25)) == (0.25, 12.0)

    def test_a_retry_after_lasts_no_longer_than_the_patience(self) -> None:
        outage = Outage(POLICY)
        outage.hold(3600.0, 0.0)
        assert outage.wait(0.0) == 60.0

    def test_a_retry_after_of_no_seconds_holds_nobody(self) -> None:
        outage = Outage(POLICY)
        outage.hold(0.0, 1.0)
        assert (outage.is_calm, outage.places) == (True, inf)

    def test_a_probe_waits_for_the_end_of_a_retry_after(self) -> None:
        outage = paused()
        outage.hold(7.0, 10.0)
        assert (outage.wait(12.0), outage.paused_since(12.0)) == (5.0, 8.0)

    def test_a_lane_is_not_calm_before_its_retry_after_is_over(self) -> None:
        outage = Outage(POLICY)
        outage.hold(5.0, 1.0)
        for _ in range(3):
            outage.answer(1, begun=1.0)
        assert (outage.places, outage.is_calm) == (inf, False)
        assert outage.wait(6.0) == 0.0
        outage.answer(1, begun=6.0)
        assert outage.is_calm


def lane(top: int = TOP, *, adaptive: bool = True) -> Lane:
    return Lane(POLICY, top, adaptive=adaptive)


def begun(lane: Lane, many: int, now: float = 0.0) -> list[Ticket]:
    return [lane.begin(now) for _ in range(many)]


class TestLane:
    def test_it_begins_with_few_places_and_with_all_where_their_number_is_fixed(self) -> None:
        assert (lane().limit, lane(3).limit, lane(adaptive=False).limit) == (BEGIN, 3, TOP)
        assert lane().concurrency.top == TOP

    def test_an_attempt_begins_at_once_while_there_is_a_place(self) -> None:
        one = lane(2)
        begun(one, 1)
        assert one.wait(0.0) == 0.0
        begun(one, 1)
        assert (one.wait(0.0), one.in_use) == (inf, 2)

    def test_an_attempt_is_busy_from_half_of_the_places_on(self) -> None:
        assert [ticket.is_busy for ticket in begun(lane(), 5)] == [False, False, False, True, True]

    def test_a_ticket_knows_when_it_was_begun_and_after_how_many_pauses(self) -> None:
        one = lane()
        one.pauses = 2
        ticket = one.begin(7.5)
        assert (ticket.begun, ticket.pauses, ticket.is_probe) == (7.5, 2, False)

    @pytest.mark.parametrize(
        ("answer", "answers", "tokens"),
        [(Answer.SUCCESS, 1, 51.0), (Answer.ALIVE, 1, 50.0), (Answer.SILENT, 0, 50.0), (Answer.REFUSED, 0, 50.0)],
    )
    def test_only_a_success_gives_a_token_back_and_only_an_answer_counts(
        self, answer: Answer, answers: int, tokens: float
    ) -> None:
        one = lane()
        one.budget.tokens, one.failing = 50.0, 4
        one.end(one.begin(0.0), answer, 0.1, middle)
        assert (one.answers, one.budget.tokens, one.in_use) == (answers, tokens, 0)
        assert one.failing == (0 if answers else 4)
        one.end(one.begin(0.2), answer, 0.3, middle)
        assert one.answers == 2 * answers

    def test_the_share_of_failures_falls_with_each_answer(self) -> None:
        one = lane()
        for answer in (Answer.REFUSED, Answer.ALIVE, Answer.SUCCESS):
            one.end(one.begin(0.0), answer, 0.1, middle)
        assert one.outage.share == pytest.approx(1 / MEMORY * (1 - 1 / MEMORY) ** 2)

    @pytest.mark.parametrize("answer", [Answer.REFUSED, Answer.UNREACHABLE])
    def test_each_failure_closes_a_place_down_to_one(self, answer: Answer) -> None:
        one = Lane(OutagePolicy(after=20), 4, adaptive=False)
        tickets = begun(one, 4)
        allowed = []
        for ticket in tickets:
            one.end(ticket, answer, 1.0, middle)
            allowed.append(one.allowed)
        assert allowed == [3, 2, 1, 1]
        assert one.wait(1.0) == 0.0
        one.begin(1.0)
        assert one.wait(1.0) == inf

    def test_an_outage_pauses_and_its_probe_is_the_only_attempt(self) -> None:
        one = lane()
        for ticket in begun(one, 3):
            one.end(ticket, Answer.UNREACHABLE, 5.0, soonest)
        assert (one.pauses, one.state(5.0)) == (1, LaneState.PAUSED)
        assert one.wait(5.0) == pytest.approx(1.7)
        assert one.wait(6.7) == 0.0
        probe = one.begin(6.7)
        assert (probe.is_probe, probe.pauses, one.wait(6.7)) == (True, 1, inf)
        one.end(probe, Answer.ALIVE, 6.8, soonest)
        assert (one.state(6.8), one.allowed, one.limit) == (LaneState.RESUMING, 1, BEGIN)

    def test_a_probe_that_fails_is_followed_by_one_twice_as_far_and_a_pause_by_another(self) -> None:
        one = lane()
        for ticket in begun(one, 3):
            one.end(ticket, Answer.UNREACHABLE, 5.0, soonest)
        one.end(one.begin(6.7), Answer.REFUSED, 6.7, soonest)
        assert one.wait(6.7) == pytest.approx(0.85 * 4.0)
        one.end(one.begin(10.2), Answer.SUCCESS, 10.2, soonest)
        for _ in range(2):
            one.end(one.begin(11.0), Answer.REFUSED, 11.0, soonest)
        assert (one.pauses, one.state(11.0)) == (2, LaneState.PAUSED)

    def test_a_probe_that_is_cancelled_makes_way_for_another(self) -> None:
        one = lane()
        for ticket in begun(one, 3):
            one.end(ticket, Answer.UNREACHABLE, 5.0, soonest)
        one.end(one.begin(6.7), Answer.SILENT, 6.8, soonest)
        assert (one.wait(6.8), one.state(6.8)) == (0.0, LaneState.PAUSED)

    def test_a_service_that_never_answered_is_not_waited_for_by_a_batch(self) -> None:
        """It may be a wrong address."""
        one = lane()
        one.is_known = False
        for ticket in begun(one, 8):
            one.end(ticket, Answer.UNREACHABLE, 5.0, soonest)
        assert (one.pauses, one.state(5.0), one.wait(5.0)) == (0, LaneState.OPEN, 0.0)

    def test_single_calls_to_one_that_never_answered_pause_and_a_batchs_probe_goes_on_with_that(self) -> None:
        """A process that begins in an outage is told of it as one that was there before."""
        one = lane()
        one.is_known = False
        for ticket in begun(one, 8):
            one.end(ticket, Answer.UNREACHABLE, 5.0, soonest, patient=False)
        assert (one.pauses, one.state(5.0)) == (1, LaneState.PAUSED)
        first = one.wait(5.0)
        one.end(one.begin(5.0 + first), Answer.UNREACHABLE, 6.0, soonest)
        assert one.wait(6.0) > first

    @pytest.mark.parametrize(
        ("answers", "spoilt", "pauses"),
        [(200, 0, 1), (199, 0, 0), (200, 20, 0)],
        ids=["hardly ever failed", "hardly known", "often failed"],
    )
    def test_a_service_that_hardly_ever_failed_is_down_when_all_places_failed(
        self, answers: int, spoilt: int, pauses: int
    ) -> None:
        """Sooner than after `after` failures: by chance they would not come in a row."""
        one = Lane(OutagePolicy(after=20), 8, adaptive=False)
        for number in range(answers + spoilt):
            failed = number % 10 == 0 and number < 10 * spoilt
            one.end(one.begin(number), Answer.REFUSED if failed else Answer.SUCCESS, number + 0.1, middle)
        for _ in range(9):
            one.end(one.begin(1_000.0), Answer.REFUSED, 1_000.1, middle)
        assert one.pauses == pauses

    def test_a_retry_after_is_the_lanes(self) -> None:
        one = lane()
        one.end(one.begin(0.0), Answer.REFUSED, 1.0, middle, retry_after=30.0)
        assert (one.wait(1.0), one.state(1.0)) == (30.0, LaneState.PAUSED)
        assert one.wait(31.0) == 0.0
        one.begin(31.0)
        assert one.wait(31.0) == inf

    def test_refusals_shrink_the_limit_and_unreachable_does_not(self) -> None:
        """Being refused is a sign of too many at once; no connection is none."""
        refused, cut = (Lane(OutagePolicy(after=50), TOP) for _ in range(2))
        for one, answer in ((refused, Answer.REFUSED), (cut, Answer.UNREACHABLE)):
            for ticket in begun(one, 8):
                one.end(ticket, answer, 1.0, middle)
        assert refused.limit < BEGIN
        assert cut.limit == BEGIN

    def test_a_pinned_limit_stays(self) -> None:
        one = Lane(OutagePolicy(after=50), TOP, adaptive=False)
        for number in range(200):
            answer = Answer.REFUSED if number % 2 else Answer.SUCCESS
            one.end(one.begin(number), answer, number + 0.05, middle)
        assert one.limit == TOP

    def test_successes_let_the_limit_grow(self) -> None:
        one = lane()
        for number in range(24):
            tickets = begun(one, 8, number)
            for ticket in tickets:
                one.end(ticket, Answer.SUCCESS, number + 0.05, middle)
        assert one.limit > BEGIN
        assert one.concurrency._best == pytest.approx(log(0.05))

    def test_a_pause_that_is_ended_by_what_was_begun_before_it_was_a_crowd(self) -> None:
        """The service went on with what it had and refused the rest: no more than those go there."""
        one = Lane(OutagePolicy(after=3), TOP)
        tickets = begun(one, 8, 1.0)
        for ticket in tickets[:3]:
            one.end(ticket, Answer.REFUSED, 1.0, middle)
        assert one.pauses == 1
        one.end(tickets[3], Answer.SUCCESS, 1.5, middle)
        assert (one.state(1.5), one.limit) == (LaneState.RESUMING, 5)
        one.end(tickets[4], Answer.SUCCESS, 1.6, middle)
        assert one.limit == 5


class TestRetryBudget:
    def test_a_retry_takes_a_token_and_waits_for_the_next_one(self) -> None:
        budget = RetryBudget(tokens=1.25)
        assert (budget.wait(5.0), budget.take(5.0), budget.tokens) == (0.0, True, 0.25)
        assert (budget.take(5.0), budget.wait(5.0), budget.tokens) == (False, 0.75, 0.25)
        assert budget.wait(5.5) == 0.25
        assert not budget.take(5.5)
        assert budget.take(5.75)
        assert budget.tokens == 0.0

    def test_exactly_one_token_is_enough(self) -> None:
        budget = RetryBudget(tokens=1.0)
        assert (budget.wait(0.0), budget.take(0.0)) == (0.0, True)

    def test_a_success_gives_one_back_up_to_the_capacity(self) -> None:
        budget = RetryBudget(capacity=10.0, tokens=8.5)
        found = []
        for _ in range(3):
            budget.refund()
            found.append(budget.tokens)
        assert found == [9.5, 10.0, 10.0]

    def test_time_alone_fills_it_up_to_the_capacity(self) -> None:
        budget = RetryBudget(capacity=10.0, tokens=5.0)
        budget.take(0.0)
        budget.take(3.0)
        assert budget.tokens == 6.0
        budget.take(100.0)
        assert budget.tokens == 9.0

    def test_a_clock_that_stands_or_goes_back_gives_nothing(self) -> None:
        budget = RetryBudget(tokens=5.0)
        for now in (10.0, 10.0, 4.0):
            budget.take(now)
        assert budget.tokens == 2.0


class TestTurns:
    def test_owners_take_turns_and_each_keeps_its_order(self) -> None:
        queue = FairQueue[str, int]()
        assert not queue.lines
        for owner, item in (("a", 1), ("a", 2), ("a", 3), ("b", 4), ("c", 5), ("b", 6)):
            queue.push(owner, item)
        assert queue.lines
        assert [queue.pop() for _ in range(6)] == [1, 4, 5, 2, 6, 3]
        assert not queue.lines
        with pytest.raises(IndexError):
            queue.pop()

    def test_an_owner_whose_line_was_empty_comes_last(self) -> None:
        queue = FairQueue[str, int]()
        for owner, item in (("a", 1), ("b", 2), ("b", 3)):
            queue.push(owner, item)
        assert queue.pop() == 1
        queue.push("a", 4)
        assert [queue.pop() for _ in range(3)] == [2, 4, 3]


class TestRate:
    def test_attempts_are_evenly_spaced(self) -> None:
        rate = RateLimiter(4.0)
        assert rate.wait(10.0) == 0.0
        rate.take(10.0, 10.0)
        assert (rate.wait(10.0), rate.wait(11.0)) == (0.25, 0.0)
        assert rate.wait(10.2) == pytest.approx(0.05)

    def test_a_burst_may_begin_at_once_after_a_quiet_time(self) -> None:
        rate = RateLimiter(4.0, 3)
        waits = []
        for _ in range(4):
            waits.append(rate.wait(10.0))
            rate.take(10.0 + waits[-1], 10.0)
        assert waits == [0.0, 0.0, 0.0, 0.25]

    def test_lateness_of_up_to_one_interval_is_made_up_for(self) -> None:
        rate = RateLimiter(4.0)
        rate.take(10.0, 10.0)
        rate.take(10.25, 10.4)
        assert rate.wait(10.4) == pytest.approx(0.1)
        rate.take(10.5, 20.0)
        assert rate.wait(20.0) == 0.0
        rate.take(20.0, 20.0)
        assert rate.wait(20.0) == 0.25
