"""The learned schedule: within its bounds whatever it sees, cheap, and near the best once it knows."""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from invoicing_async._values import adaptive_polling
from invoicing_async._values.adaptive_polling import AdaptiveSchedule

ANY_FLOAT = st.floats(allow_nan=True, allow_infinity=True)
CHANCE = st.floats(0, 1, exclude_max=True)
MIDDLE = 0.5  # a chance that neither explores nor jitters


def schedule(model: AdaptiveSchedule, polls: int) -> list[float]:
    """The ages at which one operation that never ends is polled."""
    ages = [0.0]
    for _ in range(polls):
        ages.append(ages[-1] + model.delay(ages[-1], chance=MIDDLE))
    return ages[1:]


def taught(
    model: AdaptiveSchedule, draw: Callable[[random.Random], float], operations: int, seed: int = 1
) -> AdaptiveSchedule:
    """Run operations one after the other."""
    rng = random.Random(seed)
    for _ in range(operations):
        end, age = draw(rng), 0.0
        while age < end:
            after, age = age, age + model.delay(age, chance=rng.random())
            model.observe(after, age, done=age >= end)
    return model


@pytest.mark.parametrize("name", ["worth", "floor", "ceiling"])
@pytest.mark.parametrize("value", [0, -1.0, math.inf, math.nan, True, "1"])
def test_a_setting_that_is_no_finite_number_above_zero_is_named(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"AdaptiveSchedule\.{name} must be a finite number above 0"):
        AdaptiveSchedule(**{name: value})  # type: ignore[arg-type]  # that is the point


def test_a_ceiling_below_the_floor_is_named() -> None:
    with pytest.raises(ValueError, match=r"AdaptiveSchedule\.ceiling must be at least floor \(5\.0\), got 1\.0"):
        AdaptiveSchedule(floor=5.0, ceiling=1.0)


def test_without_data_the_waits_grow_with_the_square_root_of_the_age() -> None:
    ages = schedule(AdaptiveSchedule(worth=1.0, ceiling=1e4), 20)
    waits = [later - age for age, later in pairwise(ages)]
    assert all(later > 0.9 * wait for wait, later in pairwise(waits[1:]))  # the grid rounds
    roots = [wait / age**0.5 for age, wait in zip(ages[5:], waits[5:], strict=False)]
    assert max(roots) < 1.5 * min(roots)


def test_without_data_a_dearer_second_means_more_polls() -> None:
    polls = [sum(age < 60 for age in schedule(AdaptiveSchedule(worth=worth), 200)) for worth in (0.1, 1.0, 10.0)]
    assert polls == sorted(polls)
    assert polls[0] < polls[1] < polls[2] < 100


@given(
    worth=st.floats(1e-3, 1e3),
    floor=st.floats(1e-3, 10),
    reach=st.floats(1, 1e5),
    seen=st.lists(st.tuples(ANY_FLOAT, ANY_FLOAT, st.booleans(), st.integers(1, 5)), max_size=6),
    asked=st.lists(st.tuples(ANY_FLOAT, CHANCE), min_size=1, max_size=10),
)
@settings(max_examples=25, deadline=None)
def test_every_wait_is_within_floor_and_ceiling_whatever_was_seen(
    worth: float,
    floor: float,
    reach: float,
    seen: list[tuple[float, float, bool, int]],
    asked: list[tuple[float, float]],
) -> None:
    model = AdaptiveSchedule(worth=worth, floor=floor, ceiling=floor * reach)
    for after, by, done, times in seen:
        for _ in range(times):
            model.observe(after, by, done=done)
    for age, chance in asked:
        assert floor <= model.delay(age, chance=chance) <= floor * reach


@given(
    seen=st.lists(st.tuples(st.floats(0, 1e5), st.floats(0, 1e4), st.booleans()), min_size=1, max_size=15),
    chance=CHANCE,
)
@settings(max_examples=10, deadline=None)
def test_a_schedule_is_a_function_of_what_was_seen(seen: list[tuple[float, float, bool]], chance: float) -> None:
    one, two = AdaptiveSchedule(), AdaptiveSchedule()
    for model in (one, two):
        for after, more, done in seen:
            model.observe(after, after + more, done=done)
    assert [one.delay(age, chance=chance) for age in (0, 1, 10)] == [
        two.delay(age, chance=chance) for age in (0, 1, 10)
    ]
    assert one == two


def test_ends_that_no_prior_expects_at_every_age_at_once_do_not_break_it() -> None:
    model = AdaptiveSchedule()
    for k in range(adaptive_polling._BINS):
        for _ in range(3):
            model.observe(model._edges[k], model._edges[k] * 1.001, done=True)
    assert model.floor <= model.delay(5.0, chance=MIDDLE) <= model.ceiling


def test_operations_that_never_end_are_soon_polled_at_the_ceiling() -> None:
    model = AdaptiveSchedule(worth=1.0, ceiling=30.0)
    for _ in range(200):
        after = 0.0
        for age in schedule(model, 10):
            model.observe(after, age, done=False)
            after = age
    assert [model.delay(age, chance=MIDDLE) for age in (60.0, 600.0, 1e9)] == [30.0, 30.0, 30.0]
    assert sum(age <= 300 for age in schedule(model, 20)) <= 14


def test_a_known_time_is_polled_just_behind_it() -> None:
    model = taught(AdaptiveSchedule(worth=2.0), lambda rng: rng.gauss(10.0, 0.2), 400)
    first = model.delay(0.0, chance=MIDDLE)
    assert 9.5 < first < 11.5


def test_between_two_modes_nobody_is_polled() -> None:
    model = taught(
        AdaptiveSchedule(worth=1.0),
        lambda rng: rng.gauss(2.0, 0.2) if rng.random() < 0.7 else rng.gauss(20.0, 2.0),
        800,
    )
    first, second = schedule(model, 2)
    assert 2.0 < first < 3.2
    assert 17.0 < second < 23.0


def test_a_shift_to_shorter_times_is_followed() -> None:
    model = taught(AdaptiveSchedule(worth=1.0), lambda rng: 8.0 * math.exp(rng.gauss(0, 0.3)), 600)
    before = model.delay(0.0, chance=MIDDLE)
    taught(model, lambda rng: 1.0 * math.exp(rng.gauss(0, 0.3)), 800, seed=2)
    assert before > 5.0
    assert model.delay(0.0, chance=MIDDLE) < 2.5


def test_the_long_memory_starts_again_from_the_short_one_after_a_shift() -> None:
    model = taught(taught(AdaptiveSchedule(worth=1.0), lambda _: 8.0, 600), lambda _: 1.0, 600, seed=2)
    long, _ = model._estimates
    assert sum(long.ended.values()) < 800  # by ageing alone it would still hold 900


def test_an_age_below_the_floor_is_rounded_to_it_or_to_the_submission() -> None:
    model = AdaptiveSchedule(floor=1.5)
    assert [model._index(age) for age in (-1.0, 0.0, 0.7, 0.8, 1.5, 1.53)] == [0, 0, 0, 1, 1, 2]


def test_a_small_share_of_the_chances_looks_inside_the_wait() -> None:
    model = taught(AdaptiveSchedule(worth=1.0), lambda rng: rng.gauss(10.0, 0.2), 400)
    waits = [model.delay(0.0, chance=k / 1000) for k in range(1000)]
    early = [wait for wait in waits if wait < 0.9 * waits[500]]
    assert 5 < len(early) < 60
    assert max(waits) < 1.05 * waits[500]


@given(seed=st.integers(0, 10**6), worth=st.floats(0.1, 9))
@settings(max_examples=3, deadline=None)
def test_the_plan_is_the_minimum_that_trying_every_next_poll_finds(seed: int, worth: float) -> None:
    """The hull against the plain dynamic programme, from every age."""
    edges, rng = AdaptiveSchedule()._edges, random.Random(seed)
    hazard = [0.2 * rng.random() ** 6 for _ in range(adaptive_polling._BINS)]
    best = adaptive_polling._plan(edges, hazard, worth=worth, floor=0.1)
    assert best[-1] == math.inf
    assert plain_cost(edges, hazard, worth, None) == pytest.approx(plain_cost(edges, hazard, worth, best))


def plain_cost(edges: list[float], hazard: list[float], worth: float, best: list[float] | None) -> list[float]:
    """The cost from each edge of a plan, or of the best one."""
    alive = adaptive_polling._survival(hazard)
    ages = [0.0]
    for k in range(len(hazard)):
        ages.append(ages[-1] + (alive[k] - alive[k + 1]) * (edges[k] + edges[k + 1]) / 2)
    cost = [5.0 * alive[-1]] * len(edges)
    for a in range(len(hazard) - 1, -1, -1):
        options = range(a + 1, len(edges)) if best is None else [edges.index(best[a])]
        cost[a] = min(
            alive[a] + worth * (edges[b] * (alive[a] - alive[b]) - (ages[b] - ages[a])) + cost[b]
            for b in options
            if edges[b] - edges[a] >= 0.0999
        )
    return cost


def simulated(model: AdaptiveSchedule, ends: list[float], rate: float) -> tuple[float, float]:
    """Polls and seconds of delay per operation, submitted at a steady rate; the heap of due polls is the clock."""
    chance = random.Random(7).random
    heap = [(k / rate, k, 0.0) for k in range(len(ends))]
    polls, delay = 0, 0.0
    while heap:
        due, k, after = heapq.heappop(heap)
        age = due - k / rate
        if age == 0.0:  # the submission
            heapq.heappush(heap, (due + model.delay(0.0, chance=chance()), k, 0.0))
            continue
        polls += 1
        model.observe(after, age, done=age >= ends[k])
        if age < ends[k]:
            heapq.heappush(heap, (due + model.delay(age, chance=chance()), k, age))
        else:
            delay += age - ends[k]
    return polls / len(ends), delay / len(ends)


def test_a_bimodal_run_costs_far_less_than_any_fixed_interval() -> None:
    """2,000 operations, 70 % near 2 s and 30 % near 20 s, learning included; the benchmark has the exact figures."""
    rng = random.Random(3)
    ends = [rng.gauss(2.0, 0.2) if rng.random() < 0.7 else rng.gauss(20.0, 2.0) for _ in range(2000)]
    polls, delay = simulated(AdaptiveSchedule(worth=1.0), ends, rate=10.0)
    fixed = min(
        sum(math.ceil(end / d) * (1 + d) - end for end in ends) / len(ends) for d in (0.1 * 1.05**k for k in range(120))
    )
    assert polls + delay < 0.8 * fixed
    assert polls < 2.5
    assert delay < 1.5


def test_a_result_costs_no_replan_most_of_the_time() -> None:
    """Replans grow rarer: a hundred thousand operations outstanding must not mean a hundred thousand plans."""
    replans, seen = 0, 0.0
    while seen < 100_000:
        seen += adaptive_polling._due(seen)
        replans += 1
    assert replans < 200
