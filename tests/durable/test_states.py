"""The state table: whole, and incapable of sending an invoice twice."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from invoicing_async._durable.fence import LATE
from invoicing_async._durable.states import (
    BY_HAND,
    FINAL,
    NEEDS_REQUEST_ID,
    ON_DISK,
    RESOLUTIONS,
    SENDABLE,
    TABLE,
    TO_FETCH,
    DocumentState,
    Event,
    ForbiddenTransition,
    State,
    next_state,
    replay,
)

# The table as a reader would draw it: one row an event, "-" a refusal, in the order of STATES. Written by hand.
STATES = ["planned", "sending", "not_sent", "submitted", "success", "failed", "rejected", "in_doubt", "invalid"]
EXPECTED = {
    "intent":               "sending - sending - - - - - -",
    "not_sent":             "- not_sent - - - - - - -",
    "refused_for_now":      "- not_sent - - - - - - -",
    "rejected":             "- rejected - - - - - - -",
    "accepted_new":         "- submitted - - - - - - -",
    "accepted_success":     "- success - - - - - - -",
    "accepted_failed":      "- failed - - - - - - -",
    "lost":                 "- in_doubt - - - - - - -",
    "late_not_sent":         "- - - - - - - not_sent -",
    "late_rejected":         "- - - - - - - rejected -",
    "late_accepted_new": "submitted - submitted - - - submitted submitted submitted",
    "late_accepted_success": "success - success - - - success success success",
    "late_accepted_failed": "failed - failed - - - failed failed failed",
    "late_lost":             "- - - - - - - in_doubt -",
    "late_accept":          "- sending - submitted success failed - in_doubt -",
    "crashed":              "planned in_doubt not_sent submitted success failed rejected in_doubt invalid",
    "poll_success":         "- - - success - - - - -",
    "poll_failed":          "- - - failed - - - - -",
    "poll_new":             "- - - submitted - - - - -",
    "log_lost":             "in_doubt in_doubt in_doubt submitted success failed in_doubt in_doubt in_doubt",
    "resolution_undone":    "- - in_doubt in_doubt - - - - -",
    "resolved_created":     "- - - - - - - submitted -",
    "resolved_not_created": "- - - - - - - not_sent -",
    "found_invalid":        "invalid - invalid - - - - - -",
    "corrected":            "- - - - - - - - planned",
    "retry_asked":          "- - - - - - not_sent - -",
    "exported":             "- - - - success - - - -",
    "export_failed":        "- - - - success - - - -",
    "refreshed":            "- - - - success - - - -",
}  # fmt: skip

PAIRS = list(product(State, Event))
ANSWERS = {
    Event.NOT_SENT,
    Event.REFUSED_FOR_NOW,
    Event.REJECTED,
    Event.ACCEPTED_NEW,
    Event.ACCEPTED_SUCCESS,
    Event.ACCEPTED_FAILED,
    Event.LOST,
}


def test_the_table_holds_every_pair_and_no_other() -> None:
    assert set(TABLE) == set(PAIRS)


def test_the_drawing_names_every_state_and_event() -> None:
    assert set(STATES) == {state.value for state in State}
    assert set(EXPECTED) == {event.value for event in Event}


@pytest.mark.parametrize("event", Event)
def test_each_pair_is_as_drawn(event: Event) -> None:
    for state, drawn in zip(map(State, STATES), EXPECTED[event].split(), strict=True):
        if drawn == "-":
            with pytest.raises(ValueError, match=rf"'{event.value}' is refused .* '{state.value}': \S"):
                next_state(state, event)
        else:
            assert next_state(state, event) is State(drawn), state


def test_every_refusal_says_why() -> None:
    refusals = [outcome for outcome in TABLE.values() if isinstance(outcome, ForbiddenTransition)]
    assert refusals
    assert all(refusal.why for refusal in refusals)


@pytest.mark.parametrize(
    ("state", "event", "why"),
    [
        (State.PLANNED, Event.LOST, "it is not being sent"),
        (State.IN_DOUBT, Event.ACCEPTED_NEW, "it is not being sent"),
        (State.PLANNED, Event.POLL_SUCCESS, "the service is not working on it"),
        (State.SENDING, Event.RESOLVED_CREATED, "it is not in doubt"),
    ],
)
def test_a_refusal_is_said_to_a_person_in_plain_words(state: State, event: Event, why: str) -> None:
    """The event, the state and the reason, and nothing else."""
    with pytest.raises(ValueError, match=rf"\A'{event}' is refused for an item that is '{state}': {why}\Z"):
        next_state(state, event)


def test_sending_begins_only_where_nothing_can_exist() -> None:
    starts = {state for state in State if isinstance(TABLE[state, Event.INTENT], State)}
    assert starts == set(SENDABLE)


def test_nothing_leaves_a_final_state() -> None:
    after = {(state, TABLE[state, event]) for state, event in PAIRS if state in FINAL}
    assert all(isinstance(outcome, ForbiddenTransition) or outcome is state for state, outcome in after)


@given(st.lists(st.sampled_from(Event), max_size=40))
def test_in_doubt_and_rejected_return_to_sendable_only_by_a_word_from_outside(events: list[Event]) -> None:
    """Whatever happens, no item that may exist at the service is sent again on its own: or its own attempt's answer."""
    state = State.PLANNED
    for event in events:
        try:
            after = next_state(state, event)
        except ValueError:
            continue
        if state in {State.IN_DOUBT, State.REJECTED} and after in SENDABLE:
            assert event in BY_HAND | set(LATE.values())
        if state is State.SENDING:
            assert event in ANSWERS | {Event.CRASHED, Event.LOG_LOST, Event.LATE_ACCEPT}
        state = after


@given(st.lists(st.sampled_from(Event), max_size=40))
def test_an_accepted_item_is_never_sent_again(events: list[Event]) -> None:
    """But where a person said so by mistake, and takes that back at once: the store asks what came last."""
    state, accepted = State.PLANNED, False
    last: Event | None = None
    for event in events:
        if event is Event.RESOLUTION_UNDONE and last not in RESOLUTIONS:
            continue
        try:
            state = next_state(state, event)
        except ValueError:
            continue
        last = event
        accepted = (
            accepted or event in NEEDS_REQUEST_ID - {Event.LATE_ACCEPT}
        ) and event is not Event.RESOLUTION_UNDONE
        assert not (accepted and state in {*SENDABLE, State.SENDING})


@given(st.lists(st.sampled_from(Event), max_size=30))
def test_a_crash_at_any_point_leaves_nothing_in_sending(events: list[Event]) -> None:
    """A crash after any prefix: `sending` becomes in doubt, all else stays; a second crash changes nothing."""
    state = State.PLANNED
    for event in events:
        crashed = next_state(state, Event.CRASHED)
        assert crashed is (State.IN_DOUBT if state is State.SENDING else state)
        assert next_state(crashed, Event.CRASHED) is crashed
        if isinstance(outcome := TABLE[state, event], State):
            state = outcome


def test_replay_starts_planned_and_refuses_what_the_table_refuses() -> None:
    assert replay([]) is State.PLANNED
    assert replay([Event.INTENT, Event.ACCEPTED_NEW, Event.POLL_NEW, Event.POLL_SUCCESS]) is State.SUCCESS
    with pytest.raises(ValueError, match="it is not being sent"):
        replay([Event.LOST])


def test_every_document_state_is_either_fetched_or_verified() -> None:
    assert {*TO_FETCH, *ON_DISK} == set(DocumentState)
    assert not {*TO_FETCH} & {*ON_DISK}
