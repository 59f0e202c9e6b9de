"""What happened when: counted as finely as there is room for, and drawn in few bars."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from invoicing_async._durable import timeline
from invoicing_async._durable.records import Pause
from invoicing_async._durable.report_parts import joined_pauses
from invoicing_async._durable.timeline import MOST_BARS, MOST_STRETCHES, STEPS, Moments, Timeline

KINDS = {0: "made", 1: "failed", 2: "failed"}
BEGUN = 1_758_100_350.0


def drawn(*happened: tuple[int, float], pauses: tuple[Pause, ...] = ()) -> Timeline:
    moments = Moments()
    moments.take((1, code, BEGUN + at) for code, at in happened)
    return moments.timeline(KINDS, pauses)


def test_every_step_is_a_whole_number_of_the_one_before() -> None:
    """So counts of a step add up to those of a longer one, whatever the moment."""
    for short, long in pairwise(STEPS):
        assert long / short == pytest.approx(round(long / short))


def test_nothing_is_no_time_line() -> None:
    assert drawn().stretches == ()
    assert (drawn().total("made"), drawn().most("made")) == (0, 0)


def test_bars_count_what_happened_in_their_time() -> None:
    """Two kinds, one of them made up of two numbers; what is not asked for is not counted."""
    found = drawn((0, 0.0), (0, 0.05), (1, 0.1), (2, 0.31), (7, 0.4))
    assert found.step == 0.1
    assert [dict(stretch.bars) for stretch in found.stretches] == [{"made": (2, 0, 0, 0), "failed": (0, 1, 0, 1)}]
    assert (found.total("made"), found.most("made"), found.total("failed")) == (2, 2, 2)


def test_a_time_in_which_nothing_happened_is_left_out() -> None:
    """Two hours of work three days apart are two stretches, with bars as wide as if they followed each other."""
    days = 3 * 86_400.0
    found = drawn(*((0, at) for start in (0.0, days) for at in range(int(start), int(start) + 3_600, 10)))
    assert [round(stretch.length * found.step) for stretch in found.stretches] == pytest.approx([3_600] * 2, abs=120)
    assert found.step == 60


def test_a_pause_is_no_time_in_which_nobody_was_at_work() -> None:
    pause = Pause("submit", BEGUN + 1, BEGUN + 1_799)
    assert len(drawn((0, 0.0), (0, 1_800.0)).stretches) == 2
    [stretch] = drawn((0, 0.0), (0, 1_800.0), pauses=(pause,)).stretches
    assert stretch.bars["made"][0] == stretch.bars["made"][-1] == 1


@given(st.lists(st.tuples(st.sampled_from([0, 1, 2]), st.floats(0, 4e8, width=32)), max_size=60))
def test_nothing_is_lost_and_the_bars_are_few(happened: list[tuple[int, float]]) -> None:
    found = drawn(*happened)
    assert found.total("made") + found.total("failed") == len(happened)
    assert sum(stretch.length for stretch in found.stretches) <= MOST_BARS
    assert len(found.stretches) <= MOST_STRETCHES


def test_of_more_than_there_is_room_for_longer_times_are_counted_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that goes on for weeks takes no more memory; no count is lost."""
    monkeypatch.setattr(timeline, "KEPT", 50)
    moments = Moments()
    for at in range(0, 100_000, 1_000):
        moments.take([(1, 0, BEGUN + at + more) for more in range(0, 1_000, 10)])
        assert len(moments._counts) <= 50
    found = moments.timeline(KINDS)
    assert found.total("made") == 10_000
    assert found.step > 1


SPANS = st.tuples(st.sampled_from(["submit", "status"]), st.integers(0, 40), st.integers(0, 12), st.booleans())


@given(st.lists(SPANS, max_size=12))
def test_pauses_that_overlap_are_one_and_none_is_lost(spans: list[tuple[str, int, int, bool]]) -> None:
    """The same moments lie in a pause of the operation as before; two of one operation never touch."""
    pauses = [Pause(operation, begun, begun + length, is_over) for operation, begun, length, is_over in spans]
    joined = joined_pauses(pauses)
    assert [pause.begun for pause in joined] == sorted(pause.begun for pause in joined)
    for operation in ("submit", "status"):
        before, after = ([p for p in found if p.operation == operation] for found in (pauses, joined))
        for moment in (half / 2 for half in range(110)):
            assert sum(p.begun <= moment <= p.until for p in after) == any(p.begun <= moment <= p.until for p in before)
        for pause in after:
            assert pause.is_over == any(p.is_over for p in before if p.until == pause.until)
    assert joined_pauses(joined) == joined
