"""Writers that share a commit: none is answered before it is on disk, and closing loses none."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeClock
from ledgers import DOCUMENTS, documents, names

from invoicing_async._durable import database, writer
from invoicing_async._durable.ledger import SqliteLedger
from invoicing_async._durable.records import (
    RunFileError,
)
from invoicing_async._durable.states import (
    DocumentState,
)


async def traced(ledger: SqliteLedger) -> list[str]:
    statements: list[str] = []
    await ledger._worker.run(lambda transaction: transaction.connection.set_trace_callback(statements.append))
    return statements


@pytest.mark.asyncio
async def test_many_writers_share_a_commit(tmp_path: Path) -> None:
    async with SqliteLedger.open(tmp_path / "run.db", kind=DOCUMENTS) as ledger:
        await documents(ledger, 1000)
        statements = await traced(ledger)
        await asyncio.gather(*(ledger.record_document(seq, DocumentState.SAVED) for seq in range(1, 1001)))
        assert statements.count("COMMIT") < 100
        assert (await ledger.counts())["saved"] == 1000


@pytest.mark.asyncio
async def test_a_group_has_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "GROUP", 10)
    async with SqliteLedger.open(tmp_path / "run.db", kind=DOCUMENTS) as ledger:
        await documents(ledger, 100)
        statements = await traced(ledger)
        await asyncio.gather(*(ledger.record_document(seq, DocumentState.SAVED) for seq in range(1, 101)))
        assert statements.count("COMMIT") >= 10


@pytest.mark.asyncio
async def test_a_failing_operation_undoes_itself_and_nothing_else(tmp_path: Path) -> None:
    """Half of a group fails after writing; the other half is recorded, and the counts with it."""

    def spoil(transaction: Any) -> None:
        transaction.execute("UPDATE items SET state = 'spoiled'")
        transaction.counts["planned"] += 99
        raise LookupError("after writing")

    async with SqliteLedger.open(tmp_path / "run.db", kind=DOCUMENTS) as ledger:
        await documents(ledger, 40)
        jobs = []
        for seq in range(1, 41):
            jobs += [ledger.record_document(seq, DocumentState.SAVED), ledger._worker.run(spoil)]
            jobs += [ledger.record_document("nobody", DocumentState.SAVED)]
        results = await asyncio.gather(*jobs, return_exceptions=True)
        assert [type(result) for result in results] == [type(None), LookupError, ValueError] * 40
        assert await ledger.counts() == {"planned": 0, "saved": 40, "skipped": 0, "deferred": 0, "failed": 0}
        assert {item.state for item in await ledger.rows()} == {"saved"}


@pytest.mark.asyncio
async def test_a_full_disk_is_an_os_error_for_the_whole_group_and_nothing_of_it_is_recorded(tmp_path: Path) -> None:
    def pages(limit: int) -> Callable[[Any], object]:
        return lambda transaction: transaction.one(f"PRAGMA max_page_count = {limit}")

    async with SqliteLedger.open(tmp_path / "run.db", kind=DOCUMENTS) as ledger:
        await documents(ledger, 50)
        await ledger._worker.run(pages(1))  # SQLite raises it to the pages in use
        long = "x" * 3000
        jobs = [ledger.record_document(seq, DocumentState.SAVED, path=long) for seq in range(1, 51)]
        results = await asyncio.gather(*jobs, return_exceptions=True)
        failed = [result for result in results if result is not None]
        assert failed
        assert {(type(error), getattr(error, "errno", None)) for error in failed} == {(OSError, 28)}
        assert len({id(error) for error in failed}) == len(failed)
        saved = sum(result is None for result in results)
        counts = await ledger.counts()
        assert (counts["planned"], counts["saved"]) == (50 - saved, saved)
        await ledger._worker.run(pages(100_000))
        await asyncio.gather(*(ledger.record_document(seq, DocumentState.SAVED, path=long) for seq in range(1, 51)))
        assert (await ledger.counts())["saved"] == 50


@pytest.mark.asyncio
async def test_nothing_is_answered_before_its_group_is_on_disk(tmp_path: Path) -> None:
    """A transaction that is given up after a good operation fails that one too; the next group is fine."""
    asked, gate = threading.Event(), threading.Event()

    def hold(transaction: Any) -> None:
        asked.set()
        gate.wait()

    def give_up(transaction: Any) -> None:
        transaction.execute("ROLLBACK")
        raise sqlite3.OperationalError("the database gave the transaction up")

    async with SqliteLedger.open(tmp_path / "run.db", kind=DOCUMENTS) as ledger:
        await documents(ledger, 1)
        held = asyncio.create_task(ledger._worker.run(hold))
        await asyncio.to_thread(asked.wait)
        good = asyncio.create_task(ledger.record_document(1, DocumentState.SAVED))
        bad = asyncio.create_task(ledger._worker.run(give_up))
        await asyncio.sleep(0)
        gate.set()
        await held
        for task in (good, bad):
            with pytest.raises(RunFileError, match="gave the transaction up"):
                await task
        assert (await ledger.counts())["saved"] == 0
        await ledger.record_document(1, DocumentState.SAVED)
        assert (await ledger.counts())["saved"] == 1


@pytest.mark.asyncio
async def test_closing_leaves_one_file_and_no_thread(tmp_path: Path) -> None:
    async with SqliteLedger.open(tmp_path / "run.db", kind=DOCUMENTS) as ledger:
        await documents(ledger, 1)
        assert {"run.db", "run.db.lock"} <= set(names(tmp_path))
        await ledger.close()
        assert names(tmp_path) == ["run.db"]
    assert "invoicing-run-file" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.asyncio
async def test_a_cancelled_closing_closes_all_the_same(tmp_path: Path) -> None:
    async with SqliteLedger.open(tmp_path / "run.db", kind=DOCUMENTS) as ledger:
        await documents(ledger, 10)
        writing = asyncio.create_task(ledger.record_document(1, DocumentState.SAVED))
        closing = asyncio.create_task(ledger.close())
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        await writing
        assert names(tmp_path) == ["run.db"]


@pytest.mark.asyncio
async def test_a_ledger_belongs_to_its_event_loop(tmp_path: Path) -> None:
    async with SqliteLedger.open(tmp_path / "run.db", kind=DOCUMENTS) as ledger:
        with pytest.raises(RunFileError, match="another event loop"):
            await asyncio.to_thread(asyncio.run, ledger.counts())


def test_a_ledger_left_open_is_closed_with_its_loop(tmp_path: Path) -> None:
    kept = []

    async def leave() -> None:
        kept.append(SqliteLedger.open(tmp_path / "run.db", kind=DOCUMENTS))
        ledger = await kept[0].__aenter__()
        await ledger.add_ids(["a", "b"])

    asyncio.run(leave())
    assert names(tmp_path) == ["run.db"]


def test_a_thread_whose_loop_is_gone_still_ends(tmp_path: Path) -> None:
    """Nobody waits for its answers any more; it does what is queued and leaves."""
    asked, gate, path = threading.Event(), threading.Event(), tmp_path / "run.db"

    def wait(transaction: Any) -> None:
        asked.set()
        gate.wait()

    async def leave() -> writer.Writer:
        enter = partial(database.open_to_write, path, DOCUMENTS, None, create=True, clock=FakeClock())
        worker = writer.Writer(path, enter, "BEGIN", FakeClock())
        waiting = asyncio.create_task(worker.run(wait))
        await asyncio.to_thread(asked.wait)
        waiting.cancel()
        return worker

    worker = asyncio.run(leave())
    worker._jobs.put(None)
    gate.set()
    worker._thread.join()
    assert names(tmp_path) == ["run.db"]
