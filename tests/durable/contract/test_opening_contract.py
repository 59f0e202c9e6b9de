"""A run opened, and opened again, in every ledger."""

from __future__ import annotations

import asyncio
import os

import pytest
from fakes import START, FakeClock
from ledger_places import Place, Places
from ledgers import DOCUMENTS, INVOICES, documents

from invoicing_async._durable.records import Pause, RunFileError
from invoicing_async._durable.states import DocumentState, Event


@pytest.mark.asyncio
async def test_the_longest_time_on_the_way_is_kept(place: Place) -> None:
    """Also where two clients with other timeouts say theirs at once, and when the run is opened again."""
    async with place.open(INVOICES) as ledger:
        await asyncio.gather(ledger.keep_late(10.0), ledger.keep_late(5.0))
        assert ledger.late == 10.0
    async with place.open() as ledger:
        assert ledger.late == 10.0


@pytest.mark.asyncio
async def test_a_run_of_another_kind_is_refused(place: Place) -> None:
    async with place.open(DOCUMENTS):
        pass
    with pytest.raises(RunFileError, match="is a run of documents, not of invoices"):
        async with place.open(INVOICES):
            pass


@pytest.mark.asyncio
async def test_each_kind_has_its_own_operations(places: Places) -> None:
    async with places().open(DOCUMENTS) as ledger:
        with pytest.raises(ValueError, match="transition is for a run of invoices"):
            await ledger.transition(1, Event.INTENT)
        with pytest.raises(ValueError, match="add_drafts is for a run of invoices"):
            await ledger.add_drafts([])
    async with places().open(INVOICES) as ledger:
        with pytest.raises(ValueError, match="add_ids is for a run of documents"):
            await ledger.add_ids([])
        with pytest.raises(ValueError, match="record_document is for a run of documents"):
            await ledger.record_document(1, DocumentState.SAVED)


@pytest.mark.asyncio
@pytest.mark.parametrize("call", ["rows", "pending", "duplicates", "journal"])
async def test_a_page_has_at_least_one_row(place: Place, call: str) -> None:
    async with place.open(DOCUMENTS) as ledger:
        with pytest.raises(ValueError, match="limit must be 1 or more, got 0"):
            await getattr(ledger, call)(limit=0)
        with pytest.raises(ValueError, match="batch must be 1 or more"):
            await ledger.add_ids([], batch=0)


@pytest.mark.asyncio
async def test_a_run_keeps_the_settings_it_was_made_with_until_they_are_updated(place: Place) -> None:
    clock = FakeClock()
    async with place.open(DOCUMENTS, settings={"folder": "Kế toán"}, clock=clock) as ledger:
        assert ledger.settings == {"folder": "Kế toán"}
    clock.advance(9)
    async with place.open(settings={"folder": "other"}, clock=clock) as ledger:
        assert ledger.settings == {"folder": "Kế toán"}
        await ledger.update_settings({"folder": "new"})
        assert ledger.settings == {"folder": "new"}
    async with place.read() as reader:
        assert (reader.kind, reader.settings, reader.created) == (DOCUMENTS, {"folder": "new"}, START)


@pytest.mark.asyncio
async def test_a_reader_sees_what_a_writer_has_recorded(place: Place) -> None:
    """And who holds the run, which nobody does when it is closed."""
    async with place.open(DOCUMENTS) as ledger:
        await documents(ledger, 3)
        async with place.read() as reader:
            await ledger.record_document(2, DocumentState.SAVED, size=7)
            assert [item.state for item in await reader.rows()] == ["planned", "saved", "planned"]
            assert (await reader.counts())["saved"] == 1
            assert [holder.pid for holder in await reader.holders()] == [os.getpid()]
            assert reader.name == ledger.name
        await ledger.record_document(3, DocumentState.SAVED)
    async with place.read() as reader:
        assert (await reader.counts())["saved"] == 2
        assert await reader.holders() == ()


@pytest.mark.asyncio
async def test_closing_does_what_is_queued_and_closing_twice_nothing(place: Place) -> None:
    async with place.open(DOCUMENTS) as ledger:
        await documents(ledger, 500)
        tasks = [asyncio.create_task(ledger.record_document(seq, DocumentState.SAVED)) for seq in range(1, 501)]
        await asyncio.sleep(0)
        await ledger.close()
        await asyncio.gather(*tasks)
        await ledger.close()
        with pytest.raises(RunFileError, match="is closed"):
            await ledger.counts()
    async with place.read() as reader:
        assert (await reader.counts())["saved"] == 500


@pytest.mark.asyncio
async def test_pauses_are_kept_as_far_as_they_were_told(place: Place) -> None:
    async with place.open(INVOICES) as ledger:
        await ledger.record_pause(Pause("submit", 1.0, 1.0))
        await ledger.record_pause(Pause("submit", 1.0, 3.0, is_over=True))
        await ledger.record_pause(Pause("status", 0.5, 0.5))
    async with place.read() as reader:
        kept = (Pause("status", 0.5, 0.5), Pause("submit", 1.0, 3.0, is_over=True))
        assert await reader.pauses() == kept == (await reader.figures()).pauses


@pytest.mark.asyncio
async def test_an_outage_that_several_workers_met_is_one_pause(place: Place) -> None:
    """What each of them recorded is read as one, for each operation; the next outage is another one."""
    recorded = [
        Pause("submit", 1.0, 9.0),  # of a worker that died in it
        Pause("submit", 1.5, 30.0, is_over=True),
        Pause("status", 2.0, 20.0),
        Pause("submit", 30.5, 31.0, is_over=True),
        Pause("submit", 30.7, 33.0),
    ]
    async with place.open(INVOICES) as ledger:
        for pause in recorded:
            await ledger.record_pause(pause)
    async with place.read() as reader:
        assert await reader.pauses() == (
            Pause("submit", 1.0, 30.0, is_over=True),
            Pause("status", 2.0, 20.0),
            Pause("submit", 30.5, 33.0),
        )
