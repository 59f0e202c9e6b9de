"""What is read from a run file."""

from __future__ import annotations

import json
from operator import attrgetter

from .records import DamagedRunError, Item, JournalEntry, states_of
from .schema import BARE, WITH_PAYLOAD
from .states import SENDABLE, Event, RunKind, State
from .transaction import Transaction, current_of

__all__ = [
    "count_states",
    "count_without_file",
    "list_duplicates",
    "read_entries",
    "read_history",
    "read_items",
    "read_twice",
    "to_send",
]


def count_states(transaction: Transaction, kind: RunKind) -> dict[str, int]:
    transaction.flush()
    counted = dict(transaction.execute("SELECT state, count FROM tally").fetchall())
    return {state.value: counted[state.value] for state in states_of(kind)}


def read_items(
    transaction: Transaction,
    states: tuple[str, ...] | None,
    after: int,
    limit: int,
    *,
    payload: bool,
    condition: str = "",
) -> list[Item]:
    """Return a page by `seq`. One query a state, each along the index, then merged: a sort over all would not end.

    `condition` is one more of the items `i`.
    """
    select = WITH_PAYLOAD if payload else BARE
    if states is None:
        page = transaction.execute(f"{select} WHERE i.seq > ? {condition} ORDER BY i.seq LIMIT ?", (after, limit))
        return [Item(*row) for row in page]
    sql = f"{select} WHERE i.state = ? AND i.seq > ? {condition} ORDER BY i.seq LIMIT ?"
    items = [Item(*row) for state in states for row in transaction.execute(sql, (state, after, limit))]
    return sorted(items, key=attrgetter("seq"))[:limit]


def to_send(transaction: Transaction, after: int, limit: int) -> list[Item]:
    """Return what may be sent, and keep its state and attempt at hand: it will be sent next."""
    alone = "AND NOT EXISTS (SELECT 1 FROM other_requests AS o WHERE o.item = i.seq)"
    items = read_items(transaction, tuple(SENDABLE), after, limit, payload=True, condition=alone)
    transaction.current.update(
        (item.seq, (item.state, item.attempt)) for item in items if item.seq not in transaction.changed
    )
    return items


def read_twice(transaction: Transaction, limit: int) -> list[Item]:
    """Return items of which a request beside their own was accepted, in their order."""
    noted = "SELECT o.item FROM other_requests AS o JOIN items ON items.seq = o.item"
    other = "o.request_id COLLATE NOCASE IS NOT items.request_id"
    sql = f"{BARE} WHERE i.seq IN ({noted} WHERE {other}) ORDER BY i.seq LIMIT ?"
    return [Item(*row) for row in transaction.execute(sql, (limit,))]


def count_without_file(transaction: Transaction) -> int:
    sql = "SELECT count(*) FROM items WHERE state = ? AND path IS NULL"
    return int(transaction.one(sql, State.SUCCESS.value))


def list_duplicates(transaction: Transaction, after: str, limit: int) -> list[tuple[str, int]]:
    sql = "SELECT key, times FROM duplicates WHERE key > ? ORDER BY key LIMIT ?"
    return transaction.execute(sql, (after, limit)).fetchall()


def read_history(transaction: Transaction, ref: int | str) -> list[JournalEntry]:
    sql = "SELECT seq, item, event, at, detail FROM journal WHERE item = ? ORDER BY seq"
    return [_entry(row) for row in transaction.execute(sql, (current_of(transaction, ref)[0],))]


def read_entries(transaction: Transaction, after: int, limit: int) -> list[JournalEntry]:
    sql = "SELECT seq, item, event, at, detail FROM journal WHERE seq > ? ORDER BY seq LIMIT ?"
    return [_entry(row) for row in transaction.execute(sql, (after, limit))]


def _entry(row: tuple[int, int, str, float, str | None]) -> JournalEntry:
    seq, item, event, at, detail = row
    try:
        return JournalEntry(seq, item, Event(event), at, json.loads(detail) if detail else {})
    except ValueError as error:
        raise DamagedRunError(f"entry {seq} of the journal of item {item} is damaged ({error})") from error
