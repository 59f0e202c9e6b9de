"""One draft on its way: its intent recorded before its first byte, its answer after it came."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import Any

from attrs import evolve

from .._core.batch import checked_places
from .._core.causes import of_submission
from .._core.ramp import Cause, Verdict
from ..errors import DraftError, Fault, InvoicingError, SubmissionInDoubtError
from ..invoices import AsyncInvoices, Fate, fate
from ..models import InvoiceRequest
from ..session import Sleep
from .answers import ACCEPTED, result_text, status_of
from .claims import Claims
from .drafts import DAMAGED_DRAFT, is_whole
from .items import current_item, error_line, page_items
from .protocol import Ledger
from .records import Change, Item, RunFileError
from .states import SENDABLE, Event, State
from .stop import StopToken

__all__ = ["MARGIN", "Submission"]

_log = logging.getLogger("invoicing_async")


MARGIN = 1.0
"""Seconds beyond its bounds for which a submission is still taken to be on its way."""


_FATES = {
    Fate.NOT_SENT: Event.NOT_SENT,
    Fate.REFUSED_FOR_NOW: Event.REFUSED_FOR_NOW,
    Fate.REJECTED: Event.REJECTED,
    Fate.IN_DOUBT: Event.LOST,
}


class Submission:
    """The drafts that one caller of `submit` or `submit_one` sends, beside others at work on the same run.

    `failed` holds why a draft failed until it is judged.
    """

    def __init__(self, ledger: Ledger, stop: StopToken, claims: Claims[Item], invoices: AsyncInvoices) -> None:
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
        places = checked_places(concurrency, invoices.concurrency + invoices.concurrency // 2)
        with self._claims.at_work() as self._number:
            async with aclosing(page_items(self._ledger.pending, self._stop)) as items:
                outcomes = invoices.each(
                    items,
                    self.sent,
                    concurrency=places,
                    on_not_started=self._abandoned,
                    cancel=False,
                    judge=self._judged,
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
            item = await current_item(self._ledger, item.seq)
            if ending is not None:
                return item
        with claims.hold(item.seq) as claim:
            if self._number is None or claims.has_company(self._number):
                item = await current_item(self._ledger, item.seq)
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
        if not is_whole(item) or not payload:
            raise DraftError((Fault("draft", DAMAGED_DRAFT),), key=item.key)
        await self._ledger.keep_late(bounds.intent + bounds.attempt + MARGIN)
        return await self._invoices.submit_dumped(
            payload, item.key, sleep=sending.back_off, before=sending.intend, leaves=sending.leaves
        )

    def _abandoned(self, item: Item, error: BaseException) -> Item:
        """Return an item whose sending the batch's end cut off, or that was not begun."""
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

    def __init__(self, ledger: Ledger, item: Item, sleep: Sleep) -> None:
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
        event = ACCEPTED.get(status_of(request), Event.ACCEPTED_NEW)
        learned = {"code": request.code, "error": request.reason} if event is Event.ACCEPTED_FAILED else {}
        try:
            await self._end(
                event,
                request_id=request.request_id,
                invoice_id=request.data.id if request.data else None,
                result=result_text(request),
                **learned,
            )
        except ValueError as error:
            self._intended = True
            said = _said(status=None, code=None, request_ids=(request.request_id,), answer="")
            await self._end(Event.LOST, error=error_line(error), result=said)
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
            await self._end(_FATES[fate(error)], error=error_line(error), code=code, **learned)
        else:
            self._changed |= {"error": error_line(error), "code": code}

    async def found_invalid(self, error: DraftError) -> None:
        """Record that the draft breaks the limits; nothing of it was sent."""
        await self._record(Event.FOUND_INVALID, error=str(error))

    async def abandoned(self, error: BaseException) -> None:
        """Record what is known of an attempt that was cut off: in doubt if its first byte may have left."""
        with suppress(Exception):  # what cut it off is raised
            await self._end(Event.LOST if self._left else Event.NOT_SENT, error=error_line(error))

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


def _answer(error: SubmissionInDoubtError) -> str:
    """What an answer said that left a submission in doubt, as JSON text."""
    head = error.answer.decode(errors="replace")
    return _said(status=error.status, code=error.code, request_ids=error.request_ids, answer=head)


def _said(**words: Any) -> str:
    return json.dumps(words, ensure_ascii=False, default=str, separators=(",", ":"))
