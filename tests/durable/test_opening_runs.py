"""Which file is opened as a run, by whom, and how what is refused is told."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from forked import python
from ledgers import DOCUMENTS, INVOICES, documents, names

from invoicing_async._durable import database
from invoicing_async._durable.ledger import SqliteLedger, SqliteReader
from invoicing_async._durable.records import (
    DamagedRunError,
    RunFileError,
    RunLockedError,
)

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
    alter(path, "PRAGMA user_version = 3")
    assert await refusal(path, kind=DOCUMENTS) == "has format version 3; this library knows version 1"


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
async def test_a_run_of_another_kind_is_refused_and_left_as_one_file(tmp_path: Path) -> None:
    async with SqliteLedger.open(tmp_path / "run.db", kind=DOCUMENTS):
        pass
    with pytest.raises(RunFileError):
        async with SqliteLedger.open(tmp_path / "run.db", kind=INVOICES):
            pass
    assert names(tmp_path) == ["run.db"]


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


@pytest.mark.asyncio
async def test_a_reader_can_change_nothing_and_leaves_one_file(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    async with SqliteLedger.open(path, kind=DOCUMENTS) as ledger:
        await documents(ledger, 3)
        async with SqliteReader.read(path) as reader:
            with pytest.raises(OSError, match="readonly"):
                await reader._worker.run(lambda desk: desk.execute("DELETE FROM items"))
    assert names(tmp_path) == ["run.db"]


@pytest.mark.parametrize(
    ("writable", "log", "mode"), [(True, True, "mode=ro"), (False, True, "mode=ro"), (False, False, "immutable=1")]
)
def test_a_reader_asks_for_no_more_than_it_may(writable: bool, log: bool, mode: str) -> None:  # noqa: FBT001 - a table
    assert database._reading_mode(writable=writable, log=log) == mode
