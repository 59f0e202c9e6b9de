"""Durable runs: what is left is computed from a run file, done, and recorded, so that a crash loses nothing.

A run file is one SQLite database (`_store`). A document run records each order's outcome with path, size and hash; a
second run verifies what is there and fetches only what is missing or broken. An invoice run records the intent to
submit a draft before its first byte leaves and the answer after it came: what a crash leaves between the two is in
doubt, and is never sent again on its own (API.md B.1).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from contextlib import aclosing, asynccontextmanager
from datetime import date
from functools import partial
from hashlib import sha256
from os import PathLike
from pathlib import Path
from typing import Any, Self, TypeVar

from attrs import frozen

from ._batch import bounded
from ._clock import Clock
from ._disk import DiskWriter, difference
from ._naming import Layout
from ._rules import faults
from ._scheduler import Schedule
from ._states import ON_DISK, DocumentState, Event, RunKind, State
from ._store import (
    Change,
    DraftConflictError,
    Intake,
    Item,
    JournalEntry,
    NewDraft,
    RunFileError,
    RunLockedError,
    SqliteLedger,
    SqliteReader,
)
from ._wire import dump_draft, load_draft
from .documents import DownloadOutcome, OrderDocuments
from .errors import AuthenticationError, DraftError, Fault, InvoicingError, SessionError
from .invoices import AsyncInvoices, Fate, fate
from .models import (
    Deferred,
    Failed,
    InvoiceDraft,
    InvoiceRequest,
    NotStarted,
    RequestStatus,
    Saved,
    SavedDocument,
    Skipped,
    Unsettled,
)
from .session import Sleep

__all__ = [
    "Checked",
    "DocumentRun",
    "DocumentState",
    "DraftConflictError",
    "Intake",
    "InvoiceRun",
    "Item",
    "JournalEntry",
    "Reconcile",
    "RunFileError",
    "RunKind",
    "RunLockedError",
    "SqliteReader",
    "State",
    "check_files",
]

T = TypeVar("T")
PAGE = 500
"""Rows read from the run file at a time."""

Reconcile = Callable[[InvoiceDraft, Item], Awaitable[str | bool | None]]
"""Looks a draft in doubt up: its request id if the invoice exists, False if it does not, None if that is unknown."""


@frozen
class Checked:
    """A recorded file after a look at it: `fault` says what is wrong, None if size and hash are as recorded."""

    key: str
    path: Path
    fault: str | None


async def check_files(ledger: SqliteReader, disk: DiskWriter) -> AsyncGenerator[Checked]:
    """Read and hash every file that a run recorded."""
    states = ON_DISK if ledger.kind is RunKind.DOCUMENTS else (State.SUCCESS,)
    async for item in _paged(partial(ledger.rows, states)):
        if item.path is not None:
            path = Path(item.path)
            fault = await disk.run(partial(difference, path, size=item.size, digest=item.sha256))
            yield Checked(item.key, path, fault)


async def _paged(read: Callable[..., Awaitable[list[Item]]]) -> AsyncGenerator[Item]:
    """Give a query's rows page by page; rows that change meanwhile are neither missed nor given twice."""
    after = 0
    while page := await read(after=after, limit=PAGE):
        for item in page:
            yield item
        after = page[-1].seq


class DocumentRun:
    """A durable download of many order documents. `ledger` is its run file."""

    def __init__(self, ledger: SqliteLedger) -> None:
        self.ledger = ledger
        settings = ledger.settings
        self.folder = Path(settings["folder"])
        self.layout = Layout(settings["layout"])
        self.day = date.fromisoformat(settings["day"])
        self.served_name: bool = settings["served_name"]
        self.durable: bool = settings["durable"]

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        file: str | PathLike[str],
        *,
        folder: str | PathLike[str] | None = None,
        layout: str = "{order_id}",
        day: date | None = None,
        served_name: bool = False,
        durable: bool = False,
        clock: Clock | None = None,
    ) -> AsyncIterator[Self]:
        """Open a run file and hold it; with `folder`, make it if it is not there.

        The settings are those of the first time: later only `folder` is compared. Raises `RunLockedError` if another
        process holds the file, `RunFileError` if it is something else, `FileNotFoundError`, `ValueError` for another
        folder than the recorded one.
        """
        where = None if folder is None else _absolute(folder)
        settings = {
            "folder": str(where),
            "layout": Layout(layout).pattern,
            "day": (day or date.today()).isoformat(),  # noqa: DTZ011 - the folder names of whoever runs it
            "served_name": served_name,
            "durable": durable,
        }
        kind = RunKind.DOCUMENTS
        async with SqliteLedger.open(
            file, kind=kind, settings=settings, create=where is not None, clock=clock
        ) as ledger:
            recorded = ledger.settings["folder"]
            if where is not None and recorded != str(where):
                raise ValueError(f"folder must be {recorded}, which this run was begun with, got {where}")
            yield cls(ledger)

    async def add(self, order_ids: Iterable[str] | AsyncIterable[str]) -> Intake:
        """Take in ids, all of them or, after a crash, none. One that is known or comes again counts once."""
        return await self.ledger.add_ids(order_ids)

    async def verify(self, disk: DiskWriter) -> AsyncGenerator[Checked]:
        """Hash every recorded file; one that is missing or broken is planned again."""
        async with aclosing(check_files(self.ledger, disk)) as checked:
            async for found in checked:
                if found.fault is not None:
                    await self.ledger.record_document(
                        found.key, DocumentState.PLANNED, path=str(found.path), error=found.fault
                    )
                yield found

    async def download(
        self, documents: OrderDocuments, *, concurrency: int | None = None, verify: bool = True
    ) -> AsyncGenerator[DownloadOutcome]:
        """Do what is left and give an outcome for each id, as `download_many`; each is on disk before it is given.

        With `verify` what was saved before is hashed first and given as `Skipped`; what is missing or broken is
        fetched anew and put in its place. Without, it is left out.
        """
        saver = await documents.saver(
            self.folder, durable=self.durable, layout=self.layout, served_name=self.served_name, day=self.day
        )
        if verify:
            async with aclosing(self._verified(documents)) as kept:
                async for skipped in kept:
                    yield skipped

        async def work(item: Item, sleep: Sleep) -> DownloadOutcome:
            # A path of ours whose file is gone or broken: nobody else's is replaced.
            outcome = await saver.outcome(item.key, sleep, replace=None if item.path is None else Path(item.path))
            await self._record(item, outcome)
            return outcome

        outcomes = bounded(
            _paged(self.ledger.pending),
            work,
            concurrency=concurrency or documents.concurrency,
            sleep=documents.sleep,
            abandoned=lambda item, error: NotStarted(item.key, error),
        )
        async with aclosing(outcomes):
            async for outcome in outcomes:
                yield outcome

    async def _verified(self, documents: OrderDocuments) -> AsyncGenerator[Skipped]:
        async with aclosing(self.verify(documents.disk)) as checked:
            async for found in checked:
                item = None if found.fault else await self.ledger.get(found.key)
                if item is not None:
                    yield Skipped(item.key, _document(item))

    async def _record(self, item: Item, outcome: DownloadOutcome) -> None:
        match outcome:
            case Saved(_, document) | Skipped(_, document):
                state = DocumentState.SAVED if isinstance(outcome, Saved) else DocumentState.SKIPPED
                await self.ledger.record_document(
                    item.seq,
                    state,
                    path=str(document.path),
                    size=document.size,
                    sha256=document.sha256,
                    request_id=document.request_id,
                    attempt=document.attempts,
                )
            case Deferred(_, error) | Failed(_, error):
                state = DocumentState.DEFERRED if isinstance(outcome, Deferred) else DocumentState.FAILED
                await self.ledger.record_document(
                    item.seq,
                    state,
                    path=item.path,
                    request_id=getattr(error, "request_id", None),
                    code=getattr(error, "code", None),
                    error=_line(error),
                    attempt=len(getattr(error, "attempts", ())),
                )
            case _:
                return


def _absolute(folder: str | PathLike[str]) -> Path:
    return Path(folder).absolute()


def _document(item: Item) -> SavedDocument:
    return SavedDocument(
        order_id=item.key,
        path=Path(item.path or ""),
        size=item.size or 0,
        sha256=item.sha256 or "",
        attempts=0,
        request_id=item.request_id,
    )


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


_ACCEPTED = {RequestStatus.SUCCESS: Event.ACCEPTED_SUCCESS, RequestStatus.FAILED: Event.ACCEPTED_FAILED}
_POLLED = {RequestStatus.SUCCESS: Event.POLL_SUCCESS, RequestStatus.FAILED: Event.POLL_FAILED}
_FATES = {
    Fate.NOT_SENT: Event.NOT_SENT,
    Fate.REFUSED_FOR_NOW: Event.REFUSED_FOR_NOW,
    Fate.REJECTED: Event.REJECTED,
    Fate.IN_DOUBT: Event.LOST,
}


class InvoiceRun:
    """A durable submission of many drafts. `ledger` is its run file; a key is submitted once per run file, ever."""

    def __init__(self, ledger: SqliteLedger) -> None:
        self.ledger = ledger

    @classmethod
    @asynccontextmanager
    async def open(
        cls, file: str | PathLike[str], *, create: bool = True, clock: Clock | None = None
    ) -> AsyncIterator[Self]:
        """Open a run file and hold it. What a crash left between intent and answer is now in doubt.

        Raises `RunLockedError` if another process holds the file, `RunFileError` if it is something else.
        """
        async with SqliteLedger.open(file, kind=RunKind.INVOICES, settings={}, create=create, clock=clock) as ledger:
            yield cls(ledger)

    async def add(self, drafts: Iterable[InvoiceDraft], *, skip_invalid: bool = False) -> Intake:
        """Take in drafts in one transaction: all of them or none.

        A draft whose key and content are known changes nothing, so giving the same drafts again resumes the run.
        Raises `DraftError` with every fault of every draft, as in `[12].lines[0].price`, unless `skip_invalid`
        takes those in as invalid; `DraftConflictError` for known keys with other content.
        """
        found = [(draft, faults(draft)) for draft in drafts]
        if not skip_invalid:
            _refuse_any([error for _, error in found])
        return await self.ledger.add_drafts([_new(draft, wrong) for draft, wrong in found])

    async def submit(self, invoices: AsyncInvoices, *, concurrency: int | None = None) -> AsyncGenerator[Item]:
        """Send what is planned or was provably not created, and give each item as it then stands.

        Raises `AuthenticationError` when the credential is refused; what was in flight is recorded first.
        """
        outcomes = bounded(
            _paged(self.ledger.pending),
            partial(self._sent, invoices),
            concurrency=concurrency or invoices.concurrency,
            sleep=invoices.sleep,
            abandoned=lambda item, _: item,
            cancel=False,
        )
        async with aclosing(outcomes):
            async for item in outcomes:
                yield item

    async def _sent(self, invoices: AsyncInvoices, item: Item, sleep: Sleep) -> Item:
        if item.payload is None:
            raise RunFileError(f"the draft of {item.key!r} is not in the run file")
        draft = load_draft(item.payload)
        sending = _Sending(self.ledger, item.seq, sleep)
        try:
            request = await invoices.submit(draft, sleep=sending.back_off, before=sending.intend)
        except (AuthenticationError, SessionError) as error:
            await sending.failed(error)
            raise
        except InvoicingError as error:
            await sending.failed(error)
        else:
            await sending.accepted(request)
        return await self._now(item.seq)

    async def _now(self, ref: int | str) -> Item:
        item = await self.ledger.get(ref)
        if item is None:
            raise ValueError(f"this run has no item {ref!r}")
        return item

    async def settle(
        self, invoices: AsyncInvoices, *, poller: Schedule | None = None, also: AsyncIterable[Item] | None = None
    ) -> AsyncGenerator[Item]:
        """Wait for every submitted item, and for those `also` goes on giving, and give each as it ends.

        An item whose wait ends without an answer stays submitted and is given with the reason as its `error`.
        """
        by_request: dict[str, int] = {}

        async def request_ids() -> AsyncIterator[str]:
            async for item in _paged(partial(self.ledger.rows, (State.SUBMITTED,))):
                if item.request_id is not None:
                    by_request[item.request_id] = item.seq
                    yield item.request_id
            async for item in also or _nothing():
                if item.request_id is not None and item.request_id not in by_request:
                    by_request[item.request_id] = item.seq
                    yield item.request_id

        async with aclosing(invoices.wait_many(request_ids(), poller=poller)) as ends:
            async for end in ends:
                seq = by_request[end.request_id]
                await self.ledger.transition_many([_polled(seq, end)])
                yield await self._now(seq)

    async def run(
        self, invoices: AsyncInvoices, *, poller: Schedule | None = None, concurrency: int | None = None
    ) -> AsyncGenerator[Item]:
        """Submit what is left and wait for it at the same time; give an item each time it comes to rest."""
        accepted: asyncio.Queue[Item | None] = asyncio.Queue()

        async def submitted() -> AsyncGenerator[Item]:
            try:
                async with aclosing(self.submit(invoices, concurrency=concurrency)) as items:
                    async for item in items:
                        if item.state == State.SUBMITTED:
                            accepted.put_nowait(item)
                        else:
                            yield item
            finally:
                accepted.put_nowait(None)

        settled = self.settle(invoices, poller=poller, also=_queued(accepted))
        async with aclosing(_merged(submitted(), settled)) as items:
            async for item in items:
                yield item

    async def export(
        self,
        invoices: AsyncInvoices,
        folder: str | PathLike[str],
        *,
        format: str = "pdf",  # noqa: A002 - the service's own name
    ) -> AsyncGenerator[Item]:
        """Save the document of every SUCCESS item that has none yet, and give each item as it then stands."""

        async def work(item: Item, _: Sleep) -> Item:
            await self._exported(invoices, item, folder, format)
            return await self._now(item.seq)

        outcomes = bounded(
            _without_file(_paged(partial(self.ledger.rows, (State.SUCCESS,)))),
            work,
            concurrency=invoices.concurrency,
            sleep=invoices.sleep,
            abandoned=lambda item, _: item,
        )
        async with aclosing(outcomes):
            async for item in outcomes:
                yield item

    async def _exported(self, invoices: AsyncInvoices, item: Item, folder: str | PathLike[str], kind: str) -> None:
        try:
            if item.invoice_id is None:
                raise RunFileError(f"the service named no invoice for {item.key!r}, so it cannot be exported")
            saved = await invoices.export(item.invoice_id, folder, format=kind)
        except (AuthenticationError, SessionError):
            raise
        except InvoicingError as error:
            await self.ledger.transition(item.seq, Event.EXPORT_FAILED, error=_line(error))
        else:
            path = str(saved.path.absolute())
            await self.ledger.transition(item.seq, Event.EXPORTED, path=path, size=saved.size, sha256=saved.sha256)

    async def resolve(self, key: str, *, created: bool, request_id: str | None = None) -> Item:
        """Settle an item in doubt by what was found at the service.

        `created` with its `request_id`: it is polled by the next run. Not created: the next run sends it again.
        Raises `ValueError` if the item is not in doubt, is unknown, or the request id is missing.
        """
        event = Event.RESOLVED_CREATED if created else Event.RESOLVED_NOT_CREATED
        await self.ledger.transition(key, event, request_id=request_id if created else None)
        return await self._now(key)

    async def retry(self, key: str) -> Item:
        """Let a rejected item be sent again by the next run."""
        await self.ledger.transition(key, Event.RETRY_ASKED)
        return await self._now(key)

    async def reconcile(self, look_up: Reconcile) -> AsyncGenerator[Item]:
        """Ask a program about every item in doubt, settle what it knows and give each item as it then stands."""
        async for item in _paged(partial(self.ledger.rows, (State.IN_DOUBT,), payload=True)):
            answer = await look_up(load_draft(item.payload or ""), item)
            if answer is None or answer is True:
                yield item
            elif answer is False:
                yield await self.resolve(item.key, created=False)
            else:
                yield await self.resolve(item.key, created=True, request_id=answer)


class _Sending:
    """One draft on its way: its intent is on disk before each first byte, and gone from there while it backs off."""

    def __init__(self, ledger: SqliteLedger, seq: int, sleep: Sleep) -> None:
        self._ledger = ledger
        self._seq = seq
        self._sleep = sleep
        self._intended = False

    async def intend(self) -> None:
        """Record the intent, unless it stands already (a 401 is mended inside one attempt)."""
        if not self._intended:
            await self._ledger.transition(self._seq, Event.INTENT)
            self._intended = True

    async def back_off(self, seconds: float) -> None:
        """Record that nothing is in flight, and wait: only what provably made no invoice is tried again."""
        await self._end(Change(ref=self._seq, event=Event.REFUSED_FOR_NOW))
        await self._sleep(seconds)

    async def accepted(self, request: InvoiceRequest) -> None:
        """Record the service's answer."""
        event = _ACCEPTED.get(_status(request), Event.ACCEPTED_NEW)
        await self._end(
            Change(
                ref=self._seq,
                event=event,
                request_id=request.request_id,
                invoice_id=request.data.id if request.data else None,
            )
        )

    async def failed(self, error: InvoicingError) -> None:
        """Record what the failure means for the invoice."""
        code = getattr(error.__cause__ or error, "code", None)
        await self._end(Change(ref=self._seq, event=_FATES[_fate(error)], error=_line(error), code=code))

    async def _end(self, change: Change) -> None:
        if self._intended:
            self._intended = False
            await self._ledger.transition_many([change])


def _status(request: InvoiceRequest | Unsettled) -> RequestStatus:
    return request.status if isinstance(request.status, RequestStatus) else RequestStatus.NEW


def _fate(error: InvoicingError) -> Fate:
    return Fate.NOT_SENT if isinstance(error, DraftError) else fate(error)


def _polled(seq: int, end: InvoiceRequest | Unsettled) -> Change:
    if isinstance(end, Unsettled):
        return Change(ref=seq, event=Event.POLL_NEW, error=_line(end.error))
    invoice_id = end.data.id if end.data else None
    return Change(ref=seq, event=_POLLED.get(_status(end), Event.POLL_NEW), invoice_id=invoice_id)


def _new(draft: InvoiceDraft, wrong: tuple[Fault, ...]) -> NewDraft:
    payload = dump_draft(draft)
    return NewDraft(
        key=draft.key,
        payload=payload,
        payload_sha256=sha256(payload.encode()).hexdigest(),
        error=str(DraftError(wrong)) if wrong else None,
    )


def _refuse_any(found: list[tuple[Fault, ...]]) -> None:
    every = tuple(
        Fault(f"[{number}].{fault.path}", fault.message) for number, wrong in enumerate(found) for fault in wrong
    )
    if every:
        raise DraftError(every)


async def _without_file(items: AsyncGenerator[Item]) -> AsyncGenerator[Item]:
    async with aclosing(items):
        async for item in items:
            if item.path is None:
                yield item


async def _nothing() -> AsyncIterator[Item]:
    none: tuple[Item, ...] = ()
    for item in none:
        yield item


async def _queued(queue: asyncio.Queue[Item | None]) -> AsyncIterator[Item]:
    while (item := await queue.get()) is not None:
        yield item


async def _either(first: asyncio.Future[Any], second: asyncio.Future[Any]) -> None:
    await asyncio.wait({first, second}, return_when=asyncio.FIRST_COMPLETED)


async def _merged(*sources: AsyncGenerator[T]) -> AsyncGenerator[T]:
    """Give what several generators give, as it comes; the first error is raised after the others have ended."""
    ready: asyncio.Queue[T] = asyncio.Queue(PAGE)

    async def pour(source: AsyncGenerator[T]) -> None:
        async with aclosing(source):
            async for value in source:
                await ready.put(value)

    pouring = [asyncio.create_task(pour(source)) for source in sources]
    ended = asyncio.gather(*pouring, return_exceptions=True)
    try:
        while not (ended.done() and ready.empty()):
            taking = asyncio.create_task(ready.get())
            await _either(taking, ended)
            if taking.done():
                yield taking.result()
            else:
                taking.cancel()
        for result in ended.result():
            if isinstance(result, BaseException):
                raise result
    finally:
        for task in pouring:
            task.cancel()
        await asyncio.wait(pouring)
