"""The pieces of a run's work as they stand in its queue, for whoever watches over it."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from attrs import frozen

from .._durable.protocol import LedgerReader
from .._durable.run_settings import RunSettings
from .._durable.states import RunKind
from ._outlook import queue_of
from ._statements import FORGOTTEN, OUTLOOK, QUEUE_SCHEMA

__all__ = ["ChunkStanding", "chunk_standing"]

SILENT = 15.0
"""Seconds without a heartbeat, three times that of the engine, after which a piece that is being done is stuck."""

UNHEEDED = 60.0
"""Seconds after which an open item that has no job is stuck."""

_IS_THERE = f"SELECT to_regclass('{QUEUE_SCHEMA}.procrastinate_jobs') IS NOT NULL"

_STANDING = f"""
SELECT count(*) FILTER (WHERE status = 'todo'), count(*) FILTER (WHERE status = 'doing'),
    count(*) FILTER (WHERE status = 'doing' AND coalesce(
        worker.last_heartbeat < clock_timestamp() - make_interval(secs => {SILENT}), true
    ))
FROM {QUEUE_SCHEMA}.procrastinate_jobs AS job
LEFT JOIN {QUEUE_SCHEMA}.procrastinate_workers AS worker ON worker.id = job.worker_id
WHERE job.queue_name = %(queue)s AND job.status IN ('todo', 'doing')
"""  # noqa: S608 - made of constants

_NOT_PLANNED = f"""
SELECT chunk FROM {QUEUE_SCHEMA}.turns
WHERE run = %(run)s AND coalesce(planned < clock_timestamp() - make_interval(secs => {UNHEEDED}), true)
UNION ALL SELECT 200 WHERE NOT EXISTS (SELECT FROM {QUEUE_SCHEMA}.turns WHERE run = %(run)s)
"""  # noqa: S608 - made of constants
"""How many keys a chunk has, if nobody has planned for a minute, or ever."""


@frozen(kw_only=True)
class ChunkStanding:
    """How many pieces of a run's work wait to be done, how many are being done, and how many of those are `silent`.

    Nothing was heard for 15 s of who has a silent one. `is_forgotten` says that something is to be done for a minute at
    least that no piece is made of though it is its turn, and that nobody has planned for so long: it waits in vain.
    """

    todo: int
    doing: int
    silent: int
    is_forgotten: bool


@runtime_checkable
class _Asked(Protocol):
    run: int
    kind: RunKind

    async def select(self, sql: str, **values: object) -> list[tuple[Any, ...]]: ...


async def chunk_standing(ledger: LedgerReader) -> ChunkStanding | None:
    """Return how the work of a run on a server stands in its queue; None for a run in a file, or without a queue."""
    if not isinstance(ledger, _Asked):
        return None
    [(is_there,)] = await ledger.select(_IS_THERE)
    if not is_there:
        return None
    [(todo, doing, silent)] = await ledger.select(_STANDING, queue=queue_of(ledger.run))
    exports = RunSettings.read(ledger.settings).export is not None
    return ChunkStanding(
        todo=todo, doing=doing, silent=silent, is_forgotten=await _is_forgotten(ledger, exports=exports)
    )


async def _is_forgotten(ledger: _Asked, *, exports: bool) -> bool:
    """Tell whether something that is due a piece waits for a minute, by what the planner itself asks."""
    values = {"queue": queue_of(ledger.run), "export": exports}
    for (chunk,) in await ledger.select(_NOT_PLANNED):
        asked = OUTLOOK[ledger.kind].replace("FROM procrastinate", f"FROM {QUEUE_SCHEMA}.procrastinate")
        [(_, _, _, due)] = await ledger.select(asked, most=chunk, least=chunk, slots=1, **values)
        los, his = [lo for lo, _ in due or ()], [hi for _, hi in due or ()]
        [(is_forgotten,)] = await ledger.select(FORGOTTEN[ledger.kind], los=los, his=his, **values, **{"for": UNHEEDED})
        return bool(is_forgotten)
    return False
