"""Several workers save into one folder: each half a file says whose it is, and those of dead workers are removed."""

from __future__ import annotations

from pathlib import Path

import pytest
from postgres_server import Database
from run_services import ORDERS, Service, documents, invoices, sandbox
from worker_runs import SOON, asked, server_address, shared_run

from invoicing_async._durable.postgres.ledger import PostgresLedger
from invoicing_async._durable.states import RunKind
from invoicing_async._files.names import temp_name, worker_label
from invoicing_async._files.writer import DiskWriter
from invoicing_async.documents._client import work_of as documents_work
from invoicing_async.invoices._client import work_of as invoices_work
from invoicing_async.runs import DocumentRun, ExportTo, RunSettings
from invoicing_async.worker import Worker
from invoicing_async.worker._folder import SharedFolder

pytestmark = pytest.mark.asyncio


async def test_files_of_workers_that_are_silent_for_an_hour_are_removed(queued: Database, tmp_path: Path) -> None:
    """Those of the living, of another run's workers and of workers that nobody knows are left."""
    async with shared_run(queued) as run, invoices(Service()) as client:
        ledger = run.ledger
        assert isinstance(ledger, PostgresLedger)
        for ago in ("61 min", "59 min"):
            await asked(
                queued,
                "INSERT INTO invoicing.workers (run, host, pid, version, started, heartbeat)"
                " VALUES (1, 'h', 1, '0', now(), now() - %s::interval)",
                ago,
            )
        dead, silent = ledger.worker_id + 1, ledger.worker_id + 2
        labels = [worker_label(ledger.name, number) for number in (dead, silent, ledger.worker_id, 999)]
        labels.append(worker_label("postgresql://elsewhere/invoicing?run=march", dead))
        paths = [tmp_path / temp_name("ab", 1, host="otherhost", worker=label) for label in labels]
        for path in paths:
            path.write_bytes(b"half")
        await SharedFolder(ledger, invoices_work(client).session, str(tmp_path)).sweep()
        assert sorted(tmp_path.iterdir()) == sorted(paths[1:])


async def test_a_folder_that_is_not_there_or_no_folder_is_no_trouble(queued: Database, tmp_path: Path) -> None:
    async with shared_run(queued) as run, invoices(Service()) as client:
        assert isinstance(run.ledger, PostgresLedger)
        for place in (None, "s3://bucket/prefix", str(tmp_path / "later"), __file__):
            await SharedFolder(run.ledger, invoices_work(client).session, place).sweep()


async def test_what_a_worker_exports_bears_it(queued: Database, tmp_path: Path) -> None:
    async with shared_run(queued, ["A-1"]) as run, invoices(sandbox()) as client:
        assert isinstance(run.ledger, PostgresLedger)
        await run.keep(RunSettings(export=ExportTo(folder=tmp_path)))
        half = tmp_path / temp_name("ab", 1, host="otherhost", worker=worker_label(run.ledger.name, 900))
        half.write_bytes(b"half")
        await asked(
            queued,
            "INSERT INTO invoicing.workers (run, host, pid, version, started, heartbeat, worker)"
            " OVERRIDING SYSTEM VALUE VALUES (1, 'h', 1, '0', now(), now() - interval '2 h', 900)",
        )
        async with Worker(run, client, every=SOON, heartbeat=SOON) as worker:
            assert invoices_work(client).session.resource(DiskWriter).worker == worker_label(
                run.ledger.name, run.ledger.worker_id
            )
            async for _ in worker.items():
                pass
        assert not half.exists()


async def test_what_a_worker_downloads_bears_it(queued: Database, tmp_path: Path) -> None:
    settings = {"folder": str(tmp_path), "layout": "{order_id}", "day": "2025-09-17", "served_name": False}
    async with (
        PostgresLedger.open(
            server_address(queued), kind=RunKind.DOCUMENTS, settings=settings | {"durable": False}
        ) as ledger,
        documents(sandbox()) as client,
    ):
        run = DocumentRun(ledger)
        await run.add(ORDERS[:1])
        async with Worker(run, client, every=SOON, heartbeat=SOON) as worker:
            assert documents_work(client).disk.worker == worker_label(ledger.name, ledger.worker_id)
            async for _ in worker.items():
                pass
