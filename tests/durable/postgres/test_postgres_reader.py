"""Reading a run on a server: by indexes, beside whoever works on it, and again when the connection was lost."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest
from attrs import evolve
from fakes import START, FakeClock
from ledgers import DOCUMENTS, INVOICES, draft
from postgres_server import Database, PostgresServer
from psycopg.sql import SQL, Literal

from invoicing_async._durable.address import ServerAddress, run_address
from invoicing_async._durable.postgres import queries, report_queries
from invoicing_async._durable.postgres.connection import Connection, connect
from invoicing_async._durable.postgres.ledger import PostgresLedger
from invoicing_async._durable.postgres.operations import _FIRST_STUCK, _RUN, _STUCK
from invoicing_async._durable.postgres.reader import PostgresReader
from invoicing_async._durable.postgres.reading import IN_ORDER
from invoicing_async._durable.records import LedgerAwayError, RunFileError
from invoicing_async._durable.states import DocumentState, Event, State


def address(database: Database, run: str = "march") -> ServerAddress:
    found = run_address(database.address(run))
    assert isinstance(found, ServerAddress)
    return found


OPEN_STATES = [state for state in queries.EVERY if state not in queries.AT_REST]

PLANS: list[tuple[str, dict[str, Any], set[str]]] = [
    *((queries.page((state,)), {}, {"items_open"}) for state in OPEN_STATES),
    (queries.page(("planned", "not_sent"), payload=True), {}, {"items_open", "drafts_pkey"}),
    (queries.page(("success",)), {}, {"items_pkey"}),
    (queries.page(("saved", "skipped")), {}, {"items_pkey"}),
    (queries.page(None), {}, {"items_pkey"}),
    (queries.FIND_MANY, {"seqs": "{7,8}"}, {"items_pkey", "drafts_pkey"}),
    (queries.FIND, {"key": "k7"}, {"items_run_key_key", "drafts_pkey"}),
    (queries.HISTORY, {"item": 7}, {"journal_of_item"}),
    (queries.ENTRIES, {}, {"journal_pkey"}),
    (queries.DUPLICATES, {"after": "", "command": None}, {"duplicates_pkey"}),
    (queries.WITHOUT_FILE, {}, {"items_without_file"}),
    (queries.OLDEST[0], {}, {"items_sending"}),
    (queries.OLDEST[1], {}, {"items_open"}),
    (_RUN, {}, {"items_twice"}),
    (queries.page(None, more="AND i.other_request_id IS NOT NULL"), {}, {"items_twice"}),
    (_STUCK, {"late": 90.0}, {"items_sending"}),
    (_FIRST_STUCK, {"late": 90.0}, {"items_sending"}),
]


def used(plan: Any) -> set[str]:
    """The indexes of a plan."""
    if isinstance(plan, list):
        return set[str]().union(*map(used, plan))
    if not isinstance(plan, dict):
        return set()
    own = {plan["Index Name"]} if "Index Name" in plan else set()
    return own | used([*plan.values()])


def scanned(plan: Any) -> set[str]:
    """The tables that a plan reads from one end to the other."""
    if isinstance(plan, list):
        return set[str]().union(*map(scanned, plan))
    if not isinstance(plan, dict):
        return set()
    own = {plan["Relation Name"]} if plan.get("Node Type") == "Seq Scan" else set()
    return own | scanned([*plan.values()])


@pytest.fixture(scope="module")
def filled(postgres_server: PostgresServer) -> Iterator[Database]:
    """A database with a run of 12,000 items, most of them at rest, beside another one."""
    database = postgres_server.database()
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, fill(database)).result()
    yield database
    database.drop()


async def fill(database: Database) -> None:
    async with await connect(address(database)) as connection:
        await connection.execute("""
            INSERT INTO invoicing.runs (name, kind, settings, created) VALUES
                ('other', 'invoices', '{}', now()), ('march', 'invoices', '{}', now())
        """)
        await connection.execute("""
            INSERT INTO invoicing.items (run, seq, key, state, sent_at, updated)
            SELECT run, seq, 'k' || seq, coalesce(
                (ARRAY['planned', 'not_sent', 'submitted', 'sending', 'in_doubt', 'rejected'])[1 + seq % 600], 'success'
            ), now(), now()
            FROM invoicing.runs, generate_series(1, 12000) AS seq
        """)
        await connection.execute("UPDATE invoicing.items SET path = 'x' WHERE state = 'success' AND seq % 100 > 0")
        await connection.execute("""
            INSERT INTO invoicing.drafts (run, seq, payload) SELECT run, seq, '{}' FROM invoicing.items
        """)
        await connection.execute("""
            INSERT INTO invoicing.journal (run, item, event, attempt, at) SELECT run, seq, 'intent', 1, now()
            FROM invoicing.items
        """)
        await connection.execute("""
            INSERT INTO invoicing.duplicates SELECT 1, seq % 10, 'k' || seq, 1 FROM generate_series(1, 5000) AS seq
        """)
        await connection.execute("VACUUM ANALYZE invoicing.items, invoicing.journal, invoicing.drafts")
        await connection.execute("ANALYZE")


async def plan(connection: Connection, sql: str, values: dict[str, Any]) -> Any:
    """The plan of a statement, for any values."""
    names = list(dict.fromkeys(re.findall(r"%\((\w+)\)s", sql)))
    for number, name in enumerate(names, 1):
        sql = sql.replace(f"%({name})s", f"${number}")
    given = SQL(", ").join(Literal(values[name]) for name in names)
    await connection.execute(f"PREPARE planned AS {sql}".encode())
    row = await (await connection.execute(SQL("EXPLAIN (FORMAT JSON) EXECUTE planned({})").format(given))).fetchone()
    await connection.execute("DEALLOCATE planned")
    assert row is not None
    return row[0]


@pytest.mark.asyncio
@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
async def test_every_statement_is_led_by_an_index(filled: Database, mode: str) -> None:
    """Also by a plan for any values, which PostgreSQL makes of a statement that comes often."""
    async with await connect(address(filled)) as connection:
        await connection.execute(IN_ORDER)
        await connection.execute(f"SET plan_cache_mode = {mode}".encode())
        for sql, more, expected in PLANS:
            found = await plan(connection, sql, {"run": 2, "now": None, "after": 6_000, "limit": 100, **more})
            assert used(found) >= expected, sql
            assert not scanned(found) & {"items", "journal", "drafts"}, sql


def sorted_whole(plan: Any) -> bool:
    """Whether the rows of a table are sorted before it is known how many of them are wanted."""
    if isinstance(plan, list):
        return any(map(sorted_whole, plan))
    below = plan.get("Plans", [])
    is_table = any("Relation Name" in each or each["Node Type"] == "Gather" for each in below)
    return (plan["Node Type"] == "Sort" and is_table and not is_stretch(plan)) or any(map(sorted_whole, below))


def is_stretch(plan: Any) -> bool:
    return "begin" in json.dumps(plan)


@pytest.mark.asyncio
async def test_a_page_is_read_as_far_as_it_goes(filled: Database) -> None:
    """The rows of every state come in their order, and no more of them than the page has: nothing sorts them all.

    Also of states that there are none of, as far as the database knows.
    """
    async with await connect(address(filled)) as connection:
        pages = [queries.page(states) for states in (["saved"], ["success"], ["saved", "skipped"])]
        for page in pages:  # behind a pooler nothing is set
            found = await plan(connection, page, {"run": 2, "after": 0, "limit": 100})
            assert not sorted_whole(found[0]["Plan"]), page
        await connection.execute(IN_ORDER)
        for states in (None, OPEN_STATES, [*queries.EVERY], ["saved", "skipped", "failed"], ["success"]):
            found = await plan(connection, queries.page(states), {"run": 2, "after": 6_000, "limit": 100})
            assert not sorted_whole(found[0]["Plan"]), states
            assert not scanned(found), states


@pytest.mark.asyncio
async def test_a_run_that_is_not_there_is_told_by_its_address(postgres: Database) -> None:
    where = address(postgres, "april / 100%")
    with pytest.raises(FileNotFoundError, match="no such run") as caught:
        async with PostgresReader.read(where):
            pass
    assert caught.value.filename == where.text


@pytest.mark.asyncio
async def test_runs_of_one_database_know_nothing_of_each_other(postgres: Database) -> None:
    async with (
        PostgresLedger.open(address(postgres, "a"), kind=INVOICES) as first,
        PostgresLedger.open(address(postgres, "b"), kind=INVOICES) as second,
    ):
        for ledger in (first, second):
            await ledger.add_drafts([draft("x"), draft("y")])
        await first.transition("x", Event.INTENT)
        await first.transition("x", Event.ACCEPTED_NEW, request_id="r-1")
        await second.transition("y", Event.INTENT)
        await second.transition("y", Event.ACCEPTED_NEW, request_id="r-1")
        assert [item.state for item in await first.rows()] == ["submitted", "planned"]
        assert [item.state for item in await second.rows()] == ["planned", "submitted"]
        assert len(await first.journal()) == len(await second.history("y")) == 2
        assert (await first.figures()).counts["submitted"] == 1
        assert len(await first.holders()) == 1


@pytest.mark.asyncio
async def test_who_is_not_heard_of_for_15_s_works_no_more(postgres: Database) -> None:
    clock = FakeClock()
    where = address(postgres)
    async with (
        PostgresLedger.open(where, kind=DOCUMENTS, clock=clock) as ledger,
        PostgresReader.read(where, clock=clock) as reader,
    ):
        [holder] = await reader.holders()
        assert holder.since == datetime.fromtimestamp(START, UTC).isoformat(timespec="seconds")
        clock.advance(14)
        assert len(await reader.holders()) == 1
        clock.advance(2)
        assert await reader.holders() == ()
        await ledger.beat()
        assert len(await reader.holders()) == 1
    async with PostgresReader.read(address(postgres), clock=clock) as reader:
        assert await reader.holders() == ()


@pytest.mark.asyncio
async def test_a_connection_that_was_lost_is_made_anew(postgres: Database) -> None:
    """Also where several reads find it lost at once."""
    async with PostgresLedger.open(address(postgres), kind=DOCUMENTS) as ledger:
        await ledger.add_ids(["a"])
        async with PostgresReader.read(address(postgres)) as reader:
            postgres.psql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
            counts = await asyncio.gather(*(each.counts() for each in (reader, ledger) for _ in range(5)))
            assert [each["planned"] for each in counts] == [1] * 10


@pytest.mark.asyncio
async def test_a_reader_ends_and_a_ledger_waits_while_the_database_is_away(
    postgres: Database, caplog: pytest.LogCaptureFixture
) -> None:
    async with PostgresLedger.open(address(postgres), kind=DOCUMENTS) as ledger:
        await ledger.add_ids(["a"])
        async with PostgresReader.read(address(postgres)) as reader:
            postgres.server.stop("immediate")
            try:
                waiting = asyncio.create_task(ledger.counts())
                with pytest.raises(LedgerAwayError):
                    await reader.counts()
                with pytest.raises(LedgerAwayError):
                    await reader.figures()
                await asyncio.sleep(0.3)
                assert not waiting.done()
            finally:
                postgres.server.start()
            assert (await asyncio.wait_for(waiting, 20))["planned"] == 1
            assert (await reader.counts())["planned"] == 1
    told = [record.message for record in caplog.records if "reading" in record.message]
    assert len(told) == 2
    assert told[0].endswith("reading waits until it is back")
    assert told[1].endswith("is back: reading goes on")


@pytest.mark.asyncio
async def test_a_cancelled_read_leaves_the_others_alone(postgres: Database) -> None:
    async with PostgresReader.read(await made(postgres)) as reader:
        slow = asyncio.create_task(reader.select("SELECT pg_sleep(30)"))
        await asyncio.sleep(0.05)
        slow.cancel()
        with pytest.raises(asyncio.CancelledError):
            await slow
        assert (await asyncio.wait_for(reader.counts(), 10))["planned"] == 0


async def made(database: Database) -> ServerAddress:
    async with PostgresLedger.open(address(database), kind=DOCUMENTS):
        return address(database)


@pytest.mark.asyncio
async def test_what_is_closed_says_so(postgres: Database) -> None:
    async with PostgresReader.read(await made(postgres)) as reader:
        await reader.close()
        await reader.close()
        for call in (reader.counts, reader.figures, reader.standing):
            with pytest.raises(RunFileError, match="is closed"):
                await call()


@pytest.mark.asyncio
async def test_figures_are_of_one_moment(postgres: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is recorded while they are read is in none of them."""
    async with PostgresLedger.open(address(postgres), kind=DOCUMENTS) as ledger:
        await ledger.add_ids(["a", "b"])
        pauses = report_queries.Report.pauses

        async def and_then(self: report_queries.Report) -> Any:
            found = await pauses(self)
            await ledger.record_document("a", DocumentState.FAILED, error="late")
            return found

        monkeypatch.setattr(report_queries.Report, "pauses", and_then)
        found = await ledger.figures()
        assert found.counts["failed"] == 0
        assert found.listed["failed"] == ()
        assert (await ledger.counts())["failed"] == 1


@pytest.mark.asyncio
async def test_a_damaged_entry_is_told_by_its_number(postgres: Database) -> None:
    async with PostgresLedger.open(address(postgres), kind=INVOICES) as ledger:
        await ledger.add_drafts([draft("a")])
        postgres.psql(
            """
            INSERT INTO invoicing.journal (run, item, event, attempt, at, detail) VALUES (1, 1, 'other', 0, now(), %s)
        """,
            json.dumps({}),
        )
        with pytest.raises(RunFileError, match=r"entry 1 of the journal of item 1 is damaged"):
            await ledger.history("a")
        with pytest.raises(ValueError, match="this run has no item 'b'"):
            await ledger.history("b")
        with pytest.raises(ValueError, match="this run has no item 9"):
            await ledger.history(9)
        assert State.PLANNED.value in (await ledger.counts())
        assert evolve(ledger.address, run="x").text != ledger.name


@pytest.mark.asyncio
async def test_items_that_are_looked_up_at_once_share_statements(postgres: Database) -> None:
    """One who is cut off while it reads for others leaves them to read by themselves."""
    async with PostgresLedger.open(address(postgres), kind=INVOICES) as ledger:
        await ledger.add_drafts([draft(f"A-{number}") for number in range(1, 21)])
        statements, read = 0, ledger._lookups._read

        async def counted(seqs: list[int]) -> list[Any]:
            nonlocal statements
            statements += 1
            await asyncio.sleep(0.01)
            return await read(seqs)

        ledger._lookups._read = counted
        tasks = [asyncio.create_task(ledger.get(seq)) for seq in (*range(1, 22), 7)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await tasks[0]
        found = await asyncio.gather(*tasks[1:])
        assert [item and item.key for item in found] == [*(f"A-{number}" for number in range(2, 21)), None, "A-7"]
        assert all(item is None or item.payload for item in found)
        assert statements <= 3


@pytest.mark.asyncio
async def test_an_item_is_looked_up_as_it_stands_after_it_was_asked_for(postgres: Database) -> None:
    async with PostgresLedger.open(address(postgres), kind=INVOICES) as ledger:
        await ledger.add_drafts([draft(f"A-{number}") for number in range(1, 41)])

        async def moved(seq: int) -> str:
            await ledger.transition(seq, Event.INTENT)
            item = await ledger.get(seq)
            assert item is not None
            return item.state

        assert {*await asyncio.gather(*map(moved, range(1, 41)))} == {"sending"}
