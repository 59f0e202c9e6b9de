"""What is looked at before a database is used, on real servers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from attrs import evolve
from pgbouncer import PgBouncer
from postgres_server import WAIVED, Database, Servers

from invoicing_async._durable.address import ServerAddress, run_address
from invoicing_async._durable.postgres.connection import (
    SCHEMA_VERSION,
    SchemaState,
    ServerSettings,
    connect,
    open_connection,
)
from invoicing_async._durable.postgres.ledger import PostgresLedger
from invoicing_async._durable.postgres.migrations import migrations
from invoicing_async._durable.postgres.reader import PostgresReader
from invoicing_async._durable.records import LedgerAwayError, LedgerSchemaError, LedgerServerError
from invoicing_async._durable.states import RunKind

pytestmark = pytest.mark.slow

SECRET = "s3cret-Pa55"


def address(database: Database, **changes: str) -> ServerAddress:
    found = run_address(database.address())
    assert isinstance(found, ServerAddress)
    return evolve(found, **changes)


GOOD = ServerSettings(
    number=140_000, version="14.0", encoding="UTF8", synchronous_commit="on", fsync="on", is_standby=False, backend=1
)


@pytest.mark.parametrize("synchronous", ["on", "local", "remote_write", "remote_apply"])
@pytest.mark.parametrize("number", [140_000, 150_018, 180_003, 200_000])
def test_a_server_that_keeps_what_it_answers_for_is_taken(number: int, synchronous: str) -> None:
    assert evolve(GOOD, number=number, synchronous_commit=synchronous).fault("") is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"number": 130_020, "version": "13.20"}, "it is PostgreSQL 13.20; runs need version 14 or later"),
        ({"encoding": "SQL_ASCII"}, "its encoding is SQL_ASCII; runs need a database whose encoding is UTF8"),
        ({"is_standby": True}, "it is a standby, which is behind and takes no records: name the primary"),
        ({"synchronous_commit": "off"}, "its synchronous_commit is off, so that it forgets what it has answered for"),
        ({"fsync": "off"}, "its fsync is off, so that it forgets what it has answered for"),
    ],
)
def test_a_server_that_may_forget_is_refused(changes: dict[str, Any], said: str) -> None:
    fault = evolve(GOOD, **changes).fault("other")
    assert fault is not None
    assert said in fault


def test_only_fsync_is_waived_and_only_by_its_name() -> None:
    off = evolve(GOOD, fsync="off")
    assert off.fault("fsync") is None
    assert off.fault("on") is not None
    assert evolve(off, synchronous_commit="off").fault("fsync") is not None


@pytest.mark.parametrize(
    ("state", "reads", "writes"),
    [
        (SchemaState(), False, False),
        (SchemaState(version=1, min_reader=1, min_writer=1, known=1), True, True),
        (SchemaState(version=1, min_reader=1, min_writer=1, known=2), False, False),  # this program needs its tables
        (SchemaState(version=3, min_reader=1, min_writer=1, known=1), True, True),  # only added to since
        (SchemaState(version=3, min_reader=1, min_writer=2, known=1), True, False),
        (SchemaState(version=3, min_reader=2, min_writer=2, known=1), False, False),
        (SchemaState(version=3, min_reader=2, min_writer=3, known=3), True, True),
    ],
)
def test_who_may_work_with_which_tables(state: SchemaState, *, reads: bool, writes: bool) -> None:
    assert (state.fault(to_write=False) is None) is reads
    assert (state.fault(to_write=True) is None) is writes


def test_the_version_is_the_number_of_the_last_migration() -> None:
    assert [*migrations()] == [*range(1, SCHEMA_VERSION + 1)]


@pytest.mark.asyncio
async def test_a_database_with_tables_is_opened_in_autocommit(postgres: Database) -> None:
    async with await open_connection(address(postgres), to_write=True) as connection:
        assert connection.autocommit
        assert connection.prepare_threshold is not None
        row = await (await connection.execute("SHOW application_name")).fetchone()
        assert row == ("invoicing-async",)
        row = await (await connection.execute("SHOW jit")).fetchone()
        assert row == ("off",)


@contextmanager
def as_tables(database: Database, what: str) -> Iterator[None]:
    database.psql(f"UPDATE invoicing.meta SET {what}")
    yield


@pytest.mark.asyncio
async def test_tables_of_a_later_program_are_read_and_not_written(postgres: Database) -> None:
    with as_tables(postgres, "version = 9, min_writer = 9"):
        await (await open_connection(address(postgres))).close()
        with pytest.raises(LedgerSchemaError, match="needs a program that knows tables of version 9, this one knows"):
            await open_connection(address(postgres), to_write=True)
    with as_tables(postgres, "min_reader = 9"), pytest.raises(LedgerSchemaError):
        await open_connection(address(postgres))


@pytest.mark.asyncio
async def test_a_database_without_tables_says_what_makes_them(postgres_server_database: Database) -> None:
    with pytest.raises(LedgerSchemaError, match="has no tables for runs yet") as caught:
        await open_connection(address(postgres_server_database))
    assert "ledger migrate" in caught.value.hint
    await (await connect(address(postgres_server_database))).close()


@pytest.fixture
def postgres_server_database(postgres: Database) -> Iterator[Database]:
    """An empty database."""
    database = postgres.server.database(migrated=False)
    yield database
    database.drop()


@pytest.mark.asyncio
async def test_a_database_that_is_not_there_is_wrong_and_a_server_that_is_not_may_come(postgres: Database) -> None:
    there = address(postgres)
    with pytest.raises(LedgerServerError, match="there is no such database") as caught:
        await open_connection(evolve(there, server=there.server.replace(postgres.name, "nothing")))
    assert not isinstance(caught.value, LedgerAwayError)
    with pytest.raises(LedgerAwayError):
        await open_connection(evolve(there, server="postgresql://127.0.0.1:1/db"))
    with pytest.raises(LedgerServerError, match="refuses the connection") as refused:
        await open_connection(evolve(there, server=there.server.replace("postgres@", "nobody@")))
    assert not isinstance(refused.value, LedgerAwayError)


@pytest.mark.asyncio
async def test_who_may_not_look_at_the_tables_is_told(postgres: Database) -> None:
    postgres.psql("CREATE ROLE guest LOGIN")
    try:
        there = address(postgres)
        with pytest.raises(LedgerServerError, match="this user may not do that") as caught:
            await open_connection(evolve(there, server=there.server.replace("postgres@", "guest@")))
        assert not isinstance(caught.value, LedgerAwayError | LedgerSchemaError)
    finally:
        postgres.psql("DROP ROLE guest")


@pytest.mark.asyncio
async def test_fsync_must_be_on_where_it_is_not_waived(postgres: Database) -> None:
    with pytest.raises(LedgerServerError, match="its fsync is off"):
        await open_connection(address(postgres), environ={})
    await (await open_connection(address(postgres), environ=WAIVED)).close()


@pytest.mark.asyncio
async def test_a_password_is_in_nothing_that_is_told(postgres: Database) -> None:
    """Whatever goes wrong: the text, the hint, the cause, and the connection itself when it is shown."""
    told: list[object] = []
    given = {"INVOICING_LEDGER": f"postgresql://postgres:{SECRET}@/{postgres.name}", **WAIVED}
    there = address(postgres)
    wrong = [
        evolve(there, server="postgresql:///db"),
        evolve(there, server=f"postgresql://127.0.0.1:1/{postgres.name}"),
        evolve(there, server=there.server.replace(postgres.name, "nothing")),
    ]
    for each in wrong:
        with pytest.raises(LedgerServerError) as caught:
            await open_connection(each, environ=given)
        told += [caught.value, caught.value.hint, caught.value.__cause__, str(caught.value.__cause__)]
    async with await open_connection(there, environ=given) as connection:
        told += [connection, connection.info.dsn]
    assert SECRET not in repr(told)


@pytest.mark.asyncio
async def test_behind_a_pooler_no_statement_is_prepared(postgres: Database, pgbouncer: PgBouncer) -> None:
    """And everything that is read, streamed and taken in goes through one in transaction mode."""
    found = run_address(pgbouncer.address(postgres))
    assert isinstance(found, ServerAddress)
    async with await open_connection(found, to_write=True) as connection:
        assert connection.prepare_threshold is None
    async with PostgresLedger.open(found, kind=RunKind.DOCUMENTS) as ledger, PostgresReader.read(found) as reader:
        await asyncio.gather(*(ledger.add_ids([f"{each}-{number}" for number in range(20)], batch=3) for each in "ab"))
        for _ in range(10):
            assert (await reader.counts())["planned"] == len(await ledger.rows()) == 40
        assert (await reader.figures()).total == (await reader.standing()).open == 40


@pytest.mark.asyncio
async def test_a_server_without_fsync_or_synchronous_commit_is_refused(postgres_servers: Servers) -> None:
    server = postgres_servers(fsync=True, settings={"synchronous_commit": "off"})
    database = server.database(migrated=False)
    with pytest.raises(LedgerServerError, match="its synchronous_commit is off"):
        await connect(address(database))
