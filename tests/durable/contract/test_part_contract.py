"""A part of a run as a ledger, over every ledger: what is outside it is neither read nor touched."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from examples import examples
from fakes import FakeClock
from hypothesis import given
from hypothesis import strategies as st
from ledger_places import Place, Places
from ledgers import DOCUMENTS, INVOICES, documents
from run_services import DAY, ORDERS, Service, draft, invoices, later, listed, sandbox
from run_services import documents as order_documents

from invoicing_async._durable.part import LedgerPart
from invoicing_async._durable.protocol import Ledger, LedgerReader
from invoicing_async._durable.records import Change
from invoicing_async._durable.states import DocumentState, Event
from invoicing_async.runs import DocumentRun, InvoiceRun, Item

KEYS = [f"A-{number}" for number in range(1, 10)]
LO, HI = 4, 6
PART = KEYS[LO - 1 : HI]


def test_a_part_has_every_member_of_a_ledger() -> None:
    members = {name for kind in (LedgerReader, Ledger) for name in vars(kind) if not name.startswith("_")}
    assert members <= {*dir(LedgerPart), *LedgerPart.__init__.__code__.co_names}


@pytest.mark.asyncio
async def test_a_part_begins_at_1_and_is_not_empty(place: Place) -> None:
    async with place.open(DOCUMENTS) as ledger:
        with pytest.raises(ValueError, match="lo must be 1 or more, got 0"):
            LedgerPart(ledger, 0, 3)
        with pytest.raises(ValueError, match="hi must be 4 or more, which is lo, got 3"):
            LedgerPart(ledger, 4, 3)
        for call in (LedgerPart(ledger, 4, 4).rows, LedgerPart(ledger, 4, 4).pending):
            with pytest.raises(ValueError, match="limit must be 1 or more, got 0"):
                await call(after=99, limit=0)


def test_a_page_of_a_part_is_the_run_s_cut_to_it(places: Places) -> None:
    """Whatever the states are that are asked for, and however they lie in the run."""

    async def check_pages(
        saved: set[int], part: tuple[int, int], page: tuple[int, int], states: set[str] | None, *, verify: bool
    ) -> None:
        (lo, length), (after, limit) = part, page
        hi = lo + length

        def within(items: list[Item]) -> list[Item]:
            return [item for item in items if max(lo - 1, after) < item.seq <= hi][:limit]

        async with places().open(DOCUMENTS) as whole:
            await documents(whole, 12)
            for seq in saved:
                await whole.record_document(seq, DocumentState.SAVED)
            some = LedgerPart(whole, lo, hi)
            assert await some.rows(states, after=after, limit=limit) == within(await whole.rows(states))
            found = await some.pending(after=after, limit=limit, verify=verify)
            assert found == within(await whole.pending(verify=verify))
            every = [item for item in await whole.rows(states) if lo <= item.seq <= hi]
            assert await listed(some.items(states)) == every

    @given(
        saved=st.sets(st.integers(1, 12)),
        part=st.tuples(st.integers(1, 14), st.integers(0, 13)),
        page=st.tuples(st.integers(0, 15), st.integers(1, 14)),
        states=st.none() | st.sets(st.sampled_from(["planned", "saved"]), min_size=1),
        verify=st.booleans(),
    )
    @examples(25)
    def check(
        *, saved: set[int], part: tuple[int, int], page: tuple[int, int], states: set[str] | None, verify: bool
    ) -> None:
        asyncio.run(check_pages(saved, part, page, states, verify=verify))

    check()


class Counting:
    """Notes how long the pages are that are asked for."""

    def __init__(self, ledger: Ledger) -> None:
        self.limits: list[int] = []
        rows = ledger.rows

        async def counted(*states: object, limit: int = 1000, **options: object) -> list[Item]:
            self.limits.append(limit)
            return await rows(*states, limit=limit, **options)  # type: ignore[arg-type] # as they were given

        ledger.rows = counted  # type: ignore[method-assign] # a look, no other behaviour


@pytest.mark.asyncio
async def test_no_page_is_longer_than_the_part(place: Place) -> None:
    async with place.open(DOCUMENTS) as ledger:
        await documents(ledger, 12)
        counting = Counting(ledger)
        part = LedgerPart(ledger, LO, HI)
        assert [item.seq for item in await part.rows(limit=500)] == [4, 5, 6]
        assert [item.seq for item in await part.rows(after=5, limit=500)] == [6]
        assert await part.rows(after=6) == []
        assert counting.limits == [3, 1]


async def add_accepted(ledger: Ledger, service: Service) -> None:
    """Take in every key and have it accepted by the service."""
    await InvoiceRun(ledger).add(map(draft, KEYS))
    for seq, key in enumerate(KEYS, start=1):
        answer = Change(ref=seq, event=Event.ACCEPTED_NEW, request_id=service.take(key, "new"))
        await ledger.transition_many([Change(ref=seq, event=Event.INTENT), answer])


async def states_of(ledger: LedgerReader) -> list[str]:
    return [item.state for item in await ledger.rows()]


def only_the_part(inside: str, outside: str) -> list[str]:
    return [inside if LO <= seq <= HI else outside for seq in range(1, len(KEYS) + 1)]


@pytest.mark.asyncio
class TestAnInvoiceRun:
    async def test_submits_and_settles_its_part_only(self, place: Place) -> None:
        service = Service()
        async with place.open(INVOICES, clock=FakeClock()) as ledger, invoices(service) as client:
            await InvoiceRun(ledger).add(map(draft, KEYS))
            ended = await listed(InvoiceRun(LedgerPart(ledger, LO, HI)).run(client))
            assert sorted(item.key for item in ended) == PART == sorted(service.created)
            assert await states_of(ledger) == only_the_part("success", "planned")

    async def test_polls_and_refreshes_its_part_only(self, place: Place) -> None:
        service = Service()
        async with place.open(INVOICES, clock=FakeClock()) as ledger, invoices(service) as client:
            await add_accepted(ledger, service)
            run = InvoiceRun(LedgerPart(ledger, LO, HI))
            assert sorted(item.key for item in await listed(run.settle(client))) == PART
            assert await states_of(ledger) == only_the_part("success", "submitted")
            await listed(InvoiceRun(ledger).settle(client))
            assert [item.key for item in await listed(run.refresh(client))] == PART

    async def test_reconciles_its_part_only(self, place: Place) -> None:
        service = Service()
        async with place.open(INVOICES, clock=FakeClock()) as ledger:
            await InvoiceRun(ledger).add(map(draft, KEYS))
            for seq in range(1, len(KEYS) + 1):
                await ledger.transition_many([Change(ref=seq, event=Event.INTENT), Change(ref=seq, event=Event.LOST)])
            later(InvoiceRun(ledger))
            run = InvoiceRun(LedgerPart(ledger, LO, HI))
            assert [item.key for item in await listed(run.reconcile(service.look_up))] == PART
            assert await states_of(ledger) == only_the_part("not_sent", "in_doubt")

    async def test_exports_its_part_only(self, place: Place, tmp_path: Path) -> None:
        """Each of which here names no invoice, so that its export fails, and is tried."""
        service = Service()
        async with place.open(INVOICES, clock=FakeClock()) as ledger, invoices(service) as client:
            await InvoiceRun(ledger).add(map(draft, KEYS))
            for seq, key in enumerate(KEYS, start=1):
                answer = Change(ref=seq, event=Event.ACCEPTED_SUCCESS, request_id=service.take(key, "success"))
                await ledger.transition_many([Change(ref=seq, event=Event.INTENT), answer])
            service.never_ends = True
            run = InvoiceRun(LedgerPart(ledger, LO, HI))
            tried = await listed(run.export(client, tmp_path))
            assert sorted(item.key for item in tried) == PART
            assert [item.key for item in await ledger.rows() if item.error is not None] == PART
            # What counts the run counts all of it.
            assert await run.ledger.count_without_file() == len(KEYS)


@pytest.mark.asyncio
async def test_a_document_run_fetches_and_verifies_its_part_only(place: Place, tmp_path: Path) -> None:
    settings = {
        "folder": str(tmp_path),
        "layout": "{order_id}",
        "day": DAY.isoformat(),
        "served_name": False,
        "durable": False,
    }
    async with place.open(DOCUMENTS, settings=settings) as ledger, order_documents(sandbox()) as client:
        await ledger.add_ids(ORDERS[: len(KEYS)])
        run, wanted = DocumentRun(LedgerPart(ledger, LO, HI)), ORDERS[LO - 1 : HI]
        fetched = await listed(run.download(client))
        assert sorted(outcome.order_id for outcome in fetched) == sorted(wanted)
        assert await states_of(ledger) == only_the_part("saved", "planned")
        await listed(DocumentRun(ledger).download(client))
        assert [checked.key for checked in await listed(run.verify(client))] == list(wanted)
        assert len(await listed(run.download(client))) == len(wanted)
