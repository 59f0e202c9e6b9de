"""The work on a run that others may work on too: the command is a worker of it, and counts its own part."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any, TypeVar

from ..documents import OrderDocuments
from ..models import NotStarted
from ..reports import document_row, download_row
from ..runs import DocumentRun, InvoiceRun, LedgerAwayError, LedgerSchemaError, LedgerServerError, State
from ..worker import Worker, write_status
from .exits import CommandError, Exit
from .run_kinds import DocumentSummary, InvoiceSummary
from .run_summary import RunContext

__all__ = ["at_work", "download_part", "submit_part", "verify_documents"]

W = TypeVar("W", bound=Worker[Any])


@asynccontextmanager
async def at_work(worker: W, context: RunContext) -> AsyncIterator[W]:
    """Let a worker work while the block runs. Raises `CommandError` if a package is missing, or its queue is.

    So it does, with the code of a fault, when the worker cannot go on for good.
    """
    try:
        async with worker:
            telling = None
            if context.status is not None:
                telling = asyncio.create_task(write_status(context.status, worker.status))
            try:
                yield worker
            finally:
                if telling is not None:
                    telling.cancel()
                    await asyncio.wait([telling])
    except ImportError as error:
        raise CommandError(str(error)) from error
    except LedgerSchemaError as error:
        raise CommandError(str(error), hint=error.hint) from error
    except LedgerServerError as error:
        if isinstance(error, LedgerAwayError):
            raise
        raise CommandError(str(error), hint=error.hint, code=Exit.FAULT) from error


async def submit_part(run: InvoiceRun, summary: InvoiceSummary, worker: Worker[Any]) -> None:
    """Take what a worker does of e-invoices: sent, awaited, and exported if the run is to."""
    summary.stop.then(worker.stop)
    finished = set[int]()  # what is only to be exported
    if summary.exporting and await run.ledger.count_without_file():
        async with aclosing(run.ledger.items((State.SUCCESS,))) as items:
            finished = {item.seq async for item in items if item.path is None}
    async with aclosing(worker.items()) as items:
        async for item in items:
            summary.exported += item.path is not None
            if item.seq in finished:
                summary.print(summary.result(item))  # its outcome is that of an earlier command
                continue
            # When it was sent is what one in doubt is looked up by; only the ledger knows.
            doubtful = await run.ledger.get(item.seq) if item.state == State.IN_DOUBT else None
            summary.add(summary.result(doubtful or item))


async def verify_documents(run: DocumentRun, summary: DocumentSummary, documents: OrderDocuments) -> None:
    """Hash what the run saved before: what is whole has its outcome, the rest is planned again."""
    async with aclosing(run.verify(documents)) as files:
        async for found in files:
            item = await run.ledger.get(found.key) if found.fault is None else None
            if item is not None:
                summary.add(document_row(item) | {"outcome": "skipped"})


async def download_part(summary: DocumentSummary, worker: Worker[Any]) -> None:
    """Take what a worker does of order documents."""
    summary.stop.then(worker.stop)
    async with aclosing(worker.items()) as outcomes:
        async for outcome in outcomes:
            if not isinstance(outcome, NotStarted):
                summary.add(download_row(outcome))
