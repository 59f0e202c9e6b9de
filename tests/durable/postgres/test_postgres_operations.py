"""What an operator asks of a run on a server."""

from __future__ import annotations

import asyncio

import pytest
from fakes import START, FakeClock
from ledgers import DOCUMENTS, INVOICES, draft
from postgres_server import Database

from invoicing_async._durable.address import ServerAddress, run_address
from invoicing_async._durable.postgres.ledger import PostgresLedger
from invoicing_async._durable.postgres.reader import PostgresReader
from invoicing_async._durable.states import DocumentState, Event, State


def address(database: Database) -> ServerAddress:
    found = run_address(database.address())
    assert isinstance(found, ServerAddress)
    return found


@pytest.mark.asyncio
async def test_a_run_stands_as_it_is_recorded(postgres: Database) -> None:
    clock = FakeClock()
    where = address(postgres)
    async with (
        PostgresLedger.open(where, kind=INVOICES, clock=clock) as ledger,
        PostgresReader.read(where, clock=clock) as reader,
    ):
        await ledger.keep_late(96.0)
        await ledger.add_drafts([draft(f"k{number}") for number in range(8)])
        for key in ("k0", "k1", "k2", "k3"):
            await ledger.transition(key, Event.INTENT)
            clock.advance(5)
        await ledger.transition("k2", Event.LOST)
        await ledger.transition("k3", Event.ACCEPTED_NEW, request_id="r-3")
        await ledger.beat(doing="submits", slots=4)
        postgres.psql("UPDATE invoicing.items SET other_request_id = 'r-9' WHERE key = 'k3'")
        postgres.psql("UPDATE invoicing.workers SET done = 30")
        postgres.psql("""
            INSERT INTO invoicing.lanes (run, lane, free_at, per_second, paused_until, since)
            VALUES (1, 'submit', to_timestamp(10), 50, to_timestamp(20), to_timestamp(5))
        """)
        found = await reader.standing()
        assert (found.name, found.kind, found.at, found.late) == (where.text, INVOICES, START + 20, 96.0)
        assert (found.open, found.in_flight, found.doubts, found.twice) == (7, 2, 1, 1)
        assert found.oldest is not None
        assert (found.oldest.key, found.oldest_age) == ("k0", 20.0)
        assert (found.stuck, found.first_stuck) == (0, ())
        assert (found.halted, found.halted_why, found.paused) == (None, None, None)
        [worker] = found.workers
        assert (worker.worker, worker.doing, worker.slots, worker.done) == (ledger.worker_id, "submits", 4, 30)
        assert (worker.started, worker.silent, worker.rate, worker.is_alive) == (START, 0.0, 1.5, True)
        [lane] = found.lanes
        assert (lane.lane, lane.per_second, lane.free_at) == ("submit", 50.0, 10.0)
        assert (lane.paused_since, lane.paused_until, lane.probe_by) == (5.0, 20.0, None)
        assert {table.table for table in found.tables} >= {"items", "journal", "tally", "workers", "lanes"}

        await ledger.pause()
        clock.advance(96 + 60 - 20)
        now = await reader.standing()
        assert (now.paused, now.stuck) == (START + 20, 0)
        clock.advance(6)
        late = await reader.standing()
        assert (late.stuck, [item.key for item in late.first_stuck]) == (2, ["k0", "k1"])
        assert [(worker.silent, worker.is_alive) for worker in late.workers] == [(142.0, False)]
        clock.advance(3600)
        assert (await reader.standing()).workers == ()


@pytest.mark.asyncio
async def test_a_run_of_documents_stands_too(postgres: Database) -> None:
    async with PostgresLedger.open(address(postgres), kind=DOCUMENTS) as ledger:
        await ledger.add_ids(["a", "b", "c"])
        await ledger.record_document("a", DocumentState.SAVED)
        await ledger.record_document("b", DocumentState.FAILED)
        found = await ledger.standing()
        assert (found.open, found.in_flight, found.doubts, found.oldest_age) == (2, 0, 0, None)


@pytest.mark.slow
@pytest.mark.asyncio
async def test_a_long_run_is_told_of_within_a_second(postgres: Database) -> None:
    """A million items, most of them done; ten million take no longer, as only what is open is walked."""
    async with PostgresLedger.open(address(postgres), kind=INVOICES) as ledger:
        postgres.psql("""
            INSERT INTO invoicing.items (run, seq, key, state, updated, sent_at, path)
            SELECT 1, seq, 'k' || seq, CASE WHEN seq % 5000 = 0 THEN 'in_doubt' WHEN seq % 1000 = 0 THEN 'planned'
                ELSE 'success' END, now(), now(), 'x'
            FROM generate_series(1, 1000000) AS seq
        """)
        postgres.psql("VACUUM ANALYZE invoicing.items")
        async with asyncio.timeout(1):
            await ledger.standing()
        assert State.PLANNED.value in (await ledger.counts())
