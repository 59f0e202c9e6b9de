"""The outcomes of order documents, as every ledger keeps them."""

from __future__ import annotations

import asyncio
from collections import Counter
from random import Random

import pytest
from fakes import START, FakeClock
from ledger_places import Place
from ledgers import DOCUMENTS, Item, documents

from invoicing_async._durable.states import DocumentState


@pytest.mark.asyncio
async def test_an_outcome_replaces_the_one_before(place: Place) -> None:
    clock = FakeClock()
    async with place.open(DOCUMENTS, clock=clock) as ledger:
        await ledger.add_ids(["a"])
        clock.advance(5)
        await ledger.record_document(1, DocumentState.FAILED, code="X", error="two\nlines", request_id="r-1", attempt=3)
        failed = await ledger.get("a")
        assert failed == Item(
            1, "a", "failed", attempt=3, code="X", error="two lines", request_id="r-1", updated=START + 5
        )
        await ledger.record_document("a", DocumentState.SAVED, path="a.pdf", size=42137, sha256="ff", attempt=1)
        saved = await ledger.get(1)
        assert saved == Item(1, "a", "saved", attempt=1, path="a.pdf", size=42137, sha256="ff", updated=START + 5)
        assert await ledger.get(2) is None
        assert await ledger.get("b") is None


@pytest.mark.asyncio
async def test_pending_are_those_to_fetch_and_on_request_those_to_verify(place: Place) -> None:
    async with place.open(DOCUMENTS) as ledger:
        await documents(ledger, 10)
        for seq, state in enumerate([*DocumentState, *DocumentState], start=1):
            await ledger.record_document(seq, state)
        assert [item.seq for item in await ledger.pending()] == [1, 4, 5, 6, 9, 10]
        assert [item.seq for item in await ledger.pending(after=4, limit=2)] == [5, 6]
        assert [item.seq for item in await ledger.pending(verify=True)] == list(range(1, 11))
        assert [item.seq for item in await ledger.rows([DocumentState.SAVED, "saved"])] == [2, 7]
        assert await ledger.counts() == dict.fromkeys(map(str, DocumentState), 2)


@pytest.mark.asyncio
async def test_the_counts_are_those_of_the_rows(place: Place) -> None:
    chance = Random(7)
    async with place.open(DOCUMENTS) as ledger:
        await documents(ledger, 50)
        changes = [(chance.randint(1, 50), chance.choice(list(DocumentState))) for _ in range(300)]
        await asyncio.gather(*(ledger.record_document(seq, state) for seq, state in changes))
        counted = Counter(item.state for item in await ledger.rows())
        assert {state: count for state, count in (await ledger.counts()).items() if count} == counted


@pytest.mark.asyncio
async def test_cancelling_a_waiter_leaves_its_row_whole_or_untouched(place: Place) -> None:
    async with place.open(DOCUMENTS) as ledger:
        await documents(ledger, 200)

        async def save(seq: int) -> None:
            await ledger.record_document(seq, DocumentState.SAVED, path=f"{seq}.pdf", size=seq, sha256="ff")

        tasks = [asyncio.create_task(save(seq)) for seq in range(1, 201)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(result is None for result in results[1::2])
        for item in await ledger.rows():
            whole = Item(item.seq, item.key, "saved", path=f"{item.seq}.pdf", size=item.seq, sha256="ff")
            assert item in {Item(item.seq, item.key, "planned", updated=item.updated), with_time(whole, item.updated)}
        counted = Counter(item.state for item in await ledger.rows())
        assert (await ledger.counts())["saved"] == counted["saved"]


def with_time(item: Item, updated: float) -> Item:
    return Item(item.seq, item.key, item.state, path=item.path, size=item.size, sha256=item.sha256, updated=updated)
