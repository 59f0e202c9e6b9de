"""Two workers of one run: whoever comes late records nothing over what the other has, and nothing is doubled."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from run_services import DAY, ORDERS, counted, document_run, documents, files, kinds, listed, sandbox

from invoicing_async._durable.states import DocumentState
from invoicing_async.documents import OrderDocuments
from invoicing_async.errors import ServiceUnavailableError
from invoicing_async.models import Failed, Saved, SavedDocument, Skipped
from invoicing_async.runs import DocumentRun, Item
from invoicing_async.sandbox import Sandbox

pytestmark = pytest.mark.asyncio

WHERE = SavedDocument(order_id=ORDERS[0], path=Path("/elsewhere/a.pdf"), size=1, sha256="ff")


@asynccontextmanager
async def two_workers(
    folder: Path, service: Sandbox, **options: Any
) -> AsyncIterator[tuple[DocumentRun, OrderDocuments, DocumentRun, OrderDocuments]]:
    """Two runs over one ledger, as two workers have them, each with a session of its own."""
    async with (
        documents(service) as mine,
        documents(service) as others,
        DocumentRun.open(folder / "run.db", folder=folder / "pdf", day=DAY, **options) as run,
    ):
        yield run, mine, DocumentRun(run.ledger), others


@pytest.mark.parametrize("mode", ["keep", "new name", "replace"])
async def test_two_who_work_on_the_same_items_leave_one_file_each(tmp_path: Path, mode: str) -> None:
    async with two_workers(tmp_path, sandbox(), on_existing=mode) as (one, mine, other, others):
        await one.add(ORDERS)
        done = await asyncio.gather(listed(one.download(mine)), listed(other.download(others)))
        for outcomes in done:
            assert set(kinds(outcomes)) <= {"Saved", "Skipped"}
        assert {outcome.order_id for outcomes in done for outcome in outcomes} == set(ORDERS)
        assert await counted(one) in ({"saved": 12}, {"saved": 12 - (await counted(one)).get("skipped", 0)})
        assert sorted(files(tmp_path / "pdf")) == sorted(f"{order}.pdf" for order in ORDERS)


async def begun(run: DocumentRun) -> Item:
    await run.add(ORDERS[:1])
    [item] = await run.ledger.rows()
    return item


async def moved_on(run: DocumentRun, state: DocumentState, **learned: Any) -> None:
    """Another worker records an outcome first."""
    await run.ledger.record_document(1, state, attempt=1, begun=0, **learned)


async def test_a_failure_that_comes_late_changes_nothing(tmp_path: Path) -> None:
    async with document_run(tmp_path, sandbox()) as (run, _):
        item = await begun(run)
        await moved_on(run, DocumentState.SAVED, path="/in/b.pdf", size=7, sha256="aa")
        late = Failed(ORDERS[0], ServiceUnavailableError("down", status=503))
        told = await run._records.record(item, late)
        assert isinstance(told, Skipped)
        assert (told.document.path, told.document.size) == (Path("/in/b.pdf"), 7)
        assert await counted(run) == {"saved": 1}


async def test_a_failure_after_a_failure_is_told_and_not_recorded(tmp_path: Path) -> None:
    async with document_run(tmp_path, sandbox()) as (run, _):
        item = await begun(run)
        await moved_on(run, DocumentState.DEFERRED, error="first")
        late = Failed(ORDERS[0], ServiceUnavailableError("down", status=503))
        assert await run._records.record(item, late) is late
        [recorded] = await run.ledger.rows()
        assert (recorded.state, recorded.error) == ("deferred", "first")


async def test_a_file_that_is_there_is_recorded_over_a_failure(tmp_path: Path) -> None:
    """It was saved, whatever another worker met: its record would otherwise be fetched again."""
    async with document_run(tmp_path, sandbox()) as (run, _):
        item = await begun(run)
        await moved_on(run, DocumentState.FAILED, error="down")
        saved = Saved(ORDERS[0], WHERE)
        assert await run._records.record(item, saved) is saved
        [recorded] = await run.ledger.rows()
        assert (recorded.state, recorded.path, recorded.attempt) == ("saved", "/elsewhere/a.pdf", 2)


async def test_a_file_that_another_saved_is_the_one(tmp_path: Path) -> None:
    async with document_run(tmp_path, sandbox()) as (run, _):
        item = await begun(run)
        await moved_on(run, DocumentState.SAVED, path="/in/b.pdf", size=7, sha256="aa")
        told = await run._records.record(item, Saved(ORDERS[0], WHERE))
        assert isinstance(told, Skipped)
        assert told.document.path == Path("/in/b.pdf")


async def test_what_is_found_broken_late_is_not_planned_again(tmp_path: Path) -> None:
    """The other worker has put it right meanwhile."""
    async with document_run(tmp_path, sandbox()) as (run, found):
        await run.add(ORDERS[:2])
        await listed(run.download(found))
        before = await run.ledger.rows()
        await run.ledger.record_document(1, DocumentState.SAVED, path=before[0].path, attempt=9)
        assert not await run._records.plan_again(before[0], "is gone")
        assert await run._records.plan_again(before[1], "is gone")
        assert [item.state for item in await run.ledger.rows()] == ["saved", "planned"]


async def test_attempts_add_up_over_commands(tmp_path: Path) -> None:
    """So that an outcome of a command of before never passes for one of this."""
    service = sandbox(unavailable={ORDERS[0]: 2})
    async with document_run(tmp_path, service) as (run, found):
        await run.add(ORDERS[:1])
        await listed(run.download(found))
        assert [item.attempt for item in await run.ledger.rows()] == [3]
        (tmp_path / "pdf" / f"{ORDERS[0]}.pdf").unlink()
        await listed(run.download(found))
        assert [item.attempt for item in await run.ledger.rows()] == [4]
        assert Counter(item.state for item in await run.ledger.rows()) == {"saved": 1}
