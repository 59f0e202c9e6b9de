"""The tables of runs come into a database once, whoever brings them, and by nobody who does not know them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from postgres_server import Database

from invoicing_async._durable.address import ServerAddress, run_address
from invoicing_async._durable.postgres import migrations as module
from invoicing_async._durable.postgres.connection import SCHEMA_VERSION, connect
from invoicing_async._durable.postgres.migrations import check, migrate, migrations
from invoicing_async._durable.records import LedgerAwayError, LedgerSchemaError, LedgerServerError


@pytest.fixture
def empty(postgres: Database) -> Iterator[Database]:
    """A database without tables."""
    database = postgres.server.database(migrated=False)
    yield database
    database.drop()


def address(database: Database) -> ServerAddress:
    found = run_address(database.address())
    assert isinstance(found, ServerAddress)
    return found


@pytest.mark.asyncio
async def test_two_at_once_bring_the_tables_once(empty: Database) -> None:
    before = await check(address(empty))
    assert (before.version, before.fault(to_write=True)) == (0, "has no tables for runs yet")
    done = await asyncio.gather(*(migrate(address(empty)) for _ in range(4)))
    assert sorted(done) == [(), (), (), tuple(range(1, SCHEMA_VERSION + 1))]
    after = await check(address(empty))
    assert (after.version, after.fault(to_write=True)) == (SCHEMA_VERSION, None)
    assert await migrate(address(empty)) == ()


@pytest.mark.asyncio
async def test_a_migration_that_fails_leaves_nothing(empty: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = {1: f"{migrations()[1]}; SELECT 1/0"}
    monkeypatch.setattr(module, "migrations", lambda: broken)
    with pytest.raises(LedgerServerError, match="division by zero"):
        await migrate(address(empty))
    assert empty.psql("SELECT to_regclass('invoicing.meta')") == [(None,)]


@pytest.mark.asyncio
async def test_only_what_is_missing_is_done(postgres: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        module,
        "migrations",
        lambda: {
            1: "SELECT 1/0",
            2: "CREATE TABLE invoicing.more (); UPDATE invoicing.meta SET version = 2",
        },
    )
    assert await migrate(address(postgres)) == (2,)
    assert await migrate(address(postgres)) == ()


@pytest.mark.asyncio
async def test_tables_that_this_program_does_not_know_are_left_alone(postgres: Database) -> None:
    postgres.psql("UPDATE invoicing.meta SET version = 9, min_writer = 8")
    with pytest.raises(LedgerSchemaError, match="needs a program that knows tables of version 8"):
        await migrate(address(postgres))
    postgres.psql("UPDATE invoicing.meta SET min_writer = 1")
    assert await migrate(address(postgres)) == ()


@pytest.mark.asyncio
async def test_a_table_in_use_ends_a_migration_soon_and_it_may_be_tried_again(
    postgres: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever would wait for a table has everybody else wait behind it."""
    monkeypatch.setattr(module, "PATIENCE", "50ms")
    more = "ALTER TABLE invoicing.runs ADD COLUMN more text; UPDATE invoicing.meta SET version = 2"
    monkeypatch.setattr(module, "migrations", lambda: {2: more})
    async with await connect(address(postgres)) as other:
        async with other.transaction():
            await other.execute("SELECT FROM invoicing.runs")
            with pytest.raises(LedgerAwayError, match="a migration, or somebody else's lock, is under way"):
                await migrate(address(postgres))
        assert await migrate(address(postgres)) == (2,)
