"""The rate and the pauses of a run in the rows of a real database: leases, claims, reports, a database that is away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from itertools import pairwise
from math import inf
from typing import Any

import pytest
from postgres_server import Database

psycopg = pytest.importorskip("psycopg")

from invoicing_async._core.shared_lanes import LaneNews, LanePause, LaneReport  # noqa: E402 - psycopg may be missing
from invoicing_async._durable.address import ServerAddress, run_address  # noqa: E402
from invoicing_async._durable.postgres.connection import Connection, open_connection  # noqa: E402
from invoicing_async._durable.postgres.lane_connection import Reckoning  # noqa: E402
from invoicing_async._durable.postgres.lane_statements import LEASE, PROBE_LEASE  # noqa: E402
from invoicing_async._durable.postgres.lanes import PostgresLanes  # noqa: E402
from invoicing_async._durable.records import LedgerAwayError, LedgerSchemaError  # noqa: E402
from invoicing_async.errors import SessionError  # noqa: E402

pytestmark = [pytest.mark.asyncio, pytest.mark.filterwarnings("error"), pytest.mark.slow]

LANE = "create_invoice"
ENVIRON = {"INVOICING_LEDGER_WAIVE": "fsync"}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let pauses be looked up twenty times a second: the tests wait for that."""
    monkeypatch.setattr("invoicing_async._durable.postgres.lanes.LOOKING", 0.05)


def connect_to(database: Database) -> Callable[[], Any]:
    address = run_address(database.address())
    assert isinstance(address, ServerAddress)

    async def connect() -> Connection:
        return await open_connection(address, to_write=True, environ=ENVIRON)

    return connect


class Heard:
    """What one worker hears."""

    def __init__(self) -> None:
        self.pauses: Mapping[str, LanePause] = {}
        self.times = 0

    def __call__(self, pauses: Mapping[str, LanePause]) -> None:
        self.pauses = pauses
        self.times += 1

    async def until(self, found: Callable[[Mapping[str, LanePause]], bool], seconds: float = 5.0) -> float:
        """Wait until what is heard is so, and return for how long."""
        begun = time.monotonic()
        while not found(self.pauses):
            assert time.monotonic() < begun + seconds, self.pauses
            await asyncio.sleep(0.01)
        return time.monotonic() - begun


@asynccontextmanager
async def lanes(database: Database, worker: int, run: int = 1) -> AsyncIterator[tuple[PostgresLanes, Heard]]:
    made, heard = PostgresLanes(connect_to(database), run=run, worker=worker), Heard()
    made.join(heard)
    try:
        yield made, heard
    finally:
        await made.aclose()


def paused(probe: float = 0.0, *, since: float = 1.0) -> LaneReport:
    now = time.monotonic()
    return LaneReport(lane=LANE, news=LaneNews.PAUSED, since=now - since, until=now + probe, distance=2.0)


def of(news: LaneNews, probe: float = 0.0) -> LaneReport:
    return LaneReport(lane=LANE, news=news, until=time.monotonic() + probe, distance=4.0)


@pytest.mark.usefixtures("quick")
async def test_leases_of_two_follow_each_other_without_a_gap(postgres: Database) -> None:
    async with lanes(postgres, 1) as (one, _), lanes(postgres, 2) as (two, _):
        found = [await each.lease(50, 100.0) for each in (one, two, one, two)]
    assert [lease.ends - lease.begins for lease in found] == pytest.approx([0.5] * 4)
    gaps = [later.begins - earlier.ends for earlier, later in pairwise(found)]
    assert gaps == pytest.approx([0.0] * 3, abs=0.02)
    assert found[0].begins == pytest.approx(time.monotonic(), abs=0.5)


@pytest.mark.usefixtures("quick")
async def test_runs_share_nothing_and_a_quiet_time_saves_nothing_up(postgres: Database) -> None:
    async with lanes(postgres, 1) as (one, _), lanes(postgres, 2, run=2) as (other, _):
        await one.lease(1000, 10.0)
        assert (await other.lease(1, 100.0)).begins < time.monotonic() + 0.1
        await asyncio.sleep(0.05)
        assert (await other.lease(1, 100.0)).begins > time.monotonic() - 0.03


@pytest.mark.usefixtures("quick")
async def test_the_rate_that_was_asked_for_last_is_that_of_all(postgres: Database) -> None:
    """Who asked for another before leases by it, without having to be told."""
    async with lanes(postgres, 1) as (one, _), lanes(postgres, 2) as (two, _):
        lengths = []
        for each, rate in ((one, 100.0), (two, 50.0), (one, 100.0), (one, 20.0), (two, 50.0)):
            lease = await each.lease(10, rate)
            lengths.append(lease.ends - lease.begins)
    assert lengths == pytest.approx([0.1, 0.2, 0.2, 0.5, 0.5])


@pytest.mark.usefixtures("quick")
async def test_a_clock_that_was_set_back_lets_nobody_wait_for_its_former_time(postgres: Database) -> None:
    async with lanes(postgres, 1) as (one, _):
        await one.lease(1, 100.0)
        postgres.psql("UPDATE invoicing.lanes SET free_at = clock_timestamp() + interval '1 day'")
        assert (await one.lease(1, 100.0)).begins < time.monotonic() + 60 + 1000 / 100 + 1


@pytest.mark.usefixtures("quick")
async def test_a_lease_waits_for_no_disk(postgres: Database) -> None:
    """What is leased need not survive the database; what a group commit records must."""
    async with await connect_to(postgres)() as connection, connection.transaction():
        values = {"run": 1, "permits": 1, "per_second": 10.0, "set": None}
        await connection.execute(LEASE, values)
        assert (await (await connection.execute("SHOW synchronous_commit")).fetchone()) == ("off",)


@pytest.mark.usefixtures("quick")
async def test_a_pause_comes_to_the_others_with_their_next_look_and_so_does_its_end(postgres: Database) -> None:
    async with lanes(postgres, 1) as (one, _), lanes(postgres, 2) as (_, heard):
        await heard.until(lambda _: heard.times > 0)
        begun = time.monotonic()
        one.report(paused(30.0))
        assert await heard.until(lambda pauses: LANE in pauses) < 1.0
        pause = heard.pauses[LANE]
        assert (pause.since, pause.next_probe) == pytest.approx((begun - 1.0, begun + 30.0), abs=0.1)
        assert (pause.distance, pause.probed_until) == (2.0, -inf)
        one.report(of(LaneNews.RESUMED))
        assert await heard.until(lambda pauses: not pauses) < 1.0


@pytest.mark.usefixtures("quick")
async def test_pauses_come_with_each_lease(postgres: Database) -> None:
    async with lanes(postgres, 1) as (one, _), lanes(postgres, 2) as (two, heard):
        one.report(paused(30.0))
        await one.lease(1, 100.0)
        await two.lease(1, 100.0)
        assert LANE in heard.pauses


@pytest.mark.usefixtures("quick")
async def test_one_at_a_time_probes(postgres: Database) -> None:
    async with lanes(postgres, 1) as (one, mine), lanes(postgres, 2) as (two, heard):
        one.report(paused())
        assert sorted(await asyncio.gather(one.claim(LANE), two.claim(LANE), two.claim(LANE))) == [False, False, True]
        one.report(of(LaneNews.RELEASED))
        two.report(of(LaneNews.RELEASED))
        await asyncio.gather(one.lease(1, 100.0), two.lease(1, 100.0))
        assert await one.claim(LANE)
        await heard.until(lambda pauses: pauses[LANE].probed_until > time.monotonic())
        assert mine.pauses[LANE].probed_until == -inf
        assert not await two.claim(LANE)
        one.report(of(LaneNews.PROBED, 20.0))
        await heard.until(lambda pauses: pauses[LANE].next_probe > time.monotonic() + 10)
        assert heard.pauses[LANE].distance == 4.0
        assert not await two.claim(LANE)


@pytest.mark.usefixtures("quick")
async def test_only_a_pause_whose_probe_is_due_can_be_claimed(postgres: Database) -> None:
    async with lanes(postgres, 1) as (one, _):
        assert not await one.claim(LANE)
        one.report(paused(30.0))
        assert not await one.claim(LANE)


@pytest.mark.usefixtures("quick")
async def test_the_probe_of_a_process_that_died_is_free_after_its_lease(postgres: Database) -> None:
    async with lanes(postgres, 2) as (two, _):
        async with lanes(postgres, 1) as (one, _):
            one.report(paused())
            assert await one.claim(LANE)
        assert not await two.claim(LANE)
        postgres.psql("UPDATE invoicing.lanes SET probe_until = probe_until - make_interval(secs => %s)", PROBE_LEASE)
        assert await two.claim(LANE)


@pytest.mark.usefixtures("quick")
async def test_a_probe_under_way_is_renewed(postgres: Database) -> None:
    async with lanes(postgres, 1) as (one, _):
        one.report(paused())
        assert await one.claim(LANE)
        postgres.psql("UPDATE invoicing.lanes SET probe_until = clock_timestamp()")
        await asyncio.sleep(0.2)
        left = "SELECT extract(epoch FROM probe_until - clock_timestamp())::float8 FROM invoicing.lanes"
        assert postgres.psql(left)[0][0] > PROBE_LEASE - 1.5


@pytest.mark.usefixtures("quick")
async def test_a_second_pause_changes_nothing_of_the_first_and_an_answer_ends_none_that_began_later(
    postgres: Database,
) -> None:
    async with lanes(postgres, 1) as (one, _), lanes(postgres, 2) as (two, heard):
        one.report(paused(30.0, since=5.0))
        await one.lease(1, 100.0)
        two.report(paused(1.0, since=0.0))
        await two.lease(1, 100.0)
        await heard.until(lambda pauses: LANE in pauses)
        assert heard.pauses[LANE].next_probe > time.monotonic() + 20
        postgres.psql("UPDATE invoicing.lanes SET since = clock_timestamp() + interval '1 s' WHERE lane = %s", LANE)
        one.report(of(LaneNews.RESUMED))
        await one.lease(1, 100.0)
        assert postgres.psql("SELECT since IS NULL FROM invoicing.lanes WHERE lane = %s", LANE) == [(False,)]


@pytest.mark.usefixtures("quick")
async def test_a_wait_that_the_service_asked_for_is_the_longest_of_all(postgres: Database) -> None:
    async with lanes(postgres, 1) as (one, _), lanes(postgres, 2) as (two, heard):
        one.report(of(LaneNews.HELD, 30.0))
        two.report(of(LaneNews.HELD, 10.0))
        await two.lease(1, 100.0)
        await heard.until(lambda pauses: LANE in pauses and pauses[LANE].held_until > time.monotonic() + 20)
        assert heard.pauses[LANE].since is None


@pytest.mark.usefixtures("quick")
async def test_a_database_that_was_away_is_asked_again_and_what_was_reported_is_not_lost(
    postgres: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """It is told once, and nothing of the connection is in it."""
    async with lanes(postgres, 1) as (one, heard):
        await heard.until(lambda _: heard.times > 0)
        ended = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = %s AND pid <> %s"
        postgres.server.psql(ended, postgres.name, 0)
        one.report(paused(30.0))
        lease = await one.lease(1, 100.0)
        assert lease.begins > time.monotonic() - 1
        await heard.until(lambda pauses: LANE in pauses)
    told = [record.getMessage() for record in caplog.records if "not shared" in record.getMessage()]
    assert len(told) == 1


async def test_once_the_run_is_closed_nobody_waits() -> None:
    """Nor for a database that is away."""

    async def away() -> Connection:
        raise LedgerAwayError("away")

    one = PostgresLanes(away, run=1, worker=1)
    asking = [asyncio.create_task(ask) for ask in (one.lease(1, 1.0), one.claim(LANE))]
    await asyncio.sleep(0.01)
    await one.aclose()
    found = await asyncio.gather(*asking, return_exceptions=True)
    assert [type(error) for error in found] == [SessionError] * 2
    with pytest.raises(SessionError, match="is closed"):
        await one.lease(1, 100.0)
    with pytest.raises(SessionError, match="is closed"):
        one.join(Heard())
    one.report(paused())


@pytest.mark.usefixtures("quick")
async def test_what_will_not_pass_by_itself_is_told_to_whoever_asks(postgres: Database) -> None:
    async with lanes(postgres, 1) as (one, heard):
        await heard.until(lambda _: heard.times > 0)
        postgres.psql("ALTER TABLE invoicing.lanes RENAME TO lost")
        with pytest.raises(LedgerSchemaError):
            await one.lease(1, 100.0)
        postgres.psql("ALTER TABLE invoicing.lost RENAME TO lanes")
        await one.lease(1, 100.0)


@pytest.mark.usefixtures("quick")
async def test_reports_on_their_way_are_sent_before_it_closes(postgres: Database) -> None:
    async with lanes(postgres, 1) as (one, heard):
        await heard.until(lambda _: heard.times > 0)
        one.report(paused(30.0))
    assert postgres.psql("SELECT lane FROM invoicing.lanes") == [(LANE,)]


@pytest.mark.parametrize("hour", [-3600.0, 3600.0])
async def test_the_database_s_time_is_reckoned_by_the_narrowest_answer_until_one_contradicts_it(hour: float) -> None:
    reckoning = Reckoning()
    reckoning.learn(1000.0, sent=10.0, received=10.4)
    assert reckoning.here(1000.0) == pytest.approx(10.2)
    reckoning.learn(1001.0, sent=11.0, received=11.01)
    assert reckoning.here(1001.0) == pytest.approx(11.005)
    reckoning.learn(1002.1, sent=12.0, received=12.2)
    assert reckoning.here(1002.1) == pytest.approx(12.105)
    reckoning.learn(1003.0 + hour, sent=13.0, received=13.1)
    assert reckoning.here(1003.0 + hour) == pytest.approx(13.05)
