"""What the figures of a run are made of, in whichever ledger it is kept: the events and states that are looked at."""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Mapping

from attrs import evolve

from .figures import Reason
from .records import Pause
from .states import DocumentState, Event, RunKind, State
from .timeline import Moments, Timeline

__all__ = [
    "DOCUMENT_NUMBERED",
    "EVENT_NUMBERED",
    "LISTED",
    "ROWS",
    "STATES_AMISS",
    "WORDINGS",
    "Latencies",
    "frequent_reasons",
    "joined_pauses",
    "timeline_of",
]

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

_DOCUMENTS = tuple(DocumentState)

EVENT_NUMBERED = (
    "CASE event "
    + " ".join(f"WHEN '{event.value}' THEN {number}" for number, event in enumerate(_EVENTS))
    + f" ELSE {len(_EVENTS)} END"
)
"""The number of an event of the journal, in SQL: a number is read in less time than its name."""

DOCUMENT_NUMBERED = (
    "CASE state " + " ".join(f"WHEN '{state.value}' THEN {number}" for number, state in enumerate(_DOCUMENTS)) + " END"
)
"""The number of the state of a document, in SQL."""

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

STATES_AMISS = {
    RunKind.INVOICES: (State.IN_DOUBT, State.SENDING, State.REJECTED, State.FAILED, State.INVALID, State.NOT_SENT),
    RunKind.DOCUMENTS: (DocumentState.FAILED, DocumentState.DEFERRED),
}
"""The states that a person may have to see to."""

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


def timeline_of(moments: Moments, kind: RunKind, pauses: tuple[Pause, ...]) -> Timeline:
    """Return the time line of what was counted by those numbers."""
    if kind is RunKind.INVOICES:
        return moments.timeline({_EVENTS.index(event): name for event, name in _HAPPENED.items()}, pauses)
    return moments.timeline({number: state.value for number, state in enumerate(_DOCUMENTS) if number}, pauses)


def joined_pauses(pauses: Iterable[Pause]) -> tuple[Pause, ...]:
    """Return the pauses in the order in which they began, those of one operation that overlap as one.

    Each worker records the pause that it was in, and each of a marketplace's stores has its own: it is one outage. It
    is over if the service was last heard of by who heard it answer.
    """
    joined: list[Pause] = []
    last: dict[str, int] = {}
    for pause in sorted(pauses, key=lambda one: (one.begun, one.operation)):
        known = last.get(pause.operation)
        if known is None or pause.begun > joined[known].until:
            last[pause.operation] = len(joined)
            joined.append(pause)
        else:
            latest = max(joined[known], pause, key=lambda one: (one.until, one.is_over))
            joined[known] = evolve(latest, begun=joined[known].begun)
    return tuple(joined)


def frequent_reasons(rows: Iterable[tuple[str, str | None, str | None, int]]) -> tuple[Reason, ...]:
    """Return the most frequent reasons of states, codes and wordings with their numbers, the most frequent first."""
    found: dict[tuple[str, str | None, str | None], list[tuple[str | None, int]]] = {}
    for state, code, words, number in rows:
        alike = None if words is None else _VARIES.sub("#", words)
        found.setdefault((state, code, alike), []).append((words, number))
    reasons = [
        Reason(state=state, code=code, words=said[0][0], count=sum(number for _, number in said), wordings=len(said))
        for (state, code, _), said in found.items()
    ]
    return tuple(sorted(reasons, key=lambda reason: -reason.count)[:REASONS])
