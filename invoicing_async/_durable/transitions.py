"""Transitions of items: judged in memory, written together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from attrs import astuple, frozen

from .fence import fenced
from .records import Change, Pause, RequestIdTakenError, SupersededError, quote
from .schema import LATE, RECORD
from .states import NEEDS_REQUEST_ID, RESOLUTIONS, TABLE, DocumentState, Event, State, next_state
from .transaction import (
    NOTHING_LEARNED,
    TEXT,
    TOGETHER,
    Answer,
    Job,
    Transaction,
    current_of,
    in_parts,
    insert_rows,
    one_line,
    store_meta,
)

__all__ = [
    "TransitionBatch",
    "Transitions",
    "change_items",
    "commit_transitions",
    "do_together",
    "keep_late",
    "record_document",
    "records_intent",
    "split_texts",
    "undo",
    "write_pause",
]


_INTENT, _LATE_ACCEPT, _SENDING = Event.INTENT, Event.LATE_ACCEPT, State.SENDING
"""Looked for at every change: by the name of its class each takes as long as a comparison."""


@frozen
class Transitions:
    """The transitions of one operation."""

    changes: tuple[Change, ...]

    def __call__(self, transaction: Transaction) -> list[State]:
        return change_items(transaction, self.changes)


def records_intent(job: Job) -> bool:
    """Tell whether an operation records an intent, after which a byte may leave."""
    return isinstance(job[1], Transitions) and any(change.event is _INTENT for change in job[1].changes)


def change_items(transaction: Transaction, changes: Sequence[Change]) -> list[State]:
    """Do transitions in turn, within a transaction."""
    [states] = _change_groups(transaction, [changes], verify=True)
    return states


def do_together(transaction: Transaction, jobs: list[Job]) -> list[Answer]:
    """Do operations in turn, within a transaction; transitions that follow each other are written together.

    Whose a request id is stays unread where the file refuses a second owner: after that each is done on its own.
    """
    answers: list[Answer] = []
    for are_transitions, part in groupby(jobs, lambda job: isinstance(job[1], Transitions)):
        alike = list(part)
        if are_transitions:
            groups = [operation.changes for _, operation in alike if isinstance(operation, Transitions)]
            told = _change_groups(transaction, groups, verify=not transaction.unique_requests)
            answers += [(future, states, None) for (future, _), states in zip(alike, told, strict=True)]
        else:
            answers += [(future, operation(transaction), None) for future, operation in alike]
    return answers


def _change_groups(transaction: Transaction, groups: Sequence[Sequence[Change]], *, verify: bool) -> list[list[State]]:
    known, changed = transaction.current, transaction.changed  # what this transaction changed is other by now
    batch = TransitionBatch(transaction, verify=verify)
    seqs = dict.fromkeys(change.ref for group in groups for change in group if isinstance(change.ref, int))
    batch.current |= {seq: known[seq] for seq in seqs if seq in known and seq not in changed}
    for part in in_parts([seq for seq in seqs if seq not in batch.current]):
        marks = ",".join("?" * len(part))
        sql = f"SELECT group_concat(seq || ' ' || state || ' ' || attempt) FROM items WHERE seq IN ({marks})"  # noqa: S608 - made of constants
        for seq, state, attempt in split_texts(transaction.one(sql, *part)):
            batch.current[int(seq)] = state, int(attempt)
    states = [[batch.make(change) for change in group] for group in groups]
    insert_rows(transaction, "moves", batch.rows())
    for state, change in batch.counts.items():
        transaction.counts[state] += change
    transaction.changed |= batch.changed
    return states


def commit_transitions(transaction: Transaction, jobs: list[Job]) -> list[Answer] | None:
    """Do the transitions of many operations as one statement that is its own transaction; None if it takes more.

    Every statement lets go of the interpreter's lock and has to win it back from a loop that is busy: BEGIN, three
    statements and COMMIT take five times as long as the disk.
    """
    groups = [operation.changes for _, operation in jobs if isinstance(operation, Transitions)]
    seqs = [change.ref for group in groups for change in group if change.ref in transaction.current]
    is_small = len(seqs) + len(State) <= TOGETHER
    if len(groups) < len(jobs) or not is_small or len(seqs) < sum(map(len, groups)):
        return None
    batch = TransitionBatch(transaction, verify=not transaction.unique_requests)
    batch.current |= {seq: transaction.current[seq] for seq in seqs}
    answers: list[Answer] = [
        (job[0], [batch.make(change) for change in group], None) for job, group in zip(jobs, groups, strict=True)
    ]
    counts = [
        (0, state, change, None, None, *NOTHING_LEARNED, None, None) for state, change in batch.counts.items() if change
    ]
    insert_rows(transaction, "moves", batch.rows() + counts)
    transaction.remember(batch.changed)
    return answers


class TransitionBatch:
    """Transitions judged in memory, to be written together.

    `current` holds where items stand, as state and attempt; where others stand is read. `counts` and `changed` are as
    in a `Transaction`. With `verify` it is read whose a request id is.
    """

    def __init__(self, transaction: Transaction, *, verify: bool) -> None:
        self._transaction = transaction
        self._owners: dict[str, int] | None = {} if verify else None
        self._made: list[tuple[int, str, str, int, Event, Change]] = []
        self.current: dict[int, tuple[str, int]] = {}
        self.counts: defaultdict[str, int] = defaultdict(int)
        self.changed: dict[int, int | None] = {}

    def make(self, change: Change) -> State:
        """Make one transition.

        Raises `ValueError` if the table of states refuses it, `SupersededError` if the fence does.
        """
        seq, event, bears = change.ref, change.event, change.attempt
        if not isinstance(seq, int) or seq not in self.current:
            seq, before, attempt = current_of(self._transaction, change.ref)
            self.current.setdefault(seq, (before, attempt))
        before, attempt = self.current[seq]
        found = TABLE.get((before, event))  # type: ignore[arg-type] # a state is its text
        # What bears the attempt of the item as it stands, and is allowed there, passes the fence.
        if bears is not None and (bears != attempt or not isinstance(found, State) or event is _LATE_ACCEPT):
            event = self.fenced(seq, change)
            found = TABLE[State(before), event]
        if event is _INTENT and seq in self._transaction.noted:
            raise self._superseded(seq, "it was accepted twice, perhaps, and is never sent again")
        if change.request_id is not None and self._owners is not None and event is not _LATE_ACCEPT:
            self._check_owner(seq, change.request_id)
        if not change.request_id and event in NEEDS_REQUEST_ID:
            raise ValueError(f"request_id must be given with {event.value!r}")
        state = found if isinstance(found, State) else next_state(State(before), event)
        after = TEXT[state]
        if event is _INTENT:
            attempt += 1
        elif event is _LATE_ACCEPT:
            self._transaction.noted.add(seq)
        self.current[seq] = after, attempt
        self.changed[seq] = attempt if state is _SENDING else None
        self.counts[before] -= 1
        self.counts[after] += 1
        self._made.append((seq, before, after, attempt, event, change))
        return state

    def fenced(self, seq: int, change: Change) -> Event:
        """Return what an event is that bears an attempt. Raises `SupersededError` if it is nothing any more."""
        before, attempt = self.current[seq]
        event = fenced(change.event, change.attempt, state=State(before), attempt=attempt)
        if event is None or (event is _LATE_ACCEPT and self.knows(seq, change.request_id or "")):
            said = f"{change.event.value!r} of attempt {change.attempt} comes too late"
            raise self._superseded(seq, f"{said}: it is {before!r} by now, in attempt {attempt}")
        return event

    def knows(self, seq: int, request_id: str) -> bool:
        """Tell whether a request is the item's already, or the one beside its own."""
        made = {change.request_id for number, *_, change in self._made if number == seq}
        sql = (
            "SELECT request_id FROM items WHERE seq = ? UNION ALL SELECT request_id FROM other_requests WHERE item = ?"
        )
        made |= {known for (known,) in self._transaction.execute(sql, (seq, seq))}
        return request_id.lower() in {known.lower() for known in made if known}

    def _superseded(self, seq: int, why: str) -> SupersededError:
        key = self._transaction.one("SELECT key FROM items WHERE seq = ?", seq)
        return SupersededError(f"somebody else has moved on with {key!r}: {why}", key=key, seq=seq)

    def _check_owner(self, seq: int, request_id: str) -> None:
        """Raise `RequestIdTakenError` if a request is another item's."""
        owners = self._owners if self._owners is not None else {}
        sql = "SELECT seq FROM items WHERE request_id = ? COLLATE NOCASE AND seq <> ?"
        other = self._transaction.one(sql, request_id, seq) or owners.setdefault(request_id.lower(), seq)
        if other != seq:
            key = self._transaction.one("SELECT key FROM items WHERE seq = ?", other) or ""
            text = f"request {request_id} is another item's of this run: {key or other!r}"
            raise RequestIdTakenError(text, key=key)

    def rows(self) -> list[tuple[Any, ...]]:
        """Return what was made as rows of the view `moves`."""
        now = self._transaction.now()
        rows: list[tuple[Any, ...]] = []
        for seq, before, after, attempt, event, change in self._made:
            where = (-seq if event is _LATE_ACCEPT else seq, after, attempt, now, before)
            if event is _INTENT:
                rows.append((*where, *NOTHING_LEARNED, TEXT[event], f'{{"attempt":{attempt}}}'))
                continue
            error = change.error and one_line(change.error)
            kept = (change.request_id, change.invoice_id, change.result, change.path, change.size, change.sha256)
            # Spelled out, as an encoder is made anew for every text.
            learned = (
                ("request_id", change.request_id),
                ("code", change.code),
                ("error", error),
                ("path", change.path),
            )
            said = [f'"{name}":{quote(text)}' for name, text in learned if text is not None]
            detail = f"{{{','.join(said)}}}" if said else None
            rows.append((*where, change.code, error, *kept, TEXT[event], detail))
        return rows


def split_texts(found: str | None) -> Iterator[list[str]]:
    return (entry.split(" ") for entry in found.split(",")) if found else iter(())


def record_document(
    transaction: Transaction, ref: int | str, state: DocumentState, values: tuple[Any, ...], begun: int | None
) -> None:
    seq, before, attempt = current_of(transaction, ref)
    if begun not in (None, attempt):
        raise SupersededError(f"item {seq} stands in attempt {attempt}, not in {begun} any more", seq=seq)
    transaction.execute(RECORD, (state.value, *values, transaction.now(), seq))
    transaction.counts[before] -= 1
    transaction.counts[state.value] += 1


def undo(transaction: Transaction, ref: int | str) -> None:
    """Take back how a doubt was settled, if nothing has followed from it."""
    seq = current_of(transaction, ref)[0]
    sql = "SELECT event FROM journal WHERE item = ? AND event <> ? ORDER BY seq DESC LIMIT 1"
    last = transaction.one(sql, seq, Event.POLL_NEW.value)
    if last not in {event.value for event in RESOLUTIONS}:
        raise ValueError(f"{ref!r} was not settled by hand, or has been sent or answered since")
    change_items(
        transaction, [Change(ref=seq, event=Event.RESOLUTION_UNDONE, error="how it was settled was taken back")]
    )
    transaction.execute("UPDATE items SET request_id = NULL WHERE seq = ?", (seq,))


def keep_late(transaction: Transaction, late: float) -> None:
    known = float(transaction.one("SELECT value FROM meta WHERE name = ?", LATE) or 0.0)
    store_meta(transaction, LATE, repr(max(known, late)))


def write_pause(transaction: Transaction, pause: Pause) -> None:
    transaction.execute("INSERT OR REPLACE INTO pauses VALUES (?, ?, ?, ?)", astuple(pause))
