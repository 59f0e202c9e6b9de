"""The pacer spaces places evenly and never lets a burst through."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from invoicing_async._governor import Pacer


def test_the_first_place_is_at_once_and_the_next_an_interval_later() -> None:
    pacer = Pacer(4.0)
    assert [pacer.reserve(10.0) for _ in range(4)] == [0.0, 0.25, 0.5, 0.75]


def test_a_pause_saves_up_nothing() -> None:
    pacer = Pacer(2.0)
    pacer.reserve(0.0)
    assert [pacer.reserve(100.0), pacer.reserve(100.0)] == [0.0, 0.5]


@given(st.floats(0.1, 1000.0), st.lists(st.floats(0.0, 5.0), max_size=50))
def test_begins_are_an_interval_apart_and_in_order(per_second: float, gaps: list[float]) -> None:
    pacer, now, begins = Pacer(per_second), 0.0, []
    for gap in gaps:
        now += gap
        wait = pacer.reserve(now)
        assert wait >= 0
        begins.append(now + wait)
    apart = [later - earlier for earlier, later in pairwise(begins)]
    assert all(gap >= 1.0 / per_second - 1e-9 for gap in apart)


@given(st.floats(0.1, 1000.0), st.integers(1, 50))
def test_no_place_is_later_than_it_must_be(per_second: float, number: int) -> None:
    pacer = Pacer(per_second)
    waits = [pacer.reserve(0.0) for _ in range(number)]
    assert waits[-1] == pytest.approx((number - 1) / per_second)
