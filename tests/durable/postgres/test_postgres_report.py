"""What is told of a run on a server is what is told of the same run in a file."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from fakes import FakeClock
from ledgers import DOCUMENTS, INVOICES
from postgres_server import Database
from report_runs import fill, fill_documents

from invoicing_async._durable import report_queries as sqlite_queries
from invoicing_async._durable.address import ServerAddress, run_address
from invoicing_async._durable.ledger import SqliteLedger, SqliteReader
from invoicing_async._durable.overview import Authority, Overview
from invoicing_async._durable.postgres import report_queries
from invoicing_async._durable.postgres.ledger import PostgresLedger
from invoicing_async._durable.postgres.reader import PostgresReader
from invoicing_async._durable.protocol import Ledger, LedgerReader
from invoicing_async._durable.records import Pause
from invoicing_async._durable.states import Event, RunKind

ENDS = {
    "success": 20,
    "failed": 3,
    "rejected": 4,
    "in_doubt": 5,
    "not_sent": 2,
    "submitted": 6,
    "invalid": 1,
    "planned": 7,
}


async def everything(ledger: LedgerReader) -> list[object]:
    """All that a reader tells of a run."""
    pages = [
        await ledger.rows(states, after=after, limit=limit, payload=payload)
        for states in (None, ["success"], ["success", "planned", "failed"], ["saved", "skipped", "deferred"], [])
        for after, limit in ((0, 1000), (3, 5), (1000, 1))
        for payload in (False, True)
    ]
    histories = [
        [(entry.event, entry.at, entry.detail) for entry in await ledger.history(item.seq)]
        async for item in ledger.items()
    ]
    return [
        await ledger.figures(),
        await ledger.timeline(),
        await ledger.pauses(),
        await ledger.oldest(),
        await ledger.counts(),
        await ledger.count_without_file(),
        await ledger.pending(),
        await ledger.pending(verify=True),
        await Authority.of(ledger),
        (await Overview.of(ledger)).counts,
        (ledger.kind, ledger.settings, ledger.created, ledger.late),
        pages,
        histories,
    ]


async def on_both(
    file: Path, database: Database, kind: RunKind, work: Callable[[Ledger, FakeClock], Awaitable[None]]
) -> tuple[list[object], list[object]]:
    """Do the same on a file and on a server, and return all that is told of each."""
    where = run_address(database.address())
    assert isinstance(where, ServerAddress)
    clock = FakeClock()
    async with SqliteLedger.open(file, kind=kind, settings={"a": "ế"}, clock=clock) as kept:
        await work(kept, clock)
    clock = FakeClock()
    async with PostgresLedger.open(where, kind=kind, settings={"a": "ế"}, clock=clock) as there:
        await work(there, clock)
    async with SqliteReader.read(file) as first, PostgresReader.read(where) as second:
        return await everything(first), await everything(second)


@pytest.mark.asyncio
async def test_a_run_of_invoices_is_told_alike(
    tmp_path: Path, postgres: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the rows come in more than one part, and the lists are cut."""
    monkeypatch.setattr(report_queries, "ROWS", 7)
    for module in (report_queries, sqlite_queries):
        monkeypatch.setattr(module, "LISTED", 3)

    async def work(ledger: Ledger, clock: FakeClock) -> None:
        await fill(ledger, clock, ENDS, pauses=[Pause("submit", 1.0, 2.0, is_over=True)])
        for seq in (1, 2, 3):
            await ledger.transition(seq, Event.EXPORTED, path=f"{seq}.pdf", size=1000 + seq, sha256="x")
        await ledger.transition(4, Event.EXPORT_FAILED, code="DISK", error="invoice 'A-3': no space for 12 bytes")
        await ledger.transition(5, Event.EXPORT_FAILED, error=None)

    file, server = await on_both(tmp_path / "run.db", postgres, INVOICES, work)
    for one, other in zip(file, server, strict=True):
        assert one == other


@pytest.mark.asyncio
async def test_a_run_of_documents_is_told_alike(tmp_path: Path, postgres: Database) -> None:
    async def work(ledger: Ledger, clock: FakeClock) -> None:
        await fill_documents(ledger, clock, 9, 4, 2)

    file, server = await on_both(tmp_path / "run.db", postgres, DOCUMENTS, work)
    for one, other in zip(file, server, strict=True):
        assert one == other


@pytest.mark.asyncio
async def test_an_empty_run_is_told_alike(tmp_path: Path, postgres: Database) -> None:
    async def work(ledger: Ledger, clock: FakeClock) -> None:
        """Nothing."""

    for kind in RunKind:
        file, server = await on_both(tmp_path / kind, postgres, kind, work)
        assert file == server
        postgres.psql("DELETE FROM invoicing.workers")
        postgres.psql("DELETE FROM invoicing.runs")
