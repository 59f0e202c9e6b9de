"""What people and programs say of items in doubt."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from functools import partial
from math import ceil

from attrs import evolve

from .._einvoices.rules import UUID, canonical_key
from ..errors import InvoicingError, ResolutionTooEarlyError
from ..models import InvoiceDraft
from .drafts import sent_draft
from .items import current_item, error_line, page_items
from .ledger import SqliteLedger
from .records import Item
from .states import Event, State
from .stop import StopToken
from .submission import MARGIN

__all__ = ["UNKNOWN_LATE", "Doubts", "Reconcile"]

UNKNOWN_LATE = 5.0 + 120.0 + MARGIN
"""Seconds for which it is in a run that does not say: the default of `Timeouts.intent` and `Timeouts.attempt`."""


Reconcile = Callable[[InvoiceDraft, Item], Awaitable[str | bool | None]]
"""Looks a draft in doubt up: its request id if the invoice exists, False if it does not, None if that is unknown."""


class Doubts:
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
        return await current_item(self._ledger, canonical_key(key))

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
            return evolve(item, error=error_line(error))
        return await self._reconciled(item, await look_up(draft, item))

    async def _reconciled(self, item: Item, answer: str | bool | None) -> Item:  # noqa: FBT001 - what a program answered
        if answer is None or answer is True:
            return item
        try:
            return await self.resolve(item.key, created=answer is not False, request_id=answer or None)
        except (ResolutionTooEarlyError, ValueError) as error:
            return evolve(item, error=error_line(error))
