"""Runs on a server with workers of them in this process, and the service behind them in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from postgres_server import Database, PostgresServer
from run_services import Service, draft, invoices

from invoicing_async._durable.address import ServerAddress, run_address
from invoicing_async._durable.ledgers import server_parameters
from invoicing_async._durable.postgres.ledger import PostgresLedger
from invoicing_async._durable.states import RunKind
from invoicing_async.runs import InvoiceRun, Item
from invoicing_async.sandbox import Sandbox
from invoicing_async.worker import Worker, migrate_queue
from invoicing_async.worker._engine import EngineSettings, opened_app
from invoicing_async.worker._queue import JobQueue

SOON = 0.15
"""Seconds between heartbeats, and between two looks of the planner."""


def server_address(database: Database, run: str = "march") -> ServerAddress:
    address = run_address(database.address(run))
    assert isinstance(address, ServerAddress)
    return address


@asynccontextmanager
async def shared_run(database: Database, keys: Iterable[str] = (), *, run: str = "march") -> AsyncIterator[InvoiceRun]:
    """A run of e-invoices on a server, with drafts of these keys."""
    async with PostgresLedger.open(server_address(database, run), kind=RunKind.INVOICES) as ledger:
        opened = InvoiceRun(ledger)
        if given := [draft(key) for key in keys]:
            await opened.add(given)
        yield opened


class Held(Service):
    """A service that answers no submission of some keys before it is let go."""

    def __init__(self, *keys: str, plans: Mapping[str, list[str]] | None = None) -> None:
        super().__init__(plans)
        self.keys = {*keys}
        self.arrived = asyncio.Event()
        self.go_on = asyncio.Event()
        self.received = self.hold

    async def hold(self, key: str) -> None:
        if key in self.keys:
            self.arrived.set()
            await self.go_on.wait()


@asynccontextmanager
async def working(run: InvoiceRun, service: Service | Sandbox, **options: Any) -> AsyncIterator[Worker[Item]]:
    """A worker of a run, with short times."""
    session = {
        name: options.pop(name) for name in ("attempts", "stop_after", "on_event", "timeouts") if name in options
    }
    options = {"heartbeat": SOON, "every": SOON, "chunk": 5, **options}
    async with invoices(service, **session) as client, Worker(run, client, **options) as worker:
        try:
            yield worker
        except Exception:
            if isinstance(service, Held):
                service.go_on.set()  # a test that fails ends all the same: the worker waits for what is in flight
            raise


@asynccontextmanager
async def planned_by(database: Database, *, slots: int = 8) -> AsyncIterator[JobQueue]:
    """The queue of the first run, as a planner of e-invoices with so many slots has it."""
    async with opened_app(EngineSettings(parameters=server_parameters(database.address()))) as app:
        yield JobQueue(app, 1, RunKind.INVOICES, most=200, slots=slots)


async def taken(worker: Worker[Item]) -> dict[str, Item]:
    """All that a worker yields, each key once."""
    found: dict[str, Item] = {}
    async for item in worker.items():
        assert item.key not in found
        found[item.key] = item
    return found


async def asked(database: Database, statement: str, *values: object) -> list[tuple[Any, ...]]:
    """Do a statement beside the loop: what goes on in it may hold a lock of the database."""
    return await asyncio.to_thread(database.psql, statement, *values)


async def jobs(database: Database) -> list[tuple[Any, ...]]:
    return await asked(database, "SELECT id, status::text FROM invoicing_queue.procrastinate_jobs ORDER BY id")


@pytest.fixture(scope="session")
def queue_template(postgres_server: PostgresServer) -> str:
    """The name of a database with the tables of runs and of their queue, to be copied."""
    database = postgres_server.database()
    asyncio.run(migrate_queue(database.address()))
    return database.name


@pytest.fixture
def queued(postgres_server: PostgresServer, queue_template: str) -> Iterable[Database]:
    """A database of the test's own, with the tables of runs and of their queue."""
    name = f"queued_{next(postgres_server._numbers)}"
    postgres_server.psql(f"CREATE DATABASE {name}{postgres_server.copied_from(queue_template)}")
    database = Database(postgres_server, name)
    yield database
    database.drop()


async def until(holds: Callable[[], Awaitable[bool]], *, seconds: float = 20.0) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(seconds):
        while not await holds():  # noqa: ASYNC110 - it is of the database, which says nothing by itself
            await asyncio.sleep(0.02)
