"""What the commands on run files have in common: a run opened, worked on, closed; and the two kinds of work."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar

from attrs import frozen

from .._disk import DiskWriter
from .._rules import KEY_LENGTH
from .._states import Event
from .._store import NewDraft
from ..documents import OrderDocuments, Saver
from ..errors import InvoicingError
from ..invoices import AsyncInvoices
from ..models import NotStarted
from ..polling import Poller
from ..runs import DocumentRun, DocumentState, DraftConflictError, InvoiceRun, Item, RunFileError, State, check_files
from .account import error_of
from .drafts import BadDraft, Drafts
from .exits import CommandError, Exit
from .progress import Bar, live
from .report import Report
from .rows import document_row, download_row
from .runbook import PAGE, Book, DocumentBook, Errand, InvoiceBook
from .stop import Stop, listening

__all__ = [
    "Export",
    "ExportFormat",
    "agree",
    "carry_out_run",
    "download_run",
    "entered",
    "submit_run",
    "take_drafts",
    "take_ids",
]

T = TypeVar("T")
R = TypeVar("R", DocumentRun, InvoiceRun)
B = TypeVar("B", bound=Book)
MANY = 50_000
"""Ids whose taking in is worth a bar."""

ExportFormat: TypeAlias = Literal["pdf", "xml"]


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
    errand: Errand,
    opening: AbstractAsyncContextManager[R],
    book_of: type[B],
    work: Callable[[R, B], Awaitable[None]],
) -> Exit:
    """Do a command on a run with its books, its report and its Ctrl-C, and give the exit code.

    What `work` raises ends the command and is told after the summary. The run is closed in every case.
    """
    stop = Stop(lambda: errand.screen.problem("stopping: what is in flight finishes; Ctrl-C again stops at once"))
    async with AsyncExitStack() as stack:
        paper = await stack.enter_async_context(Report(errand.report, book_of.reported)) if errand.report else None
        run = await stack.enter_async_context(entered(opening))
        book = book_of(run.ledger, errand, stop, paper)
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

    async def saver(self, *args: Any, **options: Any) -> Saver:
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
    """Give either kind of input as the asynchronous one, leaving the loop a breath now and then."""
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
    errand, screen = book.errand, book.screen
    pace = errand.pace
    book.expected = book.items
    session = errand.settings.documents(limits=pace.limits, retry=pace.retry, on_event=book.monitor)
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
    after = 0
    states = (DocumentState.SAVED, DocumentState.SKIPPED)
    while page := await run.ledger.rows(states, after=after, limit=PAGE):
        for item in page:
            book.add(document_row(item) | {"outcome": "recorded"})
        after = page[-1].seq


# -- e-invoices --------------------------------------------------------------------------------------------------


@frozen
class Export:
    """What finished invoices are to be saved as, and where; kept in the run, for `runs resume`."""

    format: ExportFormat
    folder: Path

    @classmethod
    def of(cls, run: InvoiceRun) -> Export | None:
        """Give what was asked for before."""
        kept = run.ledger.settings.get("export")
        return None if kept is None else cls(kept["format"], Path(kept["folder"]))


async def agree(run: InvoiceRun, asked: Export | None) -> Export | None:
    """Give the export of a run, the one asked for being the first. Raises `CommandError` if there was another."""
    kept = Export.of(run)
    if asked is None or asked == kept:
        return kept
    if kept is not None:
        raise CommandError(f"this run exports {kept.format} to {kept.folder}", hint="Leave --export and --to out.")
    export = {"format": asked.format, "folder": str(asked.folder)}
    await run.ledger.update_settings({**run.ledger.settings, "export": export})
    return asked


async def take_drafts(run: InvoiceRun, book: InvoiceBook, found: Drafts) -> None:
    """Take drafts into a run, all of them or none; then note those with faults, if they have a key of their own.

    Raises `CommandError` for keys that the run knows with other content.
    """
    book.lines = {bad.key: bad.line for bad in found.bad} | found.lines
    by_key = {draft.key: draft for draft in found.good}
    try:
        intake = await run.add([*found.good, *(by_key[key] for key, _ in found.repeated)])
    except DraftConflictError as error:
        raise CommandError(f"nothing was taken in: {error}", hint=error.hint) from error
    await book.took(intake, "drafts")
    book.rest = found.repeated_rows()
    if found.bad:
        await _note_bad(run, book, found.bad)
    await book.print_others()


async def _note_bad(run: InvoiceRun, book: InvoiceBook, bad: list[BadDraft]) -> None:
    """Keep drafts with faults in the run, until they are corrected; one that has no key, or one of another, is told."""
    new: dict[str, NewDraft] = {}
    for draft in bad:
        if draft.key not in new and await _is_free(run, draft.key):
            digest = sha256(draft.error.encode()).hexdigest()
            new[draft.key] = NewDraft(key=draft.key, payload=draft.error, payload_sha256=digest, error=draft.error)
        else:
            book.rest.append(draft.row())
    await book.took(await run.ledger.add_drafts(new.values()), "drafts with faults")


async def _is_free(run: InvoiceRun, key: str) -> bool:
    if not 0 < len(key) <= KEY_LENGTH or not key.isprintable():
        return False
    item = await run.ledger.get(key)
    return item is None or item.state == State.INVALID


async def submit_run(run: InvoiceRun, book: InvoiceBook, *, poller: Poller | None, verify: bool) -> None:
    """Submit what is left of a run; with a `poller` wait for it, and export what is finished if the run is to.

    With `verify` what was exported before is hashed first, and what is missing or broken exported anew.
    """
    errand, screen, pace = book.errand, book.screen, book.errand.pace
    export = None if poller is None else Export.of(run)
    book.exporting = export is not None
    book.waiting = poller is not None
    book.expected = book.to_do
    if run.ledger.recovered:
        book.notes.append(f"{run.ledger.recovered:,} were on their way when the last process ended: they are in doubt")
    session = errand.settings.invoices(limits=pace.limits, retry=pace.retry, on_event=book.monitor)
    bars = _bars(book)
    async with session, live(screen.err, bars, shown=screen.lively, foot=book.foot), book.watched():
        invoices = AsyncInvoices(session, names=errand.settings.names(), endpoints=errand.settings.endpoints())
        if verify and export is not None:
            await _mend(run, book, invoices)
        await _print_known(run, book)
        await _take(run.run(invoices, poller=poller) if book.waiting else run.submit(invoices), run, book)
        if export is not None:
            bars[-1].total = book.exported + await book.count_without_file()
            await _export(run, book, invoices, export)


def _bars(book: InvoiceBook) -> list[Bar]:
    """Give a bar for each step in which there is something to do; submitted is what the service has or has refused."""
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
    after = 0
    while page := await run.ledger.rows(states, after=after, limit=PAGE):
        for item in page:
            if not book.is_to_be_exported(item):
                book.print(book.result(item))
        after = page[-1].seq


async def _take(items: AsyncGenerator[Item], run: InvoiceRun, book: InvoiceBook) -> None:
    """Enter what comes to rest; what is to be exported is printed when it is."""
    async with aclosing(items):
        async for item in items:
            # When it was sent is what one in doubt is looked up by; only the file knows.
            doubtful = await run.ledger.get(item.seq) if item.state == State.IN_DOUBT else None
            book.add(book.result(doubtful or item), printed=not book.is_to_be_exported(item))


async def _export(run: InvoiceRun, book: InvoiceBook, invoices: AsyncInvoices, export: Export) -> None:
    async with aclosing(run.export(invoices, export.folder, format=export.format)) as items:
        async for item in items:
            book.exported += item.path is not None
            book.print(book.result(item))


async def _mend(run: InvoiceRun, book: InvoiceBook, invoices: AsyncInvoices) -> None:
    """Export anew what is missing or broken on disk."""
    disk = DiskWriter()
    try:
        async with aclosing(check_files(run.ledger, disk)) as checked:
            broken = [found.key async for found in checked if found.fault is not None]
    finally:
        await disk.close()
    for key in broken:
        if not book.stop.asked:
            await _export_again(run, book, invoices, key)
    book.broken = len(broken) - book.exported


async def _export_again(run: InvoiceRun, book: InvoiceBook, invoices: AsyncInvoices, key: str) -> None:
    item = await run.ledger.get(key)
    if item is None or item.path is None or item.invoice_id is None:
        return
    path = Path(item.path)
    # A name that is not the invoice's own was taken beside a file that is not ours to replace.
    on_existing = "replace" if path.stem == item.invoice_id else "new name"
    try:
        saved = await invoices.export(
            item.invoice_id, path.parent, format=path.suffix.removeprefix("."), on_existing=on_existing
        )
    except InvoicingError as error:
        if invoices.ends_batch(error):
            raise
        await run.ledger.transition(item.seq, Event.EXPORT_FAILED, error=f"{type(error).__name__}: {error}")
    else:
        where = str(saved.path.absolute())
        await run.ledger.transition(item.seq, Event.EXPORTED, path=where, size=saved.size, sha256=saved.sha256)
        book.exported += 1
