"""The outcome of an order document is recorded only while nobody else has moved on with it; its path is kept short."""

from __future__ import annotations

import pytest
from ledger_places import Place
from ledgers import DOCUMENTS

from invoicing_async._durable.records import SupersededError
from invoicing_async._durable.states import DocumentState

pytestmark = pytest.mark.asyncio


async def test_an_outcome_of_an_attempt_that_is_over_is_refused(place: Place) -> None:
    async with place.open(DOCUMENTS) as ledger:
        await ledger.add_ids(["a"])
        await ledger.record_document(1, DocumentState.SAVED, path="/in/a.pdf", attempt=1, begun=0)
        before = await ledger.get("a")
        for begun in (0, 2):
            with pytest.raises(SupersededError):
                await ledger.record_document("a", DocumentState.FAILED, error="late", attempt=3, begun=begun)
        assert await ledger.get("a") == before
        assert (await ledger.counts())["saved"] == 1
        await ledger.record_document(1, DocumentState.PLANNED, attempt=1, begun=1)
        await ledger.record_document(1, DocumentState.FAILED, attempt=7)
        assert (await ledger.counts())["failed"] == 1


@pytest.mark.parametrize("store", ["/srv/in", "s3://bucket/in"])
async def test_paths_are_given_whole(place: Place, store: str) -> None:
    """What is below the run's store, what is elsewhere, and what was never there."""
    paths = [f"{store}/a.pdf", f"{store}/2025/b (2).pdf", "/elsewhere/c.pdf", "gs://other/d.pdf", None]
    async with place.open(DOCUMENTS, settings={"folder": store, "store": store}) as ledger:
        await ledger.add_ids("abcde")
        for seq, path in enumerate(paths, 1):
            await ledger.record_document(seq, DocumentState.SAVED, path=path)
        assert [item.path for item in await ledger.rows()] == paths
        assert [item.path for item in await ledger.pending(verify=True)] == paths
        found = await ledger.get("b")
        assert found is not None
        assert found.path == paths[1]
        await ledger.update_settings({**ledger.settings, "folder": "/moved"})
        assert [item.path async for item in ledger.items()] == paths
