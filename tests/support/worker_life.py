"""A worker in a process of its own: `worker_life.py ADDRESS URL [OPTION=VALUE ...]` works until the run rests."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

from invoicing_async._durable.address import ServerAddress, run_address
from invoicing_async._durable.postgres.ledger import PostgresLedger
from invoicing_async.auth import StaticToken
from invoicing_async.invoices import AsyncInvoices
from invoicing_async.policies import Limits, RetryPolicy
from invoicing_async.polling import Poller
from invoicing_async.runs import InvoiceRun
from invoicing_async.sandbox import Sandbox
from invoicing_async.session import Session
from invoicing_async.worker import Worker, _options


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def live(where: str, url: str, options: dict[str, Any]) -> None:
    """Say `ready`, then each item that ends, by its key and state."""
    address = run_address(where)
    assert isinstance(address, ServerAddress)
    blocked = options.pop("blocked", 0)
    session = Session(
        url,
        auth=StaticToken(Sandbox().credentials.token),
        retry=RetryPolicy(first=0.005),
        limits=Limits(concurrency=4, stop_after=None),
    )
    async with PostgresLedger.open(address) as ledger, session as open_session:
        invoices = AsyncInvoices(open_session)
        options = {"poller": Poller(first=0.01, ceiling=0.05), "chunk": 5, "heartbeat": 0.3, "every": 0.3, **options}
        async with Worker(InvoiceRun(ledger), invoices, **options) as worker:
            say("ready")
            if blocked:
                time.sleep(blocked)  # noqa: ASYNC251 - which is what a loop must not do
            async for item in worker.items():
                say(f"{item.key} {item.state}")
    say("rests")


if __name__ == "__main__":
    _options.LEAST_WATCHDOG = 0.0  # a test waits no half minute
    where, url, *given = sys.argv[1:]
    values = dict(option.split("=", 1) for option in given)
    asyncio.run(
        live(where, url, {name: float(value) if "." in value else int(value) for name, value in values.items()})
    )
