"""What may happen to an item of a run: the table (state, event) -> state, and nothing else.

The one rule behind the table: an invoice whose submission may have reached the service is never sent again on its
own (README B.1: no idempotency key, no look-up by the caller's number). Sending begins only from `planned` and
`not_sent`; everything that leads back there is either a proof that nothing was created or a person's explicit word.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from functools import reduce
from types import MappingProxyType
from typing import TypeAlias

from attrs import frozen

__all__ = [
    "BY_HAND",
    "FINAL",
    "NEEDS_REQUEST_ID",
    "ON_DISK",
    "RESOLUTIONS",
    "SENDABLE",
    "TABLE",
    "TO_FETCH",
    "DocumentState",
    "Event",
    "ForbiddenTransition",
    "RunKind",
    "State",
    "next_state",
    "replay",
]


class RunKind(StrEnum):
    """What a run file is about: order ids that become PDFs, or drafts that become e-invoices."""

    DOCUMENTS = "documents"
    INVOICES = "invoices"


class State(StrEnum):
    """The state of an invoice item. All but `sending` are shown to users."""

    PLANNED = "planned"
    """Taken in; no byte of it was ever sent."""
    SENDING = "sending"
    """The intent is on disk and the answer is not: internal, and never what is left after a crash."""
    NOT_SENT = "not_sent"
    """Tried, and provably not created: safe to send again."""
    SUBMITTED = "submitted"
    """The service gave a request id; it is polled."""
    SUCCESS = "success"
    """The invoice exists. Final."""
    FAILED = "failed"
    """The service took the submission and could not make the invoice. Final."""
    REJECTED = "rejected"
    """The service declared a refusal: nothing was created. Sent again only when `retry_asked`."""
    IN_DOUBT = "in_doubt"
    """It left and no usable answer came back: a person or a `reconcile` callable must settle it."""
    INVALID = "invalid"
    """The draft breaks the documented limits; it was never sent and can be corrected."""


class Event(StrEnum):
    """What can happen to an invoice item."""

    INTENT = "intent"
    """It is about to be sent; on disk before the first byte leaves."""
    NOT_SENT = "not_sent"
    """The head of its request provably never left."""
    REFUSED_FOR_NOW = "refused_for_now"
    """A refusal that the policy lists as temporary (SYS_DEP_503, 429)."""
    REJECTED = "rejected"
    """Any other declared refusal."""
    ACCEPTED_NEW = "accepted_new"
    """The service answered with a request id and NEW, or a status nobody knows."""
    ACCEPTED_SUCCESS = "accepted_success"
    """The service answered with a request id and SUCCESS."""
    ACCEPTED_FAILED = "accepted_failed"
    """The service answered with a request id and FAILED."""
    LOST = "lost"
    """It left and no usable answer came back."""
    CRASHED = "crashed"
    """The run file was opened again after its process ended without closing it."""
    LOG_LOST = "log_lost"
    """A person opened the run file though its log, which says what was sent last, is gone."""
    LATE_NOT_SENT = "late_not_sent"
    """It had been put in doubt, and then its own attempt ended: nothing was created."""
    LATE_REJECTED = "late_rejected"
    """It had been put in doubt, and then its own attempt was refused."""
    LATE_ACCEPTED_NEW = "late_accepted_new"
    """It had been put in doubt, or held not to exist and not sent again, and then an attempt of it was accepted."""
    LATE_ACCEPTED_SUCCESS = "late_accepted_success"
    LATE_ACCEPTED_FAILED = "late_accepted_failed"
    LATE_LOST = "late_lost"
    """It had been put in doubt, and then its own attempt ended without a usable answer: the doubt stays."""
    LATE_ACCEPT = "late_accept"
    """An attempt was accepted when a later one was under way or had ended: perhaps a second invoice. It is noted."""
    POLL_SUCCESS = "poll_success"
    POLL_FAILED = "poll_failed"
    POLL_NEW = "poll_new"
    RESOLVED_CREATED = "resolved_created"
    """It was looked up: the invoice exists under a request id, which is then polled."""
    RESOLVED_NOT_CREATED = "resolved_not_created"
    """It was looked up: the invoice does not exist."""
    RESOLUTION_UNDONE = "resolution_undone"
    """What was found at the service was a mistake: it is in doubt again."""
    FOUND_INVALID = "found_invalid"
    """The draft breaks the documented limits, or is no longer what was taken in."""
    CORRECTED = "corrected"
    """A new draft took an invalid one's place."""
    RETRY_ASKED = "retry_asked"
    """A person asks for a rejected item to be sent again."""
    EXPORTED = "exported"
    """The finished invoice is a whole file on disk."""
    EXPORT_FAILED = "export_failed"
    """The finished invoice could not be saved as a file; it exists all the same."""
    REFRESHED = "refreshed"
    """The finished invoice was asked for again: its `result` is what the service says now."""


class DocumentState(StrEnum):
    """The state of an item of a document run: its last outcome, whatever that was before."""

    PLANNED = "planned"
    """Never asked for, or its file was found missing or broken."""
    SAVED = "saved"
    """Downloaded, proved whole, published, and verified by size and hash in a later run."""
    SKIPPED = "skipped"
    """A whole document was there before this library asked."""
    DEFERRED = "deferred"
    """The order is not eligible yet (ORDER_021); the next run tries again."""
    FAILED = "failed"
    """It could not be saved; the next run tries again."""


@frozen
class ForbiddenTransition:
    """An event that must not happen in a state, and why."""

    why: str


Outcome: TypeAlias = State | ForbiddenTransition

SENDABLE = (State.PLANNED, State.NOT_SENT)
"""The states that `intent` may leave."""

FINAL = frozenset({State.SUCCESS, State.FAILED})
"""The states that nothing leaves."""

TO_FETCH = (DocumentState.PLANNED, DocumentState.DEFERRED, DocumentState.FAILED)
"""The document states in which a run asks the service for the document."""

ON_DISK = (DocumentState.SAVED, DocumentState.SKIPPED)
"""The document states that have a file to verify."""

NEEDS_REQUEST_ID = frozenset(
    {
        Event.ACCEPTED_NEW,
        Event.ACCEPTED_SUCCESS,
        Event.ACCEPTED_FAILED,
        Event.LATE_ACCEPTED_NEW,
        Event.LATE_ACCEPTED_SUCCESS,
        Event.LATE_ACCEPTED_FAILED,
        Event.LATE_ACCEPT,
        Event.RESOLVED_CREATED,
    }
)
"""The events that mean nothing without the request id of the service."""

RESOLUTIONS = frozenset({Event.RESOLVED_CREATED, Event.RESOLVED_NOT_CREATED})
"""The events that settle a doubt, and that can be undone until the item has been sent again or is final."""

BY_HAND = frozenset({*RESOLUTIONS, Event.RESOLUTION_UNDONE, Event.RETRY_ASKED, Event.LOG_LOST})
"""The events that only a user or a user's program may cause."""

# Spelled out, not `tuple(State)`: a new state leaves a hole in the table, which its test finds.
_STATES = (
    State.PLANNED,
    State.SENDING,
    State.NOT_SENT,
    State.SUBMITTED,
    State.SUCCESS,
    State.FAILED,
    State.REJECTED,
    State.IN_DOUBT,
    State.INVALID,
)


def _only(state: State, to: State, why: str) -> dict[State, Outcome]:
    """Let an event happen in one state and refuse it in every other."""
    return {**dict.fromkeys(_STATES, ForbiddenTransition(why)), state: to}


def _answer(to: State) -> dict[State, Outcome]:
    return _only(State.SENDING, to, "it is not being sent")


def _late(to: State) -> dict[State, Outcome]:
    return _only(State.IN_DOUBT, to, "it is not in doubt")


def _late_accepted(to: State) -> dict[State, Outcome]:
    """Accept it in doubt, and wherever no invoice is held to exist, before it is sent a second time."""
    nowhere = (State.PLANNED, State.NOT_SENT, State.REJECTED, State.INVALID)
    return {**_late(to), **dict.fromkeys(nowhere, to)}


def _poll(to: State) -> dict[State, Outcome]:
    return _only(State.SUBMITTED, to, "the service is not working on it")


def _resolved(to: State) -> dict[State, Outcome]:
    return _only(State.IN_DOUBT, to, "it is not in doubt")


_INTENT: dict[State, Outcome] = {
    State.PLANNED: State.SENDING,
    State.NOT_SENT: State.SENDING,
    State.SENDING: ForbiddenTransition("it is being sent already"),
    State.SUBMITTED: ForbiddenTransition("the service has it"),
    State.SUCCESS: ForbiddenTransition("the invoice exists"),
    State.FAILED: ForbiddenTransition("it has failed for good; give a new draft a new key"),
    State.REJECTED: ForbiddenTransition("the service rejected it; ask for a retry first"),
    State.IN_DOUBT: ForbiddenTransition("the invoice may exist; resolve it first"),
    State.INVALID: ForbiddenTransition("the draft has faults; correct it first"),
}

_CRASHED: dict[State, Outcome] = {
    State.PLANNED: State.PLANNED,
    State.SENDING: State.IN_DOUBT,
    State.NOT_SENT: State.NOT_SENT,
    State.SUBMITTED: State.SUBMITTED,
    State.SUCCESS: State.SUCCESS,
    State.FAILED: State.FAILED,
    State.REJECTED: State.REJECTED,
    State.IN_DOUBT: State.IN_DOUBT,
    State.INVALID: State.INVALID,
}

_LOG_LOST: dict[State, Outcome] = {
    **_CRASHED,
    State.PLANNED: State.IN_DOUBT,
    State.NOT_SENT: State.IN_DOUBT,
    State.REJECTED: State.IN_DOUBT,
    State.INVALID: State.IN_DOUBT,
}

_UNDONE: dict[State, Outcome] = {
    **dict.fromkeys(_STATES, ForbiddenTransition("it was not settled by hand")),
    State.SUBMITTED: State.IN_DOUBT,
    State.NOT_SENT: State.IN_DOUBT,
    State.SUCCESS: ForbiddenTransition("the invoice exists"),
    State.FAILED: ForbiddenTransition("it has failed for good"),
    State.IN_DOUBT: ForbiddenTransition("it is in doubt already"),
}

_FOUND_INVALID: dict[State, Outcome] = {
    State.PLANNED: State.INVALID,
    State.NOT_SENT: State.INVALID,
    State.SENDING: ForbiddenTransition("it is being sent already"),
    State.SUBMITTED: ForbiddenTransition("the service has it"),
    State.SUCCESS: ForbiddenTransition("the invoice exists"),
    State.FAILED: ForbiddenTransition("it has failed for good"),
    State.REJECTED: ForbiddenTransition("the service rejected it before"),
    State.IN_DOUBT: ForbiddenTransition("the invoice may exist; resolve it first"),
    State.INVALID: ForbiddenTransition("it was found invalid before"),
}

_LATE_ACCEPT: dict[State, Outcome] = {
    **dict.fromkeys(_STATES, ForbiddenTransition("no other attempt of it made an invoice, so this is the one")),
    State.SENDING: State.SENDING,
    State.SUBMITTED: State.SUBMITTED,
    State.SUCCESS: State.SUCCESS,
    State.FAILED: State.FAILED,
    State.IN_DOUBT: State.IN_DOUBT,
}

_BY_EVENT: dict[Event, dict[State, Outcome]] = {
    Event.INTENT: _INTENT,
    Event.NOT_SENT: _answer(State.NOT_SENT),
    Event.REFUSED_FOR_NOW: _answer(State.NOT_SENT),
    Event.REJECTED: _answer(State.REJECTED),
    Event.ACCEPTED_NEW: _answer(State.SUBMITTED),
    Event.ACCEPTED_SUCCESS: _answer(State.SUCCESS),
    Event.ACCEPTED_FAILED: _answer(State.FAILED),
    Event.LOST: _answer(State.IN_DOUBT),
    Event.CRASHED: _CRASHED,
    Event.LOG_LOST: _LOG_LOST,
    Event.LATE_NOT_SENT: _late(State.NOT_SENT),
    Event.LATE_REJECTED: _late(State.REJECTED),
    Event.LATE_ACCEPTED_NEW: _late_accepted(State.SUBMITTED),
    Event.LATE_ACCEPTED_SUCCESS: _late_accepted(State.SUCCESS),
    Event.LATE_ACCEPTED_FAILED: _late_accepted(State.FAILED),
    Event.LATE_LOST: _late(State.IN_DOUBT),
    Event.LATE_ACCEPT: _LATE_ACCEPT,
    Event.POLL_SUCCESS: _poll(State.SUCCESS),
    Event.POLL_FAILED: _poll(State.FAILED),
    Event.POLL_NEW: _poll(State.SUBMITTED),
    Event.RESOLVED_CREATED: _resolved(State.SUBMITTED),
    Event.RESOLVED_NOT_CREATED: _resolved(State.NOT_SENT),
    Event.RESOLUTION_UNDONE: _UNDONE,
    Event.FOUND_INVALID: _FOUND_INVALID,
    Event.CORRECTED: _only(State.INVALID, State.PLANNED, "only an invalid draft is corrected"),
    Event.RETRY_ASKED: _only(State.REJECTED, State.NOT_SENT, "the service did not reject it"),
    Event.EXPORTED: _only(State.SUCCESS, State.SUCCESS, "there is no finished invoice"),
    Event.EXPORT_FAILED: _only(State.SUCCESS, State.SUCCESS, "there is no finished invoice"),
    Event.REFRESHED: _only(State.SUCCESS, State.SUCCESS, "there is no finished invoice"),
}

TABLE: Mapping[tuple[State, Event], Outcome] = MappingProxyType(
    {(state, event): outcome for event, row in _BY_EVENT.items() for state, outcome in row.items()}
)
"""Every pair of a state and an event: the state that follows, or why the event is refused."""


def next_state(state: State, event: Event) -> State:
    """Return the state that follows. Raises `ValueError` naming both and the reason if the table refuses the event."""
    outcome = TABLE[state, event]
    if isinstance(outcome, ForbiddenTransition):
        raise ValueError(f"{event.value!r} is refused for an item that is {state.value!r}: {outcome.why}")
    return outcome


def replay(events: Iterable[Event]) -> State:
    """Return the state of an item from its events; it was `planned` before the first."""
    return reduce(next_state, events, State.PLANNED)
