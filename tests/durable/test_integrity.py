"""A run is its database, whatever it is called: with its log, undamaged, as it was left; or it is refused."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from random import Random

import pytest
from fakes import FakeClock
from forked import python
from killed_runs import KILLED, REQUEST, accepted, begun, content, draft, opened, shown
from places import SUPPORT

from invoicing_async._durable import integrity
from invoicing_async._durable.states import Event
from invoicing_async.runs import (
    DamagedRunError,
    InvoiceRun,
    RequestIdTakenError,
    RunChangedError,
    RunFileError,
    RunLockedError,
    SqliteReader,
)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the file, log and index of a run that was killed while it sent."""
    folder = tmp_path_factory.mktemp("original")
    with python(KILLED, folder / "run.db", SUPPORT) as killed:
        assert killed.wait(30) == 9
    return folder


@pytest.fixture
def killed(original: Path, tmp_path: Path) -> Path:
    """The file of a run that was killed while it sent: ten are accepted, ten on their way, twenty planned."""
    return Path(shutil.copytree(original, tmp_path, dirs_exist_ok=True)) / "run.db"


@pytest.fixture
def closed(killed: Path) -> Path:
    """The same, opened and left in order."""
    asyncio.run(opened(killed))
    assert sorted(path.name for path in killed.parent.iterdir()) == ["run.db"]
    return killed


def test_a_file_with_its_log_goes_on(killed: Path) -> None:
    """What was on its way is in doubt; a look at it before leaves the log where it is."""
    assert {item.state for item in asyncio.run(shown(killed)).values()} == {"submitted", "sending", "planned"}
    assert integrity.has_log(killed)
    assert asyncio.run(opened(killed)) == {"submitted": 10, "in_doubt": 10, "planned": 20}


def test_a_file_without_its_log_is_refused_and_left_as_it_is(killed: Path) -> None:
    """It has forgotten what was sent: neither a run nor a look takes it for the truth."""
    log = killed.with_name("run.db-wal")
    kept = log.read_bytes()
    for lose in (log.unlink, lambda: log.write_bytes(b"")):
        lose()
        killed.with_name("run.db-shm").unlink(missing_ok=True)
        before = content(killed.parent)
        for look in (opened, shown):
            with pytest.raises(DamagedRunError, match=r"its write-ahead log run.db-wal is not there"):
                asyncio.run(look(killed))
        assert content(killed.parent) == before
    log.write_bytes(kept)
    assert asyncio.run(opened(killed)) == {"submitted": 10, "in_doubt": 10, "planned": 20}


def test_a_lost_log_can_be_accepted_and_puts_all_that_may_have_been_sent_in_doubt(killed: Path) -> None:
    killed.with_name("run.db-wal").unlink()
    counts = asyncio.run(opened(killed, accept_lost_log=True))
    assert counts == {"in_doubt": 40}
    assert asyncio.run(opened(killed)) == counts


def test_a_file_that_was_moved_while_at_work_is_held_and_then_lacks_its_log(tmp_path: Path) -> None:
    file, moved, link = (tmp_path / name for name in ("run.db", "moved.db", "link.db"))

    async def work() -> None:
        async with InvoiceRun.open(file) as run:
            await run.add(map(draft, range(4)))
            await begun(run, 0)
            file.with_name("run.db.lock").unlink()
            os.link(file, link)
            file.rename(moved)
            for name in (moved, link):
                with pytest.raises(RunLockedError):
                    await opened(name)
            await accepted(run, 0)

    asyncio.run(work())
    assert asyncio.run(opened(moved)) == {"submitted": 1, "planned": 3}


def test_of_two_that_make_a_file_at_once_one_has_it(tmp_path: Path) -> None:
    """The other finds it held; neither's file replaces the other's."""
    code = (
        "import asyncio, sys\n"
        "from invoicing_async.runs import InvoiceRun, RunLockedError\n"
        "async def main():\n"
        "    async with InvoiceRun.open(sys.argv[1]) as run:\n"
        "        print('held', flush=True)\n"
        "        sys.stdin.read()\n"
        "try:\n"
        "    asyncio.run(main())\n"
        "except RunLockedError:\n"
        "    print('refused', flush=True)\n"
    )
    with ExitStack() as stack:
        all_four = [stack.enter_context(python(code, tmp_path / "run.db")) for _ in range(4)]
        said = [process.line().strip() for process in all_four]
        for process in all_four:
            process.communicate()
    assert sorted(said) == ["held", "refused", "refused", "refused"]
    assert [path.name for path in tmp_path.iterdir()] == ["run.db"]


@pytest.mark.asyncio
async def test_a_transition_that_meets_another_state_than_it_believes_stops_the_run(tmp_path: Path) -> None:
    """Whoever changed it: the intent is not recorded, so nothing is sent."""
    file = tmp_path / "run.db"
    async with InvoiceRun.open(file) as run:
        await run.add(map(draft, range(3)))
        await run.ledger.pending()
        other = sqlite3.connect(file, isolation_level=None)
        other.execute("UPDATE items SET state = 'submitted', attempt = 1 WHERE key = 'K-0'")
        other.execute("UPDATE tally SET count = count - 1 WHERE state = 'planned'")
        other.execute("UPDATE tally SET count = count + 1 WHERE state = 'submitted'")
        other.close()
        with pytest.raises(RunChangedError, match="does not stand where this process left it"):
            await run.ledger.transition(1, Event.INTENT)
        with pytest.raises(ValueError, match="the service has it"):
            await run.ledger.transition(1, Event.INTENT)
        await begun(run, 1)
    assert (await shown(file))["K-0"].state == "submitted"


@pytest.mark.asyncio
async def test_a_request_is_one_items_only(tmp_path: Path) -> None:
    """One request makes one invoice: a second item that is given its id is refused it, also in the same commit."""
    async with InvoiceRun.open(tmp_path / "run.db") as run:
        await run.add(map(draft, range(4)))
        await begun(run, *range(4))
        await accepted(run, 0)
        with pytest.raises(RequestIdTakenError, match="'K-0'") as caught:
            await run.ledger.transition("K-1", Event.ACCEPTED_NEW, request_id=REQUEST.format(0))
        assert caught.value.key == "K-0"
        both = await asyncio.gather(
            *(run.ledger.transition(f"K-{n}", Event.ACCEPTED_NEW, request_id=REQUEST.format(9)) for n in (2, 3)),
            return_exceptions=True,
        )
        assert [type(one) for one in both].count(RequestIdTakenError) == 1
        assert (await run.ledger.counts())["sending"] == 2


@pytest.mark.asyncio
async def test_a_file_in_which_two_items_have_one_request_takes_no_third(tmp_path: Path) -> None:
    """Such a file of an earlier version keeps both; its index refuses nothing, so that each id is looked up."""
    file = tmp_path / "run.db"
    async with InvoiceRun.open(file) as run:
        await run.add(map(draft, range(4)))
        await begun(run, *range(3))
        await accepted(run, 0)
    told("DROP INDEX items_request", f"UPDATE items SET request_id = '{REQUEST.format(0)}' WHERE key = 'K-1'")(file)
    async with InvoiceRun.open(file) as run:
        await begun(run, 3)
        with pytest.raises(RequestIdTakenError, match=r"'K-[01]'"):
            await run.ledger.transition(4, Event.ACCEPTED_NEW, request_id=REQUEST.format(0).upper())
        assert await run.ledger.transition(4, Event.ACCEPTED_NEW, request_id=REQUEST.format(4)) == "submitted"


def at(offset: int, junk: bytes) -> Callable[[Path], object]:
    def write(file: Path) -> None:
        with file.open("r+b") as opened:
            opened.seek(offset)
            opened.write(junk)

    return write


def told(*statements: str) -> Callable[[Path], object]:
    def tell(file: Path) -> None:
        connection = sqlite3.connect(file, isolation_level=None)
        for statement in statements:
            connection.execute(statement)
        connection.close()

    return tell


def foreign(file: Path) -> None:
    file.unlink()
    told("CREATE TABLE t (x)", "PRAGMA application_id = 1231975985", "PRAGMA user_version = 1")(file)


JUNK = Random(1).randbytes(4096)
DAMAGES: dict[str, Callable[[Path], object]] = {
    "nothing in it": lambda file: file.write_bytes(b""),
    "half of it": lambda file: os.truncate(file, file.stat().st_size // 2),
    "all but a hundred bytes": lambda file: os.truncate(file, file.stat().st_size - 100),
    "its header": at(0, JUNK[:100]),
    "its first page": at(100, JUNK[:500]),
    "its second page": at(4096, JUNK),
    "its fourth page": at(3 * 4096, JUNK),
    "another program's": foreign,
    "a table less": told("DROP TABLE journal"),
    "an index less": told("DROP INDEX items_key"),
    "a column less": told("ALTER TABLE items DROP COLUMN error"),
    "a state that is none": told("UPDATE items SET state = 'sent' WHERE seq = 3"),
    "a count of a state that is none": told("UPDATE tally SET state = 'gailed' WHERE state = 'failed'"),
    "other counts": told("UPDATE tally SET count = 7 WHERE state = 'planned'"),
    "an item that nobody counted": told("DELETE FROM items WHERE seq = 4"),
    "a draft less": told("DELETE FROM drafts WHERE seq = 4"),
    "no kind": told("DELETE FROM meta WHERE name = 'kind'"),
    "settings that are none": told("UPDATE meta SET value = '{' WHERE name = 'settings'"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_file_is_refused_whatever_it_is_asked_for(closed: Path, name: str) -> None:
    """By a run and by a look at it, with a clear word, and without a byte changed."""
    DAMAGES[name](closed)
    before = content(closed.parent)
    for look in (opened, shown):
        with pytest.raises(RunFileError) as caught:
            asyncio.run(look(closed))
        assert "another file" not in caught.value.hint or "sent again" in caught.value.hint
    assert content(closed.parent) == before


@pytest.mark.parametrize("seed", range(60))
def test_flipped_bits_are_noticed_or_change_nothing_that_a_run_goes_by(closed: Path, seed: int) -> None:
    """Key, state and request id of every item are as they were, or the file is refused."""
    random = Random(seed)
    known = {key: (item.state, item.request_id) for key, item in asyncio.run(shown(closed)).items()}
    damaged = bytearray(closed.read_bytes())
    for _ in range(random.choice((1, 1, 5))):
        damaged[random.randrange(len(damaged))] ^= 1 << random.randrange(8)
    copy = closed.with_name("copy.db")
    copy.write_bytes(damaged)
    try:
        found = {key: (item.state, item.request_id) for key, item in asyncio.run(shown(copy)).items()}
        asyncio.run(opened(copy))
    except (RunFileError, OSError):
        return
    assert found == known


def test_a_large_file_is_checked_after_an_unclean_end_only(killed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking at all of a hundred million rows each time would be a price for nothing."""
    monkeypatch.setattr(integrity, "SMALL", 0)
    wrong = told("UPDATE tally SET count = 7 WHERE state = 'planned'")
    shutil.copy(killed, killed.with_name("copy.db"))
    shutil.copy(killed.with_name("run.db-wal"), killed.with_name("copy.db-wal"))
    connection = sqlite3.connect(f"file:{killed.with_name('copy.db')}?mode=rw", uri=True, isolation_level=None)
    guard = sqlite3.connect(f"file:{killed.with_name('copy.db')}?mode=ro", uri=True, isolation_level=None)
    connection.execute("UPDATE tally SET count = 7 WHERE state = 'planned'")
    guard.execute("SELECT 1 FROM meta").fetchone()
    connection.close()
    guard.close()
    with pytest.raises(DamagedRunError, match="its counts are not those of its items"):
        asyncio.run(opened(killed.with_name("copy.db")))
    asyncio.run(opened(killed))
    wrong(killed)
    asyncio.run(opened(killed))


@pytest.mark.asyncio
async def test_a_reader_that_outlives_a_killed_writer_leaves_its_log(tmp_path: Path) -> None:
    """It opened a file in order; the last connection to be closed must not take the log away."""
    file = tmp_path / "run.db"
    async with InvoiceRun.open(file, clock=FakeClock()) as run:
        await run.add(map(draft, range(40)))
    async with SqliteReader.read(file) as reader:
        await reader.rows()
        with python(KILLED, file, SUPPORT) as killed:
            assert await asyncio.to_thread(killed.wait, 30) == 9
        await reader.rows()
    assert integrity.has_log(file)
    assert (await opened(file))["submitted"] == 10
