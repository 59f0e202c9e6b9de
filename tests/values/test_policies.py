"""Settings refuse what cannot be meant, and the backoff is full jitter under its ceiling."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from attrs.exceptions import FrozenInstanceError
from hypothesis import given
from hypothesis import strategies as st

from invoicing_async.policies import Limits, RetryPolicy, Timeouts

NUMBERS = ["1", None, True, float("nan"), float("inf"), -1]


@pytest.mark.parametrize(
    ("kind", "name", "wrong"),
    [
        *[(RetryPolicy, "attempts", value) for value in (0, -1, 1.5, "3", True, None)],
        *[(RetryPolicy, name, value) for name in ("first", "ceiling") for value in NUMBERS],
        *[(RetryPolicy, "deadline", value) for value in (0, -1, "1", True, float("nan"), float("inf"))],
        *[(Timeouts, name, value) for name in ("connect", "read", "attempt") for value in (*NUMBERS, 0)],
        *[(Timeouts, "floor", value) for value in NUMBERS],
        *[(Limits, "concurrency", value) for value in (0, -1, 1.5, "3", True, None)],
        *[(Limits, "per_second", value) for value in (0, -1, "1", False, float("nan"), float("inf"))],
    ],
)
def test_a_value_outside_its_limits_names_the_field(kind: Callable[..., Any], name: str, wrong: object) -> None:
    with pytest.raises(ValueError, match=rf"\w+\.{name} must be "):
        kind(**{name: wrong})


@pytest.mark.parametrize(
    "policy",
    [
        RetryPolicy(attempts=1, first=0, ceiling=0, deadline=None),
        RetryPolicy(first=1, deadline=0.001),
        Timeouts(connect=1, read=1, attempt=1, floor=0),
        Limits(concurrency=1, per_second=None),
        Limits(per_second=0.5),
    ],
)
def test_values_at_their_limits_are_taken(policy: object) -> None:
    with pytest.raises(FrozenInstanceError):
        policy.attempts = 3  # type: ignore[attr-defined]  # frozen values refuse every name


def test_every_default_is_finite_and_bounded() -> None:
    assert RetryPolicy().deadline == 300.0
    assert (Timeouts().connect, Timeouts().read, Timeouts().attempt) == (10.0, 30.0, 120.0)
    assert Limits() == Limits(concurrency=32, per_second=None)


def test_the_backoff_doubles_up_to_the_ceiling() -> None:
    policy = RetryPolicy(first=0.5, ceiling=3.0)
    assert [policy.delay(attempt, 0.5) for attempt in range(1, 6)] == [0.25, 0.5, 1.0, 1.5, 1.5]


@given(st.integers(1, 10**9), st.floats(0, 1, exclude_max=True), st.floats(0, 1e300), st.floats(0, 1e300))
def test_the_backoff_is_full_jitter(attempt: int, chance: float, first: float, ceiling: float) -> None:
    """Any attempt number, however large, gives a finite wait between nothing and the ceiling."""
    delay = RetryPolicy(first=first, ceiling=ceiling).delay(attempt, chance)
    assert 0 <= delay <= ceiling
    assert delay <= first * 2.0 ** min(attempt - 1, 1000)


def test_no_first_wait_is_no_backoff() -> None:
    assert RetryPolicy(first=0).delay(5, 0.9) == 0.0


def test_retry_after_may_exceed_the_ceiling_and_is_never_undercut() -> None:
    policy = RetryPolicy(first=1.0, ceiling=2.0)
    assert policy.delay(1, 0.5, retry_after=60.0) == 60.0
    assert policy.delay(4, 0.5, retry_after=0.0) == 1.0
