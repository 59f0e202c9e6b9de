"""Two workers of one run, each a process, while a worker or the database is lost: the times that are promised for it.

The database is away for 20 seconds; `CHAOS_AWAY=600` makes it ten minutes.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from postgres_server import PostgresServer, Servers
from short_form import IN_FULL
from worker_chaos import Workers, eventually, look, queued_database, settle_doubts, workers
from worker_chaos_work import LATE, PLACES, TIMEOUTS, server_address

from invoicing_async._durable.postgres.ledger import PostgresLedger

pytestmark = [
    pytest.mark.slow,
    pytest.mark.process,
    pytest.mark.timeout(900),
    IN_FULL,
]

AWAY = float(os.environ.get("CHAOS_AWAY", "20"))
EVERY = 2.0
"""Seconds between two looks of the planner, as by default."""


@pytest.fixture
def server(postgres_servers: Servers) -> PostgresServer:
    """One that keeps what it answered for."""
    return postgres_servers(fsync=True)


@pytest.fixture
def drafts() -> int:
    return 500


@pytest.fixture
def two(server: PostgresServer, tmp_path: Path, drafts: int) -> Iterator[Workers]:
    """Two workers at work, whose rate the service sets."""
    with workers(queued_database(server), tmp_path, drafts=drafts, seconds=0.3) as found:
        found.start(every=EVERY)
        found.start(every=EVERY)
        yield found


def test_the_rest_of_a_killed_workers_chunks_goes_on_elsewhere_within_40_seconds(two: Workers, drafts: int) -> None:
    """What it had in flight, no more, is in doubt when it can have arrived no later."""
    two.until_made(100, seconds=30)
    killed = two.lives[0]
    [(owner,)] = two.database.psql("SELECT worker FROM invoicing.workers WHERE pid = %s", killed)
    two.kill(killed)
    at = time.time()
    sent = two.database.psql(
        "SELECT seq, extract(epoch FROM sent_at)::float8 FROM invoicing.items WHERE owner = %s AND state = 'sending'",
        owner,
    )
    assert 0 < len(sent) <= PLACES
    eventually(lambda: two.in_states()["in_doubt"] == len(sent), seconds=LATE + EVERY + 5)
    doubted = dict(
        two.database.psql("SELECT item, extract(epoch FROM at)::float8 FROM invoicing.journal WHERE event = 'crashed'")
    )
    assert doubted.keys() == {seq for seq, _ in sent}
    for seq, moment in sent:
        assert LATE <= doubted[seq] - moment <= LATE + EVERY + 3
    open_of_it = "SELECT count(*) FROM invoicing.items WHERE state IN ('planned', 'not_sent', 'sending', 'submitted')"
    eventually(lambda: two.database.psql(open_of_it) == [(0,)], seconds=40 - (time.time() - at))
    two.rest()
    assert two.in_states() == {"success": drafts - len(sent), "in_doubt": len(sent)}
    look(two)
    settle_doubts(two)
    two.start()
    two.rest()
    assert two.in_states() == {"success": drafts}
    look(two)


@pytest.mark.parametrize("drafts", [1200])
def test_a_database_that_is_away_costs_nothing_but_the_time(server: PostgresServer, two: Workers, drafts: int) -> None:
    """Nothing is sent meanwhile, nothing is in doubt, and after ten seconds it is as fast as before."""
    two.until_made(150, seconds=30)
    begun = time.time()
    time.sleep(4)
    before = len(two.made_between(begun, time.time())) / (time.time() - begun)
    server.stop("immediate")
    away = time.time()
    time.sleep(AWAY)
    assert len(two.made_between(away, away + TIMEOUTS.intent)) <= 2 * PLACES
    assert two.made_between(away + TIMEOUTS.intent, time.time()) == []
    server.start()
    back = time.time()
    time.sleep(14)
    after = len(two.made_between(back + 10, back + 14)) / 4
    print(f"{before:.1f} a second before, {after:.1f} after")  # noqa: T201 - for whoever runs it with -s
    two.rest()
    look(two)
    assert two.in_states() == {"success": drafts}
    assert after >= 0.9 * before


def test_a_database_that_is_restarted_at_once_again_and_again_costs_nothing(
    server: PostgresServer, two: Workers, drafts: int
) -> None:
    """What one puts in doubt of the other, since that found its database later, is settled by the late answer."""
    for part in (1, 2, 3, 4):
        two.until_made(drafts * part // 5, seconds=30)
        server.restart("immediate")
    two.rest()
    look(two)
    assert two.in_states() == {"success": drafts}


def test_a_database_that_came_back_older_ends_every_worker_until_a_person_has_looked(
    server: PostgresServer, two: Workers, drafts: int
) -> None:
    """Nobody sends what is planned again in it. Looked up at the service, each draft is one invoice."""
    two.until_made(100, seconds=30)
    since, copy = time.time(), server.copied()
    two.until_made(200, seconds=60)
    server.restore(copy)
    back = time.time()
    for pid in [*two.lives]:
        code, why = two.ended(pid)
        assert code == 1
        assert "RunHaltedError" in why
    assert two.made_between(back + TIMEOUTS.intent, time.time()) == []
    code, why = two.ended(two.start())
    assert (code, "RunHaltedError" in why) == (1, True)
    assert len(two.made()) < drafts
    assert unhalt(two, since) >= drafts // 2
    time.sleep(LATE)
    settled = settle_doubts(two)
    assert settled["made"] >= 50
    two.start()
    two.rest()
    look(two)
    assert two.in_states() == {"success": drafts}


def unhalt(workers: Workers, since: float) -> int:
    async def done() -> int:
        async with PostgresLedger.open(server_address(workers.database.address())) as ledger:
            return await ledger.unhalt(since)

    return asyncio.run(done())
