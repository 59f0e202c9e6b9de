"""The tax authority's status: what it means, where it stands, and how it is asked for again."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from fakes import FakeClock
from hypothesis import given
from hypothesis import strategies as st
from services import Service, drafts, listed, opened

from invoicing_async._durable.records import Item
from invoicing_async._durable.states import Event
from invoicing_async.errors import AuthenticationError
from invoicing_async.models import AuthorityStatus
from invoicing_async.runs import InvoiceRun, authority_status

EXPECTED = {
    "NOT_SUBMITTED": False,
    "SUBMITTED": False,
    "SUCCESS": False,
    "ERROR": True,
    "ACCEPTED": False,
    "REJECTED": True,
    "CANCELED": False,
}


def test_every_status_is_judged_and_nothing_else_is_refused() -> None:
    """Made and not standing: REJECTED and ERROR; a status nobody knows, or none, is no refusal."""
    assert set(EXPECTED) == {status.value for status in AuthorityStatus}
    assert {status: AuthorityStatus.refuses(status) for status in EXPECTED} == EXPECTED
    assert {status: AuthorityStatus.refuses(status) for status in AuthorityStatus} == EXPECTED
    assert not AuthorityStatus.refuses(None)
    assert not AuthorityStatus.refuses("rejected")


@given(st.text(max_size=12), st.sampled_from(sorted(EXPECTED)), st.booleans())
def test_a_recorded_status_is_found_whatever_else_the_answer_says(text: str, status: str, twice: bool) -> None:  # noqa: FBT001 - drawn
    """A text that looks like a status is none; two of them are told apart by reading the answer."""
    number = "00000000-0000-4000-8000-000000000001"
    data = {"id": number, "note": f'"authority_status":"REJECTED"{text}', "authority_status": status}
    if twice:
        data["inner"] = {"authority_status": "ERROR"}  # type: ignore[assignment] # any JSON
    result = json.dumps({"status": "SUCCESS", "data": data}, separators=(",", ":"))
    assert authority_status(Item(1, "K", "success", request_id=number, result=result)) == status
    assert authority_status(Item(1, "K", "success", request_id=number, result='{"status":"SUCCESS"}')) is None
    assert authority_status(Item(1, "K", "success")) is None


@asynccontextmanager
async def finished(folder: Path, service: Service, count: int = 3) -> AsyncIterator[InvoiceRun]:
    """A run of so many finished invoices."""
    async with opened(service) as invoices, InvoiceRun.open(folder / "run.db", clock=FakeClock()) as run:
        await run.add(drafts(count))
        await listed(run.run(invoices))
        yield run


@pytest.mark.asyncio
async def test_refresh_records_what_the_service_says_now(tmp_path: Path) -> None:
    """The new answer replaces the old one, is journaled, and the item stays SUCCESS."""
    service = Service()
    async with finished(tmp_path, service) as run, opened(service) as invoices:
        service.authority.update({"K0": "ACCEPTED", "K1": "REJECTED"})
        items = {item.key: item for item in await listed(run.refresh(invoices))}
        assert {key: authority_status(item) for key, item in items.items()} == {
            "K0": "ACCEPTED",
            "K1": "REJECTED",
            "K2": "SUBMITTED",
        }
        assert {item.error for item in items.values()} == {None}
        assert {item.state for item in items.values()} == {"success"}
        entry = (await run.ledger.history("K1"))[-1]
        assert entry.event == Event.REFRESHED
        again = await run.ledger.get("K1")
        assert again is not None
        assert authority_status(again) == "REJECTED"


@pytest.mark.asyncio
async def test_what_cannot_be_asked_for_keeps_what_it_had(tmp_path: Path) -> None:
    """A 404, or a status that went back, is told and not recorded; an export's trouble is not forgotten for it."""
    service = Service()
    async with finished(tmp_path, service) as run, opened(service) as invoices:
        await run.ledger.transition("K2", Event.EXPORT_FAILED, error="no file")
        service.forgotten.add("K0")
        service.status["K1"] = "FAILED"
        items = {item.key: item for item in await listed(run.refresh(invoices))}
        assert "404" in str(items["K0"].error)
        assert items["K1"].error == "the invoice was made, and the service now says FAILED"
        assert items["K2"].error is None
        kept = {item.key: item for item in await run.ledger.rows()}
        assert (kept["K0"].error, kept["K1"].error, kept["K2"].error) == (None, None, "no file")
        assert {item.state for item in kept.values()} == {"success"}


@pytest.mark.asyncio
async def test_a_refused_credential_ends_a_refresh(tmp_path: Path) -> None:
    """What the next call would meet too is raised."""
    service = Service()
    async with finished(tmp_path, service) as run, opened(service) as invoices:
        service.refuse = 401
        with pytest.raises(AuthenticationError):
            await listed(run.refresh(invoices))


@pytest.mark.asyncio
async def test_a_stop_asks_for_nothing_more(tmp_path: Path) -> None:
    """A run that was asked to stop gives nothing, and records nothing."""
    service = Service()
    async with finished(tmp_path, service) as run, opened(service) as invoices:
        run.stop()
        calls = len(service.asked)
        assert await listed(run.refresh(invoices)) == []
        assert len(service.asked) == calls
