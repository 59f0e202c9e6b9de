"""The queue of one run, as one life of the engine has it: what has no job gets one, and jobs of the dead are swept.

Sweeping is no job of the engine's. A sweep that is a job can stall itself, and with a `lock` nothing is ever swept
again (procrastinate #1408); putting a stalled job back collides with a new one of the same `queueing_lock`, and ends
the sweep at that job (#1446). Here any worker sweeps, in a task of its own, and a stalled job is taken away: the
planner makes a new one if there is still something to do. So a job lost from sight (#1518) holds nothing up for long.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from hashlib import md5
from typing import Any

from attrs import define
from procrastinate import App, PsycopgConnector
from procrastinate.exceptions import ConnectorException
from procrastinate.jobs import Job, Status
from procrastinate.psycopg_connector import wrap_exceptions

from .._durable.states import RunKind
from ._blueprint import TASK
from ._outlook import Chunk, Outlook, queue_of
from ._statements import HOLD, LEFT_OPEN, OUTLOOK, SIZED, TURN, WALKED, WALKED_WHOLE

__all__ = ["JobQueue"]

_log = logging.getLogger("invoicing_async")

STALLED = 30.0
"""Seconds without a heartbeat of its engine after which a job that is being done is taken away."""

LEAST = 10
"""Keys that a chunk of a short run has at least."""


@define(eq=False)
class JobQueue:
    """The jobs of one run. Everything raises `ConnectorException` while the database is away."""

    app: App
    run: int
    kind: RunKind
    most: int
    slots: int

    @property
    def name(self) -> str:
        return queue_of(self.run)

    @property
    def connector(self) -> PsycopgConnector:
        assert isinstance(self.app.connector, PsycopgConnector)  # noqa: S101 - so it was opened; for the type checker
        return self.app.connector

    async def turn(self, every: float) -> bool:
        """Take the turn to plan, if nobody did within `every` seconds."""
        return bool(await self._rows(TURN, run=self.run, most=self.most, every=every))

    async def plan(self, *, export: bool) -> Outlook:
        """Make a job for each chunk that is due one, and return what there was to do. One worker plans at a time."""
        async with wrap_exceptions(), self.connector.pool.connection() as connection, connection.transaction():
            await self._rows(HOLD, connection, run=self.run, most=self.most)
            outlook = await self.outlook(connection, export=export)
            if outlook.due:
                await self.app.job_manager.batch_defer_jobs_async(self.jobs(outlook.due), connection)
        return outlook

    async def outlook(self, connection: object = None, *, export: bool) -> Outlook:
        """Return what is to do."""
        sizes = {"most": self.most, "least": min(LEAST, self.most), "slots": self.slots}
        [row] = await self._rows(OUTLOOK[self.kind], connection, run=self.run, queue=self.name, export=export, **sizes)
        await self._rows(SIZED, connection, run=self.run, size=row["size"])
        return Outlook(tuple((lo, hi) for lo, hi in row["due"] or ()), row["live"], row["sending"])

    def jobs(self, chunks: tuple[Chunk, ...]) -> list[Job]:
        """Return a job for each chunk."""
        return [
            Job(
                queue=self.name,
                task_name=TASK,
                lock=None,
                queueing_lock=f"{self.name}:{lo}",
                task_kwargs={"run": self.run, "lo": lo, "hi": hi},
            )
            for lo, hi in chunks
        ]

    async def sweep(self) -> list[Chunk]:
        """Take away the jobs whose worker is gone, each by itself, and return their chunks."""
        swept = []
        for job in await self.app.job_manager.get_stalled_jobs(queue=self.name, seconds_since_heartbeat=STALLED):
            try:
                assert job.id is not None  # noqa: S101 - it is of the database; for the type checker
                await self.app.job_manager.finish_job_by_id_async(job.id, status=Status.ABORTED, delete_job=True)
            except ConnectorException as error:
                _log.info("a stalled job could not be taken away: %s", error)  # another sweep was first
            else:
                swept.append((int(job.task_kwargs["lo"]), int(job.task_kwargs["hi"])))  # type: ignore[arg-type]  # ours are numbers
        return swept

    async def forget(self, jobs: Collection[int]) -> None:
        """Take away jobs that this process had, and that the engine could not end."""
        await self._rows("DELETE FROM procrastinate_jobs WHERE id = ANY(%(jobs)s) RETURNING id", jobs=[*jobs])

    async def tidy(self) -> None:
        """Remove what is left of jobs that were cut off."""
        await self._rows(
            "DELETE FROM procrastinate_jobs WHERE queue_name = %(queue)s"
            " AND status IN ('succeeded', 'failed', 'cancelled', 'aborted') RETURNING id",
            queue=self.name,
        )

    async def left_open(self, chunk: Chunk, *, export: bool) -> dict[str, str]:
        """Return what a chunk still has to do: each open item by its key, with a mark of how it stands."""
        lo, hi = chunk
        rows = await self._rows(LEFT_OPEN[self.kind], run=self.run, lo=lo, hi=hi, export=export)
        return {row["key"]: row["mark"] for row in rows}

    async def walked(self, chunk: Chunk, left: dict[str, str]) -> None:
        """Note that a chunk was worked through, and as what its open items were left."""
        lo, hi = chunk
        if not left:
            await self.app.connector.execute_query_async(WALKED_WHOLE, run=self.run, lo=lo)
            return
        left_as = md5(",".join(left.values()).encode(), usedforsecurity=False).hexdigest()
        await self.app.connector.execute_query_async(WALKED, run=self.run, lo=lo, hi=hi, left_as=left_as)

    async def _rows(self, statement: str, connection: Any = None, /, **values: Any) -> list[dict[str, Any]]:
        if connection is None:
            rows: list[dict[str, Any]] = await self.connector.execute_query_all_async(statement, **values)
        else:
            rows = await self.connector.execute_query_all_async_with_connection(connection, statement, **values)
        return rows
