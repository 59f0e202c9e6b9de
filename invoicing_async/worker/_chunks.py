"""The pieces of a run's work as they stand in its queue, for whoever watches over it."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from attrs import frozen

from .._durable.protocol import LedgerReader
from ._outlook import queue_of
from ._statements import QUEUE_SCHEMA

__all__ = ["ChunkStanding", "chunk_standing"]

SILENT = 15.0
"""Seconds without a heartbeat, three times that of the engine, after which a piece that is being done is stuck."""

FORGOTTEN = 60.0
"""Seconds after which an open item that nobody was given is stuck."""

_IS_THERE = f"SELECT to_regclass('{QUEUE_SCHEMA}.procrastinate_jobs') IS NOT NULL"

_STANDING = f"""
WITH jobs AS MATERIALIZED (
    SELECT status, coalesce(worker.last_heartbeat < clock_timestamp() - make_interval(secs => {SILENT}), true) AS silent
    FROM {QUEUE_SCHEMA}.procrastinate_jobs AS job
    LEFT JOIN {QUEUE_SCHEMA}.procrastinate_workers AS worker ON worker.id = job.worker_id
    WHERE job.queue_name = %(queue)s AND job.status IN ('todo', 'doing')
)
SELECT count(*) FILTER (WHERE status = 'todo'), count(*) FILTER (WHERE status = 'doing'),
    count(*) FILTER (WHERE status = 'doing' AND silent),
    count(*) = 0 AND EXISTS (
        SELECT FROM invoicing.items AS item
        WHERE item.run = %(run)s AND item.state = 'planned'
            AND item.updated < clock_timestamp() - make_interval(secs => {FORGOTTEN})
    )
FROM jobs
"""  # noqa: S608 - made of constants


@frozen(kw_only=True)
class ChunkStanding:
    """How many pieces of a run's work wait to be done, how many are being done, and how many of those are `silent`.

    Nothing was heard for 15 s of who has a silent one. `is_forgotten` says that there are items of which nothing was
    ever sent, for a minute at least, while there is no piece at all: nobody plans, and they wait in vain.
    """

    todo: int
    doing: int
    silent: int
    is_forgotten: bool


@runtime_checkable
class _Asked(Protocol):
    run: int

    async def select(self, sql: str, **values: object) -> list[tuple[Any, ...]]: ...


async def chunk_standing(ledger: LedgerReader) -> ChunkStanding | None:
    """Return how the work of a run on a server stands in its queue; None for a run in a file, or without a queue."""
    if not isinstance(ledger, _Asked):
        return None
    [(is_there,)] = await ledger.select(_IS_THERE)
    if not is_there:
        return None
    [row] = await ledger.select(_STANDING, queue=queue_of(ledger.run))
    todo, doing, silent, is_forgotten = row
    return ChunkStanding(todo=todo, doing=doing, silent=silent, is_forgotten=is_forgotten)
