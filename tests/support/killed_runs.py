"""Runs that were killed while they sent, and looks at what stands in their folder."""

from __future__ import annotations

from pathlib import Path

from invoicing_async._durable.records import Change
from invoicing_async._durable.states import Event
from invoicing_async.models import InvoiceDraft, InvoiceLine
from invoicing_async.runs import (
    InvoiceRun,
    Item,
    SqliteReader,
)

TEMPLATE = "0191d3a8-7c1e-7c55-8f5e-3d8f3c1a2b4d"
REQUEST = "5a1e0000-0000-4000-8000-{:012d}"


def draft(number: int) -> InvoiceDraft:
    line = InvoiceLine(name=f"K-{number}", unit="piece", price="9.90", quantity=1)
    return InvoiceDraft(key=f"K-{number}", invoice_template_id=TEMPLATE, lines=(line,))


async def begun(run: InvoiceRun, *numbers: int) -> None:
    """Record that these are being sent."""
    await run.ledger.transition_many([Change(ref=f"K-{number}", event=Event.INTENT) for number in numbers])


async def accepted(run: InvoiceRun, *numbers: int) -> None:
    for number in numbers:
        request_id = REQUEST.format(number)
        await run.ledger.transition(f"K-{number}", Event.ACCEPTED_NEW, request_id=request_id)


KILLED = """
import asyncio, os, sys
sys.path.append(sys.argv[2])
from killed_runs import accepted, begun, draft
from invoicing_async.runs import InvoiceRun

async def main():
    async with InvoiceRun.open(sys.argv[1]) as run:
        await run.add(map(draft, range(40)))
        await begun(run, *range(20))
        await accepted(run, *range(10))
        os._exit(9)

asyncio.run(main())
"""


async def opened(file: Path, *, accept_lost_log: bool = False) -> dict[str, int]:
    async with InvoiceRun.open(file, create=False, accept_lost_log=accept_lost_log) as run:
        return {state: count for state, count in (await run.ledger.counts()).items() if count}


async def shown(file: Path) -> dict[str, Item]:
    async with SqliteReader.read(file) as reader:
        return {item.key: item for item in await reader.rows()}


def content(folder: Path) -> dict[str, bytes]:
    """What stands in a folder; an index or a log without anything in it means nothing."""
    files = [path for path in folder.iterdir() if not path.name.endswith(("-shm", ".lock"))]
    return {path.name: path.read_bytes() for path in files if path.suffix == ".db" or path.stat().st_size}
