"""The tables of the queue."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from postgres_server import Database

from invoicing_async.worker import check_queue, migrate_queue

pytestmark = pytest.mark.asyncio


async def test_they_are_brought_once(postgres: Database) -> None:
    """Two at once are safe, and a run need not be named."""
    assert await check_queue(postgres.address(None)) == ("the queue",)
    both = await asyncio.gather(migrate_queue(postgres.address(None)), migrate_queue(postgres.address()))
    assert sorted(both) == [(), ("the queue",)]
    assert await check_queue(postgres.address()) == ()
    assert await migrate_queue(postgres.address()) == ()


async def test_a_later_step_of_the_engine_is_done(
    postgres: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And one that takes away what living workers use is left until there is none."""
    from invoicing_async.worker import _migrations

    await migrate_queue(postgres.address())
    names = ["04.00.00_01_pre_more.sql", "04.00.00_50_post_less.sql"]
    for name in names:
        (tmp_path / name).write_text(f"CREATE TABLE t{name[9:11]} (x int); -- 100%")
    monkeypatch.setattr(_migrations, "_files", lambda: [tmp_path / name for name in names])
    await asyncio.to_thread(postgres.psql, "INSERT INTO invoicing_queue.procrastinate_workers DEFAULT VALUES")
    assert await check_queue(postgres.address()) == (names[0],)
    assert await migrate_queue(postgres.address()) == (names[0],)
    await asyncio.to_thread(postgres.psql, "DELETE FROM invoicing_queue.procrastinate_workers")
    assert await migrate_queue(postgres.address()) == (names[1],)
    assert await asyncio.to_thread(postgres.psql, "SELECT * FROM invoicing_queue.t50") == []


async def test_an_address_of_no_server_is_refused() -> None:
    with pytest.raises(ValueError, match="must be as in"):
        await migrate_queue("march.db")
