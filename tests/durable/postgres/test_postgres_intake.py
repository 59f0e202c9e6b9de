"""Taking in on a server: whoever takes in at once, whatever stands in a key."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from attrs import evolve
from fakes import FakeClock
from ledgers import DOCUMENTS, INVOICES, draft
from postgres_server import Database

from invoicing_async._durable.address import ServerAddress, run_address
from invoicing_async._durable.postgres import intake as module
from invoicing_async._durable.postgres.arrays import storable
from invoicing_async._durable.postgres.connection import connect
from invoicing_async._durable.postgres.ledger import PostgresLedger
from invoicing_async._durable.records import DraftConflictError, Intake
from invoicing_async._durable.states import Event

KEYS = [
    "a\tb",
    "a\\b",
    "a\\.",
    "\\.",
    "\\N",
    "a\nb",
    "a\rb",
    " ",
    "'; DROP TABLE items; --",
    "Kế toán",
    "\U0001f9fe",
]
"""What a line of COPY would read otherwise."""


def address(database: Database) -> ServerAddress:
    found = run_address(database.address())
    assert isinstance(found, ServerAddress)
    return found


@pytest.mark.asyncio
async def test_a_key_is_taken_in_as_it_is(postgres: Database) -> None:
    async with PostgresLedger.open(address(postgres), kind=DOCUMENTS) as ledger:
        assert (await ledger.add_ids([*KEYS, *KEYS], batch=5)).duplicates == len(KEYS)
        assert [item.key for item in await ledger.rows()] == KEYS
        assert [item and item.key for item in [await ledger.get(key) for key in KEYS]] == KEYS
        listed = await ledger.duplicates()
        assert listed == [(key, 1) for key in sorted(KEYS)]


@pytest.mark.asyncio
async def test_a_draft_is_taken_in_as_it_is(postgres: Database) -> None:
    drafts = [draft(key, f"{key}\\u0000\t\\", error=key or None) for key in KEYS]
    async with PostgresLedger.open(address(postgres), kind=INVOICES) as ledger:
        await ledger.add_drafts(drafts)
        found = [item async for item in ledger.items(payload=True)]
        assert [(item.key, item.payload, item.payload_sha256) for item in found] == [
            (each.key, each.payload, each.payload_sha256) for each in drafts
        ]


@pytest.mark.asyncio
@pytest.mark.parametrize("text", ["a\x00b", "\ud800 alone"])
async def test_what_postgresql_cannot_keep_is_refused_by_name(postgres: Database, text: str) -> None:
    """A key or a draft that was changed would be another; the words of an error may be."""
    async with PostgresLedger.open(address(postgres), kind=DOCUMENTS) as ledger:
        with pytest.raises(ValueError, match="no text with a NUL or half of a surrogate pair"):
            await ledger.add_ids(["good", text])
        assert await ledger.rows() == []
        assert await ledger.get(text) is None
    async with PostgresLedger.open(evolve(address(postgres), run="other"), kind=INVOICES) as ledger:
        for wrong in (draft(text), evolve(draft("a"), payload=text)):
            with pytest.raises(ValueError, match="no text with a NUL"):
                await ledger.add_drafts([draft("good"), wrong])
        await ledger.add_drafts([draft("a", error=f"{text} is wrong")])
        assert [item.error for item in await ledger.rows()] == [f"{storable(text)} is wrong"]


@pytest.mark.asyncio
async def test_two_processes_that_take_in_at_once_make_one_run(postgres: Database) -> None:
    """Every number is given once, and each id is new to exactly one of them."""
    where = address(postgres)
    many = [f"k{number}" for number in range(700)]
    async with (
        PostgresLedger.open(where, kind=DOCUMENTS) as first,
        PostgresLedger.open(where, kind=DOCUMENTS) as second,
    ):
        told = await asyncio.gather(
            first.add_ids([*many[:500], "k0"], batch=7), second.add_ids([*many[200:], "k300", "k300"], batch=100)
        )
        assert sum(each.added for each in told) == 700
        assert sum(each.known for each in told) == 300
        assert [each.duplicates for each in told] == [1, 2]
        assert await first.duplicates() == [("k0", 1)]
        assert await second.duplicates() == [("k300", 2)]
        items = [item async for item in first.items()]
        assert [item.seq for item in items] == [*range(1, 701)]
        assert (await second.counts())["planned"] == 700
    assert postgres.psql("SELECT last_seq, last_command FROM invoicing.runs") == [(700, 2)]


@pytest.mark.asyncio
async def test_two_processes_that_take_in_drafts_at_once_make_one_run(
    postgres: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TOGETHER", 7)
    where = address(postgres)
    async with PostgresLedger.open(where, kind=INVOICES) as first, PostgresLedger.open(where, kind=INVOICES) as second:
        told = await asyncio.gather(
            first.add_drafts([draft(f"k{number}") for number in range(60)]),
            second.add_drafts([draft(f"k{number}") for number in range(30, 90)]),
        )
        assert sorted((each.added, each.known) for each in told) == [(30, 30), (60, 0)]
        assert [item.seq for item in await second.rows()] == [*range(1, 91)]
        with pytest.raises(DraftConflictError):
            await second.add_drafts([draft("new"), *(draft(f"k{number}", "other") for number in range(60))])
        assert await first.get("new") is None
        assert (await first.add_drafts([draft("after")])).added == 1
        assert (await second.rows())[-1].seq == 91


@pytest.mark.asyncio
async def test_who_takes_in_holds_nobody_up(postgres: Database) -> None:
    """While the input is read, others take in, and the run can be paused: its row is free."""
    begun, free = asyncio.Event(), asyncio.Event()

    async def slow() -> AsyncIterator[str]:
        yield "slow"
        begun.set()
        await free.wait()

    where = address(postgres)
    async with (
        PostgresLedger.open(where, kind=DOCUMENTS) as first,
        PostgresLedger.open(where, kind=DOCUMENTS) as second,
    ):
        reading = asyncio.create_task(first.add_ids(slow(), batch=1))
        await begun.wait()
        assert (await asyncio.wait_for(second.add_ids(["fast"]), 10)).added == 1
        await asyncio.wait_for(second.pause(), 10)
        free.set()
        assert await reading == Intake(given=1, added=1, known=0, duplicates=0)
        assert [item.key for item in await second.rows()] == ["fast", "slow"]


@pytest.mark.asyncio
async def test_one_that_is_cancelled_takes_nothing_in(postgres: Database) -> None:
    begun = asyncio.Event()

    async def endless() -> AsyncIterator[str]:
        yield "a"
        begun.set()
        await asyncio.Event().wait()

    async with PostgresLedger.open(address(postgres), kind=DOCUMENTS) as ledger:
        reading = asyncio.create_task(ledger.add_ids(endless(), batch=1))
        await begun.wait()
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert await ledger.rows() == []
        assert (await ledger.add_ids(["a"])).added == 1


@pytest.mark.asyncio
async def test_a_draft_that_was_accepted_meanwhile_is_not_corrected(postgres: Database) -> None:
    """An answer that came late settles an item that a person held for invalid: then it is no more to be sent."""
    where = address(postgres)
    async with PostgresLedger.open(where, kind=INVOICES) as ledger, await connect(where) as late:
        await ledger.add_drafts([draft("a", error="wrong")])
        async with late.transaction():
            await late.execute("UPDATE invoicing.items SET state = 'submitted' WHERE key = 'a'")
            correcting = asyncio.create_task(ledger.add_drafts([draft("a", "new")]))
            while not postgres.psql("SELECT 1 FROM pg_locks WHERE NOT granted"):  # noqa: ASYNC110 - of another process
                await asyncio.sleep(0.01)
        with pytest.raises(DraftConflictError):
            await correcting
        assert [item.state for item in await ledger.rows()] == ["submitted"]


@pytest.mark.asyncio
async def test_a_corrected_draft_keeps_its_attempts_in_the_journal(postgres: Database) -> None:
    clock = FakeClock()
    async with PostgresLedger.open(address(postgres), kind=INVOICES, clock=clock) as ledger:
        await ledger.add_drafts([draft("a")])
        for event in (Event.INTENT, Event.NOT_SENT, Event.FOUND_INVALID):
            await ledger.transition("a", event)
        await ledger.add_drafts([draft("a", "new", error="two\nlines")])
        item = await ledger.get("a")
        assert item is not None
        assert (item.state, item.attempt, item.error) == ("invalid", 1, "two lines")
        assert [(entry.event, entry.detail) for entry in (await ledger.history("a"))[3:]] == [
            (Event.CORRECTED, {}),
            (Event.FOUND_INVALID, {"error": "two lines"}),
        ]
    assert postgres.psql("SELECT DISTINCT attempt FROM invoicing.journal") == [(1,)]
    counted = postgres.psql("SELECT state, sum(count)::int FROM invoicing.tally GROUP BY state HAVING sum(count) <> 0")
    assert counted == [("invalid", 1)]
