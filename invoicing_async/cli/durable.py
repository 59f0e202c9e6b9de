"""What the commands on run files have in common: a run opened, worked on, closed; and the two kinds of work."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, asynccontextmanager, contextmanager
from itertools import starmap
from typing import TypeVar

from attrs import evolve

from ..documents import OrderDocuments
from ..drafts import Drafts
from ..invoices import AsyncInvoices
from ..models import NotStarted
from ..polling import Poller
from ..repair import export_again, note_unreadable
from ..reports import bad_draft_row, document_row, download_row, repeated_draft_row
from ..runs import (
    DocumentRun,
    DocumentState,
    DraftConflictError,
    ExportTo,
    InvoiceRun,
    Item,
    LedgerAwayError,
    RunFileError,
    RunPace,
    State,
    check_files,
    count_without_file,
)
from ..worker import Worker
from .exits import CommandError, Exit
from .input.exports import AskedExport
from .input.options import RateOptions
from .input.runs import is_server
from .run_kinds import DocumentSummary, InvoiceSummary
from .run_summary import RunContext, RunSummary
from .shared_work import at_work, download_part, submit_part, verify_documents
from .stop import CountedInput, until_none
from .summary import SHOWN, finish, stop_of
from .terminal.output import plain
from .terminal.progress import Bar, live
from .terminal.report import opened_report

__all__ = [
    "agree",
    "carry_out_run",
    "download_run",
    "entered",
    "failing",
    "kept_pace",
    "submit_run",
    "take_drafts",
    "take_ids",
]

T = TypeVar("T")
R = TypeVar("R", DocumentRun, InvoiceRun)
B = TypeVar("B", bound=RunSummary)
MANY = 50_000
"""Ids whose taking in is worth a bar."""


@asynccontextmanager
async def entered(opening: AbstractAsyncContextManager[T]) -> AsyncIterator[T]:
    """Enter a run. Raises `CommandError` if it is held, not there, or not what it is to be opened as.

    So it does for a database that cannot be reached, or that no run can be kept in.
    """
    async with AsyncExitStack() as stack:
        with failing():
            run = await stack.enter_async_context(opening)
        yield run


@contextmanager
def failing() -> Iterator[None]:
    """Say in one line why a run cannot be opened or used."""
    try:
        yield
    except RunFileError as error:
        raise CommandError(str(error), hint=error.hint) from error
    except OSError as error:
        file = str(error.filename).removesuffix(".lock")
        what = "run" if is_server(file) else "run file"
        raise CommandError(f"cannot open the {what} {file}: {error.strerror or error}") from error
    except ValueError as error:
        raise CommandError(str(error)) from error


@contextmanager
def taking_in(what: str) -> Iterator[None]:
    """Say what a database that is lost meanwhile means: all of it is taken in, or nothing, mostly."""
    try:
        yield
    except LedgerAwayError as error:
        again = "Give the same command again when the database is back: what is known by then counts once."
        raise CommandError(f"nothing was sent, and the {what} were not taken in: {error}", hint=again) from error


async def carry_out_run(
    context: RunContext,
    opening: AbstractAsyncContextManager[R],
    summary_of: type[B],
    work: Callable[[R, B], Awaitable[None]],
) -> Exit:
    """Do a command on a run with its summary, its report and its Ctrl-C, and return the exit code."""
    async with opened_report(context.report, summary_of.reported) as report, entered(opening) as run:
        stop = stop_of(context.output)
        stop.then(run.stop)
        summary = summary_of(run.ledger, context, stop, report)

        async def begun() -> None:
            await summary.begin()
            await work(run, summary)

        return await finish(summary, begun())


async def take_ids(
    run: DocumentRun, summary: DocumentSummary, items: Iterable[str] | AsyncIterable[str], about: int | None
) -> None:
    """Take ids into a run: all of them or, after Ctrl-C or a bad line, none."""
    source = CountedInput(summary.stop)

    async def given() -> AsyncIterator[str]:
        async for item in source.later(items):
            yield item
        if summary.stop.asked:
            # A part of the input must not pass for the whole.
            raise CommandError("stopped while the ids were taken in: none of them was", code=Exit.STOPPED)

    output = summary.output
    shown = output.lively and (about is None or about >= MANY)
    async with live(output.err, [Bar("Ids taken in", about, lambda: source.taken)], shown=shown):
        with taking_in("ids"):
            intake = await run.add(given())
    summary.duplicates = intake.duplicates
    await summary.took(intake, "ids")
    await summary.print_others()


async def download_run(run: DocumentRun, summary: DocumentSummary, *, verify: bool) -> None:
    """Download what is left of a run."""
    context, output = summary.context, summary.output
    pace = await kept_pace(run, context.pace)
    summary.expected = summary.items
    session = summary.monitor.session(context.settings.documents, pace, limits=run.limits(pace.limits))
    summary.stop.then(session.stop_waiting)
    bar = Bar("Order documents", summary.expected, lambda: summary.done, summary.monitor.note)
    async with session, live(output.err, [bar], shown=output.lively, footer=summary.footer), summary.watched():
        documents = OrderDocuments(session)
        if verify and context.is_shared:
            await verify_documents(run, summary, documents)
        elif not (verify or context.is_worker):
            # What was saved before has its outcome, and is not to be looked at.
            async with aclosing(run.ledger.items((DocumentState.SAVED, DocumentState.SKIPPED))) as items:
                async for item in items:
                    summary.add(document_row(item) | {"outcome": "recorded"})
        if context.is_shared:
            async with at_work(Worker(run, documents, **context.work), context) as worker:
                await download_part(summary, worker)
            return
        async with aclosing(run.download(documents, verify=verify)) as outcomes:
            async for outcome in outcomes:
                if not isinstance(outcome, NotStarted):
                    summary.add(download_row(outcome))


async def agree(run: InvoiceRun, asked: AskedExport) -> None:
    """Let a run keep the export that is asked for; it holds for good, for all that has no file yet."""
    kept = run.settings
    export = asked.applied(kept.export)
    if export != kept.export:
        await run.keep(evolve(kept, export=export))


async def kept_pace(run: DocumentRun | InvoiceRun, asked: RateOptions) -> RunPace:
    """Return the pace of a run; what is asked for holds for good."""
    kept = run.settings
    pace = kept.pace.changed(asked.given)
    if pace != kept.pace:
        await run.keep(evolve(kept, pace=pace))
    return pace


async def take_drafts(run: InvoiceRun, summary: InvoiceSummary, found: Drafts) -> None:
    """Take drafts into a run, all of them or none; then note those with faults, if they have a key of their own.

    Raises `CommandError` for keys that the run knows with other content.
    """
    summary.lines = {bad.key: bad.line for bad in found.bad} | found.lines
    by_key = {draft.key: draft for draft in found.good}
    try:
        with taking_in("drafts"):
            intake = await run.add([*found.good, *(by_key[key] for key, _ in found.repeated)], rounding=found.rounding)
    except DraftConflictError as error:
        raise CommandError(f"nothing was taken in: {error}", hint=error.hint) from error
    await summary.took(intake, "drafts")
    summary.rest = [*starmap(repeated_draft_row, found.repeated)]
    if bad := found.bad:
        # They are kept until they are corrected; one that has no key, or that of another, is only told.
        first = {draft.key: draft for draft in reversed(bad)}
        with taking_in("drafts with faults"):
            intake, kept = await note_unreadable(run, {draft.key: first[draft.key].error for draft in bad})
        summary.rest += [
            bad_draft_row(draft) for draft in bad if draft is not first[draft.key] or draft.key not in kept
        ]
        await summary.took(intake, "drafts with faults")
    await summary.print_others()


async def submit_run(run: InvoiceRun, summary: InvoiceSummary, *, poller: Poller | None, verify: bool) -> None:
    """Submit what is left of a run; with a `poller` wait for it, and export what is finished if the run is to.

    With `verify` what was exported before is hashed first, and what is missing or broken exported anew.
    """
    context, output, pace = summary.context, summary.output, await kept_pace(run, summary.context.pace)
    export = None if poller is None else run.settings.export
    summary.exporting = export is not None
    summary.waiting = poller is not None
    summary.expected = summary.to_do
    if lost := run.ledger.recovered:
        summary.given.append(f"{lost:,} were on their way when the last process ended: they are in doubt")
    session = summary.monitor.session(context.settings.invoices, pace, limits=run.limits(pace.limits))
    summary.stop.then(session.stop_waiting)
    bars = _bars(summary)
    async with session, live(output.err, bars, shown=output.lively, footer=summary.footer), summary.watched():
        invoices = context.settings.e_invoices(session)
        if verify and export is not None:
            await _mend(run, summary, invoices, export, poller)
        if output.json and not context.is_worker:
            # The same drafts given again are answered with what an earlier command learned of them.
            known = [state for state in State if state not in summary.worked_on]
            async with aclosing(run.ledger.items(known)) as rested:
                async for item in rested:
                    if not summary.is_to_be_exported(item):
                        summary.print(summary.result(item))
        if context.is_shared and summary.waiting:
            work = Worker(run, invoices, poller=poller, export=summary.exporting, **context.work)
            async with at_work(work, context) as worker:
                await submit_part(run, summary, worker)
            return
        items = run.run(invoices, poller=poller) if summary.waiting else run.submit(invoices)
        if export is None:
            await _take(items, summary)
        else:
            finished: asyncio.Queue[Item | None] = asyncio.Queue()
            to, form, layout = export.folder, export.format, export.layout
            exported = run.export(invoices, to, format=form, layout=layout, poller=poller, also=until_none(finished))
            await _take_and_export(items, summary, exported, finished, bars[-1])


def _bars(summary: InvoiceSummary) -> list[Bar]:
    """Return a bar for each step in which there is something to do; submitted: what the service has or refused."""
    to_send = summary.to_send
    bars = [Bar("Submitted", to_send, lambda: to_send - summary.to_send)] if to_send else []
    if summary.waiting and summary.expected:
        bars.append(Bar("Settled", summary.expected, lambda: summary.done))
    if summary.exporting:
        bars.append(Bar("Exported", None, lambda: summary.exported))
    for bar in bars[:1]:
        bar.note = summary.monitor.note
    return bars


async def _take(
    items: AsyncGenerator[Item], summary: InvoiceSummary, finished: asyncio.Queue[Item | None] | None = None
) -> int:
    """Enter what comes to rest; what is to be exported is printed when it is, and handed on in `finished`.

    Returns how many items that were.
    """
    handed_on = 0
    async with aclosing(items):
        async for item in items:
            # When it was sent is what one in doubt is looked up by; only the file knows.
            doubtful = await summary.ledger.get(item.seq) if item.state == State.IN_DOUBT else None
            summary.add(summary.result(doubtful or item), printed=not summary.is_to_be_exported(item))
            if finished is not None and summary.is_to_be_exported(item):
                finished.put_nowait(item)
                handed_on += 1
    return handed_on


async def _take_and_export(
    items: AsyncGenerator[Item],
    summary: InvoiceSummary,
    exported: AsyncGenerator[Item],
    finished: asyncio.Queue[Item | None],
    bar: Bar,
) -> None:
    """Export each item as it finishes, while others are sent and awaited.

    Trouble with the exports is raised when all the rest has come to rest; what ends that also ends the exports.
    """
    to_export = summary.exported + await count_without_file(summary.ledger)
    exporting = asyncio.create_task(_enter_exported(exported, summary))
    try:
        bar.total = to_export + await _take(items, summary, finished)
        finished.put_nowait(None)
        await asyncio.wait([exporting])
    except BaseException:
        exporting.cancel()
        await asyncio.wait([exporting])
        if not exporting.cancelled():
            exporting.exception()  # what ended the rest is raised
        raise
    exporting.result()


async def _enter_exported(exported: AsyncGenerator[Item], summary: InvoiceSummary) -> None:
    without: list[str] = []
    async with aclosing(exported):
        async for item in exported:
            summary.exported += item.path is not None
            summary.print(summary.result(item))
            if item.path is None and item.error:
                without.append(f"no file for {plain(item.key)}: {plain(item.error)}")
    summary.given += without[:SHOWN]


async def _mend(
    run: InvoiceRun, summary: InvoiceSummary, invoices: AsyncInvoices, export: ExportTo, poller: Poller | None
) -> None:
    """Export anew what is missing or broken on disk."""
    async with aclosing(check_files(run.ledger)) as checked_files:
        broken = [found.key async for found in checked_files if found.fault is not None]
    for key in broken:
        if not summary.stop.asked:
            summary.exported += await export_again(run, invoices, key, export, poller=poller)
    summary.broken = len(broken) - summary.exported
