"""Outcomes of order documents on a server, between workers: fenced by attempt also where the commit's answer was lost."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from ledgers import DOCUMENTS, documents
from postgres_server import Database
from tcp_proxy import TcpProxy

from invoicing_async._durable.records import SupersededError
from invoicing_async._durable.states import DocumentState
from test_recorder import opened

pytestmark = pytest.mark.asyncio


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
