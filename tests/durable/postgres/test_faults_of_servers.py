"""A run goes on through whatever happens to the database: nothing lost, nothing twice, nothing in doubt.

The worker lives all the while; what happens to workers is in `test_faults_of_workers`.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path

import psycopg
import pytest
from ledger_faults import all_made_once, eventually, remembering, states, working
from postgres_server import Database, PostgresServer, Servers

from invoicing_async._durable.postgres import recorder
from invoicing_async._durable.records import RunHaltedError
from invoicing_async.policies import Timeouts

pytestmark = [pytest.mark.slow, pytest.mark.asyncio]

DRAFTS = 300


@pytest.fixture
def server(postgres_servers: Servers) -> PostgresServer:
    """One that keeps what it answered for, as a real one."""
    return postgres_servers(fsync=True)


@pytest.fixture
def database(server: PostgresServer) -> Database:
    return server.database()


async def test_a_database_that_is_restarted_at_once_costs_nothing(
    server: PostgresServer, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """Three times while invoices are on their way: none lost, none twice, none in doubt."""
    async with remembering() as service, working(database.address(), service, drafts=DRAFTS) as work:
        task = asyncio.create_task(work.to_the_end())
        for part in (1, 2, 3):
            await service.until_made(DRAFTS * part // 4)
            await asyncio.to_thread(server.restart, "immediate")
        await task
        await all_made_once(work, service, DRAFTS)
    told = [record.message for record in caplog.records if "waits until it is back" in record.message]
    assert told


async def test_nothing_is_sent_while_the_database_is_away(server: PostgresServer, database: Database) -> None:
    """Only what had its intent recorded; and it goes on by itself, also after longer than every time-out."""
    async with remembering() as service, working(database.address(), service, drafts=DRAFTS) as work:
        task = asyncio.create_task(work.to_the_end())
        await service.until_made(DRAFTS // 3)
        await asyncio.to_thread(server.stop, "immediate")
        await asyncio.sleep(0.3)
        before = len(service.made)
        await asyncio.sleep(4.5)
        assert len(service.made) == before
        assert not task.done()
        await asyncio.to_thread(server.start)
        await task
        await all_made_once(work, service, DRAFTS)


async def test_an_intent_that_took_too_long_is_not_sent_on(server: PostgresServer, database: Database) -> None:
    """A database that stands still for longer than an intent is fresh, and then records it."""
    timeouts = Timeouts(connect=2.0, read=2.0, attempt=3.0, intent=0.3)
    async with remembering() as service, working(database.address(), service, drafts=DRAFTS, timeouts=timeouts) as work:
        task = asyncio.create_task(work.to_the_end())
        await service.until_made(DRAFTS // 3)
        with server.paused():
            await asyncio.sleep(0.2)
            before = len(service.made)
            await asyncio.sleep(1.0)
            assert len(service.made) == before
        await task
        await all_made_once(work, service, DRAFTS)
        # What was recorded then was recorded anew for being sent; on a busy machine so was what was too slow by itself.
        assert [item.attempt async for item in work.ledger.items() if item.attempt > 1]


async def test_a_run_whose_database_came_back_older_halts(server: PostgresServer, database: Database) -> None:
    """Nobody sends until a person has said since when records are missing; nothing is made twice even then."""
    async with remembering() as service, working(database.address(), service, drafts=DRAFTS) as work:
        task = asyncio.create_task(work.to_the_end())
        await service.until_made(DRAFTS // 4)
        since, copy = time.time(), await asyncio.to_thread(server.copied)
        await service.until_made(DRAFTS // 2)
        await asyncio.to_thread(server.restore, copy)
        with pytest.raises(RunHaltedError):
            await task
        before = len(service.made)
        assert before < DRAFTS
        assert (await work.ledger.beat()).halted
        async with working(database.address(), service) as other:
            with pytest.raises(RunHaltedError):
                await other.to_the_end()
        assert len(service.made) == before
        doubts = await work.ledger.unhalt(since)
        await work.to_the_end()
        assert service.twice == []
        reached = {item.key for item in await work.ledger.rows() if item.state in {"in_doubt", "success"}}
        assert {key for key, _ in service.made} <= reached
        assert 0 < doubts <= (await states(work.ledger))["in_doubt"]


# -- what is told, waited for, and over by itself --------------------------------------------------------------------


@asynccontextmanager
async def going_on(
    database: Database, caplog: pytest.LogCaptureFixture
) -> AsyncIterator[Callable[[str], Awaitable[None]]]:
    """Work on a run, and let the test break the database in its midst: it is told, waited for, and over by itself."""

    async with remembering() as service, working(database.address(), service, drafts=DRAFTS) as work:
        task = asyncio.create_task(work.to_the_end())
        await service.until_made(DRAFTS // 4)

        async def told(words: str) -> None:
            """Wait until it is told, in one line, and see that nothing is sent meanwhile."""
            await eventually(lambda: any(words in record.getMessage() for record in caplog.records))
            assert all("\n" not in record.getMessage() for record in caplog.records)
            await asyncio.sleep(0.3)
            before = len(service.made)
            await asyncio.sleep(1.0)
            assert len(service.made) == before
            assert not task.done()

        try:
            yield told
        except BaseException:
            task.cancel()
            raise
        await task
        await all_made_once(work, service, DRAFTS)


ALL_ENDED = """
SELECT bool_or(pg_terminate_backend(pid)) IS NULL FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
"""
"""Ends every other connection; tells whether there was none left."""


def end_connections(connection: psycopg.Connection) -> None:
    """End all others; the worker, which is in this thread, makes no new one meanwhile."""
    while connection.execute(ALL_ENDED).fetchone() != (True,):
        time.sleep(0.005)


async def test_a_database_that_is_read_only_is_waited_for(
    server: PostgresServer, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    async with going_on(database, caplog) as told:
        with psycopg.connect(database.address(None), autocommit=True) as connection:
            connection.execute(f"ALTER DATABASE {database.name} SET default_transaction_read_only = on")
            end_connections(connection)
        await told("read-only")
        server.psql(f"ALTER DATABASE {database.name} RESET default_transaction_read_only")


async def test_a_database_without_a_free_connection_is_waited_for(
    postgres_servers: Servers, caplog: pytest.LogCaptureFixture
) -> None:
    server = postgres_servers(fsync=True, settings={"max_connections": "12", "superuser_reserved_connections": "0"})
    database = server.database()
    address = database.address(None)
    recorder_waits = re.compile("no connection left.*what is to be recorded waits")
    async with going_on(database, caplog) as told:
        with ExitStack() as taken:
            first = taken.enter_context(psycopg.connect(address, autocommit=True))
            while not recorder_waits.search(caplog.text):  # one that was on its way in has to be ended again
                first.execute(ALL_ENDED.replace("pid <>", "application_name = 'invoicing-async' AND pid <>"))
                with suppress(psycopg.OperationalError):
                    while True:
                        taken.enter_context(psycopg.connect(address, autocommit=True))
                await asyncio.sleep(0.1)
            await told("no connection left")


async def test_a_migration_under_way_is_waited_for(
    database: Database, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "SILENCE_SECONDS", 0.5)
    async with going_on(database, caplog) as told:
        with psycopg.connect(database.address(None)) as migration:
            migration.execute("LOCK TABLE invoicing.items IN ACCESS EXCLUSIVE MODE")
            await told("said nothing for")


@pytest.fixture
def small_disk(server: PostgresServer) -> Iterator[Path]:
    """A disk of a few megabytes in the memory, which needs root."""
    folder = server.folder / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", folder], check=False, capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"no small disk can be made: {mounted.stderr.strip()}")
    shutil.chown(folder, server.folder.stat().st_uid)
    yield folder
    server.stop("immediate")
    subprocess.run(["umount", "--lazy", folder], check=True)


async def test_a_full_disk_is_waited_for(
    server: PostgresServer, small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.psql(f"CREATE TABLESPACE small LOCATION '{small_disk}'")
    database = server.database()
    server.psql(f"ALTER DATABASE {database.name} SET TABLESPACE small")
    async with going_on(database, caplog) as told:
        filler = small_disk / "filler"
        with suppress(OSError), filler.open("wb") as file:
            while True:
                file.write(bytes(4096))
        await told("its disk is full")
        filler.unlink()
