"""When what is sent once may be sent, and when it has arrived: on every side of every bound, by either clock."""

from __future__ import annotations

from itertools import product

import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from invoicing_async._values.ownership import (
    MARGIN,
    Moment,
    arrives_within,
    is_stale,
    seconds_to_arrive,
    send_before,
)
from invoicing_async.policies import Timeouts
from invoicing_async.runs import UNKNOWN_LATE

FRESH = 5.0
BEGUN = Moment(monotonic=100.0, epoch=1_000.0, boot=200.0)
PASSED = {-3_600.0: False, 0.0: False, 4.75: False, 5.0: False, 5.25: True, 3_600.0: True}
"""Seconds since an intent by one clock, and whether it is too old for its first byte by that one."""


@pytest.mark.parametrize(("monotonic", "epoch", "boot"), [*product(PASSED, PASSED, PASSED)])
def test_an_intent_is_stale_when_any_clock_says_so(monotonic: float, epoch: float, boot: float) -> None:
    """The first stands still while a machine sleeps, the second may be set: whichever has it oldest counts."""
    now = Moment(BEGUN.monotonic + monotonic, BEGUN.epoch + epoch, BEGUN.boot + boot)
    assert is_stale(BEGUN, now, FRESH) is (PASSED[monotonic] or PASSED[epoch] or PASSED[boot])
    assert PASSED[monotonic] is (now.monotonic > send_before(BEGUN, FRESH))


@pytest.mark.parametrize(
    ("passed", "left"), [(-1.0, 127.0), (0.0, 126.0), (125.5, 0.5), (126.0, 0.0), (126.5, 0.0), (1e6, 0.0)]
)
def test_it_may_arrive_until_both_times_and_a_margin_have_passed(passed: float, left: float) -> None:
    """A clock that was set back makes whoever asks wait longer."""
    assert arrives_within(FRESH, 120.0) == FRESH + 120.0 + MARGIN == 126.0
    assert seconds_to_arrive(1_000.0, arrives_within(FRESH, 120.0), 1_000.0 + passed) == left


def test_a_run_that_does_not_say_has_the_times_that_are_the_default() -> None:
    assert arrives_within(Timeouts().intent, Timeouts().attempt) == UNKNOWN_LATE


TENTHS = st.integers(0, 1_000).map(lambda tenths: tenths / 10)


@given(fresh=TENTHS, attempt=TENTHS, waited=TENTHS, asleep=TENTHS, took=TENTHS, set_by=st.integers(-9, 9))
@examples(200)
def test_what_was_sent_while_fresh_has_arrived_when_it_may_be_said_not_to_be_there(
    fresh: float, attempt: float, waited: float, asleep: float, took: float, set_by: int
) -> None:
    """However long it waited for its first byte, of which it was `asleep` for a part, and then took to arrive.

    Whatever the clock that may be set says of that here: where it is judged is another clock.
    """
    now = Moment(BEGUN.monotonic + max(0.0, waited - asleep), BEGUN.epoch + set_by, BEGUN.boot + waited)
    arrived = BEGUN.epoch + waited + min(took, attempt)
    if not is_stale(BEGUN, now, fresh):
        assert seconds_to_arrive(BEGUN.epoch, arrives_within(fresh, attempt), arrived) > 0
