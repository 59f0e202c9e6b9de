"""The run file: nothing acknowledged is lost, nothing is half-written, one writer at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from ledgers import DOCUMENTS, INVOICES, draft

from invoicing_async._durable.ledger import SqliteLedger
from invoicing_async._durable.records import (
    DraftConflictError,
)


@pytest.mark.asyncio
@pytest.mark.parametrize(("count", "staged"), [(7, [0, 0, 0, 3, 3, 3, 6]), (6, [0, 0, 0, 3, 3, 3])])
async def test_an_async_input_is_read_one_batch_at_a_time(tmp_path: Path, count: int, staged: list[int]) -> None:
    """The next id is read only when the batch before it is on disk."""
    staged_when_read: list[int] = []
    async with SqliteLedger.open(tmp_path / "run.db", kind=DOCUMENTS) as ledger:

        async def ids() -> AsyncIterator[str]:
            for number in range(count):
                staged_when_read.append(
                    await ledger._worker.run(lambda transaction: transaction.one("SELECT count(*) FROM staged"))
                )
                yield f"order-{number}"

        assert (await ledger.add_ids(ids(), batch=3)).added == count
        assert staged_when_read == staged
        assert (await ledger.counts())["planned"] == count
        assert await ledger._worker.run(lambda transaction: transaction.one("SELECT count(*) FROM staged")) == 0


def test_a_long_list_of_conflicts_is_cut_in_the_text_only() -> None:
    error = DraftConflictError(tuple(f"k{number}" for number in range(1012)))
    assert error.message.endswith("'k9' and 1,002 more")
    assert len(error.keys) == 1012


@pytest.mark.asyncio
async def test_a_thousand_drafts_or_ids_take_few_statements(tmp_path: Path) -> None:
    """Each statement waits for the interpreter's lock, and a loop that never rests hardly lets go of it."""
    said: list[str] = []
    new = [draft(f"k{number}") for number in range(1_000)]
    async with SqliteLedger.open(tmp_path / "invoices.db", kind=INVOICES) as ledger:
        await ledger._worker.run(lambda transaction: transaction.connection.set_trace_callback(said.append))
        assert (await ledger.add_drafts(new)).added == 1_000
        assert (await ledger.add_drafts(new)).known == 1_000
        assert len(said) < 40
    async with SqliteLedger.open(tmp_path / "documents.db", kind=DOCUMENTS) as ledger:
        await ledger._worker.run(lambda transaction: transaction.connection.set_trace_callback(said.append))
        said.clear()
        assert (await ledger.add_ids(one.key for one in new)).added == 1_000
        assert len(said) < 40
