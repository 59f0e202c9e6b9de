"""Events that bear the attempt they are of, as every ledger judges them: who may send, and what comes too late."""

from __future__ import annotations

import asyncio
from random import Random

import pytest
from attrs import define
from examples import examples
from fakes import FakeClock
from hypothesis import given
from hypothesis import strategies as st
from ledger_places import Place, Places
from ledgers import INVOICES, draft

from invoicing_async._durable.fence import ACCEPTING, ANSWERS, fenced
from invoicing_async._durable.protocol import Ledger
from invoicing_async._durable.records import Change, SupersededError
from invoicing_async._durable.states import NEEDS_REQUEST_ID, TABLE, Event, State, replay

KEYS = ("a", "b")


async def begun(ledger: Ledger, *events: Event) -> None:
    """Take in one draft and let events happen to it."""
    await ledger.add_drafts([draft("a")])
    for event in events:
        await ledger.transition("a", event)


async def sent_twice(ledger: Ledger) -> None:
    """Have attempt 1 swept and said not to exist, attempt 2 accepted, and then attempt 1 accepted as well."""
    await begun(ledger, Event.INTENT, Event.LOST, Event.RESOLVED_NOT_CREATED, Event.INTENT)
    await ledger.transition("a", Event.ACCEPTED_NEW, request_id="r-2")
    late = Change(ref="a", event=Event.ACCEPTED_NEW, attempt=1, request_id="r-1", result="{}", error="no", code="no")
    assert await ledger.transition_many([late]) == [State.SUBMITTED]


@pytest.mark.asyncio
class TestAnAttempt:
    async def test_is_begun_once(self, place: Place) -> None:
        """Of two who have read the item as it stood, one sends it; the other is told whose it is, by its key."""
        async with place.open(INVOICES) as ledger:
            await begun(ledger)
            intents = [ledger.transition_many([Change(ref=1, event=Event.INTENT, attempt=0)]) for _ in range(2)]
            first, second = await asyncio.gather(*intents, return_exceptions=True)
            assert first == [State.SENDING]
            assert isinstance(second, SupersededError)
            assert not isinstance(second, ValueError)
            assert (second.key, second.seq, second.sent) == ("a", 1, "no")
            assert [entry.event for entry in await ledger.history(1)] == [Event.INTENT]

    async def test_is_ended_by_its_own_answers_only(self, place: Place) -> None:
        async with place.open(INVOICES) as ledger:
            await begun(ledger, Event.INTENT)
            for attempt in (0, 2):
                with pytest.raises(SupersededError):
                    await ledger.transition_many([Change(ref=1, event=Event.NOT_SENT, attempt=attempt)])
            ended = Change(ref=1, event=Event.NOT_SENT, attempt=1)
            assert await ledger.transition_many([ended]) == [State.NOT_SENT]
            with pytest.raises(SupersededError):
                await ledger.transition_many([ended])

    async def test_that_was_put_in_doubt_is_settled_by_its_own_late_answer(self, place: Place) -> None:
        async with place.open(INVOICES) as ledger:
            await begun(ledger, Event.INTENT, Event.CRASHED)
            late = Change(ref=1, event=Event.ACCEPTED_NEW, attempt=1, request_id="r-1")
            assert await ledger.transition_many([late]) == [State.SUBMITTED]
            item = await ledger.get(1)
            assert item is not None
            assert (item.state, item.request_id, item.other_request_id) == ("submitted", "r-1", None)
            assert [entry.event for entry in await ledger.history(1)][-1] is Event.LATE_ACCEPTED_NEW

    async def test_that_was_said_not_to_exist_is_the_invoice_after_all(self, place: Place) -> None:
        async with place.open(INVOICES) as ledger:
            await begun(ledger, Event.INTENT, Event.CRASHED, Event.RESOLVED_NOT_CREATED)
            late = Change(ref=1, event=Event.ACCEPTED_SUCCESS, attempt=1, request_id="r-1", invoice_id="i-1")
            assert await ledger.transition_many([late]) == [State.SUCCESS]
            with pytest.raises(SupersededError):
                await ledger.transition_many([Change(ref=1, event=Event.INTENT, attempt=1)])

    async def test_of_many_at_once_undoes_them_all(self, place: Place) -> None:
        async with place.open(INVOICES) as ledger:
            await ledger.add_drafts([draft("a"), draft("b")])
            with pytest.raises(SupersededError):
                await ledger.transition_many([Change(ref=seq, event=Event.INTENT, attempt=seq - 1) for seq in (1, 2)])
            assert [item.state for item in await ledger.rows()] == ["planned", "planned"]
            assert await ledger.journal() == []


@pytest.mark.asyncio
class TestAnAcceptanceBesideAnother:
    async def test_is_noted_and_changes_nothing_else(self, place: Place) -> None:
        async with place.open(INVOICES, clock=FakeClock()) as ledger:
            await sent_twice(ledger)
            item = await ledger.get("a")
            assert item is not None
            assert (item.state, item.attempt, item.request_id, item.other_request_id) == ("submitted", 2, "r-2", "r-1")
            assert (item.result, item.error, item.code) == (None, None, None)
            last = (await ledger.history("a"))[-1]
            assert (last.event, last.detail["request_id"]) == (Event.LATE_ACCEPT, "r-1")
            assert {state: count for state, count in (await ledger.counts()).items() if count} == {"submitted": 1}

    async def test_is_seen_by_whoever_reads_the_run(self, place: Place) -> None:
        async with place.open(INVOICES) as ledger:
            assert await ledger.twice() == []
            await sent_twice(ledger)
            await ledger.add_drafts([draft("b")])
            async with place.read() as reader:
                for found in (await reader.twice(), (await reader.rows())[:1], await reader.twice(limit=1)):
                    assert [(item.key, item.request_id, item.other_request_id) for item in found] == [
                        ("a", "r-2", "r-1")
                    ]
                with pytest.raises(ValueError, match="limit must be 1 or more, got 0"):
                    await reader.twice(limit=0)

    async def test_is_none_any_more_once_a_person_has_said_that_it_is_the_one(self, place: Place) -> None:
        async with place.open(INVOICES) as ledger:
            await begun(ledger, Event.INTENT, Event.LOST, Event.RESOLVED_NOT_CREATED, Event.INTENT, Event.LOST)
            await ledger.transition_many([Change(ref=1, event=Event.ACCEPTED_NEW, attempt=1, request_id="r-1")])
            assert [(item.state, item.other_request_id) for item in await ledger.twice()] == [("in_doubt", "r-1")]
            await ledger.transition(1, Event.RESOLVED_CREATED, request_id="R-1")
            assert await ledger.twice() == []

    async def test_keeps_the_item_from_ever_being_sent_again(self, place: Place) -> None:
        """Whoever asks, also in the next process; and it is not among what is still to be done."""
        clock = FakeClock()
        async with place.open(INVOICES, clock=clock) as ledger:
            await begun(ledger, Event.INTENT, Event.LOST, Event.RESOLVED_NOT_CREATED, Event.INTENT)
            await ledger.transition_many([Change(ref=1, event=Event.ACCEPTED_NEW, attempt=1, request_id="r-1")])
            await ledger.transition_many([Change(ref=1, event=Event.NOT_SENT, attempt=2)])
            await ledger.add_drafts([draft("b")])
        async with place.open(clock=clock) as ledger:
            assert [item.key for item in await ledger.pending()] == ["b"]
            for attempt in (2, None):
                with pytest.raises(SupersededError, match="sent again") as caught:
                    await ledger.transition_many([Change(ref=1, event=Event.INTENT, attempt=attempt)])
                assert caught.value.key == "a"
            assert [item.state for item in await ledger.rows()] == ["not_sent", "planned"]

    @pytest.mark.parametrize("known", ["r-1", "R-2"])
    async def test_of_a_request_that_is_known_is_none(self, place: Place, known: str) -> None:
        """The item's own, or the one beside it: told again it is no third."""
        async with place.open(INVOICES) as ledger:
            await sent_twice(ledger)
            before = await ledger.journal()
            again = Change(ref=1, event=Event.ACCEPTED_NEW, attempt=1, request_id=known)
            with pytest.raises(SupersededError):
                await ledger.transition_many([again])
            assert await ledger.journal() == before


@define
class Stand:
    """Where an item stands, and the requests that are known of it."""

    state: State = State.PLANNED
    attempt: int = 0
    request_id: str | None = None
    other: str | None = None

    def after(self, change: Change) -> type[Exception] | State:
        """Return the state that follows a change, or the error that refuses it; if none does, it has happened."""
        event = fenced(change.event, change.attempt, state=self.state, attempt=self.attempt)
        is_late = event is Event.LATE_ACCEPT
        is_again = is_late and change.attempt is not None and change.request_id in {self.request_id, self.other}
        if event is None or is_again or (event is Event.INTENT and self.other):
            return SupersededError
        if not self.is_allowed(event):
            return ValueError
        if is_late:
            self.other = change.request_id
        elif change.request_id is not None:
            self.request_id = change.request_id
        self.attempt += event is Event.INTENT
        self.state = State(TABLE[self.state, event])  # type: ignore[arg-type] # it is allowed
        return self.state

    def is_allowed(self, event: Event) -> bool:
        return isinstance(TABLE[self.state, event], State)


def change_of(key: str, stand: Stand, chance: Random) -> Change:
    """Draw a change: mostly of one that the fence has to do with, and of an attempt near that of the item."""
    event = chance.choice([*ANSWERS, *ACCEPTING, Event.INTENT, Event.CRASHED, *Event])
    bears = chance.choice([None, stand.attempt, stand.attempt, stand.attempt, stand.attempt - 1])
    request = f"r-{key}-{stand.attempt if bears is None else bears}" if event in NEEDS_REQUEST_ID else None
    return Change(ref=key, event=event, attempt=bears, request_id=request)


async def check_life(ledger: Ledger, chance: Random, steps: int) -> None:
    stands = {key: Stand() for key in KEYS}
    await ledger.add_drafts(map(draft, KEYS))
    for _ in range(steps):
        key = chance.choice(KEYS)
        change = change_of(key, stands[key], chance)
        expected = stands[key].after(change)
        [told] = await asyncio.gather(ledger.transition_many([change]), return_exceptions=True)
        assert (type(told) if isinstance(told, BaseException) else told[0]) is expected, change
    for item in await ledger.rows():
        stand = stands[item.key]
        assert (item.state, item.attempt) == (stand.state, stand.attempt)
        assert (item.request_id, item.other_request_id) == (stand.request_id, stand.other)
        assert replay([entry.event for entry in await ledger.history(item.seq)]) is stand.state
    assert [item.key for item in await ledger.twice()] == [
        key for key, stand in stands.items() if stand.other not in {None, stand.request_id}
    ]


@examples(25)
@given(seed=st.integers(0, 2**32), steps=st.integers(1, 60))
def test_what_bears_an_attempt_is_judged_by_the_fence_and_then_by_the_table(
    places: Places, seed: int, steps: int
) -> None:
    place = places()

    async def run() -> None:
        async with place.open(INVOICES) as ledger:
            await check_life(ledger, Random(seed), steps)

    asyncio.run(run())
