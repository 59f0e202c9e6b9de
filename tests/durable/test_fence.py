"""What an event means that bears the attempt it is of: the whole space of it."""

from __future__ import annotations

from itertools import product

import pytest

from invoicing_async._durable.fence import ACCEPTING, ANSWERS, LATE, POLLS, fenced
from invoicing_async._durable.states import SENDABLE, TABLE, Event, State

SPACE = list(product(Event, State, range(-1, 2)))
"""Every event and state, with the attempt that it bears before, at and behind that of the item."""


def outcome(event: Event, state: State, behind: int) -> Event | None:
    return fenced(event, 5 + behind, state=state, attempt=5)


@pytest.mark.parametrize("event", Event)
@pytest.mark.parametrize("state", State)
def test_an_event_that_bears_no_attempt_is_judged_by_the_state_alone(event: Event, state: State) -> None:
    assert fenced(event, None, state=state, attempt=5) is event


def test_an_intent_begins_the_next_attempt_of_what_may_be_sent() -> None:
    begun = {
        (state, behind) for event, state, behind in SPACE if event is Event.INTENT and outcome(event, state, behind)
    }
    assert begun == {(state, 0) for state in SENDABLE}


def test_an_answer_ends_its_own_attempt_only() -> None:
    ended = {(event, state, behind) for event, state, behind in SPACE if outcome(event, state, behind) is event}
    assert {entry for entry in ended if entry[0] in ANSWERS} == {(event, State.SENDING, 0) for event in ANSWERS}


def test_a_poll_is_of_what_is_awaited_in_its_own_attempt() -> None:
    """Whoever else awaited the same request may have recorded its end before."""
    polled = {(state, behind) for event, state, behind in SPACE if event in POLLS and outcome(event, state, behind)}
    assert polled == {(State.SUBMITTED, 0)}


def test_what_comes_late_is_allowed_by_the_table_of_states() -> None:
    for event, state, behind in product(ANSWERS, State, range(-4, 4)):
        found = outcome(event, state, behind)
        if found is Event.LATE_ACCEPT:
            assert isinstance(TABLE[state, found], State)
        if found is not None and found is LATE[event]:
            assert isinstance(TABLE[state, found], State)
            assert behind == 0 or (event in ACCEPTING and state is not State.IN_DOUBT)


def test_a_late_answer_settles_the_doubt_of_its_own_attempt() -> None:
    assert all(outcome(event, State.IN_DOUBT, 0) is LATE[event] for event in ANSWERS)


def test_an_acceptance_is_never_lost() -> None:
    """Whoever has moved on meanwhile: it changes the item, or is noted."""
    for event, state, behind in product(ACCEPTING, State, range(-4, 4)):
        assert outcome(event, state, behind) is not None


def test_what_was_said_not_to_exist_is_not_sent_again_after_all() -> None:
    """Until it is: then the second one is another attempt's, and the first is noted beside it."""
    assert outcome(Event.ACCEPTED_NEW, State.NOT_SENT, 0) is Event.LATE_ACCEPTED_NEW
    assert outcome(Event.ACCEPTED_NEW, State.NOT_SENT, -1) is Event.LATE_ACCEPTED_NEW
    assert outcome(Event.ACCEPTED_NEW, State.IN_DOUBT, -1) is Event.LATE_ACCEPT
    assert outcome(Event.ACCEPTED_NEW, State.SENDING, -1) is Event.LATE_ACCEPT
    assert outcome(Event.ACCEPTED_NEW, State.SUBMITTED, -1) is Event.LATE_ACCEPT


def test_a_late_refusal_of_what_has_moved_on_changes_nothing() -> None:
    refusals = ANSWERS - ACCEPTING
    states = [state for state in State if state not in {State.SENDING, State.IN_DOUBT}]
    assert all(outcome(event, state, 0) is None for event in refusals for state in states)
    assert all(outcome(event, state, -1) is None for event in refusals for state in State)
