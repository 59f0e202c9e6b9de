"""What a planner and an operator ask of a run on a server."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

import pytest
from fakes import START, FakeClock
from ledgers import DOCUMENTS, INVOICES, draft
from postgres_server import Database

from invoicing_async._durable.address import ServerAddress, run_address
from invoicing_async._durable.postgres.ledger import PostgresLedger
from invoicing_async._durable.postgres.reader import PostgresReader
from invoicing_async._durable.records import Item, states_of
from invoicing_async._durable.standing import Chunk
from invoicing_async._durable.states import DocumentState, Event, RunKind, State


def address(database: Database) -> ServerAddress:
    found = run_address(database.address())
    assert isinstance(found, ServerAddress)
    return found


def has_work(item: Item, kind: RunKind, *, exports: bool, before: float | None) -> bool:
    """What `open_chunks` says in words, said once more."""
    again = before is not None and item.updated < before
    if kind is RunKind.DOCUMENTS:
        return item.state == "planned" or (item.state in {"deferred", "failed"} and again)
    if item.state == "success":
        return exports and item.path is None and (item.error is None or again)
    if item.state == "not_sent":
        return item.other_request_id is None
    return item.state in {"planned", "submitted"}


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", RunKind)
async def test_the_chunks_are_those_of_the_items_that_have_work(postgres: Database, kind: RunKind) -> None:
    """Whatever states there are, of whatever size the chunks, and whichever are live."""
    chance = Random(11)
    clock = FakeClock()
    async with PostgresLedger.open(address(postgres), kind=kind, clock=clock) as ledger:
        postgres.psql("UPDATE invoicing.runs SET last_seq = 120")
        for _ in range(40):
            weights = [chance.choice([0, 0, 1, 5]) for _ in states_of(kind)]
            rows: list[tuple[Any, ...]] = [
                (
                    seq,
                    chance.choices(states_of(kind), [*weights[:-1], weights[-1] + 1])[0].value,
                    chance.choice([None, "x"]),
                    chance.choice([None, "why"]),
                    START + chance.choice([-1, 1]),
                    chance.choice([None, "r-0"]),
                )
                for seq in range(1, 121)
                if chance.random() < 0.8
            ]
            postgres.psql("DELETE FROM invoicing.items")
            postgres.psql(
                """
                INSERT INTO invoicing.items (run, seq, key, state, path, error, updated, other_request_id)
                SELECT 1, seq, seq, state, path, error, to_timestamp(updated), other
                FROM unnest(%s::bigint[], %s::text[], %s::text[], %s::text[], %s::float8[], %s::text[])
                    AS t (seq, state, path, error, updated, other)
                """,
                *([row[column] for row in rows] for column in range(6)),
            )
            items = await ledger.rows()
            size, limit = chance.choice([1, 1, 1, 7, 50, 200]), chance.choice([1, 3, 1000, 1000, 1000])
            exports, before = chance.random() < 0.5, chance.choice([None, START])
            live = [1 + size * chance.randrange(120 // size + 1) for _ in range(chance.randrange(4))]
            found = await ledger.open_chunks(limit=limit, live=live, exports=exports, tried_before=before, size=size)
            wanted = sorted(
                {
                    (item.seq - 1) // size * size + 1
                    for item in items
                    if has_work(item, kind, exports=exports, before=before)
                }
                - set(live)
            )
            assert found == [Chunk(lo, lo + size - 1) for lo in wanted][:limit]


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
        assert await ledger.open_chunks(limit=5) == [Chunk(1, 200)]
        with pytest.raises(ValueError, match="limit must be 1 or more"):
            await ledger.open_chunks(limit=0)


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
            found = await ledger.open_chunks(limit=5000, exports=True)
        async with asyncio.timeout(1):
            await ledger.standing()
        assert len(found) == 800
        assert State.PLANNED.value in (await ledger.counts())
