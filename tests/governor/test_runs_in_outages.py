"""Durable runs while the service is down, with a clock that jumps to the end of every wait."""

from __future__ import annotations

from pathlib import Path

import pytest
from run_services import (
    Service,
    counted,
    document_run,
    invoice_run,
    listed,
    sandbox,
    until_error,
)

from invoicing_async.errors import ServiceDownError
from invoicing_async.models import NotStarted
from invoicing_async.policies import OutagePolicy
from invoicing_async.sandbox import Unavailable, demo_orders

ORDERS = demo_orders(40)
DRAFTS = [f"A-{number}" for number in range(1, 31)]
DOWN = OutagePolicy(after=8, patience=60.0)


@pytest.mark.asyncio
async def test_beyond_its_patience_a_document_run_leaves_the_rest_planned(tmp_path: Path) -> None:
    """The next run fetches what is left, and only that."""
    service = sandbox()
    for order in ORDERS[5:]:
        service.script(order, [Unavailable()] * 9)
    async with document_run(tmp_path, service, outage=DOWN) as (run, found):
        await run.add(ORDERS)
        outcomes, error = await until_error(run.download(found))
        assert isinstance(error, ServiceDownError)
        assert len(outcomes) == len(ORDERS)
        left = [outcome for outcome in outcomes if isinstance(outcome, NotStarted)]
        # What was on its way to the disk while this clock jumped over a minute may be saved, and told as not started.
        assert len(ORDERS) - len(left) <= (await counted(run))["saved"] <= 5
        assert (await counted(run)).get("failed", 0) == 0
    again = sandbox()
    async with document_run(tmp_path, again) as (run, found):
        await listed(run.download(found))
        counts = await counted(run)
        # What came to its place as the first command ended, and was not recorded by it, is found there.
        assert counts["saved"] + counts.get("skipped", 0) == len(ORDERS) == sum(counts.values())


@pytest.mark.asyncio
async def test_beyond_its_patience_a_submission_run_sends_nothing_of_the_rest(tmp_path: Path) -> None:
    """No invoice is in doubt for it, and the next run makes each once."""
    service = Service({key: ["busy"] * 200 for key in DRAFTS[5:]})
    async with invoice_run(tmp_path, service, DRAFTS, outage=DOWN) as (run, found):
        with pytest.raises(ServiceDownError):
            await listed(run.submit(found))
        counts = await counted(run)
        assert counts.get("in_doubt", 0) == counts.get("sending", 0) == 0
        assert sum(counts.values()) == len(DRAFTS)
        assert 0 < counts.get("planned", 0) + counts.get("not_sent", 0) <= len(DRAFTS) - 5
    service.plans = {}
    async with invoice_run(tmp_path, service, [], outage=DOWN) as (run, found):
        await listed(run.submit(found))
        assert (await counted(run)).keys() <= {"submitted", "success", "failed"}
    assert all(len(made) == 1 for made in service.created.values())
    assert service.created.keys() == set(DRAFTS)
