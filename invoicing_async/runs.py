"""Durable runs: what is left is computed from a run file, done, and recorded, so that a crash loses nothing.

A run file is one SQLite database (`_store`). A document run records each order's outcome with path, size and hash; a
second run verifies what is there and fetches only what is missing or broken. An invoice run records the intent to
submit a draft before its first byte leaves and the answer after it came: what a crash leaves between the two is in
doubt, and is never sent again on its own (API.md B.1).
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from contextlib import aclosing, asynccontextmanager, suppress
from datetime import date, datetime
from decimal import Decimal
from functools import partial
from hashlib import sha256
from math import ceil
from os import PathLike
from pathlib import Path, PurePosixPath
from typing import Any, Self, TypeVar

from attrs import evolve, frozen

from ._core.batch import Careful, bounded
from ._core.causes import of_submission
from ._core.clock import Clock, RealClock
from ._core.order_ids import OrderId, texts
from ._core.ramp import Cause, Verdict
from ._core.tasks import started
from ._durable.claims import Claims
from ._durable.ledger import SqliteLedger, SqliteReader
from ._durable.records import (
    Change,
    DamagedRunError,
    DraftConflictError,
    Intake,
    Item,
    JournalEntry,
    NewDraft,
    RequestIdTakenError,
    RunChangedError,
    RunFileError,
    RunLockedError,
)
from ._durable.run_settings import BY_KEY, ExportTo, RunPace, RunSettings, export_layout, named
from ._durable.states import ON_DISK, SENDABLE, DocumentState, Event, RunKind, State
from ._einvoices.draft_json import load_draft
from ._einvoices.encode import dump_draft
from ._einvoices.poll_scheduler import Schedule
from ._einvoices.rules import JUDGED, UUID, canonical_key, check, faults, rounding_unit
from ._files.existing import difference
from ._files.layout import Layout
from ._files.names import parsed
from ._files.writer import DiskWriter
from .documents import DownloadOutcome, OrderDocuments, Saver, judged
from .errors import DraftError, Fault, InvoicingError, ResolutionTooEarlyError, Sent, SubmissionInDoubtError
from .invoices import AsyncInvoices, Fate, fate
from .models import (
    Consumer,
    Deferred,
    Failed,
    InvoiceDraft,
    InvoiceLine,
    InvoiceRequest,
    NotStarted,
    PaymentMethod,
    RequestStatus,
    Saved,
    SavedDocument,
    Skipped,
    SubmitToTax,
    Unsettled,
    VatRate,
)
from .session import Sleep

__all__ = [
    "UNKNOWN_LATE",
    "Checked",
    "DamagedRunError",
    "DocumentRun",
    "DocumentState",
    "DraftConflictError",
    "ExportTo",
    "Intake",
    "InvoiceRun",
    "Item",
    "JournalEntry",
    "Reconcile",
    "RequestIdTakenError",
    "ResolutionTooEarlyError",
    "RunChangedError",
    "RunFileError",
    "RunKind",
    "RunLockedError",
    "RunPace",
    "RunSettings",
    "SqliteReader",
    "State",
    "check_files",
    "export_layout",
]

T = TypeVar("T")
_log = logging.getLogger("invoicing_async")

PAGE = 500
"""Rows read from the run file at a time."""

MERGED = 64
"""What `run` keeps ready for a consumer that is slow."""

MARGIN = 1.0
"""Seconds beyond its bounds for which a submission is still taken to be on its way."""

UNKNOWN_LATE = 5.0 + 120.0 + MARGIN
"""Seconds for which it is in a run that does not say: the default of `Timeouts.intent` and `Timeouts.attempt`."""

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
    async with aclosing(_compared(ledger, disk, _Stop())) as compared:
        async for item, fault in compared:
            yield Checked(item.key, _path(item), fault)


async def _compared(ledger: SqliteReader, disk: DiskWriter, stop: _Stop) -> AsyncGenerator[tuple[Item, str | None]]:
    """Give every item that has a file, with what is wrong with it."""
    states = ON_DISK if ledger.kind is RunKind.DOCUMENTS else (State.SUCCESS,)
    async with aclosing(_with_file(_paged(partial(ledger.rows, states), stop), has=True)) as items:
        async for item in items:
            yield item, await disk.run(partial(difference, _path(item), size=item.size, digest=item.sha256))


async def _paged(read: Callable[..., Awaitable[list[Item]]], stop: _Stop) -> AsyncGenerator[Item]:
    """Give a query's rows page by page; rows that change meanwhile are neither missed nor given twice."""
    after = 0
    while page := await read(after=after, limit=PAGE):
        for item in page:
            if stop.asked:
                return
            yield item
        after = page[-1].seq


class _StoppedError(InvoicingError):
    """Ends a wait of a run that was asked to stop."""

    sent: Sent = "no"


class _Stop:
    """Tells a run, and whoever of it waits for nothing but time, to begin nothing more."""

    def __init__(self) -> None:
        self.asked = False
        self._waits: set[asyncio.Timeout] = set()

    def ask(self) -> None:
        if not self.asked:
            self.asked = True
            for wait in self._waits:
                wait.reschedule(0)

    @asynccontextmanager
    async def cuts(self) -> AsyncIterator[None]:
        """Raise `_StoppedError` in place of what is awaited in the block."""
        if self.asked:
            raise _StoppedError("the run was asked to stop")
        wait = asyncio.timeout(None)
        self._waits.add(wait)
        try:
            async with wait:
                yield
        except TimeoutError:
            if not wait.expired():
                raise
            raise _StoppedError("the run was asked to stop") from None
        finally:
            self._waits.discard(wait)

    def sleep(self, sleep: Sleep) -> Sleep:
        """Give a sleep that is cut short."""

        async def cut(seconds: float) -> None:
            async with self.cuts():
                await sleep(seconds)

        return cut

    async def until(self, source: AsyncGenerator[T]) -> AsyncGenerator[T]:
        """Give what a generator gives, until then."""
        nothing: Any = object()
        async with aclosing(source):
            value = await self._next(source, nothing)
            while value is not nothing:
                yield value
                value = await self._next(source, nothing)

    async def _next(self, source: AsyncGenerator[T], nothing: T) -> T:
        with suppress(_StoppedError):
            async with self.cuts():
                return await anext(source, nothing)
        return nothing


class DocumentRun:
    """A durable download of many order documents. `ledger` is its run file."""

    def __init__(self, ledger: SqliteLedger) -> None:
        self.ledger = ledger
        self._stop = _Stop()
        self._placed()

    def _placed(self) -> None:
        settings = self.ledger.settings
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
        move: bool = False,
        clock: Clock | None = None,
    ) -> AsyncIterator[Self]:
        """Open a run file and hold it; with `folder`, make it if it is not there.

        The settings are those of the first time: later only `folder` is compared, and `move` changes it. Raises
        `RunLockedError` if another process holds the file, `RunFileError` if it is something else,
        `FileNotFoundError`, `ValueError` for another folder than the recorded one.
        """
        where = None if folder is None else _absolute(folder)
        today = datetime.fromtimestamp((clock or RealClock()).now()).date()  # noqa: DTZ006 - where whoever runs it is
        settings = {
            "folder": str(where),
            "layout": Layout(layout).pattern,
            "day": (day or today).isoformat(),
            "served_name": served_name,
            "durable": durable,
        }
        kind = RunKind.DOCUMENTS
        async with SqliteLedger.open(
            file, kind=kind, settings=settings, create=where is not None, clock=clock
        ) as ledger:
            recorded = ledger.settings["folder"]
            is_other = where is not None and recorded != str(where)
            if is_other and not move:
                raise ValueError(f"folder must be {recorded}, which this run was begun with, got {where}")
            run = cls(ledger)
            if is_other:
                await run.move(folder=where)
            yield run

    @property
    def settings(self) -> RunSettings:
        """What the run keeps for whoever goes on with it; its place is `folder` and `layout`."""
        return RunSettings.read(self.ledger.settings)

    async def keep(self, settings: RunSettings) -> None:
        """Keep other settings from now on. Raises `ValueError` for an export, which is for e-invoices."""
        if settings.export is not None:
            raise ValueError("export is for a run of e-invoices")
        await self.ledger.update_settings(settings.written(self.ledger.settings))

    async def move(self, *, folder: str | PathLike[str] | None = None, layout: str | None = None) -> None:
        """Save what is still to be had elsewhere, or under other names, from now on.

        What was saved stays where it is and is verified there; what of it is missing or broken is fetched anew into
        the new place. Raises `ValueError` for a layout that is none.
        """
        changed = {
            "folder": str(self.folder if folder is None else _absolute(folder)),
            "layout": self.layout.pattern if layout is None else Layout(layout).pattern,
        }
        await self.ledger.update_settings({**self.ledger.settings, **changed})
        self._placed()

    def stop(self) -> None:
        """Let what is in flight finish and begin nothing more, for as long as the file is open."""
        self._stop.ask()

    async def add(self, order_ids: Iterable[OrderId] | AsyncIterable[OrderId]) -> Intake:
        """Take in ids, all of them or, after an error or a crash, none. One that is known or comes again counts once.

        Raises `ValueError` for one that is not text, a UUID or an int.
        """
        return await self.ledger.add_ids(texts(order_ids))

    async def verify(self, disk: DiskWriter) -> AsyncGenerator[Checked]:
        """Hash every recorded file; one that is missing or broken is planned again."""
        async with aclosing(self._verified(disk)) as verified:
            async for item, fault in verified:
                yield Checked(item.key, _path(item), fault)

    async def _verified(self, disk: DiskWriter) -> AsyncGenerator[tuple[Item, str | None]]:
        async with aclosing(_compared(self.ledger, disk, self._stop)) as compared:
            async for item, fault in compared:
                if fault is not None:
                    # A file that was there before this library asked is not ours to replace.
                    path = item.path if item.state == DocumentState.SAVED else None
                    await self.ledger.record_document(item.seq, DocumentState.PLANNED, path=path, error=fault)
                yield item, fault

    async def download(
        self, documents: OrderDocuments, *, concurrency: int | None = None, verify: bool = True
    ) -> AsyncGenerator[DownloadOutcome]:
        """Do what is left and give an outcome for each id, as `download_many`; each is on disk before it is given.

        With `verify` what was saved before is hashed first and given as `Skipped`; what is missing or broken is
        fetched anew and put in its place. Without, it is left out. Ends with `BatchStoppedError` as `download_many`
        does; what failed in an earlier command and fails again does not count, so that it never keeps the rest back.
        """
        places = _places(concurrency, documents.concurrency)
        failed: set[str] = set()

        def judge(outcome: DownloadOutcome) -> Cause | Verdict:
            if isinstance(outcome, Failed) and outcome.order_id in failed:
                failed.discard(outcome.order_id)
                return Verdict.SILENT
            return judged(outcome)

        async def fetched(item: Item, sleep: Sleep) -> DownloadOutcome:
            if item.state == DocumentState.FAILED:
                failed.add(item.key)
            return await self._fetched(saver, item, sleep)

        saver = await documents.saver(
            self.folder, durable=self.durable, layout=self.layout, served_name=self.served_name, day=self.day
        )
        if verify:
            async with aclosing(self._verified(documents.disk)) as verified:
                async for item, fault in verified:
                    if fault is None:
                        yield Skipped(item.key, _document(item))
        async with aclosing(_paged(self.ledger.pending, self._stop)) as items:
            outcomes = bounded(
                items,
                fetched,
                concurrency=places,
                sleep=documents.sleep,
                abandoned=lambda item, error: NotStarted(item.key, error),
                careful=Careful(judge, documents.stop_after),
            )
            async with aclosing(outcomes):
                async for outcome in outcomes:
                    yield outcome

    async def _fetched(self, saver: Saver, item: Item, sleep: Sleep) -> DownloadOutcome:
        # A path of ours whose file is gone or broken: nobody else's is replaced, nor anything where the run was before.
        is_here = item.path is not None and _path(item).is_relative_to(self.folder)
        replace = _path(item) if is_here else None
        outcome = await saver.outcome(item.key, self._stop.sleep(sleep), replace=replace)
        if isinstance(outcome, Failed) and isinstance(outcome.error, _StoppedError):
            return NotStarted(item.key, outcome.error)
        await self._record(item, outcome)
        return outcome

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


def _absolute(path: str | PathLike[str]) -> Path:
    return Path(path).absolute()


def _path(item: Item) -> Path:
    return parsed(item.path or "")


def _places(concurrency: int | None, default: int) -> int:
    if concurrency is not None and concurrency < 1:
        raise ValueError(f"concurrency must be 1 or more, got {concurrency!r}")
    return concurrency or default


def _document(item: Item) -> SavedDocument:
    return SavedDocument(
        order_id=item.key,
        path=_path(item),
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
_DAMAGED_DRAFT = (
    "is damaged: the run file does not hold what was taken in, so it was not sent; give the same draft again to mend it"
)


class InvoiceRun:
    """A durable submission of many drafts. `ledger` is its run file; a key is submitted once per run file, ever."""

    def __init__(self, ledger: SqliteLedger) -> None:
        self.ledger = ledger
        self._stop = _Stop()
        self._claims: Claims[Item] = Claims()
        self._doubts = _Doubts(ledger)

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        file: str | PathLike[str],
        *,
        create: bool = True,
        accept_lost_log: bool = False,
        clock: Clock | None = None,
    ) -> AsyncIterator[Self]:
        """Open a run file and hold it. What a crash left between intent and answer is now in doubt.

        Raises `RunLockedError` if another process holds the file, under whatever name, `DamagedRunError` if it is
        damaged or its write-ahead log is gone, `RunFileError` if it is something else. With `accept_lost_log` a file
        without its log is taken as it is, and everything that may have been sent meanwhile is in doubt.
        """
        opening = SqliteLedger.open(
            file,
            kind=RunKind.INVOICES,
            settings={},
            create=create,
            accept_lost_log=accept_lost_log,
            clock=clock,
        )
        async with opening as ledger:
            yield cls(ledger)

    @property
    def settings(self) -> RunSettings:
        """What the run keeps for whoever goes on with it."""
        return RunSettings.read(self.ledger.settings)

    async def keep(self, settings: RunSettings) -> None:
        """Keep other settings from now on. What was exported before stays where it is."""
        await self.ledger.update_settings(settings.written(self.ledger.settings))

    def stop(self) -> None:
        """Let what is in flight finish and begin nothing more, for as long as the file is open.

        What is submitted and not awaited to its end stays submitted, and is not given.
        """
        self._stop.ask()

    async def add(
        self, drafts: Iterable[InvoiceDraft], *, skip_invalid: bool = False, rounding: Decimal | None = None
    ) -> Intake:
        """Take in drafts in one transaction: all of them or none.

        `rounding` is the unit to which line amounts may have been rounded, as `Decimal(1)`; None: they are exact.
        A draft whose key and content are known changes nothing, so giving the same drafts again resumes the run.
        Raises `DraftError` with every fault of every draft, as in `[12].lines[0].price`, unless `skip_invalid`
        takes those in as invalid, for which they need a key; `DraftConflictError` for known keys with other content.
        """
        new: list[NewDraft] = []
        found: list[Fault] = []
        unit = rounding_unit(rounding)
        for number, draft in enumerate(drafts):
            wrong = faults(draft, rounding=unit)
            if wrong and not (skip_invalid and _has_key(wrong)):
                found += faults(draft, prefix=f"[{number}]", rounding=unit)
            elif not found:
                new.append(_new(draft, wrong))
            if number % PAGE == PAGE - 1:
                await asyncio.sleep(0)
        if found:
            raise DraftError(tuple(found))
        return await self.ledger.add_drafts(new)

    def submit(self, invoices: AsyncInvoices, *, concurrency: int | None = None) -> AsyncGenerator[Item]:
        """Send what is planned or was provably not created, and give each item as it then stands.

        `concurrency` is how many items are on their way at once, by default half as many again as the session has
        calls in flight: while some answers are being recorded, others are awaited.

        It begins with one and has one more under way with each that is taken. Raises `AuthenticationError` when the
        credential is refused, and `BatchStoppedError` when the same trouble meets the first `Limits.stop_after` (see
        `AsyncInvoices.submit_many`); what was in flight is recorded first, the rest stays planned. Left early, what is
        in flight is recorded as in doubt. Several may submit one open run at once: each item is sent by one of them,
        and an item that another has under way is given when it ends.
        """
        return _Submission(self.ledger, self._stop, self._claims, invoices).of_all(concurrency)

    async def submit_one(self, draft: InvoiceDraft, invoices: AsyncInvoices) -> Item:
        """Take a draft in, submit it, and give its item as it then stands: for a web service.

        Any number at once, also of one key and beside `submit`: a key is sent once, and whoever asks for it meanwhile
        gets the same outcome. A key that was submitted before, or is in doubt, is given as it stands; after `stop`
        nothing is sent. Cancelled, what is in flight is recorded as in doubt. Raises as `add` does, and
        `AuthenticationError` when the credential is refused.
        """
        check(draft)
        with self._claims.at_work():
            await self.add([draft])
            submission = _Submission(self.ledger, self._stop, self._claims, invoices)
            return await submission.sent(await _current(self.ledger, canonical_key(draft.key)), invoices.sleep)

    def settle(
        self, invoices: AsyncInvoices, *, poller: Schedule | None = None, also: AsyncIterable[Item] | None = None
    ) -> AsyncGenerator[Item]:
        """Wait for every submitted item, and for those `also` goes on giving, and give each as it ends.

        An item whose wait ends without an answer stays submitted and is given with the reason as its `error`. Raises
        `AuthenticationError` when the credential is refused.
        """
        return _Settlement(self.ledger, self._stop, invoices).of_submitted(poller, also)

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

    def export(
        self,
        invoices: AsyncInvoices,
        folder: str | PathLike[str],
        *,
        format: str = "pdf",  # noqa: A002 - the service's own name
        layout: str = BY_KEY,
        poller: Schedule | None = None,
        also: AsyncIterable[Item] | None = None,
    ) -> AsyncGenerator[Item]:
        """Save the document of every SUCCESS item that has none yet, and give each item as it then stands.

        `layout` names the file below `folder`: `{key}`, `{request_id}`, `{invoice_id}`, `{date:%Y/%m}` (the day it was
        sent, UTC), `{shard}`. `also` may go on giving items that finish while others are exported. An item that has a
        file keeps it, wherever that is. One whose link or export fails stays SUCCESS, with the reason as its `error`;
        `poller` bounds how long it is asked for.
        """
        to = ExportTo(folder=Path(folder), format=format, layout=layout)
        return _Exporting(self.ledger, self._stop, invoices, to, poller).of_finished(also)

    def export_name(self, item: Item, to: ExportTo) -> PurePosixPath:
        """Give the file of an item below the export's folder, the same whenever it is asked for.

        Raises `ValueError` for an item that no invoice is known of.
        """
        return _export_name(item, to, created=self.ledger.created)

    def refresh(self, invoices: AsyncInvoices) -> AsyncGenerator[Item]:
        """Ask the service again about every SUCCESS item, record what it says and give each item as it then stands.

        The tax authority's status goes on changing after an invoice was made. `error` of what is given is None, or
        why the service could not be asked or did not say; then nothing of the item is recorded. Raises
        `AuthenticationError` when the credential is refused.
        """
        return _Settlement(self.ledger, self._stop, invoices).refreshed()

    async def resolve(self, key: str, *, created: bool, request_id: str | None = None) -> Item:
        """Settle an item in doubt by what was found at the service; `undo` takes that back.

        `created` with its `request_id`: it is polled by the next run. Not created: the next run sends it again.
        Raises `ResolutionTooEarlyError` for the latter while the submission may still arrive, `ValueError` if the item
        is not in doubt, is unknown, or the request id is missing, no UUID, or another item's.
        """
        return await self._doubts.resolve(key, created=created, request_id=request_id)

    async def remaining(self, key: str) -> float:
        """Return the seconds until an item in doubt may be settled as not created; 0 if it may be now."""
        return await self._doubts.remaining(key)

    async def undo(self, key: str) -> Item:
        """Put an item in doubt again that `resolve` settled, as long as nothing followed from that.

        Raises `ValueError` if it was not settled by hand, or was sent again, or has ended since.
        """
        return await self._doubts.undo(key)

    async def retry(self, key: str) -> Item:
        """Let a rejected item be sent again by the next run."""
        await self.ledger.transition(canonical_key(key), Event.RETRY_ASKED)
        return await _current(self.ledger, canonical_key(key))

    def reconcile(self, look_up: Reconcile) -> AsyncGenerator[Item]:
        """Ask a program about every item in doubt, settle what it knows and give each item as it then stands.

        An answer that `resolve` refuses, since it comes too early or names another item's request, is its `error`. So
        is the damage of an item whose draft the run file no longer holds as it was: it is not asked about.
        """
        return self._doubts.reconcile(look_up, self._stop)


async def _current(ledger: SqliteLedger, ref: int | str) -> Item:
    item = await ledger.get(ref)
    assert item is not None  # noqa: S101 - it was changed just before; for the type checker
    return item


class _Doubts:
    """What people and programs say of items in doubt."""

    def __init__(self, ledger: SqliteLedger) -> None:
        self._ledger = ledger

    async def resolve(self, key: str, *, created: bool, request_id: str | None = None) -> Item:
        if created and request_id is not None and not UUID.fullmatch(request_id):
            raise ValueError(f"request_id must be a UUID (8-4-4-4-12 hex digits), got {request_id!r}")
        if not created:
            await self._must_be_late(key)
        event = Event.RESOLVED_CREATED if created else Event.RESOLVED_NOT_CREATED
        known = request_id.lower() if created and request_id is not None else None
        await self._ledger.transition(canonical_key(key), event, request_id=known)
        return await _current(self._ledger, canonical_key(key))

    async def _must_be_late(self, key: str) -> None:
        """Raise `ResolutionTooEarlyError` while what was sent may still be on its way."""
        remaining = await self.remaining(key)
        if remaining > 0:
            text = f"{key!r} may still arrive at the service within {ceil(remaining)} s: look it up again after that"
            raise ResolutionTooEarlyError(text, remaining=remaining)

    async def remaining(self, key: str) -> float:
        item = await self._ledger.get(canonical_key(key))
        if item is None or item.sent_at is None or item.state != State.IN_DOUBT:
            return 0.0
        # It left before its end was recorded, whatever the clock said then.
        left = min(item.sent_at, item.updated)
        return max(0.0, left + (self._ledger.late or UNKNOWN_LATE) - self._ledger.now())

    async def undo(self, key: str) -> Item:
        await self._ledger.undo(canonical_key(key))
        return await _current(self._ledger, canonical_key(key))

    async def reconcile(self, look_up: Reconcile, stop: _Stop) -> AsyncGenerator[Item]:
        async with aclosing(_paged(partial(self._ledger.rows, (State.IN_DOUBT,), payload=True), stop)) as items:
            async for item in items:
                yield await self._looked_at(item, look_up)

    async def _looked_at(self, item: Item, look_up: Reconcile) -> Item:
        """Ask about one item; with a draft that is not what was sent, the answer would be about another invoice."""
        try:
            draft = _sent_draft(item)
        except InvoicingError as error:
            return evolve(item, error=_line(error))
        return await self._reconciled(item, await look_up(draft, item))

    async def _reconciled(self, item: Item, answer: str | bool | None) -> Item:  # noqa: FBT001 - what a program answered
        if answer is None or answer is True:
            return item
        try:
            return await self.resolve(item.key, created=answer is not False, request_id=answer or None)
        except (ResolutionTooEarlyError, ValueError) as error:
            return evolve(item, error=_line(error))


@frozen
class _Settlement:
    """What becomes of the items that were submitted, asked from the service and recorded."""

    _ledger: SqliteLedger
    _stop: _Stop
    _invoices: AsyncInvoices

    async def of_submitted(self, poller: Schedule | None, also: AsyncIterable[Item] | None) -> AsyncGenerator[Item]:
        waiting: dict[str, list[int]] = {}

        async def record(end: _End, _: Sleep) -> tuple[_End, list[Item]]:
            return end, [await self._ended(seq, end) for seq in waiting.pop(end.request_id, ())]

        async with aclosing(
            self._stop.until(self._invoices.wait_many(self._awaited(waiting, also), poller=poller))
        ) as ends:
            # Side by side, so that the ends of one moment share a commit.
            recorded = bounded(
                ends,
                record,
                concurrency=MERGED,
                sleep=self._invoices.sleep,
                abandoned=lambda end, _: (end, []),
                cancel=False,
            )
            async with aclosing(recorded):
                async for end, items in recorded:
                    for item in items:
                        yield item
                    if isinstance(end, Unsettled) and self._invoices.ends_batch(end.error):
                        raise end.error

    async def _awaited(self, waiting: dict[str, list[int]], also: AsyncIterable[Item] | None) -> AsyncGenerator[str]:
        """Give the request ids to wait for, noting whose they are: two items may have been resolved to one request."""
        recorded: set[int] = set()
        async with aclosing(_paged(partial(self._ledger.rows, (State.SUBMITTED,)), self._stop)) as items:
            async for item in items:
                recorded.add(item.seq)
                yield _noted(item, waiting)
        if also is not None:
            async for item in also:
                if item.seq not in recorded:
                    yield _noted(item, waiting)

    async def _ended(self, seq: int, end: _End) -> Item:
        try:
            await self._ledger.transition_many([_polled(seq, end)])
        except ValueError as error:
            # Settled otherwise meanwhile: that is this item's affair.
            _log.warning("what became of item %d could not be recorded: %s", seq, error)
        return await _current(self._ledger, seq)

    async def refreshed(self) -> AsyncGenerator[Item]:
        async with aclosing(_paged(partial(self._ledger.rows, (State.SUCCESS,)), self._stop)) as items:
            outcomes = bounded(
                items,
                self._refreshed,
                concurrency=self._invoices.concurrency,
                sleep=self._invoices.sleep,
                abandoned=lambda item, error: evolve(item, error=_line(error)),
            )
            async with aclosing(outcomes):
                async for item in outcomes:
                    yield item

    async def _refreshed(self, item: Item, _: Sleep) -> Item:
        try:
            async with self._stop.cuts():
                now = await self._invoices.status(item.request_id or "")
        except InvoicingError as error:
            if self._invoices.ends_batch(error):
                raise
            return evolve(item, error=_line(error))
        if now.status != RequestStatus.SUCCESS:
            return evolve(item, error=f"the invoice was made, and the service now says {now.status}")
        await self._ledger.transition(
            item.seq,
            Event.REFRESHED,
            invoice_id=now.data.id if now.data else None,
            result=_result(now),
            code=item.code,
            error=item.error,
        )
        return evolve(await _current(self._ledger, item.seq), error=None)


@frozen
class _Exporting:
    """The documents of finished items, saved below one folder."""

    _ledger: SqliteLedger
    _stop: _Stop
    _invoices: AsyncInvoices
    _to: ExportTo
    _poller: Schedule | None

    async def of_finished(self, also: AsyncIterable[Item] | None) -> AsyncGenerator[Item]:
        """Save what has no file yet; `also` gives items that finish meanwhile."""
        async with aclosing(self._without_file(also)) as items:
            outcomes = bounded(
                items,
                self._tried,
                concurrency=self._invoices.concurrency,
                sleep=self._invoices.sleep,
                abandoned=lambda item, _: item,
            )
            async with aclosing(outcomes):
                async for item in outcomes:
                    yield item

    async def _tried(self, item: Item, sleep: Sleep) -> Item:
        await self._exported(item, self._stop.sleep(sleep))
        return await _current(self._ledger, item.seq)

    async def _without_file(self, also: AsyncIterable[Item] | None) -> AsyncGenerator[Item]:
        """Give the finished items that have no file, each once: those of the run file, then those that finish."""
        given: set[int] = set()
        finished = _paged(partial(self._ledger.rows, (State.SUCCESS,)), self._stop)
        async with aclosing(_with_file(finished, has=False)) as items:
            async for item in items:
                given.add(item.seq)
                yield item
        if also is None:
            return
        async with aclosing(self._stop.until(_each(also))) as later:
            async for item in later:
                if item.state == State.SUCCESS and item.seq not in given:
                    # As recorded: what a submission gives does not know when it was sent, which names may hold.
                    finished_item = await _current(self._ledger, item.seq)
                    if finished_item.path is None:
                        yield finished_item

    async def _exported(self, item: Item, sleep: Sleep) -> None:
        invoices, to = self._invoices, self._to
        try:
            number = item.invoice_id or await _looked_up(invoices, item)
            name = _export_name(evolve(item, invoice_id=number), to, created=self._ledger.created)
            since = _since(item, self._ledger.created)
            saved = await invoices.export(
                number, to.folder, format=to.format, name=name, since=since, poller=self._poller, sleep=sleep
            )
        except _StoppedError:
            return  # its turn comes again
        except InvoicingError as error:
            if invoices.ends_batch(error):
                raise
            await self._ledger.transition(item.seq, Event.EXPORT_FAILED, error=_line(error))
        else:
            path = str(_absolute(saved.path))
            await self._ledger.transition(
                item.seq, Event.EXPORTED, invoice_id=number, path=path, size=saved.size, sha256=saved.sha256
            )


def _since(item: Item, created: float) -> float:
    return item.sent_at or created


def _export_name(item: Item, to: ExportTo, *, created: float) -> PurePosixPath:
    if item.invoice_id is None:
        raise ValueError(f"no invoice is known of {item.key!r}")
    ids = {"key": item.key, "request_id": item.request_id or item.invoice_id, "invoice_id": item.invoice_id}
    return named(ids, sent_at=_since(item, created), to=to)


_End = InvoiceRequest | Unsettled


class _Submission:
    """The drafts that one caller of `submit` or `submit_one` sends, beside others at work on the same run.

    `failed` holds why a draft failed until it is judged.
    """

    def __init__(self, ledger: SqliteLedger, stop: _Stop, claims: Claims[Item], invoices: AsyncInvoices) -> None:
        self._ledger = ledger
        self._stop = stop
        self._claims = claims
        self._invoices = invoices
        self._number: int | None = None
        """This caller's number at the claims, None for one draft that was read just now."""
        self.under_way: dict[int, _Sending] = {}
        self.failed: dict[int, InvoicingError] = {}

    async def of_all(self, concurrency: int | None) -> AsyncGenerator[Item]:
        """Send what is pending, item by item, and give each as it then stands."""
        invoices = self._invoices
        places = _places(concurrency, invoices.concurrency + invoices.concurrency // 2)
        with self._claims.at_work() as self._number:
            async with aclosing(_paged(self._ledger.pending, self._stop)) as items:
                outcomes = bounded(
                    items,
                    self.sent,
                    concurrency=places,
                    sleep=invoices.sleep,
                    abandoned=self._abandoned,
                    cancel=False,
                    careful=Careful(self._judged, invoices.stop_after),
                )
                async with aclosing(outcomes):
                    async for item in outcomes:
                        self.under_way.pop(item.seq, None)
                        yield item

    async def sent(self, item: Item, sleep: Sleep) -> Item:
        """Send an item if nobody else does, and give it as it then stands."""
        claims = self._claims
        while (claim := claims.held(item.seq)) is not None:
            ending = await claim.ended()
            if isinstance(ending, Item):
                return ending
            if isinstance(ending, BaseException) and self._number is None:
                raise ending
            item = await _current(self._ledger, item.seq)
            if ending is not None:
                return item
        with claims.hold(item.seq) as claim:
            if self._number is None or claims.has_company(self._number):
                item = await _current(self._ledger, item.seq)
            if State(item.state) not in SENDABLE or self._stop.asked:
                claim.tell(item)
                return item
            try:
                ended = await self._send(item, sleep)
            except Exception as error:
                claim.tell(error)
                raise
            claim.tell(ended)
            return ended

    async def _send(self, item: Item, sleep: Sleep) -> Item:
        invoices = self._invoices
        sending = self.under_way[item.seq] = _Sending(self._ledger, item, self._stop.sleep(sleep))
        try:
            request = await self._submitted(item, sending)
        except DraftError as error:
            await sending.found_invalid(error)
        except InvoicingError as error:
            self.failed[item.seq] = error
            await sending.failed(error)
            _raise_if_fatal(invoices, error)
        except BaseException as error:
            await sending.abandoned(error)
            raise
        else:
            await sending.accepted(request)
        return sending.item

    async def _submitted(self, item: Item, sending: _Sending) -> InvoiceRequest:
        payload, bounds = item.payload, self._invoices.timeouts
        if not _is_whole(item) or not payload:
            raise DraftError((Fault("draft", _DAMAGED_DRAFT),), key=item.key)
        await self._ledger.keep_late(bounds.intent + bounds.attempt + MARGIN)
        return await self._invoices.submit_dumped(
            payload, item.key, sleep=sending.back_off, before=sending.intend, leaves=sending.leaves
        )

    def _abandoned(self, item: Item, error: BaseException) -> Item:
        """Give an item whose sending the batch's end cut off, or that was not begun."""
        sending = self.under_way.get(item.seq)
        return item if sending is None else sending.item

    def _judged(self, item: Item) -> Cause | Verdict:
        """Tell what an item's ending says of the service."""
        error = self.failed.pop(item.seq, None)
        if error is not None:
            return of_submission(error)
        return Verdict.WELL if item.seq in self.under_way and item.request_id is not None else Verdict.SILENT


class _Sending:
    """One draft on its way: its intent is on disk before each first byte, and gone from there while it backs off.

    `item` is as last recorded, but for its times. What was handed to the ledger is done in that order, even if its
    caller is cancelled.
    """

    def __init__(self, ledger: SqliteLedger, item: Item, sleep: Sleep) -> None:
        self._ledger = ledger
        self._item = item
        self._changed: dict[str, Any] = {}
        self._sleep = sleep
        self._intended = False
        self._left = False

    @property
    def item(self) -> Item:
        return evolve(self._item, **self._changed) if self._changed else self._item

    async def intend(self) -> None:
        """Record the intent, unless it stands already (a 401 is mended inside one attempt)."""
        if self._intended:
            return
        self._intended = True
        try:
            await self._record(Event.INTENT)
        except Exception:
            self._intended = False
            raise

    def leaves(self) -> None:
        """Hear that the first byte is about to leave: from here on a cut is a doubt."""
        self._left = True

    async def back_off(self, seconds: float) -> None:
        """Record that nothing is in flight, and wait: only what provably made no invoice is tried again."""
        await self._end(Event.REFUSED_FOR_NOW)
        await self._sleep(seconds)

    async def accepted(self, request: InvoiceRequest) -> None:
        """Record the service's answer; one that cannot be this item's leaves it in doubt, with what was said."""
        event = _ACCEPTED.get(_status(request), Event.ACCEPTED_NEW)
        learned = {"code": request.code, "error": request.reason} if event is Event.ACCEPTED_FAILED else {}
        try:
            await self._end(
                event,
                request_id=request.request_id,
                invoice_id=request.data.id if request.data else None,
                result=_result(request),
                **learned,
            )
        except ValueError as error:
            self._intended = True
            said = _said(status=None, code=None, request_ids=(request.request_id,), answer="")
            await self._end(Event.LOST, error=_line(error), result=said)
        except Exception as error:
            lost = f"invoice {self._item.key!r} is request {request.request_id}, which could not be recorded"
            _log.error("%s: %s", lost, error)
            error.add_note(lost)
            raise

    async def failed(self, error: InvoicingError) -> None:
        """Record what the failure means for the invoice, and what an answer said that left it in doubt."""
        code = getattr(error, "code", None) or getattr(error.__cause__, "code", None)
        if self._intended:
            learned = {"result": _answer(error)} if isinstance(error, SubmissionInDoubtError) else {}
            await self._end(_FATES[fate(error)], error=_line(error), code=code, **learned)
        else:
            self._changed |= {"error": _line(error), "code": code}

    async def found_invalid(self, error: DraftError) -> None:
        """Record that the draft breaks the limits; nothing of it was sent."""
        await self._record(Event.FOUND_INVALID, error=str(error))

    async def abandoned(self, error: BaseException) -> None:
        """Record what is known of an attempt that was cut off: in doubt if its first byte may have left."""
        with suppress(Exception):  # what cut it off is raised
            await self._end(Event.LOST if self._left else Event.NOT_SENT, error=_line(error))

    async def _end(self, event: Event, **learned: Any) -> None:
        if self._intended:
            self._intended = self._left = False
            await self._record(event, **learned)

    async def _record(self, event: Event, **learned: Any) -> None:
        [state] = await self._ledger.transition_many((Change(ref=self._item.seq, event=event, **learned),))
        changed = self._changed
        changed.update(error=None, code=None, state=state.value)
        changed.update((name, value) for name, value in learned.items() if value is not None)
        if event is Event.INTENT:
            changed["attempt"] = changed.get("attempt", self._item.attempt) + 1


def _raise_if_fatal(invoices: AsyncInvoices, error: InvoicingError) -> None:
    """Raise what ends the batch: a dead credential or session, or a run file that cannot take the intent."""
    if invoices.ends_batch(error):
        raise error
    if isinstance(error.__cause__, RunFileError):
        raise error.__cause__ from None


def _status(request: _End) -> RequestStatus:
    return request.status if isinstance(request.status, RequestStatus) else RequestStatus.NEW


def _result(request: InvoiceRequest) -> str | None:
    """The service's last word, numbers as text with their digits."""
    if not request.terminal:
        return None
    try:
        return json.dumps(dict(request.raw), ensure_ascii=False, default=str, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError):
        # Whatever it is, the request's id and status are known and must not be lost for it.
        return None


def _answer(error: SubmissionInDoubtError) -> str:
    """What an answer said that left a submission in doubt, as JSON text."""
    head = error.answer.decode(errors="replace")
    return _said(status=error.status, code=error.code, request_ids=error.request_ids, answer=head)


def _said(**words: Any) -> str:
    return json.dumps(words, ensure_ascii=False, default=str, separators=(",", ":"))


async def _looked_up(invoices: AsyncInvoices, item: Item) -> str:
    """Ask for the invoice's id: a submission that was SUCCESS at once need not have named it (API.md B.1)."""
    found = await invoices.status(item.request_id) if item.request_id is not None else None
    if found is None or found.data is None:
        raise RunFileError(f"the service named no invoice for {item.key!r}, so it cannot be exported")
    return found.data.id


def _polled(seq: int, end: _End) -> Change:
    if isinstance(end, Unsettled):
        return Change(ref=seq, event=Event.POLL_NEW, error=_line(end.error))
    invoice_id = end.data.id if end.data else None
    event = _POLLED.get(_status(end), Event.POLL_NEW)
    return Change(ref=seq, event=event, invoice_id=invoice_id, result=_result(end), code=end.code, error=end.reason)


def _has_key(wrong: tuple[Fault, ...]) -> bool:
    return not any(fault.path in {"draft", "key"} for fault in wrong)


def _new(draft: InvoiceDraft, wrong: tuple[Fault, ...]) -> NewDraft:
    key = canonical_key(draft.key)
    if key != draft.key:
        draft = evolve(draft, key=key)
    # Of a draft with faults there may be no JSON: what is wrong with it stands for it.
    payload = "\n".join(map(str, wrong)) if wrong else dump_draft(draft)
    return NewDraft(
        key=canonical_key(draft.key),
        payload=payload,
        payload_sha256=sha256(payload.encode()).hexdigest(),
        error=str(DraftError(wrong)) if wrong else None,
    )


def _is_whole(item: Item) -> bool:
    """Tell whether the run file holds a draft as it was taken in; of an invalid one it holds the faults."""
    text = item.payload
    return text is not None and text[:1] == "{" and sha256(text.encode()).hexdigest() == item.payload_sha256


def _sent_draft(item: Item) -> InvoiceDraft:
    """Read the draft of an item in doubt. Raises `DraftError` if it is not what was sent."""
    if not _is_whole(item):
        text = "is damaged: the run file does not hold what was sent; look the invoice up by its key, and resolve it"
        raise DraftError((Fault("draft", text),), key=item.key)
    return _draft(item)


def _draft(item: Item) -> InvoiceDraft:
    """Read the draft of an item. Raises `DraftError` if it is none that this version knows."""
    if item.payload is None:
        raise RunFileError(f"the draft of {item.key!r} is not in the run file")
    try:
        return _restored(item.payload)
    except (TypeError, ValueError, KeyError, AttributeError):
        return load_draft(item.payload, rounding=JUDGED)


def _restored(payload: str) -> InvoiceDraft:
    """Read what `dump_draft` wrote of a draft without faults, in a fraction of the time of `load_draft`."""
    found = json.loads(payload, parse_float=Decimal, parse_int=Decimal)
    for name, kind in (("consumer", Consumer), ("submit_to_tax", SubmitToTax)):
        if name in found:
            found[name] = kind(**found[name])
    if "payment_method" in found:
        found["payment_method"] = PaymentMethod(found["payment_method"])
    found["lines"] = tuple(map(_restored_line, found["lines"]))
    return InvoiceDraft(**found)


def _restored_line(found: dict[str, Any]) -> InvoiceLine:
    if "vat_rate" in found:
        found["vat_rate"] = VatRate(found["vat_rate"])
    return InvoiceLine(**found)


async def _with_file(items: AsyncGenerator[Item], *, has: bool) -> AsyncGenerator[Item]:
    async with aclosing(items):
        async for item in items:
            if has is (item.path is not None):
                yield item


def _noted(item: Item, waiting: dict[str, list[int]]) -> str:
    request_id = item.request_id or ""
    waiting.setdefault(request_id, []).append(item.seq)
    return request_id


async def _each(items: AsyncIterable[T]) -> AsyncGenerator[T]:
    async for item in items:
        yield item


async def _queued(queue: asyncio.Queue[Item | None]) -> AsyncIterator[Item]:
    while (item := await queue.get()) is not None:
        yield item


@frozen
class _Through:
    """A source of `_merged` that has ended."""

    error: Exception | None = None


async def _merged(*sources: AsyncGenerator[T]) -> AsyncGenerator[T]:
    """Give what several generators give, as it comes; the first error is raised after the others have ended."""
    ready: asyncio.Queue[T | _Through] = asyncio.Queue(MERGED)

    async def pour(source: AsyncGenerator[T]) -> None:
        try:
            async with aclosing(source):
                async for value in source:
                    await ready.put(value)
        except Exception as error:  # noqa: BLE001 - it is raised below
            await ready.put(_Through(error))
        else:
            await ready.put(_Through())

    pouring = [started(pour(source)) for source in sources]
    errors: list[Exception | None] = []
    try:
        while len(errors) < len(sources):
            value = await ready.get()
            if isinstance(value, _Through):
                errors.append(value.error)
            else:
                yield value
    finally:
        for task in pouring:
            task.cancel()
        await asyncio.wait(pouring)
    for error in filter(None, errors):
        raise error
