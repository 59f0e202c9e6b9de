"""What an event means that bears the attempt it is of: the fence (item, attempt) between two who send one item.

An intent is the beginning of the attempt after the one that it bears; an answer is applied to its own attempt only.
Between the two, somebody may have put the item in doubt, since the attempt could no longer end, or a person may have
settled it: then the answer comes late, and settles only what nobody has built on.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from .states import SENDABLE, TABLE, Event, State

__all__ = ["ACCEPTING", "ANSWERS", "LATE", "POLLS", "fenced"]

LATE: Mapping[Event, Event] = MappingProxyType(
    {
        Event.NOT_SENT: Event.LATE_NOT_SENT,
        Event.REFUSED_FOR_NOW: Event.LATE_NOT_SENT,
        Event.REJECTED: Event.LATE_REJECTED,
        Event.ACCEPTED_NEW: Event.LATE_ACCEPTED_NEW,
        Event.ACCEPTED_SUCCESS: Event.LATE_ACCEPTED_SUCCESS,
        Event.ACCEPTED_FAILED: Event.LATE_ACCEPTED_FAILED,
        Event.LOST: Event.LATE_LOST,
    }
)
"""What an answer is that comes when its attempt has been given up."""

ANSWERS = frozenset(LATE)
"""The events that end an attempt, and so bear it."""

ACCEPTING = frozenset({Event.ACCEPTED_NEW, Event.ACCEPTED_SUCCESS, Event.ACCEPTED_FAILED})
"""The answers after which an invoice exists, or may come to exist."""

POLLS = frozenset({Event.POLL_SUCCESS, Event.POLL_FAILED, Event.POLL_NEW})
"""What is told of a request that is awaited; two may await one, and then the second of them comes too late."""


def fenced(event: Event, bears: int | None, *, state: State, attempt: int) -> Event | None:
    """Return what an event is that bears an attempt, for an item that stands in this state and attempt.

    None if somebody else has moved on, so that it must not be applied: the item is as they left it. An event that bears
    none is what it is, and the table of states judges it.
    """
    if bears is None:
        return event
    if event is Event.INTENT:
        return event if bears == attempt and state in SENDABLE else None
    if event in POLLS:
        return event if bears == attempt and state is State.SUBMITTED else None
    if event not in ANSWERS:
        return event if bears == attempt else None
    late, is_own = LATE[event], bears == attempt
    if is_own and state is State.SENDING:
        return event
    is_doubt = state is State.IN_DOUBT
    if event in ACCEPTING:
        # Where no invoice is held to exist, this is the one, whichever attempt made it.
        settles = isinstance(TABLE[state, late], State) and (is_own or not is_doubt)
        return late if settles else Event.LATE_ACCEPT
    return late if is_own and is_doubt else None
