"""Submitting drafts: the intent of each is recorded before its first byte is sent, its answer after it came."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress
from typing import Any, Protocol, runtime_checkable

from attrs import define, evolve, field

from .._core.batch import checked_places
from .._core.causes import of_submission
from .._core.error_words import words_of
from .._core.ramp import Cause, Verdict
from .._core.tasks import started
from .._values.ownership import arrives_within
from ..errors import DraftError, Fault, InvoicingError, SubmissionInDoubtError
from ..invoices import AsyncInvoices, Fate, fate
from ..invoices._client import work_of
from ..models import InvoiceRequest
from ..session import Sleep
from .answers import ACCEPTED, result_text
from .claims import Claims
from .drafts import DAMAGED_DRAFT, is_whole
from .fence import ACCEPTING, ANSWERS
from .items import current_item, page_items
from .protocol import Ledger
from .records import Change, Item, RunFileError, RunHaltedError, RunPausedError, SupersededError
from .states import SENDABLE, TABLE, Event, State
from .stop import StopToken
from .superseded import Superseded

__all__ = ["Submission"]

_log = logging.getLogger("invoicing_async")


_FATES = {
    Fate.NOT_SENT: Event.NOT_SENT,
    Fate.REFUSED_FOR_NOW: Event.REFUSED_FOR_NOW,
    Fate.REJECTED: Event.REJECTED,
    Fate.IN_DOUBT: Event.LOST,
}

_AFTER = {
    Event.INTENT: State.SENDING,
    Event.FOUND_INVALID: State.INVALID,
    **{event: TABLE[State.SENDING, event] for event in ANSWERS},
}
"""The state after an event of a submission with which nobody else has to do."""


class Submission:
    """The drafts that one caller of `submit` or `submit_one` sends, beside others at work on the same run.

    `failed` holds why a draft failed until it is judged.
    """

    def __init__(
        self,
        ledger: Ledger,
        stop: StopToken,
        claims: Claims[Item],
        invoices: AsyncInvoices,
        superseded: Superseded,
    ) -> None:
        self._ledger = ledger
        self._stop = stop
        self._claims = claims
        self._invoices = work_of(invoices)
        self._superseded = superseded
        self._refusal: RunFileError | None = None
        """Why the run takes no intents, once it has refused one."""
        self._number: int | None = None
        """This caller's number at the claims, None for one draft that was read just now."""
        timeouts = self._invoices.timeouts
        self._late = arrives_within(timeouts.intent, timeouts.attempt)
        self.under_way: dict[int, SubmittedItem] = {}
        self.failed: dict[int, InvoicingError] = {}

    async def of_all(self, concurrency: int | None) -> AsyncGenerator[Item]:
        """Send what is pending, item by item, and yield each as it is then recorded.

        A run that is paused or halted ends it as a stop does; that is raised at the end.
        """
        invoices = self._invoices
        places = checked_places(concurrency, invoices.concurrency + invoices.concurrency // 2)
        with self._claims.at_work() as self._number, self._stop.part() as self._stop:
            async with aclosing(page_items(await pending_pages(self._ledger), self._stop)) as items:
                outcomes = invoices.each(
                    items,
                    self.sent,
                    concurrency=places,
                    # What the end of the batch cancelled is as recorded, what was not begun as it was read.
                    on_not_started=lambda item, _: sending.item if (sending := self.under_way.get(item.seq)) else item,
                    cancel=False,
                    judge=self._judged,
                )
                async with aclosing(outcomes):
                    async for item in outcomes:
                        self.under_way.pop(item.seq, None)
                        yield item
        if self._refusal is not None:
            raise self._refusal

    async def sent(self, item: Item, sleep: Sleep) -> Item:
        """Send an item if nobody else does, and return it as it is then recorded."""
        claims = self._claims
        while (claim := claims.held.get(item.seq)) is not None:
            ending = await claim.ended()
            if isinstance(ending, Item):
                return ending
            if isinstance(ending, BaseException) and self._number is None:
                raise ending
            item = await current_item(self._ledger, item.seq)
            if ending is not None:
                return item
        with claims.hold(item.seq) as claim:
            if self._number is None or self._number in claims.accompanied:
                item = await current_item(self._ledger, item.seq)
            try:
                is_due = item.state in SENDABLE and not self._stop.asked
                claim.ending = await self._send(item, sleep) if is_due else item
            except (RunPausedError, RunHaltedError) as error:
                claim.ending = error
                if self._number is None:
                    raise
                self._refusal = self._refusal or error
                self._stop.ask()
                return self.under_way[item.seq].item
            except Exception as error:
                claim.ending = error
                raise
            return claim.ending

    async def _send(self, item: Item, sleep: Sleep) -> Item:
        invoices, payload = self._invoices, item.payload
        sending = self.under_way[item.seq] = SubmittedItem(
            self._ledger, item, self._stop, sleep, self._superseded, item.attempt
        )
        if not payload or not is_whole(item):
            await sending.found_invalid(DraftError((Fault("draft", DAMAGED_DRAFT),), key=item.key))
            return sending.item
        try:
            if self._ledger.late < self._late:
                await self._ledger.keep_late(self._late)
            request = await invoices.submit_dumped(
                payload, item.key, sleep=sending.back_off, before=sending.record_intent, leaves=sending.leaves
            )
        except DraftError as error:
            await sending.found_invalid(error)
        except SupersededError:
            del self.under_way[item.seq]  # it is another's, and says nothing of the service
        except InvoicingError as error:
            if isinstance(error, (RunPausedError, RunHaltedError)):
                raise
            await self._failed(sending, error)
        except BaseException as error:
            await sending.abandoned(error)
            raise
        else:
            await sending.accepted(request)
        return sending.item

    async def _failed(self, sending: SubmittedItem, error: InvoicingError) -> None:
        """Record a failure, and raise what ends the batch: a dead credential or session, a run that takes no intent."""
        self.failed[sending.item.seq] = error
        await sending.failed(error)
        if self._invoices.ends_batch(error):
            raise error
        if isinstance(error.__cause__, RunFileError):
            raise error.__cause__ from None

    def _judged(self, item: Item) -> Cause | Verdict:
        """Tell what an item's ending says of the service."""
        error = self.failed.pop(item.seq, None)
        if error is not None:
            return of_submission(error)
        return Verdict.WELL if item.seq in self.under_way and item.request_id is not None else Verdict.SILENT


@runtime_checkable
class SentFromEnd(Protocol):
    """A ledger of which what is to be sent can also be read from the end."""

    async def pending_from_end(self, *, after: int = 0, limit: int = 1000) -> list[Item]:
        """Return items that are still to be sent, the last first, before `after`; 0: from the end."""


async def pending_pages(ledger: Ledger) -> Callable[..., Awaitable[list[Item]]]:
    """Return what reads what is to be sent: from the end where somebody else is at work, since they began in front.

    Otherwise each item would be begun by both, and one of them refused, at the cost of its turn.
    """
    if isinstance(ledger, SentFromEnd) and len(await ledger.holders()) > 1:
        return ledger.pending_from_end
    return ledger.pending


@define(eq=False)
class SubmittedItem:
    """A draft being submitted: its intent is on disk before each first byte, and taken back while it backs off.

    `item` is as last recorded, but for its times. What was handed to the ledger is done in that order, even if its
    caller is cancelled. Each event bears the attempt that it is of: what comes when somebody else has moved on changes
    nothing, and the item is as they left it.
    """

    _ledger: Ledger
    _item: Item
    _stop: StopToken
    _sleep: Sleep
    _superseded: Superseded
    _attempt: int
    """The attempt that was begun last, here or before; as soon as its intent is handed over."""
    _changed: dict[str, Any] = field(factory=dict, init=False)
    _begun: float = field(default=0.0, init=False)
    """When its intent was handed over, by the ledger's time."""
    _intent: asyncio.Task[bool] | None = field(default=None, init=False)
    _intended: bool = field(default=False, init=False)
    _left: bool = field(default=False, init=False)

    @property
    def item(self) -> Item:
        return evolve(self._item, **self._changed) if self._changed else self._item

    async def record_intent(self) -> None:
        """Record the intent, unless it is recorded already (a 401 is mended inside one attempt)."""
        if self._intended:
            return
        if not self._ledger.is_shared:
            await self._record(Event.INTENT)
            return
        # Whether it is this one's or another's must be known before anything more is said of the attempt.
        self._intent = started(self._record(Event.INTENT))
        self._intent.add_done_callback(lambda it: it.cancelled() or it.exception())  # nobody asks who was cut off
        await asyncio.shield(self._intent)

    def leaves(self) -> None:
        """Note that the first byte is about to leave: from here on a cancelled attempt is a doubt."""
        self._left = True

    async def back_off(self, seconds: float) -> None:
        """Record that nothing is in flight, and wait: only what provably made no invoice is tried again."""
        if self._intended and not await self._record(Event.REFUSED_FOR_NOW):
            raise self._given_up("somebody else has moved on with it")
        await self._stop.sleep(self._sleep)(seconds)

    async def accepted(self, request: InvoiceRequest) -> None:
        """Record the service's answer; one that cannot be this item's leaves it in doubt, with what was said."""
        event = ACCEPTED.get(request.status, Event.ACCEPTED_NEW)
        learned = {"code": request.code, "error": request.reason} if event is Event.ACCEPTED_FAILED else {}
        try:
            await self._record(
                event,
                request_id=request.request_id,
                invoice_id=request.data.id if request.data else None,
                result=None if event is Event.ACCEPTED_NEW else result_text(request),
                **learned,
            )
        except ValueError as error:
            said = _said(status=None, code=None, request_ids=(request.request_id,), answer="")
            await self._record(Event.LOST, error=words_of(error), result=said)
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
            await self._record(_FATES[fate(error)], error=words_of(error), code=code, **learned)
        else:
            self._changed |= {"error": words_of(error), "code": code}

    async def found_invalid(self, error: DraftError) -> None:
        """Record that the draft breaks the limits; nothing of it was sent."""
        await self._record(Event.FOUND_INVALID, error=str(error))

    async def abandoned(self, error: BaseException) -> None:
        """Record what is known of an attempt that was cut off: in doubt if its first byte may have left."""
        if self._intent is not None:
            await asyncio.wait((self._intent,))
        if self._intended:
            with suppress(Exception):  # what cut it off is raised
                await self._record(Event.LOST if self._left else Event.NOT_SENT, error=words_of(error))

    async def _record(self, event: Event, **learned: Any) -> bool:
        """Record an event of the attempt, and tell whether it was not too late."""
        is_intent = self._intended = event is Event.INTENT
        self._left = False
        ledger, change = self._ledger, Change(ref=self._item.seq, event=event, attempt=self._attempt, **learned)
        if is_intent:
            self._attempt += 1
            self._begun = ledger.now()
        try:
            [state] = await ledger.transition_many((change,))
        except Exception as error:
            self._intended = False
            self._attempt = change.attempt or 0
            if not isinstance(error, SupersededError):
                raise
            self._item, self._changed = await self._superseded.current(ledger, change, error), {}
            if is_intent:
                raise self._given_up(error) from error
            return False
        # Nobody else can have moved on before a sweep. After one an acceptance may stand as another's does.
        if state is not _AFTER[event] or (event in ACCEPTING and ledger.now() > self._begun + ledger.late):
            self._item, self._changed = await self._superseded.current(ledger, change), {}
            return self._item.request_id == change.request_id
        changed = self._changed
        changed.update(error=None, code=None, state=state.value, attempt=self._attempt)
        changed.update((name, value) for name, value in learned.items() if value is not None)
        return True

    def _given_up(self, why: object) -> SupersededError:
        item = self._item
        return SupersededError(f"{item.key!r} was not sent: {why}", key=item.key, seq=item.seq)


def _answer(error: SubmissionInDoubtError) -> str:
    """Return what an answer said that left a submission in doubt, as JSON text."""
    head = error.answer.decode(errors="replace")
    return _said(status=error.status, code=error.code, request_ids=error.request_ids, answer=head)


def _said(**words: Any) -> str:
    return json.dumps(words, ensure_ascii=False, default=str, separators=(",", ":"))
