"""What is open gets one job, whoever plans and however many do at once."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest
from postgres_server import Database
from run_services import Service
from worker_runs import asked, planned_by, shared_run, taken, working

from invoicing_async.worker._statements import HOLD

pytestmark = [pytest.mark.asyncio, pytest.mark.slow]

KEYS = [f"A-{number}" for number in range(1, 101)]

TAKEN_AT_ONCE = """
CREATE FUNCTION taken() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.status := ''doing''; RETURN NEW; END';
CREATE TRIGGER taken BEFORE INSERT ON invoicing_queue.procrastinate_jobs FOR EACH ROW EXECUTE FUNCTION taken()
"""


async def chunks(database: Database) -> list[tuple[int, int]]:
    found = await asked(
        database,
        "SELECT (args ->> 'lo')::int, (args ->> 'hi')::int FROM invoicing_queue.procrastinate_jobs ORDER BY 1, 2",
    )
    return [(lo, hi) for lo, hi in found]


EXPECTED = [(lo, lo + 9) for lo in range(1, 101, 10)]


async def test_several_that_plan_at_once_make_one_job_of_each(queued: Database) -> None:
    """Even if each job is taken as soon as it is there, when its place in the queue is free for another."""
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(shared_run(queued, KEYS))
        queues = [await stack.enter_async_context(planned_by(queued, slots=slots)) for slots in (1, 4, 8)]
        for statement in TAKEN_AT_ONCE.strip().split(";\n"):
            await asked(queued, statement)
        await asyncio.gather(*(queue.plan(export=False) for queue in queues))
    found = await chunks(queued)
    assert [number for lo, hi in found for number in range(lo, hi + 1) if number <= len(KEYS)] == [*range(1, 101)]


async def test_chunks_keep_their_size_while_one_is_being_done(queued: Database) -> None:
    """The size of the first that plans, who had no turn before: others would overlap."""
    async with shared_run(queued, KEYS), planned_by(queued) as queue:
        await queue.plan(export=False)
        assert await chunks(queued) == EXPECTED
        await queue.turn(0.0)
        await asked(queued, "DELETE FROM invoicing_queue.procrastinate_jobs WHERE args ->> 'lo' = '1'")
        outlook = await queue.plan(export=False)
        assert outlook.due == ((1, 10),)
        assert await chunks(queued) == EXPECTED


async def test_a_planner_that_stands_still_does_not_keep_the_others_from_it(queued: Database) -> None:
    """Its process was stopped in the midst of it: what it holds is not held for ever."""
    async with shared_run(queued, KEYS), planned_by(queued) as queue:
        async with queue.connector.pool.connection() as connection, connection.transaction():
            await queue.connector.execute_query_all_async_with_connection(connection, HOLD, run=1, most=200)
            [row] = await (await connection.execute("SHOW idle_in_transaction_session_timeout")).fetchall()
        assert row == ("10s",)


async def test_what_was_made_twice_perhaps_is_nothing_to_do(queued: Database) -> None:
    """It is never sent again, so a run in which nothing else is open rests."""
    async with shared_run(queued, ["A-1", "A-2"]) as run, working(run, Service()) as worker:
        await asked(
            queued,
            "UPDATE invoicing.items SET state = 'not_sent', attempt = 1, other_request_id = 'r-9' WHERE key = 'A-1'",
        )
        async with asyncio.timeout(10):
            assert (await taken(worker)).keys() == {"A-2"}
