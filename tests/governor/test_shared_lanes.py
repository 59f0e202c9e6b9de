"""Several processes that share the lanes of a run: one sees an outage, all pause, and one at a time asks. Virtual time.

Each worker is a session of its own; what they share is a database in memory, by the rules of the statements.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import pairwise
from typing import Any

import pytest
import vtime
from lanes import PROBE_LEASE, Database, Lanes, Row, now, sharing
from outages import LATENCY, Calls, Unsteady
from session_calls import BASE, CALL, body

from invoicing_async._core.shared_lanes import LanePause
from invoicing_async._governor.lane import LaneKey
from invoicing_async._governor.shared_gate import lane_name
from invoicing_async._governor.shared_outage import AGAIN, FORGOTTEN, SharedOutage
from invoicing_async.auth import StaticToken
from invoicing_async.errors import ServiceDownError, SessionError
from invoicing_async.events import Event, Paused, Probing, Resumed
from invoicing_async.health import LaneState
from invoicing_async.policies import Limits, OutagePolicy
from invoicing_async.session import Session
from invoicing_async.session._session import internals_of
from invoicing_async.session._shared_limits import limits_over

DOWN, UP = 3.0, 23.0
PLACES = 8
FEW = Limits(concurrency=PLACES, adaptive=False)
RATE = PLACES / LATENCY


def told(events: list[tuple[float, Event]], kind: type) -> list[float]:
    return [at for at, event in events if isinstance(event, kind)]


@asynccontextmanager
async def workers(
    database: Database, *services: Unsteady, **settings: Any
) -> AsyncIterator[list[tuple[Session, list[tuple[float, Event]]]]]:
    """A session for each service, and what it is told when."""
    async with AsyncExitStack() as stack:
        made = []
        settings = {"limits": FEW, **settings}
        for number, service in enumerate(services, 1):
            events: list[tuple[float, Event]] = []

            def note(event: Event, events: list[tuple[float, Event]] = events) -> None:
                events.append((now(), event))

            one = sharing(database, service, number, on_event=note, **settings)
            made.append((await stack.enter_async_context(one), events))
        yield made


async def steady(session: Session, until: float, every: float = 0.5) -> None:
    """Call now and then, as a worker with little to do."""
    while now() < until:
        await internals_of(session).call(CALL, body, patient=True)
        await asyncio.sleep(every)


def test_one_sees_the_outage_and_all_pause() -> None:
    """The one with little to do sends nothing more within two seconds; alone it would go on for ten."""
    database, busy, quiet = Database(), Unsteady(down=(DOWN, UP)), Unsteady(down=(DOWN, UP))

    async def work() -> None:
        async with workers(database, busy, quiet) as ((one, _), (other, events)):
            calls = asyncio.create_task(Calls(one).run(3_000))
            await steady(other, UP + 10)
            (paused,), (resumed,) = told(events, Paused)[:1], told(events, Resumed)
            assert DOWN < paused < DOWN + 2.0
            assert UP < resumed < UP + 4.0 + 2.0
            assert not any(paused < at < resumed for at in quiet.at) or told(events, Probing)
            outcomes, error = await calls
            assert (sum(failed is not None for _, failed in outcomes), error) == (0, None)

    vtime.run(work())


def test_one_at_a_time_probes() -> None:
    """Of four workers, all in need: what goes into an outage is what was under way, and as many probes as of one."""
    database, services = Database(), [Unsteady(down=(DOWN, UP), connects=False) for _ in range(4)]

    async def work() -> list[list[tuple[float, Event]]]:
        async with workers(database, *services) as made:
            await asyncio.gather(*(Calls(session).run(1_200) for session, _ in made))
            return [events for _, events in made]

    heard = vtime.run(work())
    probes = sorted(at for events in heard for at in told(events, Probing))
    assert probes == pytest.approx([at for at, _ in database.probes], abs=0.1)
    assert all(later - earlier >= 0.8 for earlier, later in pairwise(probes))
    assert len(probes) <= (UP - DOWN) / 3.4 + 4
    assert all(told(events, Resumed) for events in heard)
    assert max(told(heard[0], Resumed)) < UP + 4.0 + 2.0


def test_all_go_on_when_it_recovers() -> None:
    """And send what is left as fast as before."""
    database, services = Database(), [Unsteady(down=(DOWN, UP)) for _ in range(2)]

    async def work() -> None:
        async with workers(database, *services) as made:
            ends = await asyncio.gather(*(Calls(session).run(3_000) for session, _ in made))
            assert [error for _, error in ends] == [None, None]
            assert [sum(failed is not None for _, failed in outcomes) for outcomes, _ in ends] == [0, 0]

    vtime.run(work())
    for service in services:
        assert sum(UP + 8 <= at < UP + 9 for at in service.at) >= 0.9 * sum(1 <= at < 2 for at in service.at)


def test_a_probe_whose_holder_died_is_made_by_another() -> None:
    database, service = Database(), Unsteady(down=(0.0, 8.0))

    async def work() -> None:
        dead = Lanes(database, 9)
        database.rows[CALL.operation] = Row(LanePause(since=0.0, next_probe=0.0, distance=1.0))
        assert await dead.claim(CALL.operation)
        async with workers(database, service) as ((session, events),):
            await asyncio.sleep(1.5)
            waiting = asyncio.create_task(internals_of(session).call(CALL, body, patient=True))
            await asyncio.sleep(PROBE_LEASE - 2.0)
            assert service.at == []
            assert internals_of(session).governor.health().lanes[0].state is LaneState.PAUSED
            await asyncio.sleep(3.0)
            assert told(events, Probing)[0] == pytest.approx(PROBE_LEASE, abs=1.2)
            await waiting

    vtime.run(work())


def test_while_the_database_is_away_a_known_pause_stays_and_nobody_probes() -> None:
    database, service = Database(), Unsteady(down=(DOWN, 20.0))

    async def work() -> None:
        async with workers(database, service) as ((session, _),):
            calls = asyncio.create_task(Calls(session).run(1_500))
            await asyncio.sleep(DOWN + 3.0)
            database.away = True
            await asyncio.sleep(1.0)
            before = service.sent
            await asyncio.sleep(60.0)
            assert service.sent == before
            database.away = False
            _, error = await calls
            assert error is None

    vtime.run(work())


def test_what_is_leased_is_spent_while_the_database_is_away_and_nothing_beyond_it() -> None:
    database, service = Database(), Unsteady()

    async def work() -> None:
        async with workers(database, service, limits=Limits(per_second=50, adaptive=False)) as ((session, _),):
            calls = asyncio.create_task(Calls(session).run(1_000))
            await asyncio.sleep(2.0)
            database.away, before = True, service.sent
            await asyncio.sleep(10.0)
            assert service.sent - before <= 10
            database.away = False
            await calls

    vtime.run(work())
    assert max(service.at) == pytest.approx(1_000 / 50 + 10, abs=0.5)


def test_the_rate_is_the_sum_of_all_and_each_has_an_equal_share() -> None:
    """Hosts whose wall clocks are an hour apart, one of which has five times as much to do."""
    database, services = Database(), [Unsteady(), Unsteady()]

    async def work() -> None:
        async with workers(database, *services, limits=Limits(per_second=100, adaptive=False)) as made:
            await asyncio.gather(Calls(made[0][0]).run(1_500), Calls(made[1][0]).run(500))

    vtime.run(work())
    times = sorted(at for service in services for at in service.at)
    assert times[-1] == pytest.approx(20.0, abs=0.3)
    assert max(sum(begin <= at < begin + 1 for at in times) for begin in times) <= 102
    together = max(services[1].at)
    split = [sum(at <= together for at in service.at) for service in services]
    assert abs(split[0] - split[1]) <= 0.05 * sum(split)


def test_a_database_that_is_far_away_costs_nothing_of_the_rate() -> None:
    """The next lease is asked for while this one is spent."""
    database, service = Database(seconds=0.05), Unsteady()

    async def work() -> None:
        async with workers(database, service, limits=Limits(per_second=100, adaptive=False)) as ((session, _),):
            await Calls(session).run(1_000)

    vtime.run(work())
    assert max(service.at) == pytest.approx(10.0, rel=0.03)


def test_a_worker_with_little_to_do_takes_little_of_the_rate() -> None:
    """It leases what it needs, and not a tenth of a second for each call."""
    database, busy, quiet = Database(), Unsteady(), Unsteady()

    async def work() -> None:
        async with workers(database, busy, quiet, limits=Limits(per_second=100, adaptive=False)) as made:
            calls = asyncio.create_task(Calls(made[0][0]).run(1_900))
            await steady(made[1][0], 19.0, every=0.2)
            await calls

    vtime.run(work())
    lost = max(busy.at) * 100 - (1_900 + len(quiet.at))
    assert lost <= len(quiet.at)


def test_a_pause_that_a_service_asks_for_holds_for_all() -> None:
    database = Database()
    held, other = Unsteady(down=(DOWN, DOWN + 1), retry_after="7"), Unsteady()

    async def work() -> None:
        async with workers(database, held, other) as ((one, _), (two, _)):
            calls = asyncio.create_task(steady(one, DOWN + 20, every=0.1))
            await steady(two, DOWN + 20)
            await calls

    vtime.run(work())
    assert not [at for at in other.at if DOWN + 2.0 < at < DOWN + 6.5]
    assert [at for at in other.at if at > DOWN + 8.5]


def test_a_worker_that_is_cut_off_from_the_service_does_not_pause_those_that_are_not() -> None:
    """Their own answers say that the service is there."""
    database, cut, well = Database(), Unsteady(down=(DOWN, UP)), Unsteady()

    async def work() -> None:
        async with workers(database, cut, well) as ((one, _), (two, events)):
            calls = asyncio.create_task(Calls(one).run(1_500))
            await Calls(two).run(4_000)
            assert not told(events, Paused)
            await calls

    vtime.run(work())
    assert max(well.at) == pytest.approx(4_000 / RATE, rel=0.1)


def test_a_pause_of_a_worker_that_is_gone_and_was_alone_with_it_is_ended() -> None:
    database, well = Database(), Unsteady()

    async def work() -> None:
        async with workers(database, well) as ((session, _),):
            await steady(session, 2.0)
            database.rows[CALL.operation] = Row(LanePause(since=1.0, next_probe=2.0, distance=1.0))
            await steady(session, 4.0 + FORGOTTEN)
            assert database.rows[CALL.operation].pause.since is None

    vtime.run(work())


def test_a_call_outside_a_batch_fails_at_once_during_a_pause_and_probes_when_that_is_due() -> None:
    database, service = Database(), Unsteady(down=(0.0, 8.0))

    async def work() -> None:
        database.rows[CALL.operation] = Row(LanePause(since=0.0, next_probe=6.0, distance=4.0))
        async with workers(database, service) as ((session, _),):
            await asyncio.sleep(1.0)
            for _ in range(3):
                with pytest.raises(ServiceDownError):
                    await session.call(CALL, body)
            assert service.sent == 0
            await asyncio.sleep(8.0)
            await session.call(CALL, body)
            assert (service.sent, len(database.probes)) == (1, 1)
            await asyncio.sleep(0.1)
            assert database.rows[CALL.operation].pause.since is None

    vtime.run(work())


def test_a_probe_that_nobody_makes_any_more_is_left_to_others() -> None:
    """Who would have made it gave up while it was claimed."""
    database, service = Database(seconds=0.5), Unsteady()

    async def work() -> None:
        database.rows[CALL.operation] = Row(LanePause(since=0.0, next_probe=2.0, distance=4.0))
        async with workers(database, service) as ((session, _),):
            await asyncio.sleep(2.2)
            calling = asyncio.create_task(internals_of(session).call(CALL, body, patient=True))
            await asyncio.sleep(0.1)
            calling.cancel()
            await asyncio.sleep(2.0)
            assert (len(database.probes), service.sent, database.rows[CALL.operation].probe_by) == (1, 0, None)

    vtime.run(work())


def test_a_run_that_is_closed_leaves_nobody_waiting() -> None:
    class Closed(Lanes):
        async def claim(self, lane: str) -> bool:
            raise SessionError("closed")

    async def work() -> None:
        database, lanes = Database(), Closed(Database(), 1)
        lanes.database = database
        database.rows[CALL.operation] = Row(LanePause(since=0.0, next_probe=2.0, distance=4.0))
        options: dict[str, Any] = {"auth": StaticToken("t"), "transport": Unsteady(), "clock": vtime.VirtualClock()}
        async with Session(BASE, limits=limits_over(FEW, lanes), **options) as session:
            await asyncio.sleep(0.1)
            calls = (internals_of(session).call(CALL, body, patient=True) for _ in range(3))
            found = await asyncio.gather(*calls, return_exceptions=True)
            assert [type(error) for error in found] == [SessionError] * 3

    vtime.run(work())


def test_a_lane_is_called_the_same_by_all() -> None:
    assert lane_name(LaneKey("", "submit", "")) == "submit"
    assert lane_name(LaneKey("", "submit", "shop-1")) == "submit shop-1"
    assert lane_name(LaneKey("https://files.test", "file", "")) == "file - https://files.test"


def test_own_answers_contradict_a_pause_until_something_fails_here_too() -> None:
    outage, pause = SharedOutage(OutagePolicy()), LanePause(since=10.0, next_probe=12.0, distance=2.0)
    outage.answered(10.5)
    assert not outage.adopt(pause)
    outage.fail(11.0, lambda: 0.5, top=64, probe=False)
    assert outage.adopt(pause)
    assert (outage.since, outage.next_probe, outage.distance) == (10.0, 12.0, 2.0)
    assert not outage.adopt(pause)


def test_a_probe_that_another_has_is_claimed_again_when_that_is_lost_and_otherwise_a_second_later() -> None:
    outage = SharedOutage(OutagePolicy())
    outage.adopt(LanePause(since=10.0, next_probe=12.0, distance=2.0, probed_until=17.0))
    assert (outage.is_due(16.9), outage.is_due(17.0)) == (False, True)
    outage.claimed(17.0, granted=False)
    assert (outage.wait(17.0), outage.is_due(17.9), outage.is_due(18.0)) == (AGAIN, False, True)
    outage.claimed(18.0, granted=True)
    assert outage.wait(18.0) == 0.0
