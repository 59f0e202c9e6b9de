"""What is asked of the database about the work of a run: which chunks of it have something to do and no job.

The tables of the queue are found by the `search_path` of the connection, those of the ledger by their schema. The
ledger is the truth, a job only a hint: what is open there and has no live job gets one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from .._durable.states import DocumentState, RunKind, State

__all__ = [
    "FORGOTTEN",
    "HOLD",
    "LEFT_OPEN",
    "OUTLOOK",
    "QUEUE_SCHEMA",
    "SIZED",
    "TABLES",
    "TURN",
    "WALKED",
    "WALKED_WHOLE",
]

QUEUE_SCHEMA: Final = "invoicing_queue"

TABLES = """
CREATE TABLE IF NOT EXISTS invoicing_queue.migrations (
    name text PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT clock_timestamp()
);
-- When somebody looked last for what has no job, and when that ended well; and how many keys a chunk of the run has.
CREATE TABLE IF NOT EXISTS invoicing_queue.turns (
    run integer PRIMARY KEY,
    at timestamptz NOT NULL,
    planned timestamptz,
    chunk integer NOT NULL
) WITH (fillfactor = 50);
-- Chunks that were worked through and still have open items: as what they were left. They are worked through again when
-- that is no longer so, or when a worker has begun since.
CREATE TABLE IF NOT EXISTS invoicing_queue.walks (
    run integer NOT NULL,
    lo bigint NOT NULL,
    hi bigint NOT NULL,
    at timestamptz NOT NULL,
    left_as text NOT NULL,
    PRIMARY KEY (run, lo)
);
"""

_OPEN: Mapping[RunKind, tuple[str, ...]] = {
    RunKind.INVOICES: (State.PLANNED, State.NOT_SENT, State.SUBMITTED),
    RunKind.DOCUMENTS: (DocumentState.PLANNED, DocumentState.DEFERRED, DocumentState.FAILED),
}
"""The states in which there is something to do. Written out, so that the index of what is open is used."""

_ONCE = " AND other_request_id IS NULL"
"""Of what there may be two invoices nothing is ever sent again."""

_WITHOUT_FILE = f"state = '{State.SUCCESS}' AND path IS NULL AND %(export)s"

_MARK = "seq || ':' || state || ':' || attempt || ':' || extract(epoch FROM updated)"
"""An open item as it stands. By the state of all, not by a time: what commits late is seen late, but is another."""


def _conditions(kind: RunKind) -> list[str]:
    """Return what an open item is, one condition for each index that finds it."""
    states = [f"state = '{state}'{_ONCE if state is State.NOT_SENT else ''}" for state in _OPEN[kind]]
    return [*states, _WITHOUT_FILE] if kind is RunKind.INVOICES else states


def _next_open(kind: RunKind, after: str) -> str:
    """The number of the first open item behind another."""
    found = (
        f"(SELECT seq FROM invoicing.items WHERE run = %(run)s AND {condition} AND seq > {after} ORDER BY seq LIMIT 1)"  # noqa: S608 - made of constants
        for condition in _conditions(kind)
    )
    return f"least({', '.join(found)})"


def _open_between(kind: RunKind, lo: str, hi: str, columns: str) -> str:
    return " UNION ALL ".join(
        f"SELECT {columns} FROM invoicing.items"  # noqa: S608 - made of constants
        f" WHERE run = %(run)s AND {condition} AND seq BETWEEN {lo} AND {hi}"
        for condition in _conditions(kind)
    )


def _outlook(kind: RunKind) -> str:
    columns = f"seq, {_MARK} AS mark"
    return f"""
WITH RECURSIVE crew AS MATERIALIZED (
    SELECT coalesce(max(started), '-infinity') AS since,
        coalesce(sum(slots) FILTER (WHERE heartbeat > clock_timestamp() - interval '15 s'), 0) AS slots
    FROM invoicing.workers WHERE run = %(run)s AND ended IS NULL AND slots > 0
), live AS MATERIALIZED (
    SELECT (args ->> 'lo')::bigint AS lo, status = 'todo' AS waits
    FROM procrastinate_jobs WHERE queue_name = %(queue)s AND status IN ('todo', 'doing')
), grid AS MATERIALIZED (
    SELECT CASE WHEN EXISTS (SELECT FROM live) THEN turns.chunk
        ELSE least(
            %(most)s::integer,
            greatest(%(least)s::integer, ceil(runs.last_seq / (8.0 * greatest(crew.slots, %(slots)s))))
        ) END::bigint AS size
    FROM crew, invoicing.runs LEFT JOIN invoicing_queue.turns USING (run) WHERE run = %(run)s
), chunks (lo) AS (
    SELECT seq - (seq - 1) %% size FROM grid, LATERAL (SELECT {_next_open(kind, "0")} AS seq) found
    UNION ALL
    SELECT seq - (seq - 1) %% size
    FROM chunks, grid, LATERAL (SELECT {_next_open(kind, "chunks.lo + grid.size - 1")} AS seq) found
    WHERE lo IS NOT NULL
), due AS (
    SELECT lo, lo + size - 1 AS hi FROM chunks, grid, crew
    WHERE lo IS NOT NULL AND NOT EXISTS (SELECT FROM live WHERE live.lo = chunks.lo)
        AND NOT coalesce((
            SELECT walk.hi = chunks.lo + size - 1 AND walk.at >= crew.since AND walk.left_as = (
                SELECT md5(string_agg(mark, ',' ORDER BY seq))
                FROM ({_open_between(kind, "walk.lo", "walk.hi", columns)}) left_open
            )
            FROM invoicing_queue.walks walk WHERE walk.run = %(run)s AND walk.lo = chunks.lo
        ), false)
    LIMIT (SELECT greatest(0, greatest(64, 16 * slots) - (SELECT count(*) FROM live WHERE waits)) FROM crew)
)
SELECT (SELECT size FROM grid) AS size, (SELECT count(*) FROM live) AS live,
    EXISTS (SELECT FROM invoicing.items WHERE run = %(run)s AND state = '{State.SENDING}') AS sending,
    (SELECT array_agg(ARRAY[lo, hi]) FROM due) AS due
"""  # noqa: S608 - made of constants


OUTLOOK: Mapping[RunKind, str] = {kind: _outlook(kind) for kind in RunKind}
"""What is to do, at one moment: chunks without a job up to a window, how many have one, whether anything is on its way.

The chunks are walked from the front, from each to the next that has an open item, so that of a long run only the front
is read. How many keys a chunk has changes only while there is no job, so that no two overlap. Each is looked up
among those that were left, and not joined with all of them, of which there may be thousands.
"""

HOLD = """
INSERT INTO invoicing_queue.turns AS turn (run, at, planned, chunk)
VALUES (%(run)s, clock_timestamp(), clock_timestamp(), %(most)s)
ON CONFLICT (run) DO UPDATE SET planned = excluded.planned
RETURNING set_config('idle_in_transaction_session_timeout', '10s', true) AS longest
"""
"""Let nobody else plan before this transaction ends; one whose process is stopped meanwhile is ended.

Otherwise a second planner, who looked before the jobs of the first were there, makes them again as soon as the first
of them is being done; and cuts the run into chunks of another size, which overlap.
"""

SIZED = """
UPDATE invoicing_queue.turns SET chunk = %(size)s WHERE run = %(run)s AND chunk <> %(size)s RETURNING run
"""

TURN = """
INSERT INTO invoicing_queue.turns AS turn (run, at, chunk) VALUES (%(run)s, clock_timestamp(), %(most)s)
ON CONFLICT (run) DO UPDATE SET at = clock_timestamp()
WHERE turn.at < clock_timestamp() - %(every)s * interval '1 s' RETURNING true AS got
"""
"""Take the turn to plan, if nobody did within `every` seconds."""

FORGOTTEN: Mapping[RunKind, str] = {
    kind: f"""
SELECT EXISTS (
    SELECT FROM unnest(%(los)s::bigint[], %(his)s::bigint[]) AS due (lo, hi), LATERAL (
        {_open_between(kind, "due.lo", "due.hi", "updated")}
    ) left_open
    WHERE updated < clock_timestamp() - %(for)s * interval '1 s'
)
"""  # noqa: S608 - made of constants
    for kind in RunKind
}
"""Whether chunks that are due a job have something that was to be done for so many seconds."""

LEFT_OPEN: Mapping[RunKind, str] = {
    kind: f"""
SELECT key, mark FROM ({_open_between(kind, "%(lo)s", "%(hi)s", f"seq, key, {_MARK} AS mark")}) left_open ORDER BY seq
"""  # noqa: S608 - made of constants
    for kind in RunKind
}
"""What a chunk still has to do."""

WALKED = """
INSERT INTO invoicing_queue.walks AS walk (run, lo, hi, at, left_as)
VALUES (%(run)s, %(lo)s, %(hi)s, clock_timestamp(), %(left_as)s)
ON CONFLICT (run, lo) DO UPDATE SET hi = excluded.hi, at = excluded.at, left_as = excluded.left_as
"""

WALKED_WHOLE = "DELETE FROM invoicing_queue.walks WHERE run = %(run)s AND lo = %(lo)s"
