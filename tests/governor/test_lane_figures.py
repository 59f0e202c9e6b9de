"""What a lane must reach, in virtual time: outages, small services, random refusals."""

from __future__ import annotations

import pytest
from lane_simulation import Result, Seconds, Service, Simulation, constant, lognormal

TOP = 64
STEADY = constant(0.05)
VARIED = lognormal(0.05, 0.3)
WILD = lognormal(0.05, 1.0)
"""As of documents from ten kilobytes to some megabytes."""


def run(service: Service, items: int, *, seed: int = 1) -> Result:
    return Simulation(service, items, top=TOP, seed=seed).run()


def fixed(service: Service, items: int, *, top: int, seed: int = 1) -> float:
    """Return the seconds that a batch takes at a fixed concurrency, without a governor."""
    result = Simulation(service, items, top=top, seed=seed, governed=False).run()
    assert result.failed == 0
    return result.seconds


def small(seconds: Seconds, capacity: int) -> Service:
    return Service(seconds, capacity=capacity, queue=capacity)


def best_fixed(seconds: Seconds, capacity: int, items: int) -> float:
    """Return the seconds of the best fixed concurrency in hindsight."""
    tops = capacity, capacity * 3 // 2, 2 * capacity
    return min(fixed(small(seconds, capacity), items, top=top) for top in tops)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("capacity", [2, 8, 30])
@pytest.mark.parametrize("seconds", [STEADY, VARIED], ids=["steady", "varied"])
def test_a_small_service_is_found_out(seconds: Seconds, capacity: int, seed: int) -> None:
    """Nothing fails, at most 5 % is refused, and it takes at most 1.10 times as long as at the best concurrency."""
    items = 400 * capacity
    result = run(small(seconds, capacity), items, seed=seed)
    assert result.failed == 0
    assert result.refused <= 0.05 * result.sent
    assert result.seconds <= 1.10 * best_fixed(seconds, capacity, items)


@pytest.mark.parametrize("capacity", [2, 8, 30])
def test_a_small_service_is_found_out_where_its_answers_vary_much(capacity: int) -> None:
    """The same, and a fifth longer at most, with latencies a quarter or four times the usual one now and then."""
    items = 400 * capacity
    result = run(small(WILD, capacity), items)
    assert result.failed == 0
    assert result.refused <= 0.05 * result.sent
    assert result.seconds <= 1.20 * best_fixed(WILD, capacity, items)


@pytest.mark.parametrize(
    ("seconds", "most"), [(STEADY, 1.05), (VARIED, 1.05), (WILD, 1.10)], ids=["steady", "varied", "wild"]
)
def test_a_large_service_is_used_in_full(seconds: Seconds, most: float) -> None:
    """A batch takes hardly longer than at the whole concurrency from its first second on."""
    result = run(Service(seconds), 20_000)
    assert result.limits[-1][1] == TOP
    assert result.seconds <= most * fixed(Service(seconds), 20_000, top=TOP)


def test_a_service_that_only_queues_is_not_flooded() -> None:
    """Without a refusal, the latency alone says that more calls at once would only wait."""
    result = run(Service(VARIED, capacity=8), 4_000)
    assert max(limit for at, limit in result.limits if at > 2) <= 20
    assert result.seconds <= 1.05 * fixed(Service(VARIED, capacity=8), 4_000, top=8)


def test_a_capacity_that_changes_is_followed() -> None:
    """From 8 to 30 to 4, ten seconds each: at most 1.25 times as long as if it were known at any time."""
    per_second = 1 / 0.052
    items = int(10 * (8 + 30 + 4) * per_second)
    simulation = Simulation(small(STEADY, 8), items, top=TOP, changes=((10.0, 30.0), (20.0, 4.0)))
    result = simulation.run()
    assert result.failed == 0
    assert result.refused <= 0.05 * result.sent
    assert result.seconds <= 1.25 * 30


@pytest.mark.parametrize(("share", "most"), [(0.3, 1.45), (0.05, 1.06)])
def test_random_refusals_cost_what_they_must_and_stop_nothing(share: float, most: float) -> None:
    """No lane pauses, no item fails, and what is sent is hardly more than what was refused makes necessary."""
    result = run(Service(STEADY, share=share), 20_000)
    assert result.amplification <= most
    assert (result.pauses, result.failed) == (0, 0)
    assert result.limits[-1][1] == TOP


@pytest.mark.slow
@pytest.mark.parametrize(("share", "most"), [(0.3, 1.45), (0.05, 1.06)])
def test_random_refusals_stop_nothing_in_a_large_batch(share: float, most: float) -> None:
    """The same in 100,000 calls, where the dice fall badly for some."""
    result = run(Service(STEADY, share=share), 100_000)
    assert result.amplification <= most
    assert (result.pauses, result.failed) == (0, 0)


def test_an_outage_becomes_a_pause() -> None:
    """Of a batch at 64 that meets ten minutes of it, 64 and the probes go there, none fails, and all is soon as before.

    95 % of the rate is back within five seconds.
    """
    begin, end = 10.0, 610.0
    result = run(Service(STEADY, down=(begin, end)), 30_000)
    probes = (end - begin) / 3.4 + 3
    assert result.failed == 0
    assert result.in_outage <= TOP + probes
    assert result.pauses == 1
    assert result.rate(end + 5, end + 6) >= 0.95 * result.rate(begin - 5, begin)


@pytest.mark.parametrize("seed", range(5))
def test_an_outage_begins_in_the_middle_of_random_refusals(seed: int) -> None:
    """What is refused by chance neither hides an outage nor fails for it."""
    result = run(Service(VARIED, share=0.05, down=(10.0, 70.0)), 20_000, seed=seed)
    assert result.failed == 0
    assert result.in_outage <= 2 * TOP + 60 / 3.4
