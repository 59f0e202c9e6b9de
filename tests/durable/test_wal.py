"""A log that lost a part of itself is noticed before anything is sent, and a log as a kill leaves it never is."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from fakes import FakeClock
from forked import python
from killed_runs import KILLED, begun, content, draft, opened, shown
from places import SUPPORT

from invoicing_async._durable import wal
from invoicing_async._durable.states import Event
from invoicing_async.errors import ResolutionTooEarlyError
from invoicing_async.models import InvoiceDraft
from invoicing_async.runs import DamagedRunError, InvoiceRun, Item, RequestIdTakenError, SqliteReader

FRAME = 24 + 4096
INTACT = {"submitted": 10, "in_doubt": 10, "planned": 20}
REQUEST = "5a1e0000-0000-4000-8000-{:012x}"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the file, log and index of a run that was killed while it sent."""
    folder = tmp_path_factory.mktemp("original")
    with python(KILLED, folder / "run.db", SUPPORT) as killed:
        assert killed.wait(30) == 9
    assert {path.name for path in folder.iterdir()} >= {"run.db", "run.db-wal", "run.db-shm"}
    return folder


@pytest.fixture
def killed(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "run")) / "run.db"


def logged(file: Path) -> bytes:
    return wal.log_of(file).read_bytes()


def without_index(file: Path) -> None:
    file.with_name("run.db-shm").unlink()


def with_a_new_index(file: Path) -> None:
    """Another program looked at the file, and has read what it could of the log."""
    without_index(file)
    connection = sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)
    connection.execute("SELECT count(*) FROM meta").fetchone()
    kept = {suffix: file.with_name(file.name + suffix).read_bytes() for suffix in ("-wal", "-shm")}
    connection.close()
    for suffix, stands in kept.items():
        file.with_name(file.name + suffix).write_bytes(stands)


def mark_in_use(file: Path) -> None:
    """Leave a file as one that was in use and has no log."""
    with sqlite3.connect(file) as connection:
        connection.execute("INSERT INTO meta VALUES ('log', 'x')")
    connection.close()


@pytest.mark.parametrize("beside", [None, without_index, with_a_new_index])
def test_a_whole_log_is_gone_by(killed: Path, beside: Callable[[Path], None] | None) -> None:
    if beside is not None:
        beside(killed)
    assert {item.state for item in asyncio.run(shown(killed)).values()} == {"submitted", "sending", "planned"}
    assert asyncio.run(opened(killed)) == INTACT


@pytest.mark.parametrize("beside", [None, without_index, with_a_new_index])
@pytest.mark.parametrize("seed", range(25))
def test_a_flipped_bit_in_a_log_is_noticed(killed: Path, seed: int, beside: Callable[[Path], None] | None) -> None:
    """Wherever it is; without the index of before all but the last frame, which may have been under way."""
    random, log = Random(seed), bytearray(logged(killed))
    places = len(log) if beside is None else len(log) - FRAME
    log[random.randrange(32 if seed < 5 else places)] ^= 1 << random.randrange(8)
    wal.log_of(killed).write_bytes(log)
    if beside is not None:
        beside(killed)
    before = content(killed.parent)
    for look in (opened, shown):
        with pytest.raises(DamagedRunError, match=r"the write-ahead log run.db-wal of .* is damaged"):
            asyncio.run(look(killed))
    assert content(killed.parent) == before


@pytest.mark.parametrize("kept", [1, 31, 32, 33, 32 + FRAME, 32 + 30 * FRAME, 32 + 30 * FRAME + 700, -FRAME, -1])
def test_a_log_that_was_cut_off_is_noticed(killed: Path, kept: int) -> None:
    wal.log_of(killed).write_bytes(logged(killed)[:kept])
    with pytest.raises(DamagedRunError, match="is damaged"):
        asyncio.run(opened(killed))


@pytest.mark.parametrize("other", [b"x" * 40_000, bytes(40_000)])
def test_something_else_in_the_place_of_a_log_is_noticed(killed: Path, other: bytes) -> None:
    without_index(killed)
    wal.log_of(killed).write_bytes(other)
    with pytest.raises(DamagedRunError, match="its head is damaged"):
        asyncio.run(opened(killed))


def test_a_transaction_that_was_under_way_is_no_damage(killed: Path) -> None:
    """A kill between two writes leaves the beginning of a frame that nobody was answered for."""
    log = logged(killed)
    torn = log + log[-FRAME : -FRAME + 24] + bytes(4096)
    wal.log_of(killed).write_bytes(torn)
    assert wal.log_fault(killed, expected=True) is None
    assert asyncio.run(opened(killed)) == INTACT


def test_a_damaged_log_can_be_accepted_and_puts_all_that_may_have_been_sent_in_doubt(killed: Path) -> None:
    log = bytearray(logged(killed))
    log[len(log) // 2] ^= 1
    wal.log_of(killed).write_bytes(log)
    counts = asyncio.run(opened(killed, accept_lost_log=True))
    assert counts["in_doubt"] + counts.get("submitted", 0) == 40
    assert asyncio.run(opened(killed)) == counts


BUSY = """
import asyncio, sys
sys.path.append(sys.argv[2])
from killed_runs import draft
from invoicing_async._durable.records import Change
from invoicing_async._durable.states import Event
from invoicing_async.runs import InvoiceRun

async def main():
    async with InvoiceRun.open(sys.argv[1]) as run:
        await run.add(map(draft, range(2000)))
        print("begun", flush=True)
        async def one(seq):
            for _ in range(1000):
                await run.ledger.transition_many([Change(ref=seq, event=Event.INTENT)])
                await run.ledger.transition_many([Change(ref=seq, event=Event.NOT_SENT)])
        await asyncio.gather(*(one(seq) for seq in range(1, 1000)))

asyncio.run(main())
"""


@pytest.mark.process
def test_what_a_kill_leaves_is_never_taken_for_damage(tmp_path: Path) -> None:
    """Killed at any moment, with checkpoints among them and readers beside it, a run goes on."""
    random = Random(8)
    for _ in range(6):
        with python(BUSY, tmp_path / "run.db", SUPPORT) as process:
            assert process.line() == "begun\n"
            until = time.monotonic() + random.random() * 1.5
            while time.monotonic() < until:
                assert len(asyncio.run(shown(tmp_path / "run.db"))) == 1000  # a page of them
            process.kill()
        assert sum(asyncio.run(opened(tmp_path / "run.db")).values()) == 2000


@pytest.mark.asyncio
async def test_what_a_lost_log_leaves_in_doubt_may_have_left_just_now(killed: Path) -> None:
    """Not even what looked planned, or was in doubt long before, is settled while anything can still arrive."""
    clock = FakeClock()
    async with InvoiceRun.open(killed, clock=clock):
        pass  # ten are in doubt from here on
    clock.advance(3600)
    await asyncio.to_thread(mark_in_use, killed)
    async with InvoiceRun.open(killed, accept_lost_log=True, clock=clock) as run:
        assert (await run.ledger.counts())["in_doubt"] == 30
        for key in ("K-15", "K-39"):
            with pytest.raises(ResolutionTooEarlyError):
                await run.resolve(key, created=False)
        clock.advance(3600)
        for key in ("K-15", "K-39"):
            assert (await run.resolve(key, created=False)).state == "not_sent"


@pytest.mark.asyncio
async def test_a_clock_that_was_set_back_does_not_keep_a_doubt_for_ever(tmp_path: Path) -> None:
    """A submission left before its loss was recorded, even if by the clock it left later."""
    clock = FakeClock()
    async with InvoiceRun.open(tmp_path / "run.db", clock=clock) as run:
        await run.add([draft(1)])
        clock.advance(1_000_000)
        await begun(run, 1)
        clock.elapsed -= 999_000
        await run.ledger.transition("K-1", Event.LOST)
        assert 0 < await run.remaining("K-1") < 1000
        with pytest.raises(ResolutionTooEarlyError):
            await run.resolve("K-1", created=False)


@pytest.mark.asyncio
async def test_a_request_id_is_the_same_in_capitals(tmp_path: Path) -> None:
    async with InvoiceRun.open(tmp_path / "run.db", clock=FakeClock()) as run:
        await run.add(map(draft, range(3)))
        await begun(run, 0, 1, 2)
        await run.ledger.transition("K-0", Event.ACCEPTED_NEW, request_id=REQUEST.format(10).upper())
        with pytest.raises(RequestIdTakenError, match="'K-0'"):
            await run.ledger.transition("K-1", Event.ACCEPTED_NEW, request_id=REQUEST.format(10))
        await run.ledger.transition("K-2", Event.LOST)
        with pytest.raises(RequestIdTakenError, match="'K-0'"):
            await run.resolve("K-2", created=True, request_id=REQUEST.format(10))


@pytest.mark.asyncio
@pytest.mark.parametrize("payload", ["{", "no JSON", '{"key":"K-1"}'])
async def test_a_draft_that_is_not_what_was_sent_is_not_looked_up(tmp_path: Path, payload: str) -> None:
    """What a program said of it would be said of another invoice; the other items are asked about."""
    file = tmp_path / "run.db"
    async with InvoiceRun.open(file) as run:
        await run.add(map(draft, range(3)))
        await begun(run, 0, 1, 2)
        for number in range(3):
            await run.ledger.transition(f"K-{number}", Event.LOST)
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE drafts SET payload = ? WHERE seq = 2", (payload,))
    connection.close()
    asked = []

    async def look_up(draft: InvoiceDraft, item: Item) -> str:
        asked.append(draft.key)
        return REQUEST.format(item.seq)

    async with InvoiceRun.open(file) as run:
        items = {item.key: item async for item in run.reconcile(look_up)}
    assert asked == ["K-0", "K-2"]
    assert [items[key].state for key in ("K-0", "K-1", "K-2")] == ["submitted", "in_doubt", "submitted"]
    assert "does not hold what was sent" in str(items["K-1"].error)


@pytest.mark.asyncio
async def test_a_bad_letter_in_one_item_does_not_hide_the_others(tmp_path: Path) -> None:
    """Words are shown as far as they can be read; a draft is stopped, as any that is not what was taken in."""
    file = tmp_path / "run.db"
    async with InvoiceRun.open(file) as run:
        await run.add(map(draft, range(3)))
        await begun(run, 0)
        await run.ledger.transition("K-0", Event.LOST, error="no answer")
    connection = sqlite3.connect(file, isolation_level=None)
    connection.execute("UPDATE items SET error = CAST(X'6EC3' AS TEXT) WHERE seq = 1")
    connection.execute("UPDATE drafts SET payload = CAST(X'7BC3' AS TEXT) WHERE seq = 2")
    connection.close()
    async with InvoiceRun.open(file) as run:
        assert [item.key for item in await run.ledger.pending()] == ["K-1", "K-2"]
    items = await asyncio.to_thread(lambda: asyncio.run(shown(file)))
    assert items["K-0"].error == "n\N{REPLACEMENT CHARACTER}"


@pytest.mark.asyncio
@pytest.mark.parametrize(("column", "value"), [("event", "inten4"), ("detail", '{"attempt":'), ("detail", "\x00")])
async def test_a_damaged_entry_of_the_journal_is_said_to_be_one(tmp_path: Path, column: str, value: str) -> None:
    file = tmp_path / "run.db"
    async with InvoiceRun.open(file) as run:
        await run.add(map(draft, range(2)))
        await begun(run, 0, 1)
    with sqlite3.connect(file) as connection:
        connection.execute("DROP TRIGGER journal_fixed")
        connection.execute(f"UPDATE journal SET {column} = ? WHERE seq = 2", (value,))
        connection.execute(
            "CREATE TRIGGER journal_fixed BEFORE UPDATE ON journal "
            "BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END"
        )
    connection.close()
    async with SqliteReader.read(file) as reader:
        for read in (reader.journal(), reader.history("K-1")):
            with pytest.raises(DamagedRunError, match="entry 2 of the journal of item 2 is damaged"):
                await read
