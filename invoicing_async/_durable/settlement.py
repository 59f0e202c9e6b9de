"""Waiting for submitted items: the service is asked what became of each, and that is recorded."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterable, Mapping
from contextlib import aclosing
from functools import partial
from typing import TypeAlias

from attrs import evolve, frozen

from .._core.error_words import words_of
from .._einvoices.poll_scheduler import Schedule
from ..errors import InvoicingError
from ..invoices import AsyncInvoices
from ..invoices._client import work_of
from ..models import RequestStatus, Unsettled
from ..session import Sleep
from .answers import End, result_text
from .items import current_item, page_items
from .protocol import Ledger
from .records import Change, Item
from .states import Event, State
from .stop import StopToken
from .streams import MERGED
from .superseded import Superseded

__all__ = ["Settlement"]

_log = logging.getLogger("invoicing_async")


_POLLED: Mapping[str, Event] = {RequestStatus.SUCCESS: Event.POLL_SUCCESS, RequestStatus.FAILED: Event.POLL_FAILED}


Waiting: TypeAlias = dict[str, list[tuple[int, int]]]
"""The items whose requests are awaited, by request: the number and the attempt of each."""


@frozen
class Settlement:
    """The items that were submitted: the service is asked what became of each, and that is recorded."""

    _ledger: Ledger
    _stop: StopToken
    _invoices: AsyncInvoices
    _superseded: Superseded

    async def of_submitted(self, poller: Schedule | None, also: AsyncIterable[Item] | None) -> AsyncGenerator[Item]:
        waiting: Waiting = {}

        async def record(end: End, _: Sleep) -> tuple[End, list[Item]]:
            return end, [await self._ended(*whose, end) for whose in waiting.pop(end.request_id, ())]

        async with aclosing(
            self._stop.until_stopped(self._invoices.wait_many(self._awaited(waiting, also), poller=poller))
        ) as ends:
            # Side by side, so that the ends of one moment share a commit.
            recorded = work_of(self._invoices).each(
                ends, record, concurrency=MERGED, on_not_started=lambda end, _: (end, []), cancel=False
            )
            async with aclosing(recorded):
                async for end, items in recorded:
                    for item in items:
                        yield item
                    if isinstance(end, Unsettled) and work_of(self._invoices).ends_batch(end.error):
                        raise end.error

    async def _awaited(self, waiting: Waiting, also: AsyncIterable[Item] | None) -> AsyncGenerator[str]:
        """Yield the request ids to wait for, noting whose they are: two items may have been resolved to one request."""
        recorded: set[int] = set()
        async with aclosing(page_items(partial(self._ledger.rows, (State.SUBMITTED,)), self._stop)) as items:
            async for item in items:
                recorded.add(item.seq)
                yield _noted(item, waiting)
        if also is not None:
            async for item in also:
                if item.seq not in recorded:
                    yield _noted(item, waiting)

    async def _ended(self, seq: int, attempt: int, end: End) -> Item:
        if isinstance(end, Unsettled):
            change = Change(ref=seq, event=Event.POLL_NEW, attempt=attempt, error=words_of(end.error))
        else:
            change = Change(
                ref=seq,
                event=_POLLED.get(end.status, Event.POLL_NEW),
                attempt=attempt,
                invoice_id=end.data.id if end.data else None,
                result=result_text(end),
                code=end.code,
                error=end.reason,
            )
        try:
            return await self._superseded.recorded(self._ledger, change)
        except ValueError as error:
            # Settled otherwise meanwhile, which concerns no other item.
            _log.warning("what became of item %d could not be recorded: %s", seq, error)
            return await current_item(self._ledger, seq)

    async def refreshed(self) -> AsyncGenerator[Item]:
        async with aclosing(page_items(partial(self._ledger.rows, (State.SUCCESS,)), self._stop)) as items:
            outcomes = work_of(self._invoices).each(
                items, self._refreshed, on_not_started=lambda item, error: evolve(item, error=words_of(error))
            )
            async with aclosing(outcomes):
                async for item in outcomes:
                    yield item

    async def _refreshed(self, item: Item, _: Sleep) -> Item:
        try:
            async with self._stop.interrupts():
                now = await self._invoices.status(item.request_id or "")
        except InvoicingError as error:
            if work_of(self._invoices).ends_batch(error):
                raise
            return evolve(item, error=words_of(error))
        if now.status != RequestStatus.SUCCESS:
            return evolve(item, error=f"the invoice was made, and the service now says {now.status}")
        change = Change(
            ref=item.seq,
            event=Event.REFRESHED,
            attempt=item.attempt,
            invoice_id=now.data.id if now.data else None,
            result=result_text(now),
            code=item.code,
            error=item.error,
        )
        return evolve(await self._superseded.recorded(self._ledger, change), error=None)


def _noted(item: Item, waiting: Waiting) -> str:
    request_id = item.request_id or ""
    waiting.setdefault(request_id, []).append((item.seq, item.attempt))
    return request_id
