"""A schedule of polls is pure, bounded by its timeout and refuses what cannot be meant."""

from __future__ import annotations

from itertools import islice
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from invoicing_async.polling import Poller

pollers = st.builds(
    Poller,
    first=st.floats(0.01, 100),
    factor=st.floats(1, 10),
    ceiling=st.floats(0.01, 1000),
    jitter=st.floats(0, 1),
    timeout=st.none() | st.floats(0.01, 1e4),
)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        *[(name, value) for name in ("first", "ceiling", "poll_timeout", "timeout") for value in (0, -1, True, "1")],
        *[(name, float(bad)) for name in ("first", "factor", "ceiling", "timeout") for bad in ("nan", "inf")],
        ("first", None),
        ("factor", 0.99),
        ("factor", "2"),
        ("jitter", 1.01),
        ("jitter", -0.1),
        ("errors", -1),
        ("errors", 1.5),
        ("errors", True),
    ],
)
def test_a_value_outside_its_limits_names_the_field(name: str, wrong: Any) -> None:
    with pytest.raises(ValueError, match=rf"Poller\.{name} must be "):
        Poller(**{name: wrong})


def test_values_at_their_limits_are_taken() -> None:
    assert Poller(factor=1, jitter=0, timeout=None, errors=0).errors == 0
    assert Poller(jitter=1, timeout=0.5).timeout == 0.5


def test_waits_grow_by_the_factor_up_to_the_ceiling() -> None:
    poller = Poller(first=1, factor=2, ceiling=5, jitter=0, timeout=None)
    assert [poller.delay(attempt) for attempt in range(1, 6)] == [1, 2, 4, 5, 5]


def test_an_attempt_beyond_every_float_waits_the_ceiling() -> None:
    assert Poller(factor=10, ceiling=7, jitter=0).delay(100_000) == 7


def test_jitter_shortens_by_its_share_at_most() -> None:
    poller = Poller(first=10, jitter=0.2, timeout=None)
    assert poller.delay(1, chance=0) == 10
    assert poller.delay(1, chance=0.5) == 9
    assert poller.delay(1, chance=0.999) == pytest.approx(8, abs=0.01)


def test_one_poll_falls_on_the_timeout_itself() -> None:
    poller = Poller(first=4, factor=1, jitter=0, timeout=10)
    assert list(poller.delays()) == [4, 4, 2]
    assert poller.delay(9, elapsed=11) == 0


def test_without_a_timeout_the_schedule_does_not_end() -> None:
    assert list(islice(Poller(first=1, factor=1, jitter=0, timeout=None).delays(), 1000)) == [1] * 1000


def test_a_fixed_schedule_learns_nothing() -> None:
    poller = Poller()
    before = [poller.delay(attempt) for attempt in range(1, 9)]
    poller.learn(after=1.0, by=2.0, done=True)
    assert [poller.delay(attempt) for attempt in range(1, 9)] == before


@given(pollers, st.integers(1, 10**6), st.floats(0, 2e4), st.floats(0, 1, exclude_max=True))
def test_a_wait_is_within_its_bounds(poller: Poller, attempt: int, elapsed: float, chance: float) -> None:
    wait = poller.delay(attempt, elapsed, chance=chance)
    assert 0 <= wait <= poller.ceiling
    assert wait <= poller.delay(attempt, elapsed)
    if poller.timeout is not None:
        assert wait <= max(0.0, poller.timeout - elapsed)


@given(st.builds(Poller, first=st.floats(1, 9), ceiling=st.floats(9, 99), timeout=st.floats(0.1, 1e3)))
def test_the_waits_of_a_schedule_add_up_to_its_timeout(poller: Poller) -> None:
    assert poller.timeout is not None
    assert sum(poller.delays()) == pytest.approx(poller.timeout)


def test_an_adaptive_schedule_learns_when_operations_end() -> None:
    """After many operations that took two to three seconds, the next is left alone for about as long."""
    poller = Poller.adaptive(worth=1.0, floor=0.1, ceiling=30.0)
    unlearned = poller.delay(1, 0.0, chance=0.5)
    for _ in range(300):
        poller.learn(after=0.0, by=2.0, done=False)
        poller.learn(after=2.0, by=3.0, done=True)
    assert unlearned < 1.5 < poller.delay(1, 0.0, chance=0.5) <= 3.0
    assert 0.1 <= poller.delay(5, 100.0) <= 30.0


def test_an_adaptive_schedule_ends_at_its_timeout() -> None:
    """The last wait is cut to the timeout; without one it is not."""
    assert Poller.adaptive(timeout=10).delay(3, 9.99, chance=0.5) <= 0.011
    assert Poller.adaptive(timeout=None).delay(3, 9.99) >= 0.1


@pytest.mark.parametrize("setting", ["worth", "floor", "ceiling", "timeout", "poll_timeout", "errors"])
def test_an_adaptive_schedule_refuses_what_is_out_of_bounds(setting: str) -> None:
    """The error names the field."""
    with pytest.raises(ValueError, match=setting):
        Poller.adaptive(**{setting: -1})


def test_an_adaptive_schedule_keeps_its_bounds_and_learns() -> None:
    poller = Poller.adaptive(floor=0.5, ceiling=20, timeout=100)
    assert poller.delay(1, 0.0, chance=0.5) < 2
    for _ in range(200):
        poller.learn(0.0, 7.0, done=False)
        poller.learn(7.0, 8.0, done=True)
    assert poller.delay(1, 0.0, chance=0.5) > 5
    assert 0.5 <= poller.delay(1, 0.0) <= 20
    assert poller.delay(9, 99.9) <= 0.1 + 1e-9
    assert poller.delay(9, 101.0) == 0.0
    assert Poller.adaptive(timeout=None).delay(1, 1e6) > 0


@pytest.mark.parametrize(("name", "wrong"), [("timeout", 0), ("timeout", "1"), ("poll_timeout", -1), ("errors", 1.5)])
def test_an_adaptive_schedule_refuses_what_cannot_be_meant(name: str, wrong: Any) -> None:
    with pytest.raises(ValueError, match=rf"AdaptivePoller\.{name} must be "):
        Poller.adaptive(**{name: wrong})
