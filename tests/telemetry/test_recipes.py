"""The README's telemetry, run."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes import FakeClock
from invoice_clients import draft, sandboxed
from prometheus_client import CollectorRegistry
from readme_blocks import example

from invoicing_async import HmacAuth, OrderDocuments
from invoicing_async._transport.server import serve
from invoicing_async.errors import SubmissionInDoubtError
from invoicing_async.events import DocumentSaved, Event
from invoicing_async.sandbox import DropBeforeAnswer, Operation, Sandbox, Unavailable, demo_orders


@pytest.mark.asyncio
async def test_prometheus_counts_calls_retries_and_doubts() -> None:
    registry = CollectorRegistry()
    async with sandboxed(on_event=example("prometheus")(registry), clock=FakeClock()) as (invoices, sandbox):
        sandbox.script(Operation.SUBMIT, [Unavailable(), Unavailable()])
        await invoices.submit(draft(1))
        sandbox.script(Operation.SUBMIT, [DropBeforeAnswer()])
        with pytest.raises(SubmissionInDoubtError):
            await invoices.submit(draft(2))
    create = {"operation": "create_invoice"}
    found = {
        name: registry.get_sample_value(name, labels)
        for name, labels in (
            ("invoicing_retries_total", {**create, "reason": "service_unavailable"}),
            ("invoicing_submissions_in_doubt_total", {}),
        )
    }
    assert found == {"invoicing_retries_total": 2.0, "invoicing_submissions_in_doubt_total": 1.0}
    ends = ("RequestSucceeded", "CallFailed")
    assert [registry.get_sample_value("invoicing_call_seconds_count", {**create, "end": end}) for end in ends] == [1, 1]


@pytest.mark.asyncio
async def test_the_traced_session_tells_telemetry_and_who_else_listens(tmp_path: Path) -> None:
    """Without an SDK nothing else happens."""
    sandbox, heard = Sandbox(), list[Event]()
    auth = HmacAuth(**sandbox.credentials.partner())
    async with (
        serve(sandbox, base_path="/api/v1") as url,
        example("traced_session")(url, auth, heard.append) as session,
    ):
        await OrderDocuments(session).download(demo_orders(1)[0], tmp_path)
    assert isinstance(heard[-1], DocumentSaved)
