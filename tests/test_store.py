"""The run file: nothing acknowledged is lost, nothing is half-written, one writer at a time."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sqlite3
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from attrs import astuple
from fakes import START, FakeClock
from forked import python
from hypothesis import given, settings
from hypothesis import strategies as st

from invoicing_async._durable import database, intake, records, transaction, transitions, writer
from invoicing_async._durable.ledger import SqliteLedger, SqliteReader
from invoicing_async._durable.records import (
    Change,
    DamagedRunError,
    DraftConflictError,
    Intake,
    NewDraft,
    RunFileError,
    RunLockedError,
)
from invoicing_async._durable.states import (
    NEEDS_REQUEST_ID,
    TABLE,
    DocumentState,
    Event,
    RunKind,
    State,
    next_state,
    replay,
)

DOCUMENTS, INVOICES = RunKind.DOCUMENTS, RunKind.INVOICES
Item = records.Item


def draft(key: str, text: str = "", error: str | None = None) -> NewDraft:
    payload = json.dumps({"key": key, "text": text})
    return NewDraft(key=key, payload=payload, payload_sha256=f"hash of {payload}", error=error)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def documents(ledger: SqliteLedger, count: int) -> None:
    await ledger.add_ids(f"order-{number}" for number in range(1, count + 1))


# -- documents ---------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_ids_are_taken_in_in_order_and_paged_by_seq(tmp_path: Path) -> None:
    async with SqliteLedger.open(tmp_path / "run.db", kind=DOCUMENTS, clock=FakeClock()) as ledger:
        assert await ledger.add_ids(["c", "a", "b"]) == Intake(given=3, added=3, known=0, duplicates=0)
        first = await ledger.pending(limit=2)
        rest = await ledger.pending(after=first[-1].seq, limit=2)
        assert [(item.seq, item.key, item.state) for item in first + rest] == [
            (1, "c", "planned"),
            (2, "a", "planned"),
            (3, "b", "planned"),
        ]
        assert first[0].updated == START
        assert await ledger.pending(after=3) == []


@pytest.mark.asyncio
@pytest.mark.parametrize(("count", "staged"), [(7, [0, 0, 0, 3, 3, 3, 6]), (6, [0, 0, 0, 3, 3, 3])])
async def test_an_async_input_is_read_one_batch_at_a_time(tmp_path: Path, count: int, staged: list[int]) -> None:
    """The next id is read only when the batch before it is on disk."""
    staged_when_read: list[int] = []
    async with SqliteLedger.open(tmp_path / "run.db", kind=DOCUMENTS) as ledger:

        async def ids() -> AsyncIterator[str]:
            for number in range(count):
                staged_when_read.append(await ledger._worker.run(lambda desk: desk.one("SELECT count(*) FROM staged")))
                yield f"order-{number}"

        assert (await ledger.add_ids(ids(), batch=3)).added == count
        assert staged_when_read == staged
        assert (await ledger.counts())["planned"] == count
        assert await ledger._worker.run(lambda desk: desk.one("SELECT count(*) FROM staged")) == 0


@pytest.mark.asyncio
@pytest.mark.parametrize("batch", [1, 2, 100])
async def test_duplicates_are_counted_listed_and_the_first_one_wins(tmp_path: Path, batch: int) -> None:
    async with SqliteLedger.open(tmp_path / "run.db", kind=DOCUMENTS) as ledger:
        intake = await ledger.add_ids(["b", "a", "b", "c", "a", "b"], batch=batch)
        assert intake == Intake(given=6, added=3, known=0, duplicates=3)
        assert [item.key for item in await ledger.rows()] == ["b", "a", "c"]
        assert await ledger.duplicates() == [("a", 1), ("b", 2)]
        assert await ledger.duplicates(after="a", limit=1) == [("b", 2)]


@pytest.mark.asyncio
async def test_a_later_command_adds_what_is_new_and_knows_the_rest(tmp_path: Path) -> None:
    async with SqliteLedger.open(tmp_path / "run.db", kind=DOCUMENTS) as ledger:
        await ledger.add_ids(["a", "b", "b"])
        await ledger.record_document("a", DocumentState.SAVED, path="a.pdf", size=1, sha256="x")
        assert await ledger.add_ids(["c", "b", "c", "a"]) == Intake(given=4, added=1, known=2, duplicates=1)
        assert await ledger.duplicates() == [("c", 1)]
        assert [(item.key, item.state) for item in await ledger.rows()] == [
            ("a", "saved"),
            ("b", "planned"),
            ("c", "planned"),
        ]
        assert await ledger.add_ids([]) == Intake(given=0, added=0, known=0, duplicates=0)


@pytest.mark.asyncio
async def test_an_input_that_fails_takes_nothing_in(tmp_path: Path) -> None:
    def ids() -> Iterator[str]:
        yield from ("a", "b", "c")
        raise LookupError("the cursor broke")

    async with SqliteLedger.open(tmp_path / "run.db", kind=DOCUMENTS) as ledger:
        with pytest.raises(LookupError, match="the cursor broke"):
            await ledger.add_ids(ids(), batch=1)
        assert await ledger.rows() == []
        assert (await ledger.add_ids(["c"])).added == 1


@pytest.mark.asyncio
async def test_two_commands_at_once_do_not_mix(tmp_path: Path) -> None:
    async with SqliteLedger.open(tmp_path / "run.db", kind=DOCUMENTS) as ledger:
        ids = [f"order-{number}" for number in range(20)]
        first, second = await asyncio.gather(ledger.add_ids(ids, batch=2), ledger.add_ids(ids, batch=3))
        assert first == Intake(given=20, added=20, known=0, duplicates=0)
        assert second == Intake(given=20, added=0, known=20, duplicates=0)


@pytest.mark.asyncio
async def test_an_outcome_replaces_the_one_before(tmp_path: Path) -> None:
    clock = FakeClock()
    async with SqliteLedger.open(tmp_path / "run.db", kind=DOCUMENTS, clock=clock) as ledger:
        await ledger.add_ids(["a"])
        clock.advance(5)
        await ledger.record_document(1, DocumentState.FAILED, code="X", error="two\nlines", request_id="r-1", attempt=3)
        failed = await ledger.get("a")
        assert failed == Item(
            1, "a", "failed", attempt=3, code="X", error="two lines", request_id="r-1", updated=START + 5
        )
        await ledger.record_document("a", DocumentState.SAVED, path="a.pdf", size=42137, sha256="ff", attempt=1)
        saved = await ledger.get(1)
        assert saved == Item(1, "a", "saved", attempt=1, path="a.pdf", size=42137, sha256="ff", updated=START + 5)
        assert await ledger.get(2) is None
        assert await ledger.get("b") is None


@pytest.mark.asyncio
async def test_pending_are_those_to_fetch_and_on_request_those_to_verify(tmp_path: Path) -> None:
    async with SqliteLedger.open(tmp_path / "run.db", kind=DOCUMENTS) as ledger:
        await documents(ledger, 10)
        for seq, state in enumerate([*DocumentState, *DocumentState], start=1):
            await ledger.record_document(seq, state)
        assert [item.seq for item in await ledger.pending()] == [1, 4, 5, 6, 9, 10]
        assert [item.seq for item in await ledger.pending(after=4, limit=2)] == [5, 6]
        assert [item.seq for item in await ledger.pending(verify=True)] == list(range(1, 11))
        assert [item.seq for item in await ledger.rows([DocumentState.SAVED, "saved"])] == [2, 7]
        assert await ledger.counts() == dict.fromkeys(map(str, DocumentState), 2)


@pytest.mark.asyncio
async def test_the_counts_are_those_of_the_rows(tmp_path: Path) -> None:
    chance = Random(7)
    async with SqliteLedger.open(tmp_path / "run.db", kind=DOCUMENTS) as ledger:
        await documents(ledger, 50)
        changes = [(chance.randint(1, 50), chance.choice(list(DocumentState))) for _ in range(300)]
        await asyncio.gather(*(ledger.record_document(seq, state) for seq, state in changes))
        counted = Counter(item.state for item in await ledger.rows())
        assert {state: count for state, count in (await ledger.counts()).items() if count} == counted


# -- group commit ------------------------------------------------------------------------------------------------


async def traced(ledger: SqliteLedger) -> list[str]:
    statements: list[str] = []
    await ledger._worker.run(lambda desk: desk.connection.set_trace_callback(statements.append))
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

    def spoil(desk: Any) -> None:
        desk.execute("UPDATE items SET state = 'spoiled'")
        desk.count("planned", 99)
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
        return lambda desk: desk.one(f"PRAGMA max_page_count = {limit}")

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

    def hold(desk: Any) -> None:
        asked.set()
        gate.wait()

    def give_up(desk: Any) -> None:
        desk.execute("ROLLBACK")
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
async def test_cancelling_a_waiter_leaves_its_row_whole_or_untouched(tmp_path: Path) -> None:
    async with SqliteLedger.open(tmp_path / "run.db", kind=DOCUMENTS) as ledger:
        await documents(ledger, 200)

        async def save(seq: int) -> None:
            await ledger.record_document(seq, DocumentState.SAVED, path=f"{seq}.pdf", size=seq, sha256="ff")

        tasks = [asyncio.create_task(save(seq)) for seq in range(1, 201)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(result is None for result in results[1::2])
        for item in await ledger.rows():
            whole = Item(item.seq, item.key, "saved", path=f"{item.seq}.pdf", size=item.seq, sha256="ff")
            assert item in {Item(item.seq, item.key, "planned", updated=item.updated), with_time(whole, item.updated)}
        counted = Counter(item.state for item in await ledger.rows())
        assert (await ledger.counts())["saved"] == counted["saved"]


def with_time(item: Item, updated: float) -> Item:
    return Item(item.seq, item.key, item.state, path=item.path, size=item.size, sha256=item.sha256, updated=updated)


# -- closing -----------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_closing_does_what_is_queued_and_leaves_one_file(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    async with SqliteLedger.open(path, kind=DOCUMENTS) as ledger:
        await documents(ledger, 500)
        tasks = [asyncio.create_task(ledger.record_document(seq, DocumentState.SAVED)) for seq in range(1, 501)]
        await asyncio.sleep(0)
        assert {"run.db", "run.db.lock"} <= set(names(tmp_path))
        await ledger.close()
        assert names(tmp_path) == ["run.db"]
        await asyncio.gather(*tasks)
        await ledger.close()
        with pytest.raises(RunFileError, match="is closed"):
            await ledger.counts()
    assert "invoicing-run-file" not in {thread.name for thread in threading.enumerate()}
    async with SqliteReader.read(path) as reader:
        assert (await reader.counts())["saved"] == 500


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

    def wait(desk: Any) -> None:
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


# -- one process at a time ---------------------------------------------------------------------------------------

HOLD = """
import asyncio, sys
from invoicing_async._durable.ledger import SqliteLedger
from invoicing_async._durable.states import RunKind
async def main():
    async with SqliteLedger.open(sys.argv[1], kind=RunKind.DOCUMENTS):
        print("held")
        sys.stdin.read()
asyncio.run(main())
"""


@pytest.mark.asyncio
async def test_a_second_process_is_told_who_holds_the_file_and_kill_9_frees_it(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    with python(HOLD, path) as holder:
        assert holder.line() == "held\n"
        with pytest.raises(RunLockedError, match=rf"run\.db is held by process {holder.pid} on \S+ since 20") as caught:
            async with SqliteLedger.open(path, kind=DOCUMENTS):
                pass
        assert (caught.value.pid, bool(caught.value.host), bool(caught.value.since)) == (holder.pid, True, True)
        async with SqliteReader.read(path) as reader:
            assert (await reader.counts())["planned"] == 0
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    async with SqliteLedger.open(path) as ledger:
        assert ledger.kind is DOCUMENTS
    assert names(tmp_path) == ["run.db"]


@pytest.mark.asyncio
async def test_the_same_process_cannot_hold_a_file_twice_under_any_name(tmp_path: Path) -> None:
    link = tmp_path / "link.db"
    link.symlink_to(tmp_path / "run.db")
    async with SqliteLedger.open(tmp_path / "run.db", kind=DOCUMENTS):
        with pytest.raises(RunLockedError, match=f"process {os.getpid()} "):
            async with SqliteLedger.open(link, kind=DOCUMENTS):
                pass


@pytest.mark.asyncio
async def test_a_holder_that_has_not_said_its_name_is_another_process(tmp_path: Path) -> None:
    async with SqliteLedger.open(tmp_path / "run.db", kind=DOCUMENTS):
        (tmp_path / "run.db.lock").write_bytes(b"")
        with pytest.raises(RunLockedError, match="held by another process") as caught:
            async with SqliteLedger.open(tmp_path / "run.db", kind=DOCUMENTS):
                pass
        assert caught.value.pid is None


@pytest.mark.asyncio
async def test_a_removed_folder_does_not_keep_a_ledger_from_closing(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    async with SqliteLedger.open(folder / "run.db", kind=DOCUMENTS):
        shutil.rmtree(folder)


# -- what is refused ---------------------------------------------------------------------------------------------


async def refusal(path: Path, **arguments: Any) -> str:
    """The refusal's text, the same for a writer and a reader; no byte of the file is changed, no file left."""
    before, content = names(path.parent), path.read_bytes()
    with pytest.raises(RunFileError) as writer:
        async with SqliteLedger.open(path, **arguments):
            pass
    assert names(path.parent) == before
    with pytest.raises(RunFileError) as reader:
        async with SqliteReader.read(path):
            pass
    assert path.read_bytes() == content
    assert writer.value.message == reader.value.message
    return writer.value.message.removeprefix(str(path)).strip()


@pytest.mark.asyncio
@pytest.mark.parametrize("content", [b"", b"%PDF-1.7 not a database" * 400, b"SQLite format 3\x00"])
async def test_a_file_that_is_no_database_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "run.db").write_bytes(content)
    assert await refusal(tmp_path / "run.db", kind=DOCUMENTS) == "is not a run file"


@pytest.mark.asyncio
async def test_a_database_of_another_program_is_refused(tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "other.db")
    other.executescript("PRAGMA journal_mode = WAL; CREATE TABLE items (x); INSERT INTO items VALUES (1);")
    other.close()
    assert await refusal(tmp_path / "other.db", kind=DOCUMENTS) == "is not a run file"


def alter(path: Path, sql: str) -> None:
    database = sqlite3.connect(path)
    database.executescript(sql)
    database.close()


@pytest.mark.asyncio
async def test_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    async with SqliteLedger.open(path, kind=DOCUMENTS):
        pass
    alter(path, "PRAGMA user_version = 2")
    assert await refusal(path, kind=DOCUMENTS) == "has format version 2; this library knows version 1"


@pytest.mark.asyncio
async def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    async with SqliteLedger.open(path, kind=DOCUMENTS) as ledger:
        await documents(ledger, 5000)
    os.truncate(path, 3 * 4096)
    with pytest.raises(RunFileError, match="is damaged"):
        async with SqliteLedger.open(path):
            pass


@pytest.mark.asyncio
async def test_a_run_killed_in_the_middle_of_a_checkpoint_is_not_taken_for_damaged(tmp_path: Path) -> None:
    """Its header, already written back, speaks of pages that are still in the write-ahead log alone."""
    path, image = tmp_path / "run.db", tmp_path / "image.db"
    async with SqliteLedger.open(path, kind=DOCUMENTS) as ledger:
        await documents(ledger, 3000)
        shutil.copy(path, image)
        shutil.copy(f"{path}-wal", f"{image}-wal")
    with image.open("r+b") as file:
        file.write(path.read_bytes()[:4096])
    with pytest.raises(sqlite3.DatabaseError, match="malformed"):
        database._header(image, "immutable=1")
    async with SqliteLedger.open(image) as ledger:
        assert (await ledger.counts())["planned"] == 3000


@pytest.mark.asyncio
async def test_a_run_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    async with SqliteLedger.open(path, kind=DOCUMENTS):
        pass
    with pytest.raises(RunFileError, match="is a run of documents, not of invoices"):
        async with SqliteLedger.open(path, kind=INVOICES):
            pass
    assert names(tmp_path) == ["run.db"]


@pytest.mark.asyncio
async def test_each_kind_has_its_own_operations(tmp_path: Path) -> None:
    async with SqliteLedger.open(tmp_path / "documents.db", kind=DOCUMENTS) as ledger:
        with pytest.raises(ValueError, match="transition is for a run of invoices"):
            await ledger.transition(1, Event.INTENT)
        with pytest.raises(ValueError, match="add_drafts is for a run of invoices"):
            await ledger.add_drafts([])
    async with SqliteLedger.open(tmp_path / "invoices.db", kind=INVOICES) as ledger:
        with pytest.raises(ValueError, match="add_ids is for a run of documents"):
            await ledger.add_ids([])
        with pytest.raises(ValueError, match="record_document is for a run of documents"):
            await ledger.record_document(1, DocumentState.SAVED)


@pytest.mark.asyncio
async def test_a_missing_file_is_made_only_on_request_and_never_by_a_reader(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    with pytest.raises(FileNotFoundError):
        async with SqliteLedger.open(path, kind=DOCUMENTS, create=False):
            pass
    with pytest.raises(FileNotFoundError):
        async with SqliteReader.read(path):
            pass
    with pytest.raises(FileNotFoundError):
        async with SqliteLedger.open(tmp_path / "no folder" / "run.db", kind=DOCUMENTS):
            pass
    with pytest.raises(ValueError, match="kind must be given"):
        async with SqliteLedger.open(path):
            pass
    assert names(tmp_path) == []


@pytest.mark.asyncio
async def test_a_folder_is_not_a_run_file(tmp_path: Path) -> None:
    with pytest.raises(RunFileError, match="is not a run file"):
        async with SqliteLedger.open(tmp_path, kind=DOCUMENTS):
            pass


@pytest.mark.asyncio
@pytest.mark.parametrize("call", ["rows", "pending", "duplicates", "journal"])
async def test_a_page_has_at_least_one_row(tmp_path: Path, call: str) -> None:
    async with SqliteLedger.open(tmp_path / "run.db", kind=DOCUMENTS) as ledger:
        with pytest.raises(ValueError, match="limit must be at least 1, got 0"):
            await getattr(ledger, call)(limit=0)
        with pytest.raises(ValueError, match="batch must be at least 1"):
            await ledger.add_ids([], batch=0)


def test_a_disk_without_a_write_ahead_log_is_named_as_the_cause(tmp_path: Path) -> None:
    """The dot-file VFS has no shared memory, as a network file system has none."""
    path = tmp_path / "run.db"
    connection = sqlite3.connect(f"{path.as_uri()}?vfs=unix-dotfile", uri=True)
    with pytest.raises(RunFileError, match=r"does not work on a network file system .*'delete'"):
        database._write_ahead(connection, path)
    connection.close()


@pytest.mark.parametrize(
    ("code", "kind", "text"),
    [
        (sqlite3.SQLITE_PROTOCOL, RunFileError, "network file system"),
        (sqlite3.SQLITE_IOERR_SHMMAP, RunFileError, "network file system"),
        (sqlite3.SQLITE_IOERR_WRITE, OSError, "Input/output error"),
        (sqlite3.SQLITE_READONLY, OSError, "Read-only"),
        (sqlite3.SQLITE_CORRUPT, DamagedRunError, "damaged"),
        (sqlite3.SQLITE_BUSY, RunFileError, r"run\.db: why"),
    ],
)
def test_errors_of_the_database_are_said_in_our_words(code: int, kind: type[Exception], text: str) -> None:
    error = sqlite3.OperationalError("why")
    error.sqlite_errorcode = code
    ours = database.translate_error(error, Path("run.db"))
    assert type(ours) is kind
    assert ours.__cause__ is error
    with pytest.raises(kind, match=text):
        raise ours


@pytest.mark.asyncio
async def test_a_creation_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="not JSON serializable"):
        async with SqliteLedger.open(tmp_path / "run.db", kind=DOCUMENTS, settings={"folder": object()}):
            pass
    assert names(tmp_path) == []


@pytest.mark.asyncio
async def test_the_rest_of_a_creation_that_died_is_swept(tmp_path: Path) -> None:
    """An hour later: before, it may be another process's that is at it."""
    left = [tmp_path / name for name in ("run.db.abc.new", "run.db.abc.new-journal")]
    for path in left:
        path.write_bytes(b"half of it")
    async with SqliteLedger.open(tmp_path / "run.db", kind=DOCUMENTS):
        pass
    assert len(names(tmp_path)) == 3
    for path in left:
        os.utime(path, (0, 0))
    (tmp_path / "run.db").unlink()
    async with SqliteLedger.open(tmp_path / "run.db", kind=DOCUMENTS):
        pass
    assert names(tmp_path) == ["run.db"]


# -- settings and readers ----------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_a_file_keeps_the_settings_it_was_made_with_until_they_are_updated(tmp_path: Path) -> None:
    path, clock = tmp_path / "run.db", FakeClock()
    async with SqliteLedger.open(path, kind=DOCUMENTS, settings={"folder": "Kế toán"}, clock=clock) as ledger:
        assert ledger.settings == {"folder": "Kế toán"}
    clock.advance(9)
    async with SqliteLedger.open(path, settings={"folder": "other"}, clock=clock) as ledger:
        assert ledger.settings == {"folder": "Kế toán"}
        await ledger.update_settings({"folder": "new"})
        assert ledger.settings == {"folder": "new"}
    async with SqliteReader.read(path) as reader:
        assert (reader.kind, reader.settings, reader.created) == (DOCUMENTS, {"folder": "new"}, START)


@pytest.mark.asyncio
async def test_a_reader_sees_what_a_writer_committed_and_can_change_nothing(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    async with SqliteLedger.open(path, kind=DOCUMENTS) as ledger:
        await documents(ledger, 3)
        async with SqliteReader.read(path) as reader:
            await ledger.record_document(2, DocumentState.SAVED, size=7)
            assert [item.state for item in await reader.rows()] == ["planned", "saved", "planned"]
            assert (await reader.counts())["saved"] == 1
            with pytest.raises(OSError, match="readonly"):
                await reader._worker.run(lambda desk: desk.execute("DELETE FROM items"))
        await ledger.record_document(3, DocumentState.SAVED)
    assert names(tmp_path) == ["run.db"]


@pytest.mark.parametrize(
    ("writable", "log", "mode"), [(True, True, "mode=ro"), (False, True, "mode=ro"), (False, False, "immutable=1")]
)
def test_a_reader_asks_for_no_more_than_it_may(writable: bool, log: bool, mode: str) -> None:  # noqa: FBT001 - a table
    assert database._reading_mode(writable=writable, log=log) == mode


# -- drafts ------------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_drafts_are_taken_in_with_their_payload(tmp_path: Path) -> None:
    async with SqliteLedger.open(tmp_path / "run.db", kind=INVOICES) as ledger:
        assert await ledger.add_drafts([draft("a"), draft("b"), draft("a")]) == Intake(
            given=3, added=2, known=0, duplicates=1
        )
        pending = await ledger.pending()
        assert [(item.key, item.payload) for item in pending] == [("a", draft("a").payload), ("b", draft("b").payload)]
        assert "'{" not in repr(pending)
        assert [item.payload for item in await ledger.rows()] == [None, None]
        assert (await ledger.counts())["planned"] == 2


@pytest.mark.asyncio
async def test_the_same_drafts_again_are_known_and_change_nothing(tmp_path: Path) -> None:
    async with SqliteLedger.open(tmp_path / "run.db", kind=INVOICES) as ledger:
        await ledger.add_drafts([draft("a"), draft("b")])
        await ledger.transition("a", Event.INTENT)
        before = await ledger.rows()
        assert await ledger.add_drafts([draft("a"), draft("c"), draft("b"), draft("c")]) == Intake(
            given=4, added=1, known=2, duplicates=1
        )
        assert (await ledger.rows())[:2] == before


@pytest.mark.asyncio
async def test_a_key_with_other_content_is_a_conflict_and_nothing_is_taken_in(tmp_path: Path) -> None:
    async with SqliteLedger.open(tmp_path / "run.db", kind=INVOICES) as ledger:
        await ledger.add_drafts([draft("a")])
        with pytest.raises(DraftConflictError, match="other content: 'a', 'c'") as caught:
            await ledger.add_drafts([draft("b"), draft("a", "new"), draft("c"), draft("c", "new"), draft("a", "new")])
        assert caught.value.keys == ("a", "c")
        assert [item.key for item in await ledger.rows()] == ["a"]
        assert (await ledger.counts())["planned"] == 1
        assert (await ledger.add_drafts([draft("b")])).added == 1


def test_a_long_list_of_conflicts_is_cut_in_the_text_only() -> None:
    error = DraftConflictError(tuple(f"k{number}" for number in range(1012)))
    assert error.message.endswith("'k9' and 1,002 more")
    assert len(error.keys) == 1012


@pytest.mark.asyncio
async def test_an_invalid_draft_is_kept_apart_and_may_be_corrected(tmp_path: Path) -> None:
    async with SqliteLedger.open(tmp_path / "run.db", kind=INVOICES) as ledger:
        await ledger.add_drafts([draft("a", error="lines[0].price: missing")])
        item = await ledger.get("a")
        assert item is not None
        assert (item.state, item.error) == ("invalid", "lines[0].price: missing")
        assert await ledger.pending() == []
        same = draft("a", error="lines[0].price: missing")
        assert await ledger.add_drafts([same]) == Intake(given=1, added=0, known=1, duplicates=0)
        await ledger.add_drafts([draft("a", "second", error="lines[0].unit: missing")])
        assert [entry.event for entry in await ledger.history("a")] == [
            Event.FOUND_INVALID,
            Event.CORRECTED,
            Event.FOUND_INVALID,
        ]
        await ledger.add_drafts([draft("a", "third")])
        (ready,) = await ledger.pending()
        good = draft("a", "third")
        assert (ready.state, ready.error, ready.payload) == ("planned", None, good.payload)
        assert ready.payload_sha256 == good.payload_sha256
        with pytest.raises(DraftConflictError):
            await ledger.add_drafts([draft("a", "fourth")])


def taken_in(rows: dict[str, tuple[str, str]], drafts: list[NewDraft]) -> tuple[dict[str, tuple[str, str]], object]:
    """What a run (key: state and payload) holds after these drafts, taken in one by one, and what is answered."""
    after, met, conflicts = dict(rows), set[str](), dict[str, None]()
    told = Counter[str]()
    for new in drafts:
        state, payload = after.get(new.key, ("", ""))
        invalid = state == "invalid" and new.key not in met
        if not state or (invalid and (new.error is None or payload != new.payload)):
            after[new.key] = ("planned" if new.error is None else "invalid"), new.payload
            told["known" if state else "added"] += 1
        elif payload != new.payload:
            conflicts[new.key] = None
        else:
            told["duplicates" if new.key in met else "known"] += 1
        met.add(new.key)
    if conflicts:
        return rows, tuple(conflicts)
    return after, (len(drafts), told["added"], told["known"], told["duplicates"])


DRAFTS = st.lists(
    st.builds(draft, st.sampled_from(["a", "b,c 1", "ü'", "d"]), st.sampled_from("xy"), st.sampled_from([None, "bad"])),
    max_size=8,
)


@given(st.lists(DRAFTS, max_size=4), st.sampled_from([2, 3, 256]))
@settings(max_examples=60, deadline=None)
def test_drafts_taken_in_together_are_what_they_are_one_by_one(commands: list[list[NewDraft]], together: int) -> None:
    """However many are written by one statement."""

    async def check(folder: Path) -> None:
        rows: dict[str, tuple[str, str]] = {}
        async with SqliteLedger.open(folder / "run.db", kind=INVOICES) as ledger:
            for drafts in commands:
                rows, told = taken_in(rows, drafts)
                [answer] = await asyncio.gather(ledger.add_drafts(drafts), return_exceptions=True)
                assert (astuple(answer) if isinstance(answer, Intake) else getattr(answer, "keys", answer)) == told
                items = await ledger.rows(payload=True)
                assert {item.key: (item.state, item.payload) for item in items} == rows
                assert [item.seq for item in items] == list(range(1, len(rows) + 1))
                assert {item.key: item.payload_sha256 for item in items} == {
                    key: f"hash of {payload}" for key, (_, payload) in rows.items()
                }
                counted = Counter(state for state, _ in rows.values())
                assert {state: count for state, count in (await ledger.counts()).items() if count} == counted

    with pytest.MonkeyPatch.context() as patch, TemporaryDirectory() as name:
        for module in (transaction, transitions, intake):
            patch.setattr(module, "TOGETHER", together)
        asyncio.run(check(Path(name)))


@pytest.mark.asyncio
async def test_a_thousand_drafts_or_ids_take_few_statements(tmp_path: Path) -> None:
    """Each statement waits for the interpreter's lock, and a loop that never rests hardly lets go of it."""
    said: list[str] = []
    new = [draft(f"k{number}") for number in range(1_000)]
    async with SqliteLedger.open(tmp_path / "invoices.db", kind=INVOICES) as ledger:
        await ledger._worker.run(lambda desk: desk.connection.set_trace_callback(said.append))
        assert (await ledger.add_drafts(new)).added == 1_000
        assert (await ledger.add_drafts(new)).known == 1_000
        assert len(said) < 40
    async with SqliteLedger.open(tmp_path / "documents.db", kind=DOCUMENTS) as ledger:
        await ledger._worker.run(lambda desk: desk.connection.set_trace_callback(said.append))
        said.clear()
        assert (await ledger.add_ids(one.key for one in new)).added == 1_000
        assert len(said) < 40


# -- transitions -------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_the_life_of_an_invoice_is_recorded_and_journaled(tmp_path: Path) -> None:
    clock = FakeClock()
    async with SqliteLedger.open(tmp_path / "run.db", kind=INVOICES, clock=clock) as ledger:
        await ledger.add_drafts([draft("a")])
        clock.advance(1)
        assert await ledger.transition("a", Event.INTENT) is State.SENDING
        clock.advance(1)
        assert await ledger.transition("a", Event.REFUSED_FOR_NOW, code="SYS_DEP_503", error="down") is State.NOT_SENT
        clock.advance(1)
        await ledger.transition("a", Event.INTENT)
        await ledger.transition(1, Event.ACCEPTED_NEW, request_id="r-1", result='{"status":"NEW"}')
        await ledger.transition(1, Event.POLL_SUCCESS, invoice_id="i-1", result='{"status":"SUCCESS"}')
        clock.advance(1)
        await ledger.transition(1, Event.EXPORTED, path="a.pdf", size=0, sha256="ff")
        assert await ledger.get("a") == Item(
            1,
            "a",
            "success",
            attempt=2,
            request_id="r-1",
            invoice_id="i-1",
            path="a.pdf",
            size=0,
            sha256="ff",
            result='{"status":"SUCCESS"}',
            payload_sha256=draft("a").payload_sha256,
            sent_at=START + 3,
            updated=START + 4,
            payload=draft("a").payload,
        )
        assert [(entry.event, entry.at - START, dict(entry.detail)) for entry in await ledger.history("a")] == [
            (Event.INTENT, 1, {"attempt": 1}),
            (Event.REFUSED_FOR_NOW, 2, {"code": "SYS_DEP_503", "error": "down"}),
            (Event.INTENT, 3, {"attempt": 2}),
            (Event.ACCEPTED_NEW, 3, {"request_id": "r-1"}),
            (Event.POLL_SUCCESS, 3, {}),
            (Event.EXPORTED, 4, {"path": "a.pdf"}),
        ]
        assert await ledger.journal(after=5) == (await ledger.history(1))[5:]


@pytest.mark.asyncio
async def test_a_refused_event_changes_nothing(tmp_path: Path) -> None:
    async with SqliteLedger.open(tmp_path / "run.db", kind=INVOICES) as ledger:
        await ledger.add_drafts([draft("a")])
        await ledger.transition("a", Event.INTENT)
        before = await ledger.get("a")
        with pytest.raises(ValueError, match="'intent' is refused for an item that is 'sending'"):
            await ledger.transition("a", Event.INTENT)
        with pytest.raises(ValueError, match="request_id must be given with 'accepted_new'"):
            await ledger.transition("a", Event.ACCEPTED_NEW)
        with pytest.raises(ValueError, match="this run has no item 'b'"):
            await ledger.transition("b", Event.INTENT)
        with pytest.raises(ValueError, match="this run has no item 2"):
            await ledger.history(2)
        assert await ledger.get("a") == before
        assert len(await ledger.journal()) == 1


@pytest.mark.asyncio
async def test_many_changes_happen_together_or_not_at_all(tmp_path: Path) -> None:
    async with SqliteLedger.open(tmp_path / "run.db", kind=INVOICES) as ledger:
        await ledger.add_drafts([draft("a"), draft("b")])
        both = [Change(ref="a", event=Event.INTENT), Change(ref="b", event=Event.INTENT)]
        assert await ledger.transition_many(both) == [State.SENDING, State.SENDING]
        with pytest.raises(ValueError, match="refused"):
            await ledger.transition_many([Change(ref="a", event=Event.LOST), Change(ref="b", event=Event.POLL_NEW)])
        assert (await ledger.counts())["sending"] == 2
        assert len(await ledger.journal()) == 2


@pytest.mark.asyncio
async def test_a_change_knows_of_one_before_it_in_the_same_commit(tmp_path: Path) -> None:
    """Also with something else between them, and with what may be sent read before."""
    number = "0191d3a8-7c1e-7c55-8f5e-3d8f3c1a2b4d"
    async with SqliteLedger.open(tmp_path / "run.db", kind=INVOICES) as ledger:
        await ledger.add_drafts([draft("a")])
        [item] = await ledger.pending()
        groups: list[str] = []
        await ledger._worker.run(lambda desk: desk.connection.set_trace_callback(groups.append))
        told = await asyncio.gather(
            ledger.transition(item.seq, Event.INTENT),
            ledger.counts(),
            ledger.transition(item.seq, Event.ACCEPTED_NEW, request_id=number),
        )
        assert told[0] == State.SENDING
        assert told[1]["sending"] == 1
        assert told[2] == State.SUBMITTED
        assert not any("ROLLBACK" in sql for sql in groups)


@pytest.mark.asyncio
@pytest.mark.parametrize("count", [1, 17, 240, 250, 300])
async def test_a_group_of_any_size_is_counted_as_its_rows_stand(tmp_path: Path, count: int) -> None:
    """Also by one statement that is its own transaction, and by more than one."""
    async with SqliteLedger.open(tmp_path / "run.db", kind=INVOICES) as ledger:
        await ledger.add_drafts(draft(f"k{number}") for number in range(count))
        items = await ledger.pending()
        await asyncio.gather(*(ledger.transition(item.seq, Event.INTENT) for item in items))
        ends = [Event.LOST if item.seq % 3 else Event.REFUSED_FOR_NOW for item in items]
        await asyncio.gather(*(ledger.transition(item.seq, event) for item, event in zip(items, ends, strict=True)))
        rows = await ledger.rows()
        counted = Counter(row.state for row in rows)
        assert {state: many for state, many in (await ledger.counts()).items() if many} == counted
        assert counted == Counter(next_state(State.SENDING, event).value for event in ends)
        assert {row.attempt for row in rows} == {1}
        assert all(row.sent_at is not None for row in rows)
        assert len(await ledger.journal(limit=1_000)) == 2 * count


@pytest.mark.asyncio
async def test_the_journal_is_append_only(tmp_path: Path) -> None:
    async with SqliteLedger.open(tmp_path / "run.db", kind=INVOICES) as ledger:
        await ledger.add_drafts([draft("a")])
        await ledger.transition("a", Event.INTENT)
        for sql in ("DELETE FROM journal", "UPDATE journal SET event = 'lost'"):
            with pytest.raises(RunFileError, match="the journal is append-only"):
                await ledger._worker.run(partial(transaction.Transaction.one, sql=sql))
        assert len(await ledger.journal()) == 1


@pytest.mark.asyncio
async def test_reopening_puts_what_was_being_sent_in_doubt(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    async with SqliteLedger.open(path, kind=INVOICES) as ledger:
        assert ledger.recovered == 0
        await ledger.add_drafts([draft("a"), draft("b"), draft("c")])
        await ledger.transition("a", Event.INTENT)
        await ledger.transition("b", Event.INTENT)
        await ledger.transition("b", Event.ACCEPTED_NEW, request_id="r-2")
    async with SqliteLedger.open(path) as ledger:
        assert ledger.recovered == 1
        assert [item.state for item in await ledger.rows()] == ["in_doubt", "submitted", "planned"]
        assert [entry.event for entry in await ledger.history("a")] == [Event.INTENT, Event.CRASHED]
        assert [item.key for item in await ledger.pending()] == ["c"]
    async with SqliteLedger.open(path) as ledger:
        assert ledger.recovered == 0


def allowed(state: State) -> list[Event]:
    """Every event the table lets happen but reopening and correction, which happen elsewhere."""
    reserved = {Event.CRASHED, Event.CORRECTED}
    return [event for event in Event if event not in reserved and isinstance(TABLE[state, event], State)]


async def live(ledger: SqliteLedger, chance: Random, steps: int) -> AsyncIterator[dict[str, State]]:
    """Let allowed events happen to chosen items; give the states as they should be after each."""
    expected = {item.key: State(item.state) for item in await ledger.rows()}
    for _ in range(steps):
        key = chance.choice(sorted(expected))
        events = allowed(expected[key])
        if not events:
            continue
        event = chance.choice(events)
        request_id = f"r-{key}" if event in NEEDS_REQUEST_ID else None
        expected[key] = next_state(expected[key], event)
        assert await ledger.transition(key, event, request_id=request_id) is expected[key]
        yield dict(expected)


async def standing(ledger: SqliteReader) -> dict[str, State]:
    return {item.key: State(item.state) for item in await ledger.rows()}


async def replayed(ledger: SqliteReader) -> dict[str, State]:
    return {item.key: replay([entry.event for entry in await ledger.history(item.seq)]) for item in await ledger.rows()}


@settings(max_examples=15, deadline=None)
@given(st.integers(min_value=0, max_value=2**32), st.integers(min_value=1, max_value=40))
def test_the_journal_replayed_gives_every_row_s_state(
    tmp_path_factory: pytest.TempPathFactory, seed: int, steps: int
) -> None:
    path = tmp_path_factory.mktemp("replay") / "run.db"

    async def run() -> None:
        async with SqliteLedger.open(path, kind=INVOICES) as ledger:
            await ledger.add_drafts([draft("a"), draft("b"), draft("c")])
            async for expected in live(ledger, Random(seed), steps):
                last = expected
            assert await standing(ledger) == last == await replayed(ledger)
            counted = Counter(map(str, last.values()))
            assert {state: count for state, count in (await ledger.counts()).items() if count} == counted

    asyncio.run(run())


@settings(max_examples=4, deadline=None)
@given(st.integers(min_value=0, max_value=2**32))
def test_a_crash_after_every_prefix_of_the_journal_ends_in_the_same_place(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    """The files as they lie on disk after each commit, opened elsewhere: what was sending is in doubt, all else is."""
    folder = tmp_path_factory.mktemp("prefix")

    async def run() -> None:
        async with SqliteLedger.open(folder / "run.db", kind=INVOICES) as ledger:
            await ledger.add_drafts([draft("a"), draft("b")])
            number = 0
            async for expected in live(ledger, Random(seed), 12):
                number += 1
                image = folder / f"image-{number}"
                image.mkdir()
                for name in ("run.db", "run.db-wal"):
                    shutil.copy(folder / name, image / name)
                async with SqliteLedger.open(image / "run.db") as copy:
                    after = {key: next_state(state, Event.CRASHED) for key, state in expected.items()}
                    assert await standing(copy) == after == await replayed(copy)
                    assert copy.recovered == list(expected.values()).count(State.SENDING)

    asyncio.run(run())


# -- kill -9 -----------------------------------------------------------------------------------------------------

WRITE = """
import asyncio, sys
from invoicing_async._durable.records import NewDraft
from invoicing_async._durable.ledger import SqliteLedger
from invoicing_async._durable.states import Event, RunKind
async def main():
    async with SqliteLedger.open(sys.argv[1], kind=RunKind.INVOICES) as ledger:
        drafts = [NewDraft(key=f"k{n}", payload="{}", payload_sha256="h") for n in range(1, 3001)]
        await ledger.add_drafts(drafts)
        print("ready", flush=True)
        seqs = iter([item.seq for item in await ledger.pending(limit=3000)])
        async def work():
            for seq in seqs:
                await ledger.transition(seq, Event.INTENT)
                print("intent", seq, flush=True)
                await ledger.transition(seq, Event.ACCEPTED_NEW, request_id=f"r-{seq}")
                print("accepted", seq, flush=True)
        await asyncio.gather(*(work() for _ in range(20)))
asyncio.run(main())
"""


async def kill_and_check(path: Path, lines: int) -> None:
    """Kill the writer after so many acknowledgements; every one it printed must be there."""
    with python(WRITE, path) as writer:
        assert all(writer.line() for _ in range(lines))
        writer.kill()
        printed = writer.communicate()[0].decode().splitlines(keepends=True)
    told = [line.split() for line in printed if line.endswith("\n") and line != "ready\n"]
    async with SqliteLedger.open(path) as ledger:
        items = {item.seq: item for item in await ledger.rows(limit=3000)}
        assert len(items) == 3000
        for word, seq in told:
            item = items[int(seq)]
            assert item.state in ({"submitted"} if word == "accepted" else {"submitted", "in_doubt"})
            assert item.request_id == (f"r-{seq}" if item.state == "submitted" else None)
        assert not any(item.state == "sending" for item in items.values())
        counted = Counter(item.state for item in items.values())
        assert {state: count for state, count in (await ledger.counts()).items() if count} == counted
    assert names(path.parent) == ["run.db"]


@pytest.mark.asyncio
@pytest.mark.parametrize("lines", [1, 40, 700])
async def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path: Path, lines: int) -> None:
    await kill_and_check(tmp_path / "run.db", lines)


@pytest.mark.slow
@pytest.mark.asyncio
@pytest.mark.timeout(600)
async def test_kill_9_at_many_moments_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    chance = Random(4)
    rounds = 5 if os.environ.get("INVOICING_SHORT") else 60
    for number in range(rounds):
        folder = tmp_path / str(number)
        folder.mkdir()
        await kill_and_check(folder / "run.db", chance.randint(1, 4000))
