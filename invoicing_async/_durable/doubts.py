"""What people and programs say of items in doubt."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import aclosing
from functools import partial
from math import ceil

from attrs import evolve

from .._core.error_words import words_of
from .._einvoices.rules import canonical_key, canonical_uuid
from .._values.ownership import arrives_within, seconds_to_arrive
from ..errors import InvoicingError, ResolutionTooEarlyError
from ..models import InvoiceDraft
from .drafts import sent_draft
from .items import current_item, page_items
from .protocol import Ledger, LedgerReader
from .records import Change, Item, SupersededError
from .states import Event, State
from .stop import StopToken

__all__ = [
    "UNKNOWN_LATE",
    "Doubts",
    "Reconcile",
    "lateness",
    "left_at",
    "raise_if_too_early",
    "seconds_in_doubt",
]

UNKNOWN_LATE = arrives_within(5.0, 120.0)
"""Seconds for which it is in a run that does not say: the default of `Timeouts.intent` and `Timeouts.attempt`."""


Reconcile = Callable[[InvoiceDraft, Item], Awaitable[str | bool | None]]
"""Looks a draft in doubt up: its request id if the invoice exists, False if it does not, None if that is unknown."""


def lateness(ledger: LedgerReader) -> float:
    """Return how many seconds after its intent a submission of this run may still arrive."""
    return ledger.late or UNKNOWN_LATE


def left_at(item: Item) -> float | None:
    """Return the moment by which what was sent of an item had left, None if nothing was.

    It left before its end was recorded, also where the clock was set back between the two.
    """
    return None if item.sent_at is None else min(item.sent_at, item.updated)


def seconds_in_doubt(item: Item, late: float, now: float) -> float:
    """Return the seconds until an item in doubt may be said to be not created; 0 if it may be, or is not in doubt.

    `late` is the run's `lateness`, `now` is in epoch seconds.
    """
    left = left_at(item)
    return 0.0 if left is None or item.state != State.IN_DOUBT else seconds_to_arrive(left, late, now)


def raise_if_too_early(items: Iterable[Item], late: float, now: float) -> None:
    """Raise `ResolutionTooEarlyError` if what was sent of one of these may still arrive; it names the last to."""
    waits = [(seconds_in_doubt(item, late, now), item.key) for item in items]
    remaining, key = max(waits, default=(0.0, ""))
    if remaining > 0:
        text = f"what was sent of {key!r} may still arrive within {ceil(remaining)} s: look it up again after that"
        raise ResolutionTooEarlyError(text, remaining=remaining)


class Doubts:
    """What people and programs say of items in doubt."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def resolve(
        self, key: str, *, created: bool, request_id: str | None = None, attempt: int | None = None
    ) -> Item:
        item = await self._ledger.get(canonical_key(key))
        if item is None:
            raise ValueError(f"this run has no item {key!r}")
        looked_up = item if attempt is None else evolve(item, attempt=attempt)
        return await self._settled(looked_up, created=created, request_id=request_id)

    async def _settled(self, item: Item, *, created: bool, request_id: str | None) -> Item:
        """Settle an item as it was looked up: what is said of one attempt settles no other."""
        known = canonical_uuid(request_id, "request_id") if created and request_id is not None else None
        if not created:
            raise_if_too_early([item], lateness(self._ledger), self._ledger.now())
        event = Event.RESOLVED_CREATED if created else Event.RESOLVED_NOT_CREATED
        change = Change(ref=item.seq, event=event, attempt=item.attempt, request_id=known)
        await self._ledger.transition_many((change,))
        return await current_item(self._ledger, item.seq)

    async def remaining(self, key: str) -> float:
        item = await self._ledger.get(canonical_key(key))
        return 0.0 if item is None else seconds_in_doubt(item, lateness(self._ledger), self._ledger.now())

    async def undo(self, key: str) -> Item:
        await self._ledger.undo(canonical_key(key))
        return await current_item(self._ledger, canonical_key(key))

    async def reconcile(self, look_up: Reconcile, stop: StopToken) -> AsyncGenerator[Item]:
        async with aclosing(page_items(partial(self._ledger.rows, (State.IN_DOUBT,), payload=True), stop)) as items:
            async for item in items:
                yield await self._looked_at(item, look_up)

    async def _looked_at(self, item: Item, look_up: Reconcile) -> Item:
        """Ask about one item; with a draft that is not what was sent, the answer would be about another invoice."""
        try:
            draft = sent_draft(item)
        except InvoicingError as error:
            return evolve(item, error=words_of(error))
        answer = await look_up(draft, item)
        if answer is None or answer is True:
            return item
        try:
            return await self._settled(item, created=answer is not False, request_id=answer or None)
        except SupersededError as error:
            return evolve(await current_item(self._ledger, item.seq), error=words_of(error))
        except (ResolutionTooEarlyError, ValueError) as error:
            return evolve(item, error=words_of(error))
