"""The README is run: its Python against the sandbox, its commands for their form."""

from __future__ import annotations

from pathlib import Path

import pytest
from readme_blocks import blocks, example

from invoicing_async import HmacAuth, InvoiceDraft, InvoiceLine, OAuthClientCredentials, OrderDocuments
from invoicing_async._transport.server import serve
from invoicing_async.sandbox import Faults, Sandbox, demo_orders
from invoicing_async.session._session import internals_of

README = Path(__file__).parent.parent / "README.md"


@pytest.mark.asyncio
async def test_the_download_example_saves_every_order(tmp_path: Path) -> None:
    """The first example saves whole PDFs through SYS_DEP_503, and counts them."""
    sandbox = Sandbox(faults=Faults(unavailable_share=0.2))
    orders = [*demo_orders(10), demo_orders(1)[0]]
    async with serve(sandbox, base_path="/api/v1") as base_url:
        auth = HmacAuth(**sandbox.credentials.partner())
        assert await example("month_end")(base_url, auth, orders, str(tmp_path)) == 10
    assert len(list(tmp_path.glob("*.pdf"))) == 10


@pytest.mark.asyncio
async def test_the_invoice_example_settles_every_draft() -> None:
    """The second example ends with a terminal answer for each draft."""
    sandbox = Sandbox(faults=Faults(failed_share=0.3))
    line = InvoiceLine(name="Tea", unit="cup", price="15000", quantity=2)
    template = "3fa85f64-5717-4562-b3fc-2c963f66afa6"
    drafts = [InvoiceDraft(key=f"order-{n}", invoice_template_id=template, lines=[line]) for n in range(8)]
    async with serve(sandbox) as base_url:
        done = await example("settle")(base_url, OAuthClientCredentials(**sandbox.credentials.client()), drafts)
    assert {request.status for request in done} == {"SUCCESS", "FAILED"}
    assert len(done) == 8


@pytest.mark.asyncio
async def test_the_session_of_a_company_downloads(tmp_path: Path) -> None:
    sandbox, (order,) = Sandbox(), demo_orders(1)
    async with serve(sandbox, base_path="/api/v1") as base_url:
        async with example("company_session")(base_url, HmacAuth(**sandbox.credentials.partner())) as session:
            saved = await OrderDocuments(session).download(order, tmp_path)
        assert internals_of(session).transport._client.closed  # type: ignore[attr-defined]
    assert saved.path.read_bytes().startswith(b"%PDF-")


@pytest.mark.asyncio
async def test_a_page_and_a_readiness_probe_share_the_session_of_the_batches() -> None:
    """The document comes whole through a view with a deadline of its own, and the session says that it is ready."""
    sandbox, (order,) = Sandbox(), demo_orders(1)
    auth = HmacAuth(**sandbox.credentials.partner())
    async with (
        serve(sandbox, base_path="/api/v1") as base_url,
        example("month_end_session")(base_url, auth) as session,
    ):
        body = await example("invoice_for_a_page")(session, order)
        assert await example("ready")(session)
    assert body.startswith(b"%PDF-")


@pytest.mark.parametrize("command", ["invoicing-async demo", "pytest"])
def test_each_promise_is_one_line(command: str) -> None:
    """One line of one shell block does it, and makes its own virtual environment."""
    lines = [line for block in blocks("sh") for line in block.splitlines() if command in line]
    assert lines[0].startswith("python3 -m venv .venv && .venv/bin/python -m pip install")
