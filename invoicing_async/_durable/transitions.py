"""Transitions of items: judged in memory, written together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

from attrs import frozen

from .records import Change, RequestIdTakenError, quote
from .schema import LATE, RECORD
from .states import NEEDS_REQUEST_ID, RESOLUTIONS, TABLE, Event, State, next_state
from .transaction import (
    NOTHING_LEARNED,
    SENDING,
    TEXT,
    TOGETHER,
    Answer,
    Job,
    Transaction,
    in_parts,
    insert_rows,
    one_line,
    standing_of,
)

__all__ = [
    "Transitions",
    "intends",
    "is_moves",
    "keep_late",
    "move_items",
    "move_together",
    "moved_at_once",
    "record_document",
    "split_texts",
    "undo",
]


@frozen
class Transitions:
    """The transitions of one operation."""

    changes: tuple[Change, ...]

    def __call__(self, transaction: Transaction) -> list[State]:
        return move_items(transaction, self.changes)


def is_moves(job: Job) -> bool:
    return isinstance(job[1], Transitions)


def intends(job: Job) -> bool:
    """Tell whether an operation records an intent, after which a byte may leave."""
    return isinstance(job[1], Transitions) and any(change.event is Event.INTENT for change in job[1].changes)


def move_items(transaction: Transaction, changes: Sequence[Change]) -> list[State]:
    """Do transitions in turn, within a transaction."""
    [states] = _move_groups(transaction, [changes])
    return states


def move_together(transaction: Transaction, jobs: list[Job]) -> list[Answer]:
    """Do the transitions of many operations together, within a transaction."""
    told = _move_groups(transaction, _groups(jobs))
    return [(future, states, None) for (future, _), states in zip(jobs, told, strict=True)]


def _groups(jobs: list[Job]) -> list[Sequence[Change]]:
    """Return the changes of each operation, leaving out those that are no transitions."""
    return [operation.changes for _, operation in jobs if isinstance(operation, Transitions)]


def _move_groups(
    transaction: Transaction, groups: list[Sequence[Change]], *, counts: bool = False
) -> list[list[State]]:
    moving = TransitionBatch(transaction)
    moving.look([change.ref for group in groups for change in group])
    moving.look_up([change.request_id for group in groups for change in group if change.request_id])
    states = [[moving.make(change) for change in group] for group in groups]
    moving.write(counts=counts)
    return states


def moved_at_once(transaction: Transaction, jobs: list[Job]) -> list[Answer] | None:
    """Do the transitions of many operations as one statement that is its own transaction; None if it takes more.

    Every statement lets go of the interpreter's lock and has to win it back from a loop that is busy: BEGIN, three
    statements and COMMIT take five times as long as the disk.
    """
    groups = _groups(jobs)
    if len(groups) < len(jobs):
        return None
    refs = [change.ref for group in groups for change in group]
    if len(refs) + len(State) > TOGETHER or not all(ref in transaction.standing for ref in refs):
        return None
    transaction.begin()
    told = _move_groups(transaction, groups, counts=True)
    transaction.committed()
    return [(future, states, None) for (future, _), states in zip(jobs, told, strict=True)]


class TransitionBatch:
    """Transitions made in memory, to be written together."""

    def __init__(self, transaction: Transaction) -> None:
        self._desk = transaction
        self._now = transaction.now()
        self._standing: dict[int, tuple[str, int]] = {}
        self._rows: list[tuple[Any, ...]] = []
        self._owners: dict[str, int] = {}

    def look(self, refs: list[int | str]) -> None:
        """Read where the items stand."""
        known, moved = self._desk.standing, self._desk.moved  # what this transaction moved stands elsewhere by now
        self._standing = {ref: known[ref] for ref in refs if ref in known and ref not in moved}
        seqs = list({ref for ref in refs if isinstance(ref, int) and ref not in self._standing})
        for part in in_parts(seqs) if seqs else ():
            for seq, state, attempt in split_texts(self._desk.one(_look_sql(len(part)), *part)):
                self._standing[int(seq)] = state, int(attempt)

    def look_up(self, request_ids: list[str]) -> None:
        """Read whose the request ids are; all of them at once, for the lock's sake."""
        for part in in_parts(request_ids) if request_ids else ():
            for seq, request_id in split_texts(self._desk.one(_owners_sql(len(part)), *part)):
                self._owners[bytes.fromhex(request_id).decode().lower()] = int(seq)

    def make(self, change: Change) -> State:
        """Make one transition; the table may refuse it."""
        seq = change.ref
        if not isinstance(seq, int) or seq not in self._standing:
            seq, before, attempt = standing_of(self._desk, change.ref)
            self._standing.setdefault(seq, (before, attempt))
        before, attempt = self._standing[seq]
        if change.request_id is not None:
            self._must_be_its_own(seq, change.request_id)
        if not change.request_id and change.event in NEEDS_REQUEST_ID:
            raise ValueError(f"request_id must be given with {change.event.value!r}")
        found = TABLE.get((before, change.event))  # type: ignore[arg-type] # a state is its text
        state = found if isinstance(found, State) else next_state(State(before), change.event)
        after = TEXT[state]
        attempt += change.event is Event.INTENT
        self._standing[seq] = after, attempt
        self._rows.append(self._row(seq, before, after, attempt, change))
        self._desk.move(before, after)
        return state

    def _must_be_its_own(self, seq: int, request_id: str) -> None:
        """Refuse a request id that another item has, or has just been given."""
        other = self._owners.setdefault(request_id.lower(), seq)
        if other != seq:
            key = self._desk.one("SELECT key FROM items WHERE seq = ?", other) or ""
            raise RequestIdTakenError(f"request {request_id} is another item's of this run: {key or other!r}", key=key)

    def _row(self, seq: int, before: str, after: str, attempt: int, change: Change) -> tuple[Any, ...]:
        where = (seq, after, attempt, self._now, before)
        if change.event is Event.INTENT:
            return (*where, *NOTHING_LEARNED, TEXT[change.event], f'{{"attempt":{attempt}}}')
        error = one_line(change.error)
        kept = (change.request_id, change.invoice_id, change.result, change.path, change.size, change.sha256)
        # Spelled out, as an encoder is made anew for every text.
        learned = (("request_id", change.request_id), ("code", change.code), ("error", error), ("path", change.path))
        said = [f'"{name}":{quote(text)}' for name, text in learned if text is not None]
        detail = f"{{{','.join(said)}}}" if said else None
        return (*where, change.code, error, *kept, TEXT[change.event], detail)

    def write(self, *, counts: bool = False) -> None:
        """Write all of it, in one statement if it is not too much; with `counts`, the counts as well."""
        transaction = self._desk
        for seq, state, attempt, *_ in self._rows:
            transaction.moved[seq] = attempt if state is SENDING else None
        insert_rows(transaction, "moves", self._rows + transaction.counted() if counts else self._rows)


@cache
def _look_sql(count: int) -> str:
    marks = ",".join("?" * count)
    return f"SELECT group_concat(seq || ' ' || state || ' ' || attempt) FROM items WHERE seq IN ({marks})"  # noqa: S608 - made of constants


@cache
def _owners_sql(count: int) -> str:
    marks = ",".join("?" * count)
    return (
        "SELECT group_concat(seq || ' ' || hex(request_id)) FROM items "  # noqa: S608 - made of constants
        f"WHERE request_id COLLATE NOCASE IN ({marks})"
    )


def split_texts(found: str | None) -> Iterator[list[str]]:
    return (entry.split(" ") for entry in found.split(",")) if found else iter(())


def record_document(transaction: Transaction, ref: int | str, state: str, values: tuple[Any, ...]) -> None:
    seq, before, _ = standing_of(transaction, ref)
    transaction.execute(RECORD, (state, *values, transaction.now(), seq))
    transaction.move(before, state)


def undo(transaction: Transaction, ref: int | str) -> None:
    """Take back how a doubt was settled, if nothing has followed from it."""
    seq = standing_of(transaction, ref)[0]
    sql = "SELECT event FROM journal WHERE item = ? AND event <> ? ORDER BY seq DESC LIMIT 1"
    last = transaction.one(sql, seq, Event.POLL_NEW.value)
    if last not in {event.value for event in RESOLUTIONS}:
        raise ValueError(f"{ref!r} was not settled by hand, or has been sent or answered since")
    move_items(transaction, [Change(ref=seq, event=Event.RESOLUTION_UNDONE, error="how it was settled was taken back")])
    transaction.execute("UPDATE items SET request_id = NULL WHERE seq = ?", (seq,))


def keep_late(transaction: Transaction, late: float) -> None:
    known = float(transaction.one("SELECT value FROM meta WHERE name = ?", LATE) or 0.0)
    transaction.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (LATE, repr(max(known, late))))
