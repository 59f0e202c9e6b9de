"""The tests of `order_desk`, as a user of the library writes them: with the plugin's fixtures, by public names only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer
from order_desk import make_app

from invoicing_async import RetryPolicy
from invoicing_async.sandbox import Faults, demo_orders
from invoicing_async.testing import FakeClock, RecordingSandbox

ORDER, OTHER = demo_orders(2)
GOODS = {"buyer": "Citra Lestari", "goods": "Teak serving board", "price": "98500", "quantity": 2}
Desk = Callable[[], AbstractAsyncContextManager[TestClient[Any, Any]]]

pytestmark = pytest.mark.asyncio


@pytest.fixture
def desk(invoicing_sandbox: RecordingSandbox, tmp_path: Path) -> Desk:
    """Start the service on the sandbox, with nothing of it changed but what its sessions reach."""

    @asynccontextmanager
    async def started() -> AsyncIterator[TestClient[Any, Any]]:
        documents = invoicing_sandbox.documents_session(retry=RetryPolicy(attempts=10, first=1.0))
        invoices = invoicing_sandbox.invoices_session()
        app = make_app(documents, invoices, tmp_path / "e-invoices.db", clock=invoicing_sandbox.clock)
        async with TestClient(TestServer(app)) as client:
            yield client

    return started


async def ended(client: TestClient[Any, Any], order_id: str) -> dict[str, Any]:
    """Ask how far an e-invoice is until it is no longer under way."""
    async with asyncio.timeout(10):
        while True:
            answer = await client.get(f"/orders/{order_id}/e-invoice")
            shown: dict[str, Any] = await answer.json()
            if shown["state"] != "submitted":
                return shown
            await asyncio.sleep(0.005)


async def test_an_invoice_is_passed_through(invoicing_sandbox: RecordingSandbox, desk: Desk) -> None:
    async with desk() as client:
        answer = await client.get(f"/orders/{ORDER}/invoice")
        body = await answer.read()
    assert (answer.status, answer.content_type, body[:5]) == (200, "application/pdf", b"%PDF-")
    assert [request.ids for request in invoicing_sandbox.requests_to("document")] == [(ORDER,)]
    invoicing_sandbox.assert_signed()


async def test_an_outage_of_67_seconds_is_waited_for(
    invoicing_sandbox: RecordingSandbox, invoicing_clock: FakeClock, desk: Desk
) -> None:
    """The client sees a slow answer and no error; the test takes no time."""
    invoicing_sandbox.inject("outage:length=67")
    async with desk() as client:
        answer = await client.get(f"/orders/{ORDER}/invoice")
    assert answer.status == 200
    assert 67 < invoicing_clock.elapsed < 100
    assert {request.status for request in invoicing_sandbox.requests[:-1]} == {503}
    invoicing_sandbox.assert_signed()


async def test_a_longer_outage_is_an_answer_that_says_so(
    invoicing_sandbox: RecordingSandbox, invoicing_clock: FakeClock, desk: Desk
) -> None:
    """And when it is over, the next one asks again."""
    invoicing_sandbox.inject("outage:length=600")
    async with desk() as client:
        answer = await client.get(f"/orders/{ORDER}/invoice")
        assert (answer.status, "hint" in await answer.json()) == (503, True)
        invoicing_clock.advance(600)
        assert (await client.get(f"/orders/{ORDER}/invoice")).status == 200


@pytest.mark.usefixtures("invoicing_clock")
async def test_an_order_that_is_not_ready_is_a_conflict(invoicing_sandbox: RecordingSandbox, desk: Desk) -> None:
    async with desk() as client:
        assert (await client.get(f"/orders/{OTHER}/invoice")).status == 409
    assert invoicing_sandbox.calls("document") == 1


@pytest.mark.usefixtures("invoicing_clock")
async def test_an_e_invoice_is_submitted_and_settled(invoicing_sandbox: RecordingSandbox, desk: Desk) -> None:
    """Its draft is what was asked for, and the service waits for its end by itself."""
    async with desk() as client:
        answer = await client.post(f"/orders/{ORDER}/e-invoice", json=GOODS)
        assert (answer.status, (await answer.json())["state"]) == (202, "submitted")
        assert (await ended(client, ORDER))["state"] == "success"
    (submitted,) = invoicing_sandbox.requests_to("submit")
    assert submitted.json["invoice_data"]["consumer"]["name"] == "Citra Lestari"
    invoicing_sandbox.assert_all_settled()


@pytest.mark.usefixtures("invoicing_clock")
async def test_asking_many_times_makes_one_e_invoice(invoicing_sandbox: RecordingSandbox, desk: Desk) -> None:
    async with desk() as client:
        await asyncio.gather(*(client.post(f"/orders/{ORDER}/e-invoice", json=GOODS) for _ in range(5)))
        await ended(client, ORDER)
    invoicing_sandbox.assert_no_duplicates()
    assert len(invoicing_sandbox.created) == 1


@pytest.mark.usefixtures("invoicing_clock")
async def test_an_answer_lost_after_the_invoice_was_made_is_in_doubt(
    invoicing_sandbox: RecordingSandbox, desk: Desk
) -> None:
    """It is never sent again by itself, whoever asks; who looks it up at the service settles it."""
    invoicing_sandbox.inject("lost:first=1")
    async with desk() as client:
        for _ in range(3):
            answer = await client.post(f"/orders/{ORDER}/e-invoice", json=GOODS)
            assert (answer.status, (await answer.json())["state"]) == (202, "in_doubt")
    assert invoicing_sandbox.calls("submit") == 1
    invoicing_sandbox.assert_no_duplicates()
    with pytest.raises(AssertionError, match=f"the draft for {ORDER} .* is in doubt"):
        invoicing_sandbox.assert_all_settled()


@pytest.mark.usefixtures("invoicing_clock")
async def test_a_draft_with_a_fault_is_never_sent(invoicing_sandbox: RecordingSandbox, desk: Desk) -> None:
    async with desk() as client:
        answer = await client.post(f"/orders/{ORDER}/e-invoice", json=GOODS | {"goods": "x" * 501})
        assert (answer.status, "lines[0].name" in (await answer.json())["error"]) == (422, True)
    assert invoicing_sandbox.requests == ()


@pytest.fixture
def invoicing_faults() -> Faults:
    """One order is not ready; an e-invoice takes a minute."""
    return Faults(not_eligible=[OTHER], seconds_until_done=(60, 60))
