"""A doubt is settled by a person's word: not too early, not with another's request, and it can be taken back."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from fakes import FakeClock
from peers import Connection, Peer, listening

from invoicing_async.auth import StaticToken
from invoicing_async.errors import SubmissionInDoubtError
from invoicing_async.invoices import AsyncInvoices
from invoicing_async.models import InvoiceDraft, InvoiceLine
from invoicing_async.policies import Timeouts
from invoicing_async.runs import InvoiceRun, Item, ResolutionTooEarlyError
from invoicing_async.session import Session

TEMPLATE = "0191d3a8-7c1e-7c55-8f5e-3d8f3c1a2b4d"
REQUEST = "5a1e0000-0000-4000-8000-000000000001"
OTHER = "5a1e0000-0000-4000-8000-000000000002"

pytestmark = pytest.mark.asyncio


def draft(key: str, name: str | None = None) -> InvoiceDraft:
    line = InvoiceLine(name=name or key, unit="piece", price="9.90", quantity=1)
    return InvoiceDraft(key=key, invoice_template_id=TEMPLATE, lines=(line,))


def said(status: str, content: object) -> bytes:
    body = content if isinstance(content, bytes) else json.dumps(content, ensure_ascii=False).encode()
    return b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (
        status.encode(),
        len(body),
        body,
    )


ANSWERS = {
    "lost": b"",
    "dropped": b"",
    "known": said("409 Conflict", {"message": "hóa đơn đã tồn tại", "request_id": OTHER}),
    "new": said("200 OK", {"request_id": REQUEST, "status": "NEW"}),
    "same": said("200 OK", {"request_id": REQUEST.upper(), "status": "SUCCESS"}),
    "failed": said("200 OK", {"request_id": OTHER, "status": "FAILED", "message": "MST sai", "error_code": "E7"}),
}


async def answering(connection: Connection, peer: Peer) -> None:
    while True:
        asked = await connection.request()
        [key] = [key for key in ANSWERS if f'"name":"{key}"'.encode() in asked.replace(b'": "', b'":"')]
        if not ANSWERS[key]:
            connection.reset()
            return
        await connection.say(ANSWERS[key])


@pytest_asyncio.fixture
async def invoices() -> AsyncIterator[AsyncInvoices]:
    async with (
        listening(answering) as peer,
        Session(peer.url, auth=StaticToken("t"), timeouts=Timeouts(attempt=30.0, intent=4.0)) as session,
    ):
        yield AsyncInvoices(session)


async def submitted(run: InvoiceRun, invoices: AsyncInvoices, *keys: str) -> dict[str, Item]:
    await run.add(map(draft, keys))
    async for _ in run.submit(invoices, concurrency=1):
        pass
    return {item.key: item for item in await run.ledger.rows()}


async def test_not_created_is_refused_until_nothing_can_arrive_any_more(
    tmp_path: Path, invoices: AsyncInvoices
) -> None:
    """The age of an intent, the time of an attempt and a second after the intent: those of whoever sent it."""
    clock = FakeClock()
    async with InvoiceRun.open(tmp_path / "run.db", clock=clock) as run:
        await submitted(run, invoices, "lost")
        clock.advance(34.9)
        with pytest.raises(ResolutionTooEarlyError, match="within 1 s") as caught:
            await run.resolve("lost", created=False)
        assert caught.value.remaining == pytest.approx(0.1)
        assert await run.remaining("lost") == pytest.approx(0.1)

        async def absent(_: InvoiceDraft, __: Item) -> bool:
            return False

        [item] = [item async for item in run.reconcile(absent)]
        assert (item.state, "may still arrive" in (item.error or "")) == ("in_doubt", True)
    async with InvoiceRun.open(tmp_path / "run.db", clock=clock) as run:
        clock.advance(0.2)
        assert (await run.resolve("lost", created=False)).state == "not_sent"


async def test_created_may_be_said_at_once(tmp_path: Path, invoices: AsyncInvoices) -> None:
    async with InvoiceRun.open(tmp_path / "run.db", clock=FakeClock()) as run:
        await submitted(run, invoices, "lost")
        item = await run.resolve("lost", created=True, request_id=OTHER.upper())
        assert (item.state, item.request_id) == ("submitted", OTHER)


async def test_a_request_of_another_item_is_refused(tmp_path: Path, invoices: AsyncInvoices) -> None:
    async with InvoiceRun.open(tmp_path / "run.db", clock=FakeClock()) as run:
        await submitted(run, invoices, "new", "lost")
        with pytest.raises(ValueError, match="is another item's of this run: 'new'"):
            await run.resolve("lost", created=True, request_id=REQUEST)


async def test_a_second_answer_with_the_same_request_is_a_doubt(tmp_path: Path, invoices: AsyncInvoices) -> None:
    """Two drafts answered with one id are not two invoices; what was said is kept."""
    async with InvoiceRun.open(tmp_path / "run.db", clock=FakeClock()) as run:
        items = await submitted(run, invoices, "new", "same")
        assert (items["new"].state, items["same"].state) == ("submitted", "in_doubt")
        assert "another item's of this run: 'new'" in (items["same"].error or "")
        assert json.loads(items["same"].result or "")["request_ids"] == [REQUEST]


async def test_what_an_answer_said_is_kept_with_the_doubt(tmp_path: Path, invoices: AsyncInvoices) -> None:
    """Whoever settles it has its status, its words and the id it names."""
    async with InvoiceRun.open(tmp_path / "run.db", clock=FakeClock()) as run:
        items = await submitted(run, invoices, "known")
        found: dict[str, Any] = json.loads(items["known"].result or "")
        assert (items["known"].state, found["status"], found["request_ids"]) == ("in_doubt", 409, [OTHER])
        assert "hóa đơn đã tồn tại" in found["answer"]
        assert "hóa đơn đã tồn tại" in (items["known"].error or "")


async def test_why_an_invoice_failed_is_recorded(tmp_path: Path, invoices: AsyncInvoices) -> None:
    async with InvoiceRun.open(tmp_path / "run.db", clock=FakeClock()) as run:
        items = await submitted(run, invoices, "failed")
        assert (items["failed"].state, items["failed"].error, items["failed"].code) == ("failed", "MST sai", "E7")


async def test_a_resolution_can_be_taken_back_until_something_follows(tmp_path: Path, invoices: AsyncInvoices) -> None:
    clock = FakeClock()
    async with InvoiceRun.open(tmp_path / "run.db", clock=clock) as run:
        await submitted(run, invoices, "lost", "new", "dropped")
        clock.advance(100)
        with pytest.raises(ValueError, match="was not settled by hand"):
            await run.undo("new")
        await run.resolve("lost", created=True, request_id=OTHER)
        undone = await run.undo("lost")
        assert (undone.state, undone.request_id) == ("in_doubt", None)
        await run.resolve("dropped", created=True, request_id=OTHER)
        await run.undo("dropped")
        await run.resolve("lost", created=False)
        assert (await run.undo("lost")).state == "in_doubt"
        await run.resolve("lost", created=False)
        await submitted(run, invoices)
        with pytest.raises(ValueError, match="was not settled by hand"):
            await run.undo("lost")


async def test_a_key_is_found_however_it_is_composed(tmp_path: Path, invoices: AsyncInvoices) -> None:
    """Composed and decomposed it is one key, taken in once."""
    async with InvoiceRun.open(tmp_path / "run.db", clock=FakeClock()) as run:
        intake = await run.add([draft("hóa đơn", "tea")])
        again = await run.add([draft("ho\u0301a đơn", "tea")])
        assert (intake.added, again.known, again.added) == (1, 1, 0)


async def test_an_answer_in_doubt_names_its_key(invoices: AsyncInvoices) -> None:
    with pytest.raises(SubmissionInDoubtError) as caught:
        await invoices.submit(draft("known"))
    assert (caught.value.key, caught.value.request_ids) == ("known", (OTHER,))
