"""What an operator sees of the pieces of a run: also when some of it waits that nobody was given."""

from __future__ import annotations

import pytest
from postgres_server import Database
from run_services import ORDERS
from worker_runs import asked, planned_by, server_address, shared_run

from invoicing_async._durable.postgres.ledger import PostgresLedger
from invoicing_async._durable.states import RunKind
from invoicing_async.runs import InvoiceRun
from invoicing_async.worker import ChunkStanding, chunk_standing

pytestmark = [pytest.mark.asyncio, pytest.mark.slow]

KEYS = [f"A-{number}" for number in range(1, 101)]


async def standing(run: InvoiceRun) -> ChunkStanding:
    found = await chunk_standing(run.ledger)
    assert found is not None
    return found


async def ago(database: Database, *, items: str = "0 s", planned: str = "0 s") -> None:
    await asked(database, "UPDATE invoicing.items SET updated = clock_timestamp() - %s::interval", items)
    await asked(database, "UPDATE invoicing_queue.turns SET planned = clock_timestamp() - %s::interval", planned)


async def test_what_waits_without_a_job_for_a_minute_is_forgotten(queued: Database) -> None:
    """Also beside jobs that there are; not what is new, nor while somebody plans, who comes to it in its turn."""
    async with shared_run(queued, KEYS) as run:
        assert not (await standing(run)).is_forgotten
        await ago(queued, items="61 s")
        assert (await standing(run)).is_forgotten, "nobody has ever planned"
        async with planned_by(queued) as queue:
            await queue.plan(export=False)
        assert await standing(run) == ChunkStanding(todo=10, doing=0, silent=0, is_forgotten=False)
        await ago(queued, items="61 s", planned="61 s")
        assert not (await standing(run)).is_forgotten, "each has a job"
        await asked(queued, "DELETE FROM invoicing_queue.procrastinate_jobs WHERE args ->> 'lo' = '51'")
        assert await standing(run) == ChunkStanding(todo=9, doing=0, silent=0, is_forgotten=True)
        await ago(queued, items="59 s", planned="61 s")
        assert not (await standing(run)).is_forgotten
        await ago(queued, items="61 s", planned="59 s")
        assert not (await standing(run)).is_forgotten


async def test_what_was_left_as_it_is_is_not_forgotten(queued: Database) -> None:
    """It was tried in vain: another worker tries it again, no planner does."""
    async with shared_run(queued, KEYS[:5]) as run, planned_by(queued) as queue:
        await queue.plan(export=False)
        await ago(queued, items="61 s")
        await queue.walked((1, 10), await queue.left_open((1, 10), export=False))
        await asked(queued, "DELETE FROM invoicing_queue.procrastinate_jobs")
        await asked(queued, "UPDATE invoicing_queue.turns SET planned = clock_timestamp() - interval '61 s'")
        assert not (await standing(run)).is_forgotten
        await asked(queued, "DELETE FROM invoicing_queue.walks")
        assert (await standing(run)).is_forgotten


async def test_documents_are_forgotten_too(queued: Database) -> None:
    settings = {"folder": "/nowhere", "layout": "{order_id}", "day": "2025-09-17", "served_name": False}
    async with PostgresLedger.open(server_address(queued), kind=RunKind.DOCUMENTS, settings=settings) as ledger:
        await ledger.add_ids(ORDERS)
        await ago(queued, items="61 s")
        found = await chunk_standing(ledger)
        assert found is not None
        assert found.is_forgotten
