"""What the commands on run files have in common: a run opened, worked on, closed; and the two kinds of work."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from attrs import asdict, evolve, frozen

from ..documents import BatchSaver, OrderDocuments
from ..invoices import AsyncInvoices, ExportFormat
from ..models import NotStarted
from ..polling import Poller
from ..repair import export_again, note_unreadable
from ..runs import (
    DocumentRun,
    DocumentState,
    DraftConflictError,
    ExportTo,
    InvoiceRun,
    Item,
    RunFileError,
    RunPace,
    State,
    check_files,
    count_without_file,
    export_layout,
)
from .exits import CommandError, Exit, checked
from .input.drafts import BadDraft, Drafts
from .input.options import RateOptions
from .run_kinds import DocumentBook, InvoiceBook
from .run_summary import PAGE, Book, RunContext
from .stop import Stop, listening
from .summary import SHOWN, error_of
from .terminal.output import plain
from .terminal.progress import Bar, live
from .terminal.report import opened_report
from .terminal.rows import document_row, download_row

__all__ = [
    "AskedExport",
    "ExportFormat",
    "agree",
    "carry_out_run",
    "download_run",
    "entered",
    "kept_pace",
    "submit_run",
    "take_drafts",
    "take_ids",
]

T = TypeVar("T")
R = TypeVar("R", DocumentRun, InvoiceRun)
B = TypeVar("B", bound=Book)
MANY = 50_000
"""Ids whose taking in is worth a bar."""


@asynccontextmanager
async def entered(opening: AbstractAsyncContextManager[T]) -> AsyncIterator[T]:
    """Enter a run file. Raises `CommandError` if it is held, not there, or not what it is to be opened as."""
    async with AsyncExitStack() as stack:
        try:
            run = await stack.enter_async_context(opening)
        except RunFileError as error:
            raise CommandError(str(error), hint=error.hint) from error
        except OSError as error:
            file = str(error.filename).removesuffix(".lock")
            raise CommandError(f"cannot open the run file {file}: {error.strerror or error}") from error
        except ValueError as error:
            raise CommandError(str(error)) from error
        yield run


async def carry_out_run(
    context: RunContext,
    opening: AbstractAsyncContextManager[R],
    book_of: type[B],
    work: Callable[[R, B], Awaitable[None]],
) -> Exit:
    """Do a command on a run with its books, its report and its Ctrl-C, and give the exit code.

    What `work` raises ends the command and is told after the summary. The run is closed in every case.
    """
    stop = Stop(lambda: context.screen.problem("stopping: what is in flight finishes; Ctrl-C again stops at once"))
    async with AsyncExitStack() as stack:
        paper = await stack.enter_async_context(opened_report(context.report, book_of.reported))
        run = await stack.enter_async_context(entered(opening))
        book = book_of(run.ledger, context, stop, paper)
        stop.then(run.stop)
        with listening(stop):
            try:
                error = await error_of(_worked(run, book, work))
            except asyncio.CancelledError:
                await book.interrupted()
                raise
            return await book.closed(error)


async def _worked(run: R, book: B, work: Callable[[R, B], Awaitable[None]]) -> None:
    await book.begin()
    await work(run, book)


# -- documents ---------------------------------------------------------------------------------------------------


class _Placing(OrderDocuments):
    """Order documents whose batches all do the same when a name is taken."""

    on_existing = "keep"

    async def saver(self, *args: Any, **options: Any) -> BatchSaver:
        """Prepare the folder, as `OrderDocuments.saver`."""
        return await super().saver(*args, on_existing=self.on_existing, **options)


async def take_ids(
    run: DocumentRun, book: DocumentBook, items: Iterable[str] | AsyncIterable[str], about: int | None
) -> None:
    """Take ids into a run: all of them or, after Ctrl-C or a bad line, none."""
    taken = 0

    async def given() -> AsyncIterator[str]:
        nonlocal taken
        async for item in _each(items):
            if book.stop.asked:
                break
            taken += 1
            yield item
        if book.stop.asked:
            # A part of the input must not pass for the whole.
            raise CommandError("stopped while the ids were taken in: none of them was", code=Exit.STOPPED)

    screen = book.screen
    shown = screen.lively and (about is None or about >= MANY)
    async with live(screen.err, [Bar("Ids taken in", about, lambda: taken)], shown=shown):
        intake = await run.add(given())
    book.duplicates = intake.duplicates
    await book.took(intake, "ids")
    await book.print_others()


async def _each(items: Iterable[T] | AsyncIterable[T]) -> AsyncIterator[T]:
    """Yield either kind of input as the asynchronous one, leaving the loop a breath now and then."""
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
        return
    for number, item in enumerate(items, 1):
        yield item
        if number % PAGE == 0:
            await asyncio.sleep(0)


async def download_run(run: DocumentRun, book: DocumentBook, *, verify: bool) -> None:
    """Download what is left of a run."""
    context, screen = book.context, book.screen
    pace = await kept_pace(run, context.pace)
    book.expected = book.items
    session = context.settings.documents(limits=pace.limits, retry=pace.retry, on_event=book.monitor)
    bar = Bar("Order documents", book.expected, lambda: book.done, book.monitor.note)
    async with session, live(screen.err, [bar], shown=screen.lively, foot=book.foot), book.watched():
        documents = _Placing(session)
        documents.on_existing = run.ledger.settings.get("on_existing", "keep")
        if not verify:
            await _add_recorded(run, book)
        async with aclosing(run.download(documents, verify=verify)) as outcomes:
            async for outcome in outcomes:
                if not isinstance(outcome, NotStarted):
                    book.add(download_row(outcome))


async def _add_recorded(run: DocumentRun, book: DocumentBook) -> None:
    """Enter what was saved before, which is not to be looked at."""
    async with aclosing(run.ledger.items((DocumentState.SAVED, DocumentState.SKIPPED))) as items:
        async for item in items:
            book.add(document_row(item) | {"outcome": "recorded"})


# -- e-invoices --------------------------------------------------------------------------------------------------


@frozen(kw_only=True)
class AskedExport:
    """What a command says of the export; None for what it leaves as the run has it."""

    format: ExportFormat | None = None
    folder: Path | None = None
    layout: str | None = None

    @classmethod
    def of(cls, form: ExportFormat | None, to: Path | None, layout: str | None) -> AskedExport:
        """Take the options. Raises `CommandError` for a layout that is none."""
        if layout is not None:
            checked(lambda: export_layout(layout), "--layout")
        return cls(format=form, folder=None if to is None else to.absolute(), layout=layout)

    def __bool__(self) -> bool:
        return any((self.format, self.folder, self.layout))

    def check_for(self, run: Path | None) -> None:
        """Raise `CommandError` if there is no run to keep it, or the run will be new and it is not whole."""
        if run is None or not run.exists():
            self.check_whole()
        if run is None and self:
            raise CommandError("--export is for --run FILE")

    def check_whole(self) -> None:
        """Raise `CommandError` unless it says all that a first export needs."""
        if self and (self.format is None or self.folder is None):
            raise CommandError("--export and --to DIR go together")

    def applied(self, kept: ExportTo | None) -> ExportTo | None:
        """Return the export of a run from now on. Raises `CommandError` for the first one if it is not whole."""
        if not self:
            return kept
        if kept is None:
            self.check_whole()
        said = {name: value for name, value in asdict(self).items() if value is not None}
        return ExportTo(**said) if kept is None else evolve(kept, **said)


async def agree(run: InvoiceRun, asked: AskedExport) -> ExportTo | None:
    """Return the export of a run; what is asked for holds for good, for all that has no file yet."""
    kept = run.settings
    export = asked.applied(kept.export)
    if export != kept.export:
        await run.keep(evolve(kept, export=export))
    return export


async def kept_pace(run: DocumentRun | InvoiceRun, asked: RateOptions) -> RunPace:
    """Return the pace of a run; what is asked for holds for good."""
    kept = run.settings
    pace = kept.pace.changed(asked.given)
    if pace != kept.pace:
        await run.keep(evolve(kept, pace=pace))
    return pace


async def take_drafts(run: InvoiceRun, book: InvoiceBook, found: Drafts) -> None:
    """Take drafts into a run, all of them or none; then note those with faults, if they have a key of their own.

    Raises `CommandError` for keys that the run knows with other content.
    """
    book.lines = {bad.key: bad.line for bad in found.bad} | found.lines
    by_key = {draft.key: draft for draft in found.good}
    try:
        intake = await run.add([*found.good, *(by_key[key] for key, _ in found.repeated)], rounding=found.rounding)
    except DraftConflictError as error:
        raise CommandError(f"nothing was taken in: {error}", hint=error.hint) from error
    await book.took(intake, "drafts")
    book.rest = found.repeated_rows()
    if found.bad:
        await _note_bad(run, book, found.bad)
    await book.print_others()


async def _note_bad(run: InvoiceRun, book: InvoiceBook, bad: list[BadDraft]) -> None:
    """Keep drafts with faults in the run, until they are corrected; one that has no key, or one of another, is told."""
    first = {draft.key: draft for draft in reversed(bad)}
    intake, kept = await note_unreadable(run, {draft.key: first[draft.key].error for draft in bad})
    book.rest += [draft.row() for draft in bad if draft is not first[draft.key] or draft.key not in kept]
    await book.took(intake, "drafts with faults")


async def submit_run(run: InvoiceRun, book: InvoiceBook, *, poller: Poller | None, verify: bool) -> None:
    """Submit what is left of a run; with a `poller` wait for it, and export what is finished if the run is to.

    With `verify` what was exported before is hashed first, and what is missing or broken exported anew.
    """
    context, screen, pace = book.context, book.screen, await kept_pace(run, book.context.pace)
    export = None if poller is None else run.settings.export
    book.exporting = export is not None
    book.waiting = poller is not None
    book.expected = book.to_do
    if run.ledger.recovered:
        book.notes.append(f"{run.ledger.recovered:,} were on their way when the last process ended: they are in doubt")
    session = context.settings.invoices(limits=pace.limits, retry=pace.retry, on_event=book.monitor)
    bars = _bars(book)
    async with session, live(screen.err, bars, shown=screen.lively, foot=book.foot), book.watched():
        invoices = AsyncInvoices(session, names=context.settings.names(), endpoints=context.settings.endpoints())
        if verify and export is not None:
            await _mend(run, book, invoices, export, poller)
        await _print_known(run, book)
        items = run.run(invoices, poller=poller) if book.waiting else run.submit(invoices)
        if export is None:
            await _take(items, run, book)
        else:
            await _take_and_export(items, run, book, _Exports(invoices, export, bars[-1], poller))


def _bars(book: InvoiceBook) -> list[Bar]:
    """Return a bar for each step in which there is something to do; submitted: what the service has or refused."""
    to_send = book.to_send
    bars = [Bar("Submitted", to_send, lambda: to_send - book.to_send)] if to_send else []
    if book.waiting and book.expected:
        bars.append(Bar("Settled", book.expected, lambda: book.done))
    if book.exporting:
        bars.append(Bar("Exported", None, lambda: book.exported))
    for bar in bars[:1]:
        bar.note = book.monitor.note
    return bars


async def _print_known(run: InvoiceRun, book: InvoiceBook) -> None:
    """Print what came to rest in an earlier command: the same drafts given again are answered with what is known."""
    if not book.screen.json:
        return
    states = [state for state in State if state not in book.worked_on]
    async with aclosing(run.ledger.items(states)) as items:
        async for item in items:
            if not book.is_to_be_exported(item):
                book.print(book.result(item))


async def _take(
    items: AsyncGenerator[Item], run: InvoiceRun, book: InvoiceBook, finished: asyncio.Queue[Item | None] | None = None
) -> int:
    """Enter what comes to rest; what is to be exported is printed when it is, and handed on in `finished`.

    Gives how many items that were.
    """
    handed_on = 0
    async with aclosing(items):
        async for item in items:
            # When it was sent is what one in doubt is looked up by; only the file knows.
            doubtful = await run.ledger.get(item.seq) if item.state == State.IN_DOUBT else None
            book.add(book.result(doubtful or item), printed=not book.is_to_be_exported(item))
            if finished is not None and book.is_to_be_exported(item):
                finished.put_nowait(item)
                handed_on += 1
    return handed_on


@frozen
class _Exports:
    """Where finished invoices go, and the bar that shows it."""

    invoices: AsyncInvoices
    to: ExportTo
    bar: Bar
    poller: Poller | None


async def _take_and_export(items: AsyncGenerator[Item], run: InvoiceRun, book: InvoiceBook, exports: _Exports) -> None:
    """Export each item as it finishes, while others are sent and awaited.

    Trouble with the exports is raised when all the rest has come to rest; what ends that also ends the exports.
    """
    finished: asyncio.Queue[Item | None] = asyncio.Queue()
    to_export = book.exported + await count_without_file(run.ledger)
    exporting = asyncio.create_task(_export(run, book, exports, finished))
    try:
        exports.bar.total = to_export + await _take(items, run, book, finished)
        finished.put_nowait(None)
        await asyncio.wait([exporting])
    except BaseException:
        exporting.cancel()
        await asyncio.wait([exporting])
        if not exporting.cancelled():
            exporting.exception()  # what ended the rest is raised
        raise
    exporting.result()


async def _export(run: InvoiceRun, book: InvoiceBook, exports: _Exports, finished: asyncio.Queue[Item | None]) -> None:
    to = exports.to
    without: list[str] = []

    async def later() -> AsyncIterator[Item]:
        while (item := await finished.get()) is not None:
            yield item

    exported = run.export(
        exports.invoices, to.folder, format=to.format, layout=to.layout, poller=exports.poller, also=later()
    )
    async with aclosing(exported) as items:
        async for item in items:
            book.exported += item.path is not None
            book.print(book.result(item))
            if item.path is None and item.error:
                without.append(f"no file for {plain(item.key)}: {plain(item.error)}")
    book.notes += without[:SHOWN]


async def _mend(
    run: InvoiceRun, book: InvoiceBook, invoices: AsyncInvoices, export: ExportTo, poller: Poller | None
) -> None:
    """Export anew what is missing or broken on disk."""
    async with aclosing(check_files(run.ledger)) as checked_files:
        broken = [found.key async for found in checked_files if found.fault is not None]
    for key in broken:
        if not book.stop.asked:
            book.exported += await export_again(run, invoices, key, export, poller=poller)
    book.broken = len(broken) - book.exported
