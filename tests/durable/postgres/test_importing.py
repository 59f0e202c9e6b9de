"""A run file carried over to a server: all of it or nothing, and never workable in both places."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeClock
from ledgers import documents
from postgres_server import Database
from report_runs import invoice_run

from invoicing_async._durable.importing import carry_over
from invoicing_async._durable.ledger import SqliteLedger
from invoicing_async._durable.records import Moved, Pause, RunFileError, RunLockedError, RunMovedError
from invoicing_async._durable.states import DocumentState, RunKind
from invoicing_async.runs import DocumentRun, InvoiceRun, import_run, moved_to, read_run

pytestmark = pytest.mark.slow

ENDS = {"planned": 2, "success": 2, "failed": 1, "rejected": 1, "not_sent": 1, "submitted": 1, "in_doubt": 2,
        "invalid": 1}  # fmt: skip


@pytest.fixture(autouse=True)
def waived(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server of the tests may forget what it answered for, if the machine loses its power."""
    monkeypatch.setenv("INVOICING_LEDGER_WAIVE", "fsync")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A run of e-invoices with something of everything in it."""
    made = tmp_path / "march.db"
    settings = {"pace": {"concurrency": 4}}
    asyncio.run(invoice_run(made, ENDS, settings=settings, pauses=[Pause("submit", 1000.0, 1007.5, is_over=True)]))
    return made


async def content(file: Path) -> dict[str, Any]:
    """Everything that a run file holds, as the tables of a server hold it."""
    async with read_run(file) as ledger:
        items = [item async for item in ledger.items(payload=True)]
        attempts: dict[int, int] = {}
        journal = []
        for entry in await ledger.journal(limit=10_000):
            attempts[entry.item] = attempts.get(entry.item, 0) + (entry.event == "intent")
            detail = dict(entry.detail) or None
            journal.append((entry.item, str(entry.event), attempts[entry.item], entry.at, detail))
        return {
            "run": ("march", ledger.kind.value, dict(ledger.settings), ledger.created, ledger.late, len(items)),
            "items": [
                (item.seq, item.key, item.state, item.attempt, item.request_id, item.invoice_id, item.path, item.size,
                 item.sha256, item.code, item.error, item.result, item.payload_sha256, item.sent_at, item.updated)
                for item in items
            ],
            "drafts": [(item.seq, item.payload) for item in items if item.payload is not None],
            "journal": journal,
            "pauses": [(each.operation, each.begun, each.until, each.is_over) for each in await ledger.pauses()],
            "tally": sorted((state, count) for state, count in (await ledger.counts()).items() if count),
            "duplicates": await ledger.duplicates(limit=1000),
        }  # fmt: skip


EPOCH = "extract(epoch FROM {})::double precision"


def on_server(database: Database) -> dict[str, Any]:
    """The same of the one run that a database has."""
    epoch = {name: EPOCH.format(name) for name in ("created", "sent_at", "updated", "at", "begun", "until")}
    [run] = database.psql(f"SELECT name, kind, settings, {epoch['created']}, late, last_seq FROM invoicing.runs")
    return {
        "run": (run[0], run[1], json.loads(run[2]), *run[3:]),
        "items": database.psql(
            "SELECT seq, key, state, attempt, request_id, invoice_id, path, size, sha256, code, error, result, "
            f"payload_sha256, {epoch['sent_at']}, {epoch['updated']} FROM invoicing.items ORDER BY seq"
        ),
        "drafts": database.psql("SELECT seq, payload FROM invoicing.drafts ORDER BY seq"),
        "journal": [
            (item, event, attempt, at, json.loads(detail) if detail else None)
            for item, event, attempt, at, detail in database.psql(
                f"SELECT item, event, attempt, {epoch['at']}, detail FROM invoicing.journal ORDER BY id"
            )
        ],
        "pauses": database.psql(
            f"SELECT operation, {epoch['begun']}, {epoch['until']}, is_over FROM invoicing.pauses ORDER BY begun"
        ),
        "tally": database.psql("SELECT state, count FROM invoicing.tally ORDER BY state"),
        "duplicates": database.psql("SELECT key, times FROM invoicing.duplicates ORDER BY key"),
    }


@pytest.mark.asyncio
async def test_all_that_a_run_of_invoices_has_is_carried_over(file: Path, postgres: Database) -> None:
    done = await import_run(file, postgres.address())
    there, here = on_server(postgres), await content(file)
    assert there == here
    assert (done.to, done.kind, done.items, done.known) == (postgres.address(), RunKind.INVOICES, 11, False)
    assert done.entries == len(here["journal"]) > 15


@pytest.mark.asyncio
async def test_all_that_a_run_of_documents_has_is_carried_over(tmp_path: Path, postgres: Database) -> None:
    file, clock = tmp_path / "march.db", FakeClock()
    async with DocumentRun.open(file, folder=tmp_path / "out", clock=clock) as run:
        await documents(run.ledger, 5)
        await run.ledger.add_ids(["ORDER-1", "ORDER-1", "ORDER-2", "ORDER-2", "ORDER-2"])
        await run.ledger.record_document(
            2, DocumentState.SAVED, path="/out/\u00e1.pdf", size=7, sha256="ab", request_id="r", attempt=2
        )
        await run.ledger.record_document(3, DocumentState.FAILED, code="SYS", error="no", attempt=5)
    await import_run(file, postgres.address())
    there = on_server(postgres)
    assert there == await content(file)
    assert len(there["duplicates"]) == 2


@pytest.mark.asyncio
async def test_nobody_goes_on_with_a_file_whose_run_is_elsewhere(file: Path, postgres: Database) -> None:
    """It can be looked at; also a program that knows nothing of this sees that it is not for it."""
    await import_run(file, postgres.address())
    with pytest.raises(RunMovedError, match="goes on there") as caught:
        async with InvoiceRun.open(file):
            pass
    assert caught.value.to == postgres.address()
    async with read_run(file) as ledger:
        assert moved_to(ledger) == Moved(postgres.address(), is_done=True)
        assert (await ledger.counts())["in_doubt"] == 2
    assert int.from_bytes(file.read_bytes()[60:64], "big") == 2  # the version of the format, of which there was one


@pytest.mark.asyncio
async def test_what_was_carried_over_is_known_when_it_is_given_again(file: Path, postgres: Database) -> None:
    first = await import_run(file, postgres.address())
    again = await import_run(file, postgres.address())
    assert (again.items, again.entries, again.known) == (first.items, first.entries, True)
    with pytest.raises(RunMovedError, match="was carried over to"):
        await import_run(file, postgres.address("april"))
    postgres.psql("UPDATE invoicing.runs SET name = 'other'")
    with pytest.raises(RunMovedError, match="is not there any more"):
        await import_run(file, postgres.address())


@pytest.mark.asyncio
async def test_a_file_that_is_held_is_not_carried_over(file: Path, postgres: Database) -> None:
    async with InvoiceRun.open(file):
        with pytest.raises(RunLockedError):
            await import_run(file, postgres.address())
    assert postgres.psql("SELECT count(*) FROM invoicing.runs") == [(0,)]


@pytest.mark.asyncio
async def test_a_name_that_the_server_has_is_refused_and_the_file_goes_on(
    file: Path, tmp_path: Path, postgres: Database
) -> None:
    await invoice_run(tmp_path / "other.db", {"planned": 1}, clock=FakeClock(start=5.0))
    await import_run(tmp_path / "other.db", postgres.address())
    with pytest.raises(RunFileError, match=r"there is a run at .* already"):
        await import_run(file, postgres.address())
    async with InvoiceRun.open(file) as run:
        assert (await run.ledger.counts())["planned"] == 2
    assert postgres.psql("SELECT count(*) FROM invoicing.items") == [(1,)]


@asynccontextmanager
async def taking(database: Database, wrong: str) -> AsyncIterator[Any]:
    """Where a run is to be, and where something goes wrong when all was taken in, before it is committed."""
    from invoicing_async._durable.address import ServerAddress, run_address
    from invoicing_async._durable.postgres.importing import open_taker

    where = run_address(database.address())
    assert isinstance(where, ServerAddress)
    async with open_taker(where) as taker:
        take = taker.take

        async def taken(source: Any, *, sealed: Any) -> Any:
            async def then() -> None:
                await sealed()
                if wrong == "stopped":
                    raise KeyboardInterrupt
                database.psql(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = %s",
                    taker._connection.info.backend_pid,
                )

            return await take(source, sealed=then)

        taker_of_test = type("Taker", (), {})()
        taker_of_test.address, taker_of_test.has, taker_of_test.take = taker.address, taker.has, taken
        type(taker_of_test).may_be_there = property(lambda _: taker.may_be_there)
        yield taker_of_test


@pytest.mark.asyncio
async def test_after_an_error_nothing_is_there_and_the_file_goes_on(file: Path, postgres: Database) -> None:
    with pytest.raises(KeyboardInterrupt):
        await carry_over(SqliteLedger.open(file, create=False, to_move=True), taking(postgres, "stopped"))
    assert postgres.psql("SELECT count(*) FROM invoicing.runs") == [(0,)]
    async with InvoiceRun.open(file) as run:
        assert (await run.ledger.counts())["planned"] == 2


@pytest.mark.asyncio
async def test_a_commit_whose_answer_was_lost_leaves_the_file_shut_until_it_is_known(
    file: Path, postgres: Database
) -> None:
    with pytest.raises(RunFileError):
        await carry_over(SqliteLedger.open(file, create=False, to_move=True), taking(postgres, "cut"))
    with pytest.raises(RunMovedError, match="when that was cut off"):
        async with InvoiceRun.open(file):
            pass
    with pytest.raises(RunMovedError, match="was carried over to"):
        await import_run(file, postgres.address("april"))
    assert (await import_run(file, postgres.address())).known is False
    async with SqliteLedger.open(file, create=False, to_move=True) as ledger:
        await ledger.keep_moved(Moved(postgres.address(), is_done=False))  # cut off after the commit
    assert (await import_run(file, postgres.address())).known is True
    async with read_run(file) as reader:
        assert moved_to(reader) == Moved(postgres.address(), is_done=True)


@pytest.mark.asyncio
async def test_what_is_no_server_is_no_place_to_carry_a_run_to(file: Path) -> None:
    with pytest.raises(ValueError, match="from a file to a server"):
        await import_run(file, "april.db")
    with pytest.raises(ValueError, match=r"keeps runs in files|names no file|a run file"):
        await import_run("postgresql://h/db?run=m", "postgresql://h/db?run=m")
