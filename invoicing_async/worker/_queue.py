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
from procrastinate import App
from procrastinate.exceptions import AlreadyEnqueued, ConnectorException
from procrastinate.jobs import Job, Status

from .._durable.states import RunKind
from ._blueprint import TASK
from ._outlook import Chunk, Outlook, queue_of
from ._statements import LEFT_OPEN, OUTLOOK, TURN, WALKED, WALKED_WHOLE

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

    async def turn(self, every: float) -> bool:
        """Take the turn to plan, if nobody did within `every` seconds."""
        return bool(await self._rows(TURN, run=self.run, most=self.most, every=every))

    async def outlook(self, *, export: bool) -> Outlook:
        """Return what is to do."""
        sizes = {"most": self.most, "least": min(LEAST, self.most), "slots": self.slots}
        [row] = await self._rows(OUTLOOK[self.kind], run=self.run, queue=self.name, export=export, **sizes)
        await self._rows(
            "UPDATE invoicing_queue.turns SET chunk = %(size)s WHERE run = %(run)s AND chunk <> %(size)s RETURNING run",
            run=self.run,
            size=row["size"],
        )
        return Outlook(tuple((lo, hi) for lo, hi in row["due"] or ()), row["live"], row["sending"])

    async def plan(self, chunks: tuple[Chunk, ...]) -> bool:
        """Make a job for each chunk, and return whether that was so: false if another planner was first."""
        jobs = [
            Job(
                queue=self.name,
                task_name=TASK,
                lock=None,
                queueing_lock=f"{self.name}:{lo}",
                task_kwargs={"run": self.run, "lo": lo, "hi": hi},
            )
            for lo, hi in chunks
        ]
        try:
            await self.app.job_manager.batch_defer_jobs_async(jobs)
        except AlreadyEnqueued:
            return False
        return True

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

    async def _rows(self, statement: str, **values: Any) -> list[dict[str, Any]]:
        return await self.app.connector.execute_query_all_async(statement, **values)
