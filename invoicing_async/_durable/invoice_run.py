"""The durable submission of many drafts: `InvoiceRun`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable
from contextlib import aclosing, asynccontextmanager
from decimal import Decimal
from os import PathLike
from pathlib import PurePosixPath
from typing import Self

from .._core.clock import Clock
from .._einvoices.poll_scheduler import Schedule
from .._einvoices.rules import canonical_key, check
from ..invoices import AsyncInvoices
from ..invoices._client import work_of
from ..models import InvoiceDraft
from .claims import Claims
from .doubts import Doubts, Reconcile
from .drafts import new_drafts
from .exporting import Exporting, export_name
from .items import current_item
from .ledgers import open_ledger
from .paced_run import PacedRun
from .pauses import PauseLog
from .protocol import Ledger
from .records import Intake, Item
from .run_settings import BY_KEY, ExportTo, RunSettings
from .settlement import Settlement
from .states import Event, RunKind
from .stop import StopToken
from .streams import divert_submitted, drain_queue, merge_sources
from .submission import Submission
from .superseded import Superseded

__all__ = ["InvoiceRun"]


class InvoiceRun(PacedRun):
    """The durable submission of many drafts. `ledger` is its run file; a key is submitted once per run file, ever."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self._stop = StopToken()
        self._claims: Claims[Item] = Claims()
        self._doubts = Doubts(ledger)
        self._pauses = PauseLog(ledger)
        self._superseded = Superseded()

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
        damaged or its write-ahead log is gone, `RunFileError` if it is something else, `ValueError` for text that
        names no file. With `accept_lost_log` a file without its log is taken as it is, and everything that may have
        been sent meanwhile is in doubt.
        """
        kept = {"create": create, "accept_lost_log": accept_lost_log}
        async with open_ledger(file, kind=RunKind.INVOICES, settings={}, clock=clock, **kept) as ledger:
            yield cls(ledger)

    async def keep(self, settings: RunSettings) -> None:
        """Keep other settings from now on. What was exported before stays where it is."""
        await self.ledger.update_settings(settings.written(self.ledger.settings))

    @property
    def superseded(self) -> int:
        """How many events of its items came when another worker, or a person, had moved on with the item."""
        return self._superseded.count

    def stop(self) -> None:
        """Let what is in flight finish and begin nothing more, for as long as the file is open.

        What is submitted and not awaited to its end stays submitted, and is not yielded. `Session.stop_waiting` ends
        what waits for a service that is down.
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
        new = await new_drafts(drafts, skip_invalid=skip_invalid, rounding=rounding)
        return await self.ledger.add_drafts(new)

    def submit(self, invoices: AsyncInvoices, *, concurrency: int | None = None) -> AsyncGenerator[Item]:
        """Send what is planned or was provably not created, and yield each item as it is then recorded.

        `concurrency` is how many items are on their way at once, by default half as many again as the session has
        calls in flight: while some answers are being recorded, others are awaited.

        It begins with one and has one more under way with each that is taken. Raises `AuthenticationError` when the
        credential is refused, and `BatchStoppedError` when the same trouble meets the first `Limits.stop_after` (see
        `AsyncInvoices.submit_many`); what was in flight is recorded first, the rest stays planned. Left early, what is
        in flight is recorded as in doubt. Several may submit one open run at once: each item is sent by one of them,
        and an item that another has under way is yielded when it ends.
        """
        items = Submission(self.ledger, self._stop, self._claims, invoices, self._superseded).of_all(concurrency)
        return self._pauses.during(items, of=work_of(invoices))

    async def submit_one(self, draft: InvoiceDraft, invoices: AsyncInvoices) -> Item:
        """Take a draft in, submit it, and return its item as it is then recorded: for a web service.

        Any number at once, also of one key and beside `submit`: a key is sent once, and whoever asks for it meanwhile
        gets the same outcome. A key that was submitted before, or is in doubt, is returned as it is; after `stop`
        nothing is sent. Cancelled, what is in flight is recorded as in doubt. Raises as `add` does, and
        `AuthenticationError` when the credential is refused.
        """
        check(draft)
        with self._claims.at_work():
            await self.add([draft])
            submission = Submission(self.ledger, self._stop, self._claims, invoices, self._superseded)
            work = work_of(invoices)
            item = await current_item(self.ledger, canonical_key(draft.key))
            async with self._pauses.of(work):
                return await submission.sent(item, work.sleep)

    def settle(
        self, invoices: AsyncInvoices, *, poller: Schedule | None = None, also: AsyncIterable[Item] | None = None
    ) -> AsyncGenerator[Item]:
        """Wait for every submitted item, and for those that `also` yields, and yield each as it ends.

        An item whose wait ends without an answer stays submitted and is yielded with the reason as its `error`. Raises
        `AuthenticationError` when the credential is refused.
        """
        items = Settlement(self.ledger, self._stop, invoices, self._superseded).of_submitted(poller, also)
        return self._pauses.during(items, of=work_of(invoices))

    async def run(
        self, invoices: AsyncInvoices, *, poller: Schedule | None = None, concurrency: int | None = None
    ) -> AsyncGenerator[Item]:
        """Submit what is left and wait for it at the same time; yield an item when it is done or has to wait."""
        accepted: asyncio.Queue[Item | None] = asyncio.Queue()

        submitted = divert_submitted(self.submit(invoices, concurrency=concurrency), accepted)
        settled = self.settle(invoices, poller=poller, also=drain_queue(accepted))
        async with aclosing(merge_sources(submitted, settled)) as items:
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
        """Save the document of every SUCCESS item that has none yet, and yield each item as it is then recorded.

        `layout` names the file below `folder`: `{key}`, `{request_id}`, `{invoice_id}`, `{date:%Y/%m}` (the day it was
        sent, UTC), `{shard}`; that may be the address of an object store. `also` may yield items that finish while
        others are exported. An item that has a file keeps it, wherever that is. One whose link or export fails stays
        SUCCESS, with the reason as its `error`; `poller` bounds how long it is asked for.
        """
        to = ExportTo(folder=folder, format=format, layout=layout)
        items = Exporting(self.ledger, self._stop, invoices, to, poller, self._superseded).of_finished(also)
        return self._pauses.during(items, of=work_of(invoices))

    def export_name(self, item: Item, to: ExportTo) -> PurePosixPath:
        """Return the file of an item below the export's folder, the same whenever it is asked for.

        Raises `ValueError` for an item that no invoice is known of.
        """
        return export_name(item, to, created=self.ledger.created)

    def refresh(self, invoices: AsyncInvoices) -> AsyncGenerator[Item]:
        """Ask the service again about every SUCCESS item, record what it says and yield each item as recorded.

        The tax authority's status goes on changing after an invoice was made. `error` of what is yielded is None, or
        why the service could not be asked or did not say; then nothing of the item is recorded. Raises
        `AuthenticationError` when the credential is refused.
        """
        return self._pauses.during(
            Settlement(self.ledger, self._stop, invoices, self._superseded).refreshed(), of=work_of(invoices)
        )

    async def resolve(
        self, key: str, *, created: bool, request_id: str | None = None, attempt: int | None = None
    ) -> Item:
        """Settle an item in doubt by what was found at the service; `undo` takes that back.

        `created` with its `request_id`: it is polled by the next run. Not created: the next run sends it again.
        Raises `ResolutionTooEarlyError` for the latter while the submission may still arrive, `ValueError` if the item
        is not in doubt, is unknown, or the request id is missing, no UUID, or another item's. `attempt` is that of the
        item as it was looked up: raises `SupersededError` if it was sent again since, of which nothing was found out.
        """
        return await self._doubts.resolve(key, created=created, request_id=request_id, attempt=attempt)

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
        return await current_item(self.ledger, canonical_key(key))

    def reconcile(self, look_up: Reconcile) -> AsyncGenerator[Item]:
        """Ask a program about every item in doubt, settle what it knows and yield each item as it is then recorded.

        An answer that `resolve` refuses, since it comes too early or names another item's request, is its `error`. So
        is the damage of an item whose draft the run file no longer holds as it was: it is not asked about.
        """
        return self._doubts.reconcile(look_up, self._stop)
