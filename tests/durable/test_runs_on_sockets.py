"""Durable runs over real sockets, on asyncio's loop and on uvloop, keep account of every item."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop
from run_services import (
    counted,
    documents,
    invoice_run,
    kinds,
    listed,
)

from invoicing_async._core.clock import RealClock
from invoicing_async._transport.server import serve
from invoicing_async.models import (
    Deferred,
)
from invoicing_async.policies import RetryPolicy
from invoicing_async.polling import Poller
from invoicing_async.runs import (
    DocumentRun,
)
from invoicing_async.sandbox import (
    Faults,
    Sandbox,
    demo_orders,
)


@pytest.mark.asyncio
async def test_a_run_over_a_real_socket_keeps_account_of_every_id(tmp_path: Path) -> None:
    """Served on a port, with refusals, the same accounts hold; an empty run gives nothing."""
    service = Sandbox(faults=Faults(unavailable_share=0.3, not_eligible_share=0.2))
    async with (
        serve(service, base_path="/api/v1") as url,
        documents(service, base=url, clock=RealClock(), retry=RetryPolicy(first=0.001)) as found,
        DocumentRun.open(tmp_path / "run.db", folder=tmp_path / "pdf") as run,
    ):
        assert await listed(run.download(found)) == []
        orders = demo_orders(60)
        await run.add(orders)
        outcomes = await listed(run.download(found, concurrency=8))
        deferred = sum(isinstance(outcome, Deferred) for outcome in outcomes)
        assert kinds(outcomes) == {"Saved": 60 - deferred, "Deferred": deferred}
        assert await counted(run) == {"saved": 60 - deferred, "deferred": deferred}


@pytest.mark.asyncio
async def test_a_run_over_a_real_socket_creates_each_key_once(tmp_path: Path) -> None:
    """With lost answers, over a port: what the service made is what is submitted, in doubt, or done."""
    service = Sandbox(faults=Faults(lost_share=0.1, failed_share=0.2))
    keys = [f"S-{number}" for number in range(80)]
    async with (
        serve(service) as url,
        invoice_run(tmp_path, service, keys, base=url, clock=RealClock(), concurrency=16) as (run, found),
    ):
        items = await listed(run.run(found, poller=Poller(first=0.01, ceiling=0.02)))
        assert len(items) == 80
        counts = await counted(run)
        assert set(counts) == {"success", "failed", "in_doubt"}
        assert sum(counts.values()) == 80 == len(service.created)


@pytest.mark.parametrize(
    "work",
    [
        test_a_run_over_a_real_socket_keeps_account_of_every_id,
        test_a_run_over_a_real_socket_creates_each_key_once,
    ],
)
def test_durable_runs_keep_their_account_on_uvloop(
    work: Callable[[Path], Coroutine[Any, Any, None]], tmp_path: Path
) -> None:
    uvloop.run(work(tmp_path))
