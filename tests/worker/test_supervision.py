"""A worker whose engine, connections or database are lost goes on, and nothing that the service answered is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from postgres_server import Database, PostgresServer, Servers
from procrastinate.exceptions import ConnectorException
from procrastinate.jobs import Job
from procrastinate.manager import JobManager
from run_services import Service, item_of
from worker_runs import Held, asked, jobs, server_address, shared_run, taken, until, working

from invoicing_async._durable.records import LedgerSchemaError, LedgerServerError
from invoicing_async._durable.states import State
from invoicing_async.events import Event
from invoicing_async.runs import InvoiceRun, Item
from invoicing_async.worker import Worker, _engine, _lives

pytestmark = pytest.mark.asyncio

KEYS = [f"A-{number}" for number in range(1, 24)]

CUT = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


async def test_an_engine_that_is_lost_is_made_anew(queued: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its heartbeat fails and it says nothing, while the ledger goes on."""
    monkeypatch.setattr(_engine, "HEARTBEAT", 0.5)
    monkeypatch.setattr(_engine, "PATIENCE", 0.5)
    service, told = Held("A-3"), list[Event]()
    async with (
        shared_run(queued, KEYS) as run,
        working(run, service, slots=1, concurrency=1, on_event=told.append) as worker,
    ):
        taking = asyncio.create_task(taken(worker))
        await service.arrived.wait()
        await allow_connections(queued, allowed=False)
        await asyncio.to_thread(queued.server.psql, CUT_QUEUE, queued.name)
        await until(has_been_told(told, "QueueLost"), seconds=40)
        service.go_on.set()
        await until(in_state(run, "A-5", "success"))
        assert "A-6" not in service.submissions, "there are no more jobs"
        await allow_connections(queued, allowed=True)
        assert (await taking).keys() == {*KEYS}
        assert worker.status().rebuilt == 1
    assert service.submissions == dict.fromkeys(KEYS, 1)
    assert await has_been_told(told, "QueueReconnected")()


CUT_QUEUE = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE datname = %s AND application_name = 'invoicing-async queue'"
)


async def allow_connections(database: Database, *, allowed: bool) -> None:
    """New ones; those that there are stay."""
    await asyncio.to_thread(database.server.psql, f"ALTER DATABASE {database.name} ALLOW_CONNECTIONS {allowed}")


def has_been_told(told: list[Event], name: str) -> Callable[[], Awaitable[bool]]:
    async def has() -> bool:
        return name in [type(event).__name__ for event in told]

    return has


def in_state(run: InvoiceRun, key: str, state: str) -> Callable[[], Awaitable[bool]]:
    async def is_so() -> bool:
        return (await item_of(run, key)).state == state

    return is_so


@pytest.mark.slow
async def test_every_connection_is_cut_again_and_again(queued: Database) -> None:
    service = Service()
    async with shared_run(queued, KEYS) as run, working(run, service, slots=1, concurrency=1) as worker:
        taking = asyncio.create_task(taken(worker))
        for _ in range(4):
            await asked(queued, CUT)
            await asyncio.sleep(0.1)
        assert (await taking).keys() == {*KEYS}
        assert await in_doubt(run.ledger.counts()) == 0
    assert service.submissions == dict.fromkeys(KEYS, 1)


async def in_doubt(counting: object) -> int:
    counts = await counting  # type: ignore[misc]
    return int(counts[State.IN_DOUBT])


@pytest.mark.slow
async def test_an_answer_in_hand_is_recorded_however_long_the_database_is_away(
    postgres_servers: Servers,
) -> None:
    """Also when the worker is told to stop meanwhile: it waits for the database, and leaves no doubt."""
    server = postgres_servers()
    database = await asyncio.to_thread(queued_database, server)
    service = Held("A-3")
    async with shared_run(database, KEYS) as run:
        async with working(run, service, slots=1, concurrency=1) as worker:
            taking = asyncio.create_task(taken(worker))
            await service.arrived.wait()
            await asyncio.to_thread(server.stop, "immediate")
            service.go_on.set()
            worker.stop()
            await asyncio.sleep(1.0)
            assert not taking.done()
            await asyncio.to_thread(server.start)
            await taking
        assert (await item_of(run, "A-3")).state == "submitted"
        assert await in_doubt(run.ledger.counts()) == 0
    assert len(service.submissions) == 3


@pytest.mark.slow
async def test_a_worker_goes_on_when_the_database_is_back(postgres_servers: Servers) -> None:
    server = postgres_servers()
    database = await asyncio.to_thread(queued_database, server)
    service = Held("A-3")
    async with shared_run(database, KEYS) as run, working(run, service, slots=2, concurrency=2) as worker:
        taking = asyncio.create_task(taken(worker))
        await service.arrived.wait()
        await asyncio.to_thread(server.restart, "immediate")
        service.go_on.set()
        assert (await taking).keys() == {*KEYS}
        assert await in_doubt(run.ledger.counts()) == 0
    assert service.submissions == dict.fromkeys(KEYS, 1)


def queued_database(server: PostgresServer) -> Database:
    from invoicing_async.worker import migrate_queue

    database = server.database()
    asyncio.run(migrate_queue(database.address()))
    return database


async def test_a_job_of_a_worker_that_is_gone_is_taken_over(queued: Database) -> None:
    """It was being done by an engine without a heartbeat; nobody else would be given its chunk."""
    service, told = Service(), list[Event]()
    async with shared_run(queued, KEYS) as run:
        await asked(
            queued,
            "INSERT INTO invoicing_queue.procrastinate_workers (last_heartbeat) VALUES (now() - interval '1 minute')",
        )
        await asked(
            queued,
            "INSERT INTO invoicing_queue.procrastinate_jobs (queue_name, task_name, args, status, worker_id)"
            " VALUES ('invoicing-run-1', 'invoicing:chunk', '{\"run\": 1, \"lo\": 1, \"hi\": 5}', 'doing', 1)",
        )
        async with working(run, service, on_event=told.append) as worker:
            assert (await taken(worker)).keys() == {*KEYS}
    assert ("ChunkTakenOver", 1) in [(type(event).__name__, getattr(event, "lo", 0)) for event in told]
    assert await jobs(queued) == []


async def test_a_job_that_cannot_be_ended_keeps_nobody_waiting(
    queued: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the engine finds no free connection in time, and lives on: the job would be under way for ever."""
    ending, failed = JobManager.finish_job, list[int | None]()

    async def finish_job(self: JobManager, job: Job, **values: Any) -> None:
        if len(failed) < 2:
            failed.append(job.id)
            raise ConnectorException
        await ending(self, job, **values)

    async def finish(self: JobManager, job: Job, status: Any, delete_job: bool) -> None:  # noqa: FBT001 - the engine's
        await finish_job(self, job, status=status, delete_job=delete_job)

    monkeypatch.setattr(JobManager, "finish_job", finish)
    service = Service()
    async with shared_run(queued, KEYS) as run, working(run, service) as worker, asyncio.timeout(15):
        assert (await taken(worker)).keys() == {*KEYS}
    assert len(failed) == 2
    assert await jobs(queued) == []


@pytest.mark.slow
async def test_one_that_is_not_done_by_anybody_is_no_hindrance(queued: Database) -> None:
    """A job that the engine has lost from sight: its worker's row is gone."""
    service = Service()
    async with shared_run(queued, KEYS) as run:
        await asked(
            queued,
            "INSERT INTO invoicing_queue.procrastinate_jobs (queue_name, task_name, args, status)"
            " VALUES ('invoicing-run-1', 'invoicing:chunk', '{\"run\": 1, \"lo\": 1, \"hi\": 5}', 'doing')",
        )
        async with working(run, service) as worker:
            assert (await taken(worker)).keys() == {*KEYS}


@pytest.mark.slow
async def test_without_a_queue_a_worker_ends_and_says_so(postgres: Database) -> None:
    async with shared_run(postgres, KEYS) as run, working(run, Service()) as worker:
        with pytest.raises(LedgerSchemaError, match="no queue"):
            await taken(worker)


@pytest.mark.slow
async def test_a_queue_that_is_broken_for_good_ends_the_worker(
    queued: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was in flight is recorded; it is not made anew for ever."""
    monkeypatch.setattr(_lives, "GIVEN_UP", 0.5)
    service = Held("A-3")
    async with shared_run(queued, KEYS) as run:
        async with working(run, service, slots=1, concurrency=1) as worker:
            taking = asyncio.create_task(taken(worker))
            await service.arrived.wait()
            await asked(queued, "ALTER FUNCTION invoicing_queue.procrastinate_fetch_job_v2 RENAME TO gone")
            await asked(queued, "ALTER TABLE invoicing_queue.procrastinate_workers RENAME TO gone")
            await asyncio.to_thread(queued.server.psql, CUT_QUEUE, queued.name)
            await until(lambda: is_told(worker, "stopping"), seconds=30)
            service.go_on.set()
            with pytest.raises(LedgerServerError, match=r"cannot be worked with: .*procrastinate_workers"):
                await taking
        assert (await item_of(run, "A-3")).state != State.SENDING
        assert await in_doubt(run.ledger.counts()) == 0


async def is_told(worker: Worker[Item], doing: str) -> bool:
    return worker.status().doing == doing


@pytest.mark.slow
async def test_a_database_that_is_away_is_not_taken_for_broken(
    queued: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long: it lets nobody in, and the engine cannot be made anew."""
    monkeypatch.setattr(_lives, "GIVEN_UP", 0.2)
    monkeypatch.setattr(_engine, "PATIENCE", 0.2)
    monkeypatch.setattr(_engine, "OPENING", 0.3)
    service = Held("A-3")
    async with shared_run(queued, KEYS) as run, working(run, service, slots=1, concurrency=1) as worker:
        taking = asyncio.create_task(taken(worker))
        await service.arrived.wait()
        await allow_connections(queued, allowed=False)
        await asyncio.to_thread(queued.server.psql, CUT_QUEUE, queued.name)
        await until(lambda: is_told(worker, "waiting"), seconds=30)
        await asyncio.sleep(2.0)
        assert not taking.done()
        await allow_connections(queued, allowed=True)
        service.go_on.set()
        assert (await taking).keys() == {*KEYS}


@pytest.mark.slow
async def test_nothing_of_the_address_stands_in_what_is_shown(queued: Database) -> None:
    from invoicing_async.worker._engine import EngineSettings

    assert "secret" not in repr(EngineSettings(parameters={"password": "secret"}))
    assert server_address(queued).run == "march"
