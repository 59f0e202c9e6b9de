"""Changes that share a commit do what they do alone."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest
from examples import examples
from fakes import FakeClock
from hypothesis import given
from hypothesis import strategies as st
from ledger_places import Place, Places
from ledgers import INVOICES
from run_services import (
    KEYS,
    draft,
    states,
)

from invoicing_async._durable.records import Change
from invoicing_async._durable.states import Event
from invoicing_async.runs import (
    InvoiceRun,
    Item,
)

EVENTS = st.tuples(
    st.integers(0, 5),
    st.sampled_from([Event.INTENT, Event.ACCEPTED_NEW, *(event for event in Event if event is not Event.CRASHED)]),
    st.booleans(),
    st.none() | st.sampled_from(["0191d3a8-7c1e-7c55-8f5e-3d8f3c1a2b4d", "x\x00y", "\N{BLACK STAR}"]),
    st.none() | st.sampled_from(["one line", "two\nlines"]),
    st.none() | st.integers(0, 2),
)


async def told(
    place: Place, operations: Iterable[Iterable[Change]], *, together: bool
) -> tuple[list[Item], list[tuple[int, Event, dict[str, Any]]], dict[str, int], list[str]]:
    """Let operations happen, all queued at once or one after the other, and give all that is then known."""
    clock = FakeClock()
    async with place.open(INVOICES, settings={}, clock=clock) as ledger:
        run = InvoiceRun(ledger)
        await run.add(map(draft, KEYS[:4]))
        pending = [run.ledger.transition_many(some) for some in operations]
        if together:
            answers = await asyncio.gather(*pending, return_exceptions=True)
        else:
            answers = [(await asyncio.gather(one, return_exceptions=True))[0] for one in pending]
        journal = [(entry.item, entry.event, dict(entry.detail)) for entry in await run.ledger.journal()]
        return await run.ledger.rows(), journal, await run.ledger.counts(), list(map(repr, answers))


def test_changes_that_share_a_commit_do_what_they_do_alone(places: Places) -> None:
    """Items, journal, counts and answers are the same, whatever is refused among them."""

    @given(st.lists(st.lists(EVENTS, min_size=1, max_size=3), max_size=20))
    @examples(40)
    def check(drawn: list[list[tuple[int, Event, bool, str | None, str | None, int | None]]]) -> None:
        changes = [
            [
                Change(
                    ref=f"A-{at}" if by_key else at,
                    event=event,
                    request_id=number,
                    code=number,
                    error=error,
                    attempt=attempt,
                )
                for at, event, by_key, number, error, attempt in some
            ]
            for some in drawn
        ]
        alone = asyncio.run(told(places(), changes, together=False))
        assert asyncio.run(told(places(), changes, together=True)) == alone

    check()


@pytest.mark.asyncio
async def test_an_intent_that_was_undone_is_not_remembered(place: Place) -> None:
    """What a refused operation did before it was refused counts for nothing, in its commit and in the next."""
    number = "0191d3a8-7c1e-7c55-8f5e-3d8f3c1a2b4d"
    async with place.open(INVOICES, settings={}, clock=FakeClock()) as ledger:
        run = InvoiceRun(ledger)
        await run.add(map(draft, KEYS[:3]))

        async def together(*operations: tuple[Change, ...]) -> list[str]:
            told = await asyncio.gather(*map(run.ledger.transition_many, operations), return_exceptions=True)
            return ["refused" if isinstance(answer, ValueError) else str(answer) for answer in told]

        twice = (Change(ref=1, event=Event.INTENT), Change(ref=1, event=Event.INTENT))
        assert (await together(twice, (Change(ref=2, event=Event.INTENT),)))[0] == "refused"
        answers = [(Change(ref=seq, event=Event.ACCEPTED_NEW, request_id=number),) for seq in (1, 2)]
        assert (await together(*answers))[0] == "refused"
        assert await states(run) == {"A-1": "planned", "A-2": "submitted", "A-3": "planned"}
