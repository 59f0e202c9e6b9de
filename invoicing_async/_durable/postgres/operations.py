"""What an operator sees of a run, and what a planner of its work asks: in less than a second, however long the run."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from attrs import AttrsInstance, field, fields, frozen

from ..records import Item
from ..states import DocumentState, RunKind, State
from . import queries
from .queries import NOW
from .reader import ALIVE, PostgresReader

__all__ = [
    "CHUNK",
    "Chunk",
    "LaneStanding",
    "Standing",
    "TableStanding",
    "WorkerStanding",
    "open_chunks",
    "standing",
]

CHUNK = 200
"""Items of one piece of work."""

STUCK = 60.0
"""Seconds beyond the time in which a submission has arrived, or never does, after which somebody should have seen."""

SILENT = 3600.0
"""Seconds for which a worker that is heard of no more is still shown."""

SHOWN = 10
"""Stuck items that are listed."""

_OPEN = {
    RunKind.INVOICES: (State.PLANNED, State.NOT_SENT, State.SENDING, State.SUBMITTED),
    RunKind.DOCUMENTS: (DocumentState.PLANNED, DocumentState.DEFERRED, DocumentState.FAILED),
}
"""The states in which there is still something to be done by itself."""

_AGAIN = "i.updated < to_timestamp(%(tried_before)s)"
_TO_DO = {
    RunKind.INVOICES: ("i.state = 'planned'", "i.state = 'not_sent'", "i.state = 'submitted'"),
    RunKind.DOCUMENTS: (
        "i.state = 'planned'",
        f"i.state = 'deferred' AND {_AGAIN}",
        f"i.state = 'failed' AND {_AGAIN}",
    ),
}
_TO_EXPORT = f"i.state = 'success' AND i.path IS NULL AND (i.error IS NULL OR {_AGAIN})"


@frozen
class Chunk:
    """A piece of work: the items from `lo` to `hi`, both among them."""

    lo: int
    hi: int


@frozen(kw_only=True)
class WorkerStanding:
    """A worker of a run: who it is, and how it was when it was last heard of.

    Times are in epoch seconds; `silent` is for how many seconds nothing was heard of it, `done` how many items it has
    done, `rate` how many a second since it started.
    """

    worker: int
    host: str
    pid: int
    version: str
    started: float
    silent: float
    done: int
    rate: float
    slots: int
    doing: str | None

    @property
    def is_alive(self) -> bool:
        """Whether it counts as at work."""
        return self.silent < ALIVE


@frozen(kw_only=True)
class LaneStanding:
    """What the workers of a run share of the service: until when it is taken, since when it is paused; epoch seconds.

    `per_second` is the rate they share, None for none; `probe_by` the worker that asks whether the service is back.
    """

    lane: str
    per_second: float | None
    free_at: float
    paused_since: float | None
    paused_until: float | None
    probe_by: int | None
    probe_until: float | None


@frozen(kw_only=True)
class TableStanding:
    """How a table is kept: its rows, dead rows, and when it was last vacuumed in epoch seconds, None for never."""

    table: str
    rows: int
    dead: int
    vacuumed: float | None


@frozen(kw_only=True)
class Standing:
    """How a run stands at one moment `at`, in epoch seconds by the database's clock.

    `counts` are of its items by state. `oldest` is the item that is being sent for the longest time, `stuck` how many
    are being sent for longer than they can be, `first_stuck` some of them. `twice` counts items of which two attempts
    were accepted: there may be two invoices. `halted` and `paused` are since when, None if not.
    """

    name: str
    kind: RunKind
    at: float
    counts: Mapping[str, int]
    late: float
    halted: float | None
    halted_why: str | None
    paused: float | None
    oldest: Item | None
    stuck: int
    first_stuck: tuple[Item, ...]
    twice: int
    workers: tuple[WorkerStanding, ...]
    lanes: tuple[LaneStanding, ...]
    tables: tuple[TableStanding, ...] = field(default=())

    @property
    def open(self) -> int:
        """How many items there is still something to be done for by itself; exports are not among them."""
        return sum(self.counts[state.value] for state in _OPEN[self.kind])

    @property
    def in_flight(self) -> int:
        """How many items are being sent."""
        return self.counts.get(State.SENDING.value, 0)

    @property
    def doubts(self) -> int:
        """How many items are in doubt."""
        return self.counts.get(State.IN_DOUBT.value, 0)

    @property
    def oldest_age(self) -> float | None:
        """For how many seconds the oldest one is being sent; None if none is."""
        sent_at = None if self.oldest is None else self.oldest.sent_at
        return None if sent_at is None else self.at - sent_at


def _walk(kind: RunKind, *, exports: bool) -> str:
    """Return the statement that finds chunks: from one to the next that has work, never through what lies between."""
    conditions = [*_TO_DO[kind], *([_TO_EXPORT] if exports and kind is RunKind.INVOICES else [])]
    probes = ", ".join(
        f"(SELECT i.seq FROM invoicing.items AS i WHERE i.run = %(run)s AND {condition} AND i.seq >= {{begin}} "  # noqa: S608 - made of constants
        "ORDER BY i.seq LIMIT 1)"
        for condition in conditions
    )
    found = f"1 + (least({probes}) - 1) / %(size)s * %(size)s"
    return f"""
WITH RECURSIVE walk (lo) AS (
    SELECT {found.format(begin="1")}
    UNION ALL
    SELECT {found.format(begin="walk.lo + %(size)s")} FROM walk WHERE walk.lo IS NOT NULL
)
SELECT lo FROM walk WHERE lo IS NOT NULL AND lo NOT IN (SELECT unnest(%(live)s::bigint[])) LIMIT %(limit)s
"""  # noqa: S608 - made of constants


async def open_chunks(
    reader: PostgresReader,
    *,
    limit: int,
    live: Collection[int] = (),
    exports: bool = False,
    tried_before: float | None = None,
    size: int = CHUNK,
) -> list[Chunk]:
    """Return up to `limit` chunks that have work, from the front, without those that begin with one of `live`.

    Chunks are a grid: each begins with 1 more than a multiple of `size`. Work is what is planned, not sent or
    submitted, with `exports` also what is finished and has no file. What was tried and failed, documents and exports,
    is work only if that was before `tried_before` (epoch seconds; None for never): else it would be tried for ever.
    """
    rows = await reader.select(
        _walk(reader.kind, exports=exports), limit=limit, live=sorted(live), size=size, tried_before=tried_before
    )
    return [Chunk(lo, lo + size - 1) for (lo,) in rows]


_RUN = f"""
SELECT extract(epoch FROM {NOW})::float8, late, extract(epoch FROM halted)::float8, halted_why,
    extract(epoch FROM paused)::float8,
    (SELECT count(*) FROM invoicing.items WHERE run = %(run)s AND other_request_id IS NOT NULL)
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


async def standing(reader: PostgresReader) -> Standing:
    """Return how a run stands."""
    [(at, late, halted, halted_why, paused, twice)] = await reader.select(_RUN)
    [(stuck,)] = await reader.select(_STUCK, late=late)
    first_stuck = await reader.select(_FIRST_STUCK, late=late) if stuck else []
    oldest = next(iter(await reader.select(queries.OLDEST[0])), None)
    return Standing(
        name=reader.name,
        kind=reader.kind,
        at=at,
        counts=await reader.counts(),
        late=late,
        halted=halted,
        halted_why=halted_why,
        paused=paused,
        oldest=None if oldest is None else queries.item(oldest),
        stuck=stuck,
        first_stuck=tuple(map(queries.item, first_stuck)),
        twice=twice,
        workers=tuple(WorkerStanding(**_named(WorkerStanding, row)) for row in await reader.select(_WORKERS)),
        lanes=tuple(LaneStanding(**_named(LaneStanding, row)) for row in await reader.select(_LANES)),
        tables=tuple(TableStanding(**_named(TableStanding, row)) for row in await reader.select(_TABLES)),
    )
