"""What a web service keeps open, whatever its framework: the sessions, the run file, the task that settles invoices."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from os import PathLike

from invoicing_async import (
    AsyncInvoices,
    InvoiceDraft,
    OrderDocuments,
    OutagePolicy,
    Poller,
    RetryPolicy,
    Session,
    Settings,
)
from invoicing_async.drafts import read_jsonl
from invoicing_async.errors import DraftError, Fault, InvoicingError
from invoicing_async.runs import InvoiceRun, Item
from invoicing_async.web import HttpError, http_error

LOG = logging.getLogger(__name__)
DEADLINE = 10.0
"""Seconds for which a request waits for a service at most, retries included."""
OUTAGE = OutagePolicy(after=5)
"""Requests come one by one here: a few that failed are enough to say that the service is down, and to be not ready."""
POLLER = Poller(timeout=10.0)
"""How the background asks for what was sent; what it does not learn in this time it asks for in the next round."""
PAUSE = 1.0
"""Seconds between two rounds of the background."""
DRAIN = 20.0
"""Seconds that calls under way have to end when the process is told to stop."""


@dataclass
class Invoicing:
    """One a process: a key is sent once per run file, and a run file has one process."""

    sessions: tuple[Session, Session]
    documents: OrderDocuments
    invoices: AsyncInvoices
    run: InvoiceRun
    under_way: set[asyncio.Task[Item]] = field(default_factory=set[asyncio.Task[Item]])

    async def submit(self, draft: InvoiceDraft) -> Item:
        """Submit a draft once, whoever asks how often, and return its item as it is then, or after the deadline.

        What is sent goes on, also after the client left: a submission that is cut off would be in doubt.
        """
        task = asyncio.create_task(self.run.submit_one(draft, self.invoices))
        self.under_way.add(task)
        task.add_done_callback(self.under_way.discard)
        await asyncio.wait({task}, timeout=DEADLINE)
        item = task.result() if task.done() else await self.run.ledger.get(draft.key)
        if item is None:
            raise TimeoutError("the draft is not recorded yet")
        return item

    def ready(self) -> bool:
        """Tell whether both services are up, by what the calls so far found out."""
        return all(session.health().ready for session in self.sessions)


@asynccontextmanager
async def invoicing(settings: Settings, run_file: str | PathLike[str]) -> AsyncGenerator[Invoicing]:
    """Open everything for the life of the process, and let what is under way end before it is closed."""
    async with (
        InvoiceRun.open(run_file) as run,
        settings.documents(outage=OUTAGE) as orders,
        settings.invoices(outage=OUTAGE) as einvoices,
    ):
        documents = OrderDocuments(orders.with_options(retry=RetryPolicy(deadline=DEADLINE)))
        service = Invoicing((orders, einvoices), documents, AsyncInvoices(einvoices), run)
        stopping = asyncio.Event()
        settling = asyncio.create_task(settle(run, service.invoices, stopping))
        try:
            yield service
        finally:
            stopping.set()
            run.stop()
            einvoices.stop_waiting()
            await asyncio.gather(orders.close(drain=DRAIN), einvoices.close(drain=DRAIN))
            await asyncio.gather(settling, *service.under_way, return_exceptions=True)


async def settle(run: InvoiceRun, invoices: AsyncInvoices, stopping: asyncio.Event) -> None:
    """Send what could not be sent and ask what became of the rest, round after round, whatever a round ends with."""
    while not stopping.is_set():
        try:
            async for item in run.run(invoices, poller=POLLER):
                LOG.info("invoice %s: %s", item.key, item.state)
        except (InvoicingError, OSError) as error:  # the service is down, a credential is refused, the disk is full
            LOG.warning("the invoices have to wait: %s", error)
        except Exception:
            LOG.exception("the invoices have to wait for a fault of this program")
        with suppress(TimeoutError):
            await asyncio.wait_for(stopping.wait(), PAUSE)


def draft_of(body: bytes) -> InvoiceDraft:
    """Read a draft from JSON, its amounts to the last digit. Raises `DraftError` with every fault."""
    drafts = [found.draft for found in read_jsonl([body])]
    if not drafts:
        raise DraftError((Fault("body", "holds no invoice"),))
    return drafts[0]


def shown(item: Item) -> dict[str, str | None]:
    """What a client is told of its invoice: never `item.error`, which names hosts and what the service said."""
    return {"key": item.key, "state": item.state, "request_id": item.request_id, "code": item.code}


def told(error: Exception) -> HttpError:
    """What a client is told of an error; the error itself is for the log alone."""
    found = http_error(error)
    level = logging.INFO if found.status < 500 else logging.WARNING
    LOG.log(level, "answered with %d: %s", found.status, error, exc_info=error if found.status == 500 else None)
    return found
