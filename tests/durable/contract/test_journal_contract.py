"""The states of e-invoices and their journal, as every ledger keeps them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from random import Random

import pytest
from examples import examples
from fakes import START, FakeClock
from hypothesis import given
from hypothesis import strategies as st
from ledger_places import Place, Places
from ledgers import INVOICES, Item, draft

from invoicing_async._durable.protocol import Ledger, LedgerReader
from invoicing_async._durable.records import Change
from invoicing_async._durable.states import NEEDS_REQUEST_ID, TABLE, Event, State, next_state, replay


@pytest.mark.asyncio
async def test_the_life_of_an_invoice_is_recorded_and_journaled(place: Place) -> None:
    clock = FakeClock()
    async with place.open(INVOICES, clock=clock) as ledger:
        await ledger.add_drafts([draft("a")])
        clock.advance(1)
        assert await ledger.transition("a", Event.INTENT) is State.SENDING
        clock.advance(1)
        assert await ledger.transition("a", Event.REFUSED_FOR_NOW, code="SYS_DEP_503", error="down") is State.NOT_SENT
        clock.advance(1)
        await ledger.transition("a", Event.INTENT)
        await ledger.transition(1, Event.ACCEPTED_NEW, request_id="r-1", result='{"status":"NEW"}')
        await ledger.transition(1, Event.POLL_SUCCESS, invoice_id="i-1", result='{"status":"SUCCESS"}')
        clock.advance(1)
        await ledger.transition(1, Event.EXPORTED, path="a.pdf", size=0, sha256="ff")
        assert await ledger.get("a") == Item(
            1,
            "a",
            "success",
            attempt=2,
            request_id="r-1",
            invoice_id="i-1",
            path="a.pdf",
            size=0,
            sha256="ff",
            result='{"status":"SUCCESS"}',
            payload_sha256=draft("a").payload_sha256,
            sent_at=START + 3,
            updated=START + 4,
            payload=draft("a").payload,
        )
        assert [(entry.event, entry.at - START, dict(entry.detail)) for entry in await ledger.history("a")] == [
            (Event.INTENT, 1, {"attempt": 1}),
            (Event.REFUSED_FOR_NOW, 2, {"code": "SYS_DEP_503", "error": "down"}),
            (Event.INTENT, 3, {"attempt": 2}),
            (Event.ACCEPTED_NEW, 3, {"request_id": "r-1"}),
            (Event.POLL_SUCCESS, 3, {}),
            (Event.EXPORTED, 4, {"path": "a.pdf"}),
        ]
        history = await ledger.history(1)
        assert await ledger.journal(after=history[4].seq) == history[5:]


@pytest.mark.asyncio
async def test_a_refused_event_changes_nothing(place: Place) -> None:
    async with place.open(INVOICES) as ledger:
        await ledger.add_drafts([draft("a")])
        await ledger.transition("a", Event.INTENT)
        before = await ledger.get("a")
        with pytest.raises(ValueError, match="'intent' is refused for an item that is 'sending'"):
            await ledger.transition("a", Event.INTENT)
        with pytest.raises(ValueError, match="request_id must be given with 'accepted_new'"):
            await ledger.transition("a", Event.ACCEPTED_NEW)
        with pytest.raises(ValueError, match="this run has no item 'b'"):
            await ledger.transition("b", Event.INTENT)
        with pytest.raises(ValueError, match="this run has no item 2"):
            await ledger.history(2)
        assert await ledger.get("a") == before
        assert len(await ledger.journal()) == 1


@pytest.mark.asyncio
async def test_many_changes_happen_together_or_not_at_all(place: Place) -> None:
    async with place.open(INVOICES) as ledger:
        await ledger.add_drafts([draft("a"), draft("b")])
        both = [Change(ref="a", event=Event.INTENT), Change(ref="b", event=Event.INTENT)]
        assert await ledger.transition_many(both) == [State.SENDING, State.SENDING]
        with pytest.raises(ValueError, match="refused"):
            await ledger.transition_many([Change(ref="a", event=Event.LOST), Change(ref="b", event=Event.POLL_NEW)])
        assert (await ledger.counts())["sending"] == 2
        assert len(await ledger.journal()) == 2


@pytest.mark.asyncio
@pytest.mark.parametrize("count", [1, 17, 240, 250, 300])
async def test_a_group_of_any_size_is_counted_as_its_rows_stand(place: Place, count: int) -> None:
    """Also by one statement that is its own transaction, and by more than one."""
    async with place.open(INVOICES) as ledger:
        await ledger.add_drafts(draft(f"k{number}") for number in range(count))
        items = await ledger.pending()
        await asyncio.gather(*(ledger.transition(item.seq, Event.INTENT) for item in items))
        ends = [Event.LOST if item.seq % 3 else Event.REFUSED_FOR_NOW for item in items]
        await asyncio.gather(*(ledger.transition(item.seq, event) for item, event in zip(items, ends, strict=True)))
        rows = await ledger.rows()
        counted = Counter(row.state for row in rows)
        assert {state: many for state, many in (await ledger.counts()).items() if many} == counted
        assert counted == Counter(next_state(State.SENDING, event).value for event in ends)
        assert {row.attempt for row in rows} == {1}
        assert all(row.sent_at is not None for row in rows)
        assert len(await ledger.journal(limit=1_000)) == 2 * count


@pytest.mark.asyncio
async def test_reopening_puts_what_was_being_sent_in_doubt(place: Place) -> None:
    """In the next process, once it may take over; until then whoever sends it is not disturbed."""
    async with place.open(INVOICES) as ledger:
        assert ledger.recovered == 0
        await ledger.add_drafts([draft("a"), draft("b"), draft("c")])
        await ledger.transition("a", Event.INTENT)
        await ledger.transition("b", Event.INTENT)
        await ledger.transition("b", Event.ACCEPTED_NEW, request_id="r-2")
        async with place.crashed() as next_one:
            assert next_one.recovered == 1
            assert [item.state for item in await next_one.rows()] == ["in_doubt", "submitted", "planned"]
            assert [entry.event for entry in await next_one.history("a")] == [Event.INTENT, Event.CRASHED]
            assert [item.key for item in await next_one.pending()] == ["c"]
        assert [item.state for item in await ledger.rows()] == ["sending", "submitted", "planned"]
        await ledger.transition("a", Event.ACCEPTED_NEW, request_id="r-1")
        async with place.crashed() as next_one:
            assert next_one.recovered == 0
            assert [item.state for item in await next_one.rows()] == ["submitted", "submitted", "planned"]


def allowed(state: State) -> list[Event]:
    """Every event the table lets happen but reopening and correction, which happen elsewhere."""
    reserved = {Event.CRASHED, Event.CORRECTED}
    return [event for event in Event if event not in reserved and isinstance(TABLE[state, event], State)]


async def live(ledger: Ledger, chance: Random, steps: int) -> AsyncIterator[dict[str, State]]:
    """Let allowed events happen to chosen items; give the states as they should be after each."""
    expected = {item.key: State(item.state) for item in await ledger.rows()}
    for _ in range(steps):
        key = chance.choice(sorted(expected))
        events = allowed(expected[key])
        if not events:
            continue
        event = chance.choice(events)
        request_id = f"r-{key}" if event in NEEDS_REQUEST_ID else None
        expected[key] = next_state(expected[key], event)
        assert await ledger.transition(key, event, request_id=request_id) is expected[key]
        yield dict(expected)


async def current_states(ledger: LedgerReader) -> dict[str, State]:
    return {item.key: State(item.state) for item in await ledger.rows()}


async def replayed(ledger: LedgerReader) -> dict[str, State]:
    return {item.key: replay([entry.event for entry in await ledger.history(item.seq)]) for item in await ledger.rows()}


@examples(15)
@given(st.integers(min_value=0, max_value=2**32), st.integers(min_value=1, max_value=40))
def test_the_journal_replayed_gives_every_row_s_state(places: Places, seed: int, steps: int) -> None:
    place = places()

    async def run() -> None:
        async with place.open(INVOICES) as ledger:
            await ledger.add_drafts([draft("a"), draft("b"), draft("c")])
            async for expected in live(ledger, Random(seed), steps):
                last = expected
            assert await current_states(ledger) == last == await replayed(ledger)
            counted = Counter(map(str, last.values()))
            assert {state: count for state, count in (await ledger.counts()).items() if count} == counted

    asyncio.run(run())


@examples(4)
@given(st.integers(min_value=0, max_value=2**32))
def test_a_crash_after_every_prefix_of_the_journal_ends_in_the_same_place(places: Places, seed: int) -> None:
    """What was answered is there in the next process: what was sending is in doubt, all else as it was."""
    place = places()

    async def run() -> None:
        async with place.open(INVOICES) as ledger:
            await ledger.add_drafts([draft("a"), draft("b")])
            async for expected in live(ledger, Random(seed), 12):
                async with place.crashed() as copy:
                    after = {key: next_state(state, Event.CRASHED) for key, state in expected.items()}
                    assert await current_states(copy) == after == await replayed(copy)
                    assert copy.recovered == list(expected.values()).count(State.SENDING)

    asyncio.run(run())
