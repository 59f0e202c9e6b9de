"""One life of the engine: an app with its connections and a worker, from the first connection to the first trouble."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from attrs import frozen
from procrastinate import App, PsycopgConnector
from procrastinate.exceptions import ConnectorException
from procrastinate.jobs import Job, Status
from procrastinate.manager import JobManager
from procrastinate.worker import Worker as EngineWorker

from .._core.tasks import started
from .._durable.records import LedgerSchemaError
from ._blueprint import NAMESPACE, TASK, WORKER, ChunkWorker, blueprint
from ._statements import QUEUE_SCHEMA

__all__ = ["EngineSettings", "opened_app", "run_engine"]

_log = logging.getLogger("invoicing_async")

PATIENCE = 3.0
"""Seconds for which the engine waits for a connection before it is given up and made anew."""

OPENING = 5.0
"""Seconds for its first one."""

CONNECTIONS = (1, 4)
"""How many connections the engine keeps, and may have; one more listens."""

HEARTBEAT = 5.0

IN_HAND = 500
"""Chunks that are in hand at most: most of them are only awaited."""

ROOM = 1.0
"""Seconds for which the engine waits at a time for room for another chunk."""


@frozen(kw_only=True)
class EngineSettings:
    """How the engine connects. `parameters` are libpq's and may hold a password; `app` is one of the user's own."""

    parameters: Mapping[str, Any]
    is_pooled: bool = False
    app: App | None = None

    def __repr__(self) -> str:
        """Say nothing of the parameters."""
        return f"EngineSettings(is_pooled={self.is_pooled})"


class Jobs(JobManager):
    """The engine's jobs. One that cannot be ended in the queue was ended all the same: the ledger knows what was done.

    It was taken away, or the database is; otherwise the engine would lose the error in a task that nobody awaits.
    None is fetched while the `worker` has no room for it.
    """

    worker: ChunkWorker | None = None

    async def fetch_job(self, queues: Iterable[str] | None, worker_id: int) -> Job | None:
        if self.worker is not None:
            try:
                async with asyncio.timeout(ROOM):  # an engine that ends waits for this
                    await self.worker.room()
            except TimeoutError:
                return None
        return await super().fetch_job(queues, worker_id)

    async def finish_job(self, job: Job, status: Status, delete_job: bool) -> None:  # noqa: FBT001 - the engine's own
        try:
            await super().finish_job(job, status, delete_job)
        except ConnectorException as error:
            _log.info("job %s could not be ended in the queue: %s", job.id, _said(error))
            if self.worker is not None and job.id is not None:
                self.worker.let_go(job.id)  # else it would be held to be under way for as long as this engine lives


@asynccontextmanager
async def opened_app(settings: EngineSettings) -> AsyncIterator[App]:
    """Connect, and see that the queue is there. Raises `ConnectorException`, and `LedgerSchemaError` if it is not."""
    if settings.app is not None:
        await _check(settings.app)
        yield settings.app
        return
    least, most = CONNECTIONS
    connector = PsycopgConnector(
        conninfo="",
        kwargs=connection_options(settings),
        min_size=least,
        max_size=most,
        timeout=PATIENCE,
        name="invoicing-queue",
    )
    app = App(connector=connector)
    app.job_manager = Jobs(connector)
    app.add_tasks_from(blueprint(), namespace=NAMESPACE)
    try:
        async with asyncio.timeout(OPENING):
            await connector.open_async()
        await _check(app)
        yield app
    finally:
        await connector.close_async()


def connection_options(settings: EngineSettings) -> dict[str, Any]:
    """Return what the engine connects with: the queue's schema first, and nothing that a pooler would not keep."""
    named = {"application_name": "invoicing-async queue"}
    if settings.is_pooled:
        # The path must be the role's own there: ALTER ROLE … IN DATABASE … SET search_path.
        return {**named, **settings.parameters, "prepare_threshold": None}
    given = settings.parameters.get("options", "")
    return {**named, **settings.parameters, "options": f"{given} -c search_path={QUEUE_SCHEMA}".strip()}


async def _check(app: App) -> None:
    if not isinstance(app.connector, PsycopgConnector):
        raise ValueError(f"the app must have a PsycopgConnector, got {type(app.connector).__name__}")
    [row] = await app.connector.execute_query_all_async(
        "SELECT to_regclass('procrastinate_jobs') IS NOT NULL AS jobs,"
        " to_regclass('invoicing_queue.walks') IS NOT NULL AS walks"
    )
    if not (row["jobs"] and row["walks"]):
        raise LedgerSchemaError("the database of the run has no queue yet, or none that this connection finds")
    if TASK not in app.tasks:
        raise ValueError(f"the app has no task {TASK}: mount blueprint() in it under the namespace {NAMESPACE!r}")


async def run_engine(app: App, worker: ChunkWorker, queue: str, *, slots: int, listen: bool) -> None:
    """Fetch the jobs of a queue and have them done, until that fails or is cancelled.

    The engine watches itself only as long as none of its tasks has ended, and the one for periodic jobs ends at once
    where there are none: then a heartbeat that failed is never missed. So its heartbeat is looked at here. When this
    returns, or raises, a job is cut off, what it does is not. Its listener may end unseen as well, when its
    connection is lost and the next is refused; then new jobs are found by asking, each second, and that is all.
    """
    if isinstance(app.job_manager, Jobs):
        app.job_manager.worker = worker
    app.perform_import_paths()  # type: ignore[no-untyped-call]  # the engine's own, without annotations
    engine = EngineWorker(
        app,
        queues=[queue],
        name="invoicing",
        concurrency=max(IN_HAND, slots) if isinstance(app.job_manager, Jobs) else slots,
        listen_notify=listen,
        delete_jobs="successful",
        additional_context={WORKER: worker},
        install_signal_handlers=False,
        update_heartbeat_interval=HEARTBEAT,
        fetch_job_polling_interval=1.0,
        shutdown_graceful_timeout=0,
    )
    running = engine.run()  # type: ignore[no-untyped-call]  # as above
    tasks = [started(running), started(_watch_heartbeat(app, engine))]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
    for error in ended:
        if isinstance(error, Exception):
            raise error


async def _watch_heartbeat(app: App, engine: EngineWorker) -> None:
    """Return when the engine's heartbeat is not that of one that lives. Raises `ConnectorException`."""
    is_alive = True
    while is_alive:
        await asyncio.sleep(HEARTBEAT)
        found = await app.connector.execute_query_all_async(_ALIVE, engine=engine.worker_id, limit=3 * HEARTBEAT)
        is_alive = bool(found) or engine.worker_id is None
    _log.info("the engine has missed three heartbeats")


_ALIVE = """
SELECT id FROM procrastinate_workers
WHERE id = %(engine)s::bigint AND last_heartbeat > now() - %(limit)s * interval '1 s'
"""


def _said(error: BaseException) -> str:
    """Return what is at the bottom of an error of the engine's."""
    cause = error.__cause__
    return str(cause or error).partition("\n")[0]
