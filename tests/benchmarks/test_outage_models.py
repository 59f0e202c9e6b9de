"""The models of benchmarks/outage: the service that is down, slow or small, and how others retry."""

from __future__ import annotations

import asyncio
import random
import sys
from collections import Counter
from collections.abc import Callable, Coroutine
from importlib import import_module
from typing import Any

import pytest
import vtime
from places import ROOT

sys.path.insert(0, str(ROOT / "benchmarks" / "outage"))

model: Any = import_module("model")
rivals: Any = import_module("rivals")
scenarios: Any = import_module("scenarios")
bench: Any = import_module("bench")

LANE = "documents"


def on(profile: Any, work: Callable[[Any], Coroutine[Any, Any, Any]]) -> Any:
    """Do something with a service in virtual time."""

    async def play() -> Any:
        random.seed(1)
        return await work(model.Service(profile))

    return vtime.run(play())


def clock() -> float:
    return asyncio.get_running_loop().time()


# --- the service ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("capacity", [2, 8, 30])
def test_so_many_are_worked_on_and_as_many_wait(capacity: int) -> None:
    """Twice the capacity is taken, and everybody beyond is refused after no more than the way there and back."""

    async def crowd(service: Any) -> list[tuple[int, float]]:
        async def one() -> tuple[int, float]:
            return (await service.ask(LANE)).status, clock()

        return await asyncio.gather(*(one() for _ in range(3 * capacity)))

    told = on(model.Profile(capacity=((0.0, capacity),)), crowd)
    assert Counter(status for status, _ in told) == {200: 2 * capacity, 503: capacity}
    assert all(at == pytest.approx(model.RTT) for status, at in told if status == 503)


@pytest.mark.parametrize("capacity", [2, 8])
def test_a_service_of_a_capacity_does_as_much_as_its_mean_says(capacity: int) -> None:
    async def batch(service: Any) -> float:
        await scenarios.rivals(
            scenarios.Scenario("", None, {LANE: 1000}), service, Counter(), rivals.Insisting, capacity + 2
        )
        return clock()

    took = on(model.Profile(capacity=((0.0, capacity),)), batch)
    assert took == pytest.approx(1000 * model.MEAN / capacity, rel=0.05)


def test_who_waits_is_let_in_when_the_capacity_grows() -> None:
    """Four wait behind a place for one; from the second on all four are worked on."""

    async def grown(service: Any) -> float:
        await asyncio.gather(*(service.ask(LANE) for _ in range(5)), return_exceptions=True)
        return clock()

    profile = model.Profile(capacity=((0.0, 1), (0.001, 4)))
    assert on(profile, grown) < 0.3


@pytest.mark.parametrize(("at", "status"), [(0.9, 200), (1.0, 503), (1.9, 503), (2.0, 200)])
def test_an_outage_lasts_from_its_begin_to_before_its_end(at: float, status: int) -> None:
    async def asked(service: Any) -> int:
        await asyncio.sleep(at)
        return int((await service.ask(LANE)).status)

    assert on(model.Profile(down=(model.Down(1.0, 2.0),)), asked) == status


def test_an_outage_of_one_operation_leaves_the_others_alone() -> None:
    async def both(service: Any) -> tuple[int, int]:
        return (await service.ask(LANE)).status, (await service.ask("polls")).status

    assert on(model.Profile(down=(model.Down(0.0, 9.0, lanes=frozenset({LANE})),)), both) == (503, 200)


def test_a_refused_connection_carries_no_byte() -> None:
    """Who is refused is never told that the first byte leaves; who is answered is."""
    left: list[str] = []

    async def both(service: Any) -> None:
        with pytest.raises(model.RefusedError):
            await service.ask(LANE, lambda: left.append("refused"))
        await asyncio.sleep(1.0)
        await service.ask(LANE, lambda: left.append("answered"))

    on(model.Profile(down=(model.Down(0.0, 1.0, refused=True),)), both)
    assert left == ["answered"]


def test_a_limited_service_says_when_to_come_back() -> None:
    async def asked(service: Any) -> Any:
        await asyncio.sleep(10.0)
        return await service.ask(LANE)

    answer = on(model.Profile(limited=(5.0, 610.0)), asked)
    assert answer == (429, pytest.approx(600.0))


def test_the_record_tells_what_came_while_the_service_was_down() -> None:
    async def asked(service: Any) -> Any:
        for _ in range(3):
            await service.ask(LANE)
            await asyncio.sleep(0.5)
        return service.record

    record = on(model.Profile(down=(model.Down(0.4, 0.8),)), asked)
    assert (record.sent(), record.down, record.successes().total()) == (3, 1, 2)


# --- how others retry -------------------------------------------------------------------------------------------------


def attempts(rule: Callable[[], Any], answers: Callable[[], Any]) -> tuple[bool, list[float]]:
    """Do one call, and give its end and when its attempts were made."""
    made: list[float] = []

    async def send() -> Any:
        made.append(clock())
        answer = answers()
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def call() -> bool:
        random.seed(1)
        return bool(await rule().call(send))

    return vtime.run(call()), made


@pytest.mark.parametrize("answer", [model.UNAVAILABLE, model.RefusedError()], ids=["503", "refused"])
@pytest.mark.parametrize(
    ("rule", "number"),
    [(rivals.Tenacity, 5), (rivals.Urllib3, 6), (rivals.Standard, 3), (rivals.Adaptive, 3)],
)
def test_each_gives_up_after_its_number_of_attempts(rule: Callable[[], Any], number: int, answer: Any) -> None:
    done, made = attempts(rule, lambda: answer)
    assert (done, len(made)) == (False, number)


@pytest.mark.parametrize("rule", [*rivals.RIVALS.values(), rivals.Insisting])
def test_each_goes_on_until_it_is_done(rule: Callable[[], Any]) -> None:
    answers = iter([model.UNAVAILABLE, model.RefusedError(), model.DONE])
    done, made = attempts(rule, lambda: next(answers))
    assert (done, len(made)) == (True, 3)


def test_urllib3_waits_as_long_as_it_is_told() -> None:
    answers = iter([model.Answer(429, 600.0), model.DONE])
    _, made = attempts(rivals.Urllib3, lambda: next(answers))
    assert made[1] - made[0] == pytest.approx(600.0)


def test_the_quota_of_the_standard_mode_is_spent_after_a_hundred_retries() -> None:
    """A client whose calls all fail makes 100 retries in all; one that succeeds gets back what its retry cost."""

    async def calls() -> tuple[int, int]:
        client, sent = rivals.Standard(), Counter[str]()

        async def fails() -> Any:
            sent["failed"] += 1
            return model.UNAVAILABLE

        for _ in range(200):
            await client.call(fails)
        spent = client.quota
        client.quota = client.COST
        answers = iter([model.UNAVAILABLE, model.DONE])

        async def mended() -> Any:
            return next(answers)

        await client.call(mended)
        assert spent == 0
        return sent["failed"], client.quota

    assert vtime.run(calls()) == (200 + 100, 5)


def test_the_cubic_comes_back_to_the_rate_at_which_it_failed() -> None:
    """It falls to 0.7 of it at once, has it again when the cubic is at its saddle, and goes beyond."""
    cubic = rivals.Cubic(0.0)
    assert cubic.fail(100.0, 10.0) == pytest.approx(70.0)
    saddle = (100.0 * 0.3 / 0.4) ** (1 / 3)
    assert cubic.succeed(10.0) == pytest.approx(70.0)
    assert cubic.succeed(10.0 + saddle) == pytest.approx(100.0)
    assert cubic.succeed(10.0 + 2 * saddle) == pytest.approx(130.0)


def test_a_bucket_gives_as_many_tokens_as_its_rate() -> None:
    async def drawn() -> float:
        bucket = rivals.Bucket()
        bucket.set_rate(20.0)
        await asyncio.gather(*(bucket.acquire() for _ in range(100)))
        return clock()

    assert vtime.run(drawn()) == pytest.approx(5.0, rel=0.02)


def test_the_adaptive_mode_sends_slower_after_a_refusal() -> None:
    """Behind a service that refuses beyond 40 a second, it comes to send not much more than that."""

    async def limited() -> tuple[float, float]:
        client, taken, sent = rivals.Adaptive(), Counter[int](), Counter[int]()

        async def send() -> Any:
            second = int(clock())
            sent[second] += 1
            await asyncio.sleep(0.05)
            taken[second] += 1
            return model.DONE if taken[second] <= 40 else model.UNAVAILABLE

        async def worker() -> None:
            while clock() < 20.0:
                await client.call(send)

        await asyncio.gather(*(worker() for _ in range(16)))
        return sent[0], sum(sent[second] for second in range(10, 20)) / 10

    first, later = vtime.run(limited())
    assert first > 41
    assert 10 < later < 60


# --- what is measured -------------------------------------------------------------------------------------------------


def steady(begin: float, end: float, rate: int) -> Counter[int]:
    buckets = range(int(begin * model.BUCKETS), int(end * model.BUCKETS))
    return Counter(dict.fromkeys(buckets, rate // model.BUCKETS))


@pytest.mark.parametrize("late", [0.0, 1.0, 4.5])
def test_the_full_rate_is_back_at_the_end_of_the_first_second_that_has_it(late: float) -> None:
    done = steady(0.0, 10.0, 1000) + steady(20.0 + late, 40.0, 1000)
    assert scenarios.rate(done, 0.0, 10.0) == pytest.approx(1000.0)
    assert scenarios.back(done, 20.0, 1000.0) == pytest.approx(late + 0.95)


def test_a_rate_that_stays_lower_is_never_back() -> None:
    assert scenarios.back(steady(20.0, 40.0, 900), 20.0, 1000.0) is None
    assert scenarios.back(Counter(), 20.0, 1000.0) is None


def test_a_burst_is_the_most_within_a_quarter_of_a_second() -> None:
    arrived = steady(20.0, 40.0, 1000) + Counter({int(22.0 * model.BUCKETS): 250})
    assert scenarios.burst(arrived, 20.0, 1000.0) == pytest.approx(2.0)


def test_a_scenario_has_the_same_figures_every_time() -> None:
    scenario = scenarios.Scenario("", scenarios.outage(0.1, 0.3), {LANE: 200, "polls": 5}, ends=(0.6, 0.7))
    for client in (scenarios.OURS, *rivals.RIVALS):
        assert scenarios.played(scenario, client) == scenarios.played(scenario, client)


def test_a_service_that_is_well_takes_each_request_once() -> None:
    """Every client, the library too, does all of the work with as many requests, and none of it fails."""
    scenario = scenarios.Scenario("", model.Profile(), {LANE: 100, "submissions": 100})
    for client in (scenarios.OURS, *rivals.RIVALS, "8"):
        found = scenarios.played(scenario, client)
        assert (found.sent, found.failed, found.lost) == (200, 0, 0)


def test_each_item_of_mixed_work_is_of_its_own_operation() -> None:
    work = {LANE: 20, "submissions": 30, "polls": 5}

    async def mixed(service: Any) -> dict[str, int]:
        await scenarios.rivals(scenarios.Scenario("", None, work), service, Counter(), rivals.Standard, 8)
        return {lane: counted.total() for lane, counted in service.record.arrived.items()}

    assert on(model.Profile(), mixed) == work


# --- what is required -------------------------------------------------------------------------------------------------


def figures(**changed: Any) -> Any:
    well = scenarios.Figures(
        items=1000,
        sent=1010,
        down=100,
        crowded=10,
        failed=0,
        lost=0,
        pauses=0,
        back=2.0,
        burst=1.0,
        other=1.0,
        time=100.0,
    )
    return well._replace(**changed)


def judged(section: str, **changed: Any) -> list[str]:
    """What one set of figures breaks of a section's limits, beside the others'."""
    scenario = scenarios.Scenario("x", scenarios.outage(10.0, 600.0), {LANE: 1000})
    rows = [
        bench.Row(section, scenario, scenarios.OURS, figures(**changed)),
        bench.Row(section, scenario, bench.TENACITY, figures(down=25_000, failed=900, lost=900)),
        bench.Row(section, scenario, f"{bench.FIXED}: 12", figures(time=95.0)),
    ]
    found: list[str] = bench.missed(rows, quick=False)
    return found


@pytest.mark.parametrize("section", bench.LIMITS)
def test_what_is_within_every_limit_is_passed(section: str) -> None:
    assert judged(section) == []


@pytest.mark.parametrize(
    ("section", "changed"),
    [
        ("outage", {"failed": 1}),
        ("outage", {"lost": 1}),
        ("outage", {"back": 5.1}),
        ("outage", {"back": None}),
        ("outage", {"down": 251}),
        ("one lane", {"other": 0.9}),
        ("Retry-After", {"down": 10_000}),
        ("small", {"crowded": 60}),
        ("small", {"time": 105.0}),
        ("changing", {"time": 120.0}),
        ("moody, 30 %", {"pauses": 1}),
        ("moody, 30 %", {"sent": 1460}),
        ("moody, 5 %", {"sent": 1070}),
    ],
)
def test_each_limit_is_broken_by_what_is_beyond_it(section: str, changed: dict[str, Any]) -> None:
    assert len(judged(section, **changed)) == 1


def test_every_section_has_its_limits_and_each_limit_a_figure() -> None:
    """A limit whose figure nobody measures would never be broken."""
    assert bench.sections(quick=False).keys() == bench.LIMITS.keys()
    scenario = scenarios.Scenario("x", scenarios.outage(10.0, 600.0), {LANE: 1000})
    clients = (scenarios.OURS, bench.TENACITY, bench.FIXED)
    measured = bench.held([bench.Row("outage", scenario, client, figures()) for client in clients])
    assert all(limits.keys() <= measured.keys() for limits in bench.LIMITS.values())
