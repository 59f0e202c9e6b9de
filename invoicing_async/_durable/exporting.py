"""The documents of a run's finished items."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable
from contextlib import aclosing
from functools import partial
from pathlib import PurePosixPath

from attrs import evolve, frozen

from .._core.error_words import words_of
from .._einvoices.poll_scheduler import Schedule
from .._files.publish import OnExisting
from ..errors import InvoicingError
from ..invoices import AsyncInvoices
from ..invoices._client import work_of
from ..session import Sleep
from .items import current_item, filter_by_file, page_items
from .protocol import Ledger
from .records import Change, Item, RunFileError
from .run_settings import ExportTo, named
from .states import Event, State
from .stop import StoppedError, StopToken
from .streams import each_of
from .superseded import Superseded

__all__ = ["Exporting", "export_name"]


@frozen
class Exporting:
    """The documents of finished items, saved below one folder."""

    _ledger: Ledger
    _stop: StopToken
    _invoices: AsyncInvoices
    _to: ExportTo
    _poller: Schedule | None
    _superseded: Superseded

    async def of_finished(self, also: AsyncIterable[Item] | None) -> AsyncGenerator[Item]:
        """Save what has no file yet; `also` yields items that finish meanwhile."""
        async with aclosing(self._without_file(also)) as items:
            outcomes = work_of(self._invoices).each(items, self._exported, on_not_started=lambda item, _: item)
            async with aclosing(outcomes):
                async for item in outcomes:
                    yield item

    async def _exported(self, item: Item, sleep: Sleep) -> Item:
        work, to, number = work_of(self._invoices), self._to, item.invoice_id
        try:
            if number is None:
                # A submission that was SUCCESS at once need not have named its invoice (README B.1).
                found = await self._invoices.status(item.request_id) if item.request_id is not None else None
                if found is None or found.data is None:
                    raise RunFileError(f"the service named no invoice for {item.key!r}, so it cannot be exported")
                number = found.data.id
            saved = await work.export(
                number,
                to.folder,
                format=to.format,
                name=export_name(evolve(item, invoice_id=number), to, created=self._ledger.created),
                since=begun_at(item, self._ledger.created),
                poller=self._poller,
                on_existing=OnExisting.KEEP,
                durable=False,
                shared=True,
                sleep=self._stop.sleep(sleep),
            )
        except StoppedError:
            return await current_item(self._ledger, item.seq)  # its turn comes again
        except InvoicingError as error:
            if work.ends_batch(error):
                raise
            change = Change(ref=item.seq, event=Event.EXPORT_FAILED, attempt=item.attempt, error=words_of(error))
        else:
            change = Change(
                ref=item.seq,
                event=Event.EXPORTED,
                attempt=item.attempt,
                invoice_id=number,
                path=saved.address if saved.store else str(saved.path.absolute()),
                size=saved.size,
                sha256=saved.sha256,
            )
        return await self._superseded.recorded(self._ledger, change)

    async def _without_file(self, also: AsyncIterable[Item] | None) -> AsyncGenerator[Item]:
        """Yield the finished items that have no file, each once: those of the run file, then those that finish."""
        yielded: set[int] = set()
        finished = page_items(partial(self._ledger.rows, (State.SUCCESS,)), self._stop)
        async with aclosing(filter_by_file(finished, has=False)) as items:
            async for item in items:
                yielded.add(item.seq)
                yield item
        if also is None:
            return
        async with aclosing(self._stop.until_stopped(each_of(also))) as later:
            async for item in later:
                if item.state == State.SUCCESS and item.seq not in yielded:
                    # As recorded: what a submission yields does not say when it was sent, which names may hold.
                    finished_item = await current_item(self._ledger, item.seq)
                    if finished_item.path is None:
                        yield finished_item


def begun_at(item: Item, created: float) -> float:
    return item.sent_at or created


def export_name(item: Item, to: ExportTo, *, created: float) -> PurePosixPath:
    if item.invoice_id is None:
        raise ValueError(f"no invoice is known of {item.key!r}")
    ids = {"key": item.key, "request_id": item.request_id or item.invoice_id, "invoice_id": item.invoice_id}
    return named(ids, sent_at=begun_at(item, created), to=to)
