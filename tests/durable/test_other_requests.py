"""The requests beside an item's own, in a run file: also in one that was made before they were kept."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from ledgers import INVOICES, draft

from invoicing_async._durable.ledger import SqliteLedger, SqliteReader
from invoicing_async._durable.records import Change, SupersededError
from invoicing_async._durable.states import Event

pytestmark = pytest.mark.asyncio

TABLES = "SELECT count(*) FROM sqlite_master WHERE name = 'other_requests'"


async def sent_twice(ledger: SqliteLedger) -> None:
    for event in (Event.INTENT, Event.LOST, Event.RESOLVED_NOT_CREATED, Event.INTENT):
        await ledger.transition(1, event)
    await ledger.transition_many([Change(ref=1, event=Event.ACCEPTED_NEW, attempt=1, request_id="r-1")])
    await ledger.transition(1, Event.NOT_SENT)


async def test_a_file_of_before_is_read_as_it_is_and_gets_its_table_when_it_is_next_written(tmp_path: Path) -> None:
    file = tmp_path / "run.db"
    async with SqliteLedger.open(file, kind=INVOICES) as ledger:
        await ledger.add_drafts([draft("a")])
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("DROP TABLE other_requests")
    async with SqliteReader.read(file) as reader:
        assert await reader.twice() == []
        assert [item.other_request_id for item in await reader.rows()] == [None]
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute(TABLES).fetchone() == (0,)
    async with SqliteLedger.open(file) as ledger:
        await sent_twice(ledger)
    async with SqliteReader.read(file) as reader:
        assert [item.other_request_id for item in await reader.twice()] == ["r-1"]


async def test_what_could_not_be_written_down_is_known_all_the_same(tmp_path: Path) -> None:
    """As long as the file is open: the item is not sent again because a disk was full."""
    async with SqliteLedger.open(tmp_path / "run.db", kind=INVOICES) as ledger:
        await ledger.add_drafts([draft("a")])
        for event in (Event.INTENT, Event.LOST, Event.RESOLVED_NOT_CREATED, Event.INTENT):
            await ledger.transition(1, event)
        late = Change(ref=1, event=Event.ACCEPTED_NEW, attempt=1, request_id="r-1")
        with pytest.raises(ValueError, match="is refused"):
            await ledger.transition_many([late, Change(ref=1, event=Event.POLL_NEW)])
        assert await ledger.twice() == []
        await ledger.transition(1, Event.NOT_SENT)
        with pytest.raises(SupersededError):
            await ledger.transition(1, Event.INTENT)
