"""What a report says of a run file, read at one moment, also while another process works on it."""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from ..models import AuthorityStatus
from .answers import authority_status
from .figures import Durations, Reason, RunFigures
from .queries import count_states, read_items
from .records import Item, Pause
from .schema import BARE
from .states import DocumentState, Event, RunKind, State
from .timeline import Moments, Timeline
from .transaction import Transaction

__all__ = ["read_figures", "read_oldest", "read_pauses", "read_timeline"]

LISTED = 50
"""Items of one state that are listed one by one."""

REASONS, WORDINGS = 25, 5_000
"""Reasons that are given, and the wordings that are looked through for them."""

ROWS = 10_000
"""Rows that are read at a time."""

_EVENTS = tuple(Event)
_HAPPENED: Mapping[Event, str] = {
    Event.ACCEPTED_NEW: "submitted",
    Event.RESOLVED_CREATED: "submitted",
    Event.ACCEPTED_SUCCESS: "success",
    Event.POLL_SUCCESS: "success",
    Event.ACCEPTED_FAILED: "failed",
    Event.POLL_FAILED: "failed",
    Event.REJECTED: "rejected",
    Event.LOST: "in_doubt",
    Event.CRASHED: "in_doubt",
    Event.LOG_LOST: "in_doubt",
    Event.NOT_SENT: "not_sent",
    Event.REFUSED_FOR_NOW: "not_sent",
    Event.LATE_ACCEPTED_NEW: "submitted",
    Event.LATE_ACCEPTED_SUCCESS: "success",
    Event.LATE_ACCEPTED_FAILED: "failed",
    Event.LATE_REJECTED: "rejected",
    Event.LATE_NOT_SENT: "not_sent",
}
"""The state that an item came to by an event."""

_NUMBERED = " ".join(f"WHEN '{event.value}' THEN {number}" for number, event in enumerate(_EVENTS))
_JOURNAL = (
    f"SELECT item, CASE event {_NUMBERED} ELSE {len(_EVENTS)} END, at FROM journal "  # noqa: S608 - made of constants
    "WHERE item BETWEEN 1 AND ? ORDER BY seq"
)
_DOCUMENTS = tuple(DocumentState)
_RECORDED = (
    "SELECT seq, CASE state "  # noqa: S608 - made of constants
    + " ".join(f"WHEN '{state.value}' THEN {number}" for number, state in enumerate(_DOCUMENTS))
    + f" END, updated FROM items WHERE state <> '{DocumentState.PLANNED.value}'"
)

_INTENT = _EVENTS.index(Event.INTENT)
_ANSWERS = frozenset(
    _EVENTS.index(event)
    for event in (
        Event.ACCEPTED_NEW,
        Event.ACCEPTED_SUCCESS,
        Event.ACCEPTED_FAILED,
        Event.REJECTED,
        Event.REFUSED_FOR_NOW,
    )
)
_ACCEPTED = _EVENTS.index(Event.ACCEPTED_NEW)
_LATE_ACCEPTED = _EVENTS.index(Event.LATE_ACCEPTED_NEW)
_ENDS = frozenset(_EVENTS.index(event) for event in (Event.POLL_SUCCESS, Event.POLL_FAILED))

_STATES_AMISS = {
    RunKind.INVOICES: (State.IN_DOUBT, State.SENDING, State.REJECTED, State.FAILED, State.INVALID, State.NOT_SENT),
    RunKind.DOCUMENTS: (DocumentState.FAILED, DocumentState.DEFERRED),
}
_VARIES = re.compile(r"[0-9a-fA-F]{8}(?:-?[0-9a-fA-F]{4}){3}-?[0-9a-fA-F]{12}|\d+")
"""What differs between two texts that say the same: ids and numbers."""


class Latencies:
    """How long answers and settlements took, by the journal in its order: a sort by item takes twice the whole."""

    def __init__(self, items: int) -> None:
        self.answered, self.settled = array("d"), array("d")
        self._sent = array("d", bytes(8 * (items + 1)))
        self._accepted = array("d", bytes(8 * (items + 1)))

    def take(self, rows: Iterable[tuple[int, int, float]]) -> None:
        """Take entries of the journal."""
        sent, accepted = self._sent, self._accepted
        for item, code, at in rows:
            if code == _INTENT:
                sent[item] = at
            elif code in _ANSWERS:
                if sent[item]:
                    self.answered.append(at - sent[item])
                if code == _ACCEPTED:
                    accepted[item] = at
            elif code == _LATE_ACCEPTED:
                accepted[item] = at  # how long its answer took says nothing of the service
            elif code in _ENDS and accepted[item]:
                self.settled.append(at - accepted[item])


def read_figures(transaction: Transaction, kind: RunKind) -> RunFigures:
    """Read everything at one moment."""
    pauses = read_pauses(transaction)
    latencies = Latencies(_last(transaction))
    timeline = _timeline(transaction, kind, pauses, latencies)
    authority = Counter(_authority(transaction)) if kind is RunKind.INVOICES else Counter[str]()
    done, lost = State.SUCCESS.value, "i.state = ? AND i.path IS NULL AND i.error IS NOT NULL"
    return RunFigures(
        kind=kind,
        counts=count_states(transaction, kind),
        timeline=timeline,
        pauses=pauses,
        answered=Durations.of(latencies.answered),
        settled=Durations.of(latencies.settled),
        reasons=_reasons(transaction, kind),
        authority=authority,
        listed={
            state.value: tuple(read_items(transaction, (state.value,), 0, LISTED, payload=False))
            for state in _STATES_AMISS[kind]
        },
        refused=tuple(_refused(transaction)) if any(map(AuthorityStatus.refuses, authority)) else (),
        not_exported=tuple(
            Item(*row) for row in transaction.execute(f"{BARE} WHERE {lost} ORDER BY i.seq LIMIT {LISTED}", (done,))
        ),
        lost_exports=int(transaction.one(f"SELECT count(*) FROM items AS i WHERE {lost}", done)),  # noqa: S608 - constant
        without_file=int(transaction.one("SELECT count(*) FROM items WHERE state = ? AND path IS NULL", done)),
        size=int(transaction.one("SELECT sum(size) FROM items WHERE path IS NOT NULL") or 0),
        oldest=read_oldest(transaction),
    )


def read_timeline(transaction: Transaction, kind: RunKind) -> Timeline:
    """Read what happened when."""
    return _timeline(transaction, kind, read_pauses(transaction), None)


def read_oldest(transaction: Transaction) -> Item | None:
    """Read what has been on its way, or with the service, for the longest time; of what is on its way first."""
    for state in (State.SENDING, State.SUBMITTED):
        row = transaction.execute(f"{BARE} WHERE i.state = ? ORDER BY i.sent_at, i.seq LIMIT 1", (state.value,))
        if found := row.fetchone():
            return Item(*found)
    return None


def _timeline(
    transaction: Transaction, kind: RunKind, pauses: tuple[Pause, ...], latencies: Latencies | None
) -> Timeline:
    moments = Moments()
    is_journal = kind is RunKind.INVOICES
    cursor = transaction.execute(_JOURNAL, (_last(transaction),)) if is_journal else transaction.execute(_RECORDED)
    while rows := cursor.fetchmany(ROWS):
        moments.take(rows)
        if latencies is not None and is_journal:
            latencies.take(rows)
    if not is_journal:
        return moments.timeline({number: state.value for number, state in enumerate(_DOCUMENTS) if number}, pauses)
    return moments.timeline({_EVENTS.index(event): name for event, name in _HAPPENED.items()}, pauses)


def _last(transaction: Transaction) -> int:
    return int(transaction.one("SELECT max(seq) FROM items") or 0)


def read_pauses(transaction: Transaction) -> tuple[Pause, ...]:
    if transaction.one("SELECT 1 FROM sqlite_master WHERE name = 'pauses'") is None:
        return ()  # a run of before, that was not opened for writing since
    rows = transaction.execute("SELECT operation, begun, until, is_over FROM pauses ORDER BY begun, operation")
    return tuple(Pause(operation, begun, until, bool(is_over)) for operation, begun, until, is_over in rows)


def _authority(transaction: Transaction) -> Iterator[str]:
    """Yield how each finished invoice stands with the tax authority, as far as the service said."""
    rows = transaction.execute(
        "SELECT seq, state, request_id, result FROM items WHERE state = ?", (State.SUCCESS.value,)
    )
    for seq, state, request_id, result in rows:
        status = authority_status(Item(seq, "", state, request_id=request_id, result=result))
        if status is not None:
            yield status


def _refused(transaction: Transaction) -> Iterator[Item]:
    found = 0
    for row in transaction.execute(f"{BARE} WHERE i.state = ? ORDER BY i.seq", (State.SUCCESS.value,)):
        item = Item(*row)
        if AuthorityStatus.refuses(authority_status(item)):
            yield item
            found += 1
            if found == LISTED:
                return


def _reasons(transaction: Transaction, kind: RunKind) -> tuple[Reason, ...]:
    """Return the most frequent reasons of what is amiss, state by state; what is beyond them is not looked through."""
    states = [state.value for state in _STATES_AMISS[kind]]
    marks = ",".join("?" * len(states))
    sql = (
        f"SELECT state, code, replace(error, char(39) || key || char(39), '…') AS said, count(*) AS number FROM items "  # noqa: S608 - marks
        f"WHERE state IN ({marks}) GROUP BY state, code, said ORDER BY number DESC, said LIMIT {WORDINGS}"
    )
    found: dict[tuple[str, str | None, str | None], list[tuple[str | None, int]]] = {}
    for state, code, words, number in transaction.execute(sql, states):
        alike = None if words is None else _VARIES.sub("#", words)
        found.setdefault((state, code, alike), []).append((words, number))
    reasons = [
        Reason(state=state, code=code, words=said[0][0], count=sum(number for _, number in said), wordings=len(said))
        for (state, code, _), said in found.items()
    ]
    return tuple(sorted(reasons, key=lambda reason: -reason.count)[:REASONS])
