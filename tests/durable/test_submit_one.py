"""A web service submits drafts of one open run, any number at once: each is sent once and answered with its own."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from run_services import Service, draft, invoice_run

from invoicing_async._durable.claims import Claims
from invoicing_async.errors import BatchStoppedError, DraftError
from invoicing_async.invoices import AsyncInvoices
from invoicing_async.runs import DraftConflictError, InvoiceRun, Item, State

pytestmark = pytest.mark.asyncio


class Peer(Service):
    """A service that counts what it was sent, takes a moment, and answers as told."""

    def __init__(self, fates: dict[str, Any] | None = None) -> None:
        super().__init__(fates or {})
        self.made: Counter[str] = Counter()
        self.received = self.count

    async def count(self, key: str) -> None:
        self.made[key] += 1
        await asyncio.sleep(0.002)


async def submitted(run: InvoiceRun, invoices: AsyncInvoices) -> list[Item]:
    async with aclosing(run.submit(invoices)) as items:
        return [item async for item in items]


async def test_a_draft_gets_its_own_outcome(tmp_path: Path) -> None:
    peer = Peer()
    async with invoice_run(tmp_path, peer, []) as (run, found):
        item = await run.submit_one(draft("A"), found)
        assert (item.key, item.state) == ("A", State.SUBMITTED)
        assert item.request_id is not None
        again = await run.submit_one(draft("A"), found)
        assert (again.request_id, peer.made) == (item.request_id, {"A": 1})


async def test_one_key_twice_at_once_is_sent_once_and_both_get_the_same(tmp_path: Path) -> None:
    peer = Peer()
    async with invoice_run(tmp_path, peer, []) as (run, found):
        items = await asyncio.gather(*(run.submit_one(draft("A"), found) for _ in range(20)))
    assert len({(item.state, item.request_id) for item in items}) == 1
    assert peer.made == {"A": 1}


async def test_any_number_at_once_beside_submit_send_each_once(tmp_path: Path) -> None:
    """In an order drawn at random; whoever submits the run gets what was his, too."""
    peer, chance = Peer(), random.Random(7)
    keys = [f"K-{number}" for number in range(40)]
    async with invoice_run(tmp_path, peer, keys[:20]) as (run, found):

        async def asked(key: str) -> Item:
            await asyncio.sleep(chance.random() * 0.05)
            return await run.submit_one(draft(key), found)

        async def all_left() -> list[Item]:
            await asyncio.sleep(chance.random() * 0.05)
            return await submitted(run, found)

        items = await asyncio.gather(*map(asked, keys * 2), return_exceptions=True)
        del items
        outcomes = await asyncio.gather(*map(asked, keys), all_left(), all_left(), all_left())
        assert {item.state for item in outcomes[: len(keys)] if isinstance(item, Item)} == {State.SUBMITTED}
        assert (await run.ledger.counts())["submitted"] == len(keys)
    assert peer.made == dict.fromkeys(keys, 1)


async def test_several_submit_one_run_and_none_sends_twice(tmp_path: Path) -> None:
    peer = Peer()
    keys = [f"K-{number}" for number in range(30)]
    async with invoice_run(tmp_path, peer, []) as (run, found):

        async def request(key: str) -> bool:
            await asyncio.sleep(int(key[2:]) * 0.001)
            await run.add([draft(key)])
            return key in {item.key for item in await submitted(run, found)}

        assert all(await asyncio.gather(*map(request, keys)))
    assert peer.made == dict.fromkeys(keys, 1)


async def test_one_that_goes_leaves_the_others_their_answer(tmp_path: Path) -> None:
    """The one that sent is cancelled: what left is in doubt, which whoever waited for it is told."""
    peer = Peer()

    async def hang(key: str) -> None:
        peer.made[key] += 1
        await asyncio.Event().wait()

    peer.received = hang
    async with invoice_run(tmp_path, peer, []) as (run, found):
        first = asyncio.create_task(run.submit_one(draft("A"), found))
        while not peer.made:  # noqa: ASYNC110 - only the peer tells
            await asyncio.sleep(0.001)
        second = asyncio.create_task(run.submit_one(draft("A"), found))
        await asyncio.sleep(0.01)
        first.cancel()
        assert (await second).state == State.IN_DOUBT
        with pytest.raises(asyncio.CancelledError):
            await first
    assert peer.made == {"A": 1}


async def test_faults_and_other_content_are_raised_and_nothing_is_sent(tmp_path: Path) -> None:
    peer = Peer()
    async with invoice_run(tmp_path, peer, []) as (run, found):
        with pytest.raises(DraftError):
            await run.submit_one(draft(""), found)
        await run.submit_one(draft("A"), found)
        with pytest.raises(DraftConflictError):
            await run.submit_one(draft("A", price="99"), found)
    assert peer.made == {"A": 1}


async def test_after_stop_nothing_is_sent(tmp_path: Path) -> None:
    peer = Peer()
    async with invoice_run(tmp_path, peer, []) as (run, found):
        run.stop()
        assert (await run.submit_one(draft("A"), found)).state == State.PLANNED
    assert not peer.made


async def test_one_cause_stops_a_run_and_the_rest_stays_planned(tmp_path: Path) -> None:
    keys = [f"K-{number}" for number in range(100)]
    peer = Peer({key: ["lost"] for key in keys})
    async with invoice_run(tmp_path, peer, keys) as (run, found):
        with pytest.raises(BatchStoppedError):
            await submitted(run, found)
        counts = await run.ledger.counts()
    assert sum(peer.made.values()) == 5
    assert counts["planned"] == 95


async def test_a_claim_is_told_to_all_who_wait_and_given_back() -> None:
    claims: Claims[str] = Claims()
    with claims.at_work() as one, claims.at_work() as other:
        assert one in claims.accompanied
        assert other in claims.accompanied
        with claims.hold(1) as claim:
            waiting = [asyncio.create_task(claim.ended()) for _ in range(3)]
            await asyncio.sleep(0)
            waiting[0].cancel()
            claim.ending = "done"
        assert not claims.held
        assert await asyncio.gather(*waiting[1:]) == ["done", "done"]
    with claims.at_work() as alone:
        assert alone not in claims.accompanied
