"""Outcomes of order documents on a server, between workers: fenced by attempt, however the answer of a commit ends."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from ledgers import DOCUMENTS, documents
from postgres_server import Database
from run_services import DAY, ORDERS, files, kinds, listed, sandbox
from run_services import documents as found_documents
from tcp_proxy import TcpProxy
from test_recorder import opened

from invoicing_async._durable.records import SupersededError
from invoicing_async._durable.states import DocumentState
from invoicing_async.runs import DocumentRun

pytestmark = [pytest.mark.asyncio, pytest.mark.slow]


@pytest.fixture
def proxy(postgres: Database) -> Iterator[TcpProxy]:
    with TcpProxy.before(postgres.server.port) as between:
        yield between


async def test_what_was_refused_in_a_group_whose_answer_was_lost_is_refused_after_it(
    postgres: Database, proxy: TcpProxy
) -> None:
    """What the group recorded is told by attempt and worker; what another had moved on with is not overwritten."""
    async with opened(postgres, proxy, kind=DOCUMENTS) as ledger, opened(postgres, kind=DOCUMENTS) as other:
        await documents(ledger, 3)
        await other.record_document(2, DocumentState.SAVED, path="/in/2.pdf", attempt=1, begun=0)
        lost = proxy.lose_answer("unnest")
        outcomes = [
            ledger.record_document(seq, DocumentState.FAILED, error="late", attempt=1, begun=0) for seq in (1, 2, 3, 4)
        ]
        answers = await asyncio.gather(*outcomes, return_exceptions=True)
        assert lost.is_done
        assert answers[0] is answers[2] is None
        assert isinstance(answers[1], SupersededError)
        assert str(answers[3]) == "this run has no item 4"
        assert [item.state for item in await other.rows()] == ["failed", "saved", "failed"]


async def test_a_store_that_was_set_since_is_known_when_its_names_are_read(postgres: Database) -> None:
    """Another worker was the first to say where the run exports to."""
    async with opened(postgres, kind=DOCUMENTS) as early, opened(postgres, kind=DOCUMENTS) as other:
        await documents(other, 2)
        await other.update_settings({**other.settings, "store": "s3://bucket/in"})
        await other.record_document(1, DocumentState.SAVED, path="s3://bucket/in/a.pdf")
        for item in (*await early.rows(), await early.get(1)):
            assert item is not None
            assert item.path in {"s3://bucket/in/a.pdf", None}


@pytest.mark.parametrize("mode", ["keep", "new name"])
async def test_two_workers_who_want_every_document_leave_one_file_each(
    postgres: Database, tmp_path: Path, mode: str
) -> None:
    """Both have every item, as when a job is doubled; what one of them records late changes nothing."""
    place, service = str(tmp_path / "pdf"), sandbox()
    settings = {
        "folder": place, "store": place, "layout": "{order_id}", "day": DAY.isoformat(), "served_name": False,
        "durable": False, "on_existing": mode,
    }  # fmt: skip
    async with AsyncExitStack() as stack:
        ledgers = [await stack.enter_async_context(opened(postgres, kind=DOCUMENTS)) for _ in range(2)]
        await ledgers[0].update_settings(settings)
        await ledgers[1].update_settings(settings)
        await ledgers[0].add_ids(ORDERS)
        clients = [await stack.enter_async_context(found_documents(service)) for _ in range(2)]
        runs = [DocumentRun(ledger) for ledger in ledgers]
        working = zip(runs, clients, strict=True)
        done = await asyncio.gather(*(listed(run.download(client)) for run, client in working))
        for outcomes in done:
            assert set(kinds(outcomes)) <= {"Saved", "Skipped"}
            assert {outcome.order_id for outcome in outcomes} <= set(ORDERS)
        counts = await ledgers[0].counts()
        assert counts["saved"] + counts["skipped"] == len(ORDERS)
        assert {item.path for item in await ledgers[0].rows()} == {f"{place}/{order}.pdf" for order in ORDERS}
    assert sorted(files(tmp_path / "pdf")) == sorted(f"{order}.pdf" for order in ORDERS)
