"""The statements that read a run. States stand in them as they are, so that the partial indexes are used."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from ..records import DamagedRunError, Item, JournalEntry, states_of
from ..states import DocumentState, Event, RunKind, State

__all__ = [
    "COUNTS",
    "DESCRIBE",
    "DUPLICATES",
    "ENTRIES",
    "FIND",
    "FIND_MANY",
    "HISTORY",
    "HOLDERS",
    "NOW",
    "OLDEST",
    "OWN_COUNTS",
    "PAUSES",
    "TWICE",
    "WITHOUT_FILE",
    "entry",
    "from_end",
    "item",
    "page",
    "select",
    "state_counts",
]

Row = tuple[Any, ...]

EVERY = tuple(dict.fromkeys(state.value for kind in RunKind for state in states_of(kind)))
AT_REST = frozenset({State.SUCCESS.value, DocumentState.SAVED.value, DocumentState.SKIPPED.value})
"""The states that the index of open items leaves out; the primary key leads through them."""

STRETCH = 2_000
"""Items that are looked through at a time for one of those."""

NOW = "coalesce(to_timestamp(%(now)s), clock_timestamp())"
"""The time of the clock that is given, else the database's."""

_COLUMNS = (
    "i.seq, i.key, i.state, i.attempt, i.request_id, i.invoice_id, i.path, i.size, i.sha256, i.code, i.error, "
    "i.result, i.payload_sha256, extract(epoch FROM i.sent_at)::float8, extract(epoch FROM i.updated)::float8"
)
_PAYLOAD = "(SELECT d.payload FROM invoicing.drafts AS d WHERE d.run = i.run AND d.seq = i.seq)"
_ENTRY = "SELECT id, item, event, extract(epoch FROM at)::float8, detail FROM invoicing.journal"

DESCRIBE = """
SELECT run, kind, settings, extract(epoch FROM created)::float8, late FROM invoicing.runs WHERE name = %(name)s
"""

COUNTS = "SELECT state, sum(count)::bigint FROM invoicing.tally WHERE run = %(run)s GROUP BY state"

OWN_COUNTS = "SELECT state, count FROM invoicing.tally WHERE run = %(run)s AND worker = %(worker)s"

WITHOUT_FILE = "SELECT count(*) FROM invoicing.items WHERE run = %(run)s AND state = 'success' AND path IS NULL"

DUPLICATES = """
SELECT key, times FROM invoicing.duplicates
WHERE run = %(run)s AND key > %(after)s
    AND command = coalesce(%(command)s, (SELECT last_command FROM invoicing.runs WHERE run = %(run)s))
ORDER BY key LIMIT %(limit)s
"""

HISTORY = f"{_ENTRY} WHERE run = %(run)s AND item = %(item)s ORDER BY id"
ENTRIES = f"{_ENTRY} WHERE run = %(run)s AND id > %(after)s ORDER BY id LIMIT %(limit)s"

PAUSES = """
SELECT operation, extract(epoch FROM begun)::float8, extract(epoch FROM until)::float8, is_over
FROM invoicing.pauses WHERE run = %(run)s
"""

HOLDERS = f"""
SELECT pid, host, extract(epoch FROM started)::float8 FROM invoicing.workers
WHERE run = %(run)s AND ended IS NULL AND heartbeat > {NOW} - make_interval(secs => %(alive)s)
ORDER BY worker
"""  # noqa: S608 - made of constants


def select(where: str, *, payload: bool = False) -> str:
    """Return the statement for items from a place, `where`, that calls them `i`; the order of columns is `item`'s."""
    more = _PAYLOAD if payload else "NULL"
    return f"SELECT {_COLUMNS}, {more}, i.other_request_id FROM {where}"  # noqa: S608 - made of constants


FIND = select("invoicing.items AS i WHERE i.run = %(run)s AND i.key = %(key)s", payload=True)
"""An item by its key."""

FIND_MANY = select(
    "(SELECT %(run)s::integer AS run, unnest(%(seqs)s::bigint[]) AS seq) AS asked"
    " JOIN invoicing.items AS i ON i.run = asked.run AND i.seq = asked.seq",
    payload=True,
)
"""Items by their `seq`. The run stands beside each number, so that all of a young run is not read for them."""

OLDEST = tuple(
    select(f"invoicing.items AS i WHERE i.run = %(run)s AND i.state = '{state}' ORDER BY i.sent_at, i.seq LIMIT 1")
    for state in (State.SENDING, State.SUBMITTED)
)
"""The oldest of what is on its way, and of what the service has."""


TWICE = "i.other_request_id IS NOT NULL AND lower(i.other_request_id) IS DISTINCT FROM lower(i.request_id)"
"""The condition on `i` that another attempt of an item was accepted as well; a person may say that it is the one."""


def page(states: Sequence[str] | None, *, payload: bool = False, more: str = "") -> str:
    """Return the statement for a page of items behind `after`, in these states; None for every state.

    One select a state, each along its index, then merged: a sort over all would not end. `more` is a condition beside,
    on `i`.
    """
    if states is None:
        parts = [_in_order(f"true {more}")]
    else:
        parts = [
            _in_order(f"i.state = '{state}' {more}") for state in EVERY if state in states and state not in AT_REST
        ]
        rest = [state for state in EVERY if state in states and state in AT_REST]
        parts += [_in_order(f"i.state = '{state}' {more}") if more else _through(state) for state in rest]
    union = " UNION ALL ".join(parts or [_in_order("false")])
    merged = f"(SELECT * FROM ({union}) AS i ORDER BY i.seq LIMIT %(limit)s) AS i"  # noqa: S608 - made of constants
    return f"{select(merged, payload=payload)} ORDER BY i.seq"


def from_end(page: str) -> str:
    """Return the statement for a page of items in front of `after`, the last ones first."""
    return page.replace("i.seq > ", "i.seq < ").replace("ORDER BY i.seq", "ORDER BY i.seq DESC")


def _in_order(condition: str) -> str:
    return (
        f"(SELECT i.* FROM invoicing.items AS i WHERE i.run = %(run)s AND {condition} AND i.seq > %(after)s "  # noqa: S608 - made of constants
        "ORDER BY i.seq LIMIT %(limit)s)"
    )


def _through(state: str) -> str:
    """Look for a state that no index leads to, one stretch of the primary key after the other until the page is full.

    Else the database would sort the whole run wherever it believes that there are few of these, as it does for a while
    after the first of them came.
    """
    return f"""(
        SELECT i.* FROM generate_series(
            %(after)s::bigint, (SELECT max(seq) FROM invoicing.items WHERE run = %(run)s), {STRETCH}
        ) AS stretch (begin) CROSS JOIN LATERAL (
            SELECT * FROM invoicing.items
            WHERE run = %(run)s AND state = '{state}' AND seq > begin AND seq <= begin + {STRETCH}
            ORDER BY seq LIMIT %(limit)s
        ) AS i LIMIT %(limit)s
    )"""  # noqa: S608 - made of constants


def item(row: Row) -> Item:
    """Read an item as those statements have it."""
    return Item(*row)


def entry(row: Row) -> JournalEntry:
    """Read an entry of the journal. Raises `DamagedRunError`."""
    number, of, event, at, detail = row
    try:
        return JournalEntry(number, of, Event(event), at, json.loads(detail) if detail else {})
    except ValueError as error:
        raise DamagedRunError(f"entry {number} of the journal of item {of} is damaged ({error})") from error


def state_counts(rows: Iterable[Row], kind: RunKind) -> dict[str, int]:
    """Return the counts by state, zeros included."""
    counted: dict[str, int] = dict(rows)
    return {state.value: int(counted.get(state.value, 0)) for state in states_of(kind)}
