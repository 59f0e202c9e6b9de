"""What an operator sees of a run: in less than a second, however long the run."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, Protocol

from attrs import AttrsInstance, fields

from ..standing import LaneStanding, Standing, TableStanding, WorkerStanding
from ..states import RunKind
from . import queries
from .queries import NOW, Row

__all__ = ["read_standing"]


class Select(Protocol):
    """Reads the rows of a statement about one run: `run` and `now` are among its values."""

    def __call__(self, sql: str, **values: object) -> Awaitable[list[Row]]:
        """Return the rows."""


STUCK = 60.0
"""Seconds beyond the time in which a submission has arrived, or never does, after which somebody should have seen."""

SILENT = 3600.0
"""Seconds for which a worker that is heard of no more is still shown."""

SHOWN = 10
"""Stuck items that are listed."""

_RUN = f"""
SELECT extract(epoch FROM {NOW})::float8, late, extract(epoch FROM halted)::float8, halted_why,
    extract(epoch FROM paused)::float8,
    (SELECT count(*) FROM invoicing.items AS i WHERE run = %(run)s AND {queries.TWICE})
FROM invoicing.runs WHERE run = %(run)s
"""  # noqa: S608 - made of constants

_STUCK_WHERE = f"""
i.run = %(run)s AND i.state = 'sending' AND i.sent_at < {NOW} - make_interval(secs => %(late)s + {STUCK})
"""

_STUCK = f"SELECT count(*) FROM invoicing.items AS i WHERE {_STUCK_WHERE}"  # noqa: S608 - made of constants
_FIRST_STUCK = queries.select(f"invoicing.items AS i WHERE {_STUCK_WHERE} ORDER BY i.sent_at, i.seq LIMIT {SHOWN}")

_WORKERS = f"""
SELECT worker, host, pid, version, extract(epoch FROM started)::float8,
    greatest(0, extract(epoch FROM {NOW} - heartbeat))::float8, done,
    (done / greatest(1, extract(epoch FROM heartbeat - started)))::float8, slots, doing
FROM invoicing.workers
WHERE run = %(run)s AND ended IS NULL AND heartbeat > {NOW} - make_interval(secs => {SILENT}) ORDER BY worker
"""  # noqa: S608 - made of constants

_LANES = """
SELECT lane, per_second, extract(epoch FROM free_at)::float8, extract(epoch FROM since)::float8,
    extract(epoch FROM paused_until)::float8, probe_by, extract(epoch FROM probe_until)::float8
FROM invoicing.lanes WHERE run = %(run)s ORDER BY lane
"""

_TABLES = """
SELECT relname::text, n_live_tup, n_dead_tup,
    extract(epoch FROM greatest(last_vacuum, last_autovacuum))::float8
FROM pg_stat_user_tables WHERE schemaname = 'invoicing' AND relname IN ('items', 'journal', 'tally', 'workers', 'lanes')
ORDER BY relname
"""


def _named(kind: type[AttrsInstance], row: tuple[Any, ...]) -> dict[str, Any]:
    """Return the columns of a row by the names of the fields, which are in their order."""
    return dict(zip((field.name for field in fields(kind)), row, strict=True))


async def read_standing(select: Select, name: str, kind: RunKind) -> Standing:
    """Return how a run stands."""
    [(at, late, halted, halted_why, paused, twice)] = await select(_RUN)
    [(stuck,)] = await select(_STUCK, late=late)
    first_stuck = await select(_FIRST_STUCK, late=late) if stuck else []
    oldest = next(iter(await select(queries.OLDEST[0])), None)
    return Standing(
        name=name,
        kind=kind,
        at=at,
        counts=queries.state_counts(await select(queries.COUNTS), kind),
        late=late,
        halted=halted,
        halted_why=halted_why,
        paused=paused,
        oldest=None if oldest is None else queries.item(oldest),
        stuck=stuck,
        first_stuck=tuple(map(queries.item, first_stuck)),
        twice=twice,
        workers=tuple(WorkerStanding(**_named(WorkerStanding, row)) for row in await select(_WORKERS)),
        lanes=tuple(LaneStanding(**_named(LaneStanding, row)) for row in await select(_LANES)),
        tables=tuple(TableStanding(**_named(TableStanding, row)) for row in await select(_TABLES)),
    )
