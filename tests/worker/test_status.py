"""What a worker says of itself, and what it needs."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from pgbouncer import PgBouncer
from postgres_server import Database
from run_services import Service, draft, invoices
from worker_runs import server_address, shared_run, taken, until, working

from invoicing_async._durable.address import ServerAddress, run_address
from invoicing_async._durable.postgres.conninfo import connection_parameters
from invoicing_async._durable.postgres.ledger import PostgresLedger
from invoicing_async._durable.states import RunKind
from invoicing_async.runs import InvoiceRun
from invoicing_async.worker import Worker, WorkerStatus, blueprint, write_status
from invoicing_async.worker._options import Options


@pytest.mark.asyncio
async def test_its_status_is_kept_in_a_file(queued: Database, tmp_path: Path) -> None:
    """As one line, which is replaced as a whole."""
    file = tmp_path / "status.json"
    async with shared_run(queued, ["A-1", "A-2"]) as run, working(run, Service(), until_done=False) as worker:
        writing = asyncio.create_task(write_status(file, worker.status, every=0.05))
        taking = asyncio.create_task(taken(worker))

        async def says_two() -> bool:
            return file.exists() and json.loads(file.read_text())["items"] == 2

        await until(says_two)
        writing.cancel()
        worker.stop()
        await taking
    assert file.read_text().count("\n") == 1
    status = WorkerStatus(**json.loads(file.read_text()))
    assert status.run == "march"
    assert status.pid == os.getpid()
    assert status.doing in {"idle", "working"}
    assert status.heartbeat is not None
    assert [path.name for path in tmp_path.iterdir()] == ["status.json"]


@pytest.mark.slow
@pytest.mark.asyncio
async def test_an_app_of_ones_own_may_have_its_task(queued: Database) -> None:
    from procrastinate import App, PsycopgConnector

    parameters = connection_parameters(server_address(queued), {})
    connector = PsycopgConnector(kwargs={**parameters, "options": "-c search_path=invoicing_queue"})
    app = App(connector=connector)
    app.add_tasks_from(blueprint(), namespace="invoicing")
    async with app.open_async(), shared_run(queued, ["A-1", "A-2"]) as run, working(run, Service(), app=app) as worker:
        assert (await taken(worker)).keys() == {"A-1", "A-2"}


@pytest.mark.slow
@pytest.mark.asyncio
async def test_an_app_without_its_task_is_refused(queued: Database) -> None:
    from procrastinate import App, PsycopgConnector

    parameters = connection_parameters(server_address(queued), {})
    connector = PsycopgConnector(kwargs={**parameters, "options": "-c search_path=invoicing_queue"})
    app = App(connector=connector)
    async with app.open_async(), shared_run(queued, ["A-1"]) as run, working(run, Service(), app=app) as worker:
        with pytest.raises(ValueError, match="invoicing:chunk"):
            await taken(worker)


@pytest.mark.slow
@pytest.mark.asyncio
async def test_it_works_behind_a_pooler_of_transactions(queued: Database, pgbouncer: PgBouncer) -> None:
    """Where nothing is listened to and nothing prepared; the role's own path leads to the queue."""
    await asyncio.to_thread(
        queued.psql, f"ALTER ROLE postgres IN DATABASE {queued.name} SET search_path = invoicing_queue"
    )
    address = run_address(pgbouncer.address(queued))
    assert isinstance(address, ServerAddress)
    keys = [f"A-{number}" for number in range(1, 24)]
    async with PostgresLedger.open(address, kind=RunKind.INVOICES) as ledger:
        run = InvoiceRun(ledger)
        await run.add(draft(key) for key in keys)
        async with working(run, Service(), is_pooled=True) as worker:
            assert (await taken(worker)).keys() == {*keys}


@pytest.mark.slow
@pytest.mark.asyncio
async def test_without_the_extra_it_is_named(queued: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "procrastinate", None)
    for name in [name for name in sys.modules if name.startswith("invoicing_async.worker._")]:
        monkeypatch.delitem(sys.modules, name)
    async with shared_run(queued) as run, invoices(Service()) as client:
        with pytest.raises(ImportError, match=r"install invoicing-async\[postgres\]"):
            async with Worker(run, client):
                pass
    with pytest.raises(ImportError, match=r"install invoicing-async\[postgres\]"):
        blueprint()


@pytest.mark.process
def test_the_extra_is_imported_when_a_worker_begins() -> None:
    code = "import invoicing_async.worker, sys; print([m for m in sys.modules if m in {'procrastinate', 'psycopg'}])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    "options",
    [{"slots": 0}, {"chunk": 0}, {"concurrency": 0}, {"heartbeat": 0.0}, {"watchdog": 29.0}],
    ids=lambda options: next(iter(options)),
)
def test_an_option_outside_its_limits_is_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        Options(**options)  # type: ignore[arg-type]
