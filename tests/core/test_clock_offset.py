"""What is learned of the service's clock, when a signature is corrected for it, and when no longer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from invoicing_async._core.clock_offset import EXPLAINS, FURTHEST, NOTHING, ClockOffset, Interval

NOW = 1_790_000_000.0


def answered(
    clock: ClockOffset,
    *,
    ahead: float,
    at: float = NOW,
    trip: float = 0.2,
    signed_for: float | None = None,
    corrected: float = 0.0,
) -> bool | None:
    """An answer of a service whose clock is `ahead` of ours; a 401 if it says for what time the request was signed."""
    date = float(int(at + trip / 2 + ahead))
    clock.observe(date, sent=at, received=at + trip)
    return None if signed_for is None else clock.refused(date, signed_for=signed_for, corrected=corrected)


def test_an_answer_alone_corrects_nothing() -> None:
    """A gateway's wrong clock changes no signature that works."""
    clock = ClockOffset()
    answered(clock, ahead=3600)
    assert clock.applied == 0
    assert abs((clock.estimate or 0) - 3600) < 1.5


def test_a_refusal_that_the_clock_explains_is_signed_anew_for_the_services_time() -> None:
    """An hour off: the second signature bears the service's time."""
    clock = ClockOffset()
    assert answered(clock, ahead=-3600, signed_for=NOW) is True
    assert abs(clock.applied + 3600) < 1.5


def test_a_wrong_secret_with_a_right_clock_is_not_signed_anew() -> None:
    """A 401 whose `Date` agrees with the signature's time is not about time."""
    clock = ClockOffset()
    assert answered(clock, ahead=1.5, signed_for=NOW) is False
    assert clock.applied == 0


def test_a_stale_signature_is_made_anew_without_a_correction() -> None:
    """A process that was suspended between signing and sending has a right clock."""
    clock = ClockOffset()
    assert answered(clock, ahead=0, signed_for=NOW - 900) is True
    assert clock.applied == 0


def test_a_slow_answer_is_no_reason_for_a_correction() -> None:
    """A `Date` written at any moment of ten minutes agrees with a right clock."""
    clock = ClockOffset()
    assert answered(clock, ahead=0, trip=600, signed_for=NOW) is True
    assert clock.applied == 0


def test_a_correction_that_does_not_help_is_dropped_and_not_tried_again() -> None:
    """A wrong secret beside a wrong clock: two attempts once, then one a call."""
    clock = ClockOffset()
    assert answered(clock, ahead=3600, signed_for=NOW) is True
    added = clock.applied
    assert answered(clock, ahead=3600, signed_for=NOW + added, corrected=added) is False
    assert clock.applied == 0
    assert answered(clock, ahead=3600, at=NOW + 5, signed_for=NOW + 5) is False


def test_after_a_success_the_same_correction_may_be_tried_again() -> None:
    """The secret was put right, and then the clock is what is wrong."""
    clock = ClockOffset()
    answered(clock, ahead=3600, signed_for=NOW)
    answered(clock, ahead=3600, signed_for=NOW + clock.applied, corrected=clock.applied)
    clock.accepted()
    assert answered(clock, ahead=3600, at=NOW + 9, signed_for=NOW + 9) is True


def test_a_clock_that_is_set_right_ends_the_correction() -> None:
    """The next answer of any kind shows it."""
    clock = ClockOffset()
    answered(clock, ahead=3600, signed_for=NOW)
    answered(clock, ahead=0.1, at=NOW + 3600)
    assert clock.applied == 0


def test_a_clock_that_is_set_while_corrected_is_followed() -> None:
    """From an hour off to minus two minutes: what is added follows."""
    clock = ClockOffset()
    answered(clock, ahead=3600, signed_for=NOW)
    answered(clock, ahead=-120, at=NOW + 60)
    assert abs(clock.applied + 120) < 1.5


def test_what_is_further_off_than_a_day_is_not_corrected() -> None:
    """A service that says 1970 does not make us sign for 1970."""
    clock = ClockOffset()
    answered(clock, ahead=-NOW, signed_for=NOW)
    assert clock.applied == 0


@pytest.mark.parametrize(("away", "is_explained"), [(0.0, False), (4.9, False), (5.0, True), (5.1, True)])
def test_a_refusal_is_explained_from_five_seconds_on(away: float, is_explained: bool) -> None:  # noqa: FBT001
    """Between the signature's time and the middle of the second that the `Date` names, either way."""
    assert EXPLAINS == 5.0
    for signed_for in (NOW + 0.5 + away, NOW + 0.5 - away):
        clock = ClockOffset()
        assert clock.refused(NOW, signed_for=signed_for) is is_explained
        assert clock.futile is None


@pytest.mark.parametrize(
    ("ahead", "applied"),
    [(NOTHING, 0.0), (NOTHING + 1, NOTHING + 1), (FURTHEST, FURTHEST), (FURTHEST + 1, 0.0)],
)
def test_more_than_a_second_and_no_more_than_a_day_is_corrected(ahead: float, applied: float) -> None:
    clock = ClockOffset()
    clock.observe(NOW + ahead, sent=NOW, received=NOW)
    assert clock.refused(NOW + ahead, signed_for=NOW - 900)
    assert clock.applied == applied


def test_two_answers_that_meet_in_one_moment_agree_on_it() -> None:
    """They contradict each other only where nothing lies between."""
    assert Interval(-3.0, -2.0).narrowed(Interval(-2.0, -1.0), drift=0.0) == Interval(-2.0, -2.0)
    assert Interval(-3.0, -2.0).narrowed(Interval(-1.9, -1.0), drift=0.0) == Interval(-1.9, -1.0)


@pytest.mark.parametrize(("ahead", "is_tried"), [(3595.0, True), (3596.0, False), (3604.0, False), (3605.0, True)])
def test_a_correction_that_is_five_seconds_from_the_one_in_vain_is_another(ahead: float, is_tried: bool) -> None:  # noqa: FBT001
    clock = ClockOffset()
    clock.futile = 3600.0
    clock.observe(NOW + ahead, sent=NOW, received=NOW)
    assert clock.refused(NOW + ahead, signed_for=NOW) is is_tried


@given(
    st.floats(-FURTHEST / 2, FURTHEST / 2),
    st.lists(st.tuples(st.floats(0.001, 20.0), st.floats(0.0, 1.0)), min_size=1, max_size=30),
)
def test_the_estimate_always_lies_within_what_the_answers_say(ahead: float, trips: list[tuple[float, float]]) -> None:
    """Whatever the trips and wherever in them the `Date` was written, the true difference is never excluded."""
    clock, at = ClockOffset(), NOW
    for trip, share in trips:
        clock.observe(float(int(at + trip * share + ahead)), sent=at, received=at + trip)
        at += trip
        assert clock._known is not None
        assert clock._known.low - 1e-3 <= ahead <= clock._known.high + 1e-3
    shortest = min(trip for trip, _ in trips)
    drifted = sum(trip for trip, _ in trips) * 2e-3
    assert abs((clock.estimate or 0) - ahead) <= 1 + shortest + drifted or abs(ahead) <= 1 + shortest + drifted


def test_a_correction_is_announced_when_it_begins_moves_or_ends_and_only_then() -> None:
    """Each time with the one before; what a `Date` of whole seconds leaves open is no move."""
    clock = ClockOffset()
    assert clock.announce() is None
    answered(clock, ahead=3600, signed_for=NOW)
    assert clock.announce() == 0.0
    first = clock.applied
    answered(clock, ahead=3600.4, at=NOW + 5)
    assert clock.announce() is None
    answered(clock, ahead=7200, at=NOW + 10)
    assert clock.announce() == first
    second = clock.applied
    answered(clock, ahead=0, at=NOW + 20)
    assert (clock.applied, clock.announce(), clock.announce()) == (0.0, second, None)
