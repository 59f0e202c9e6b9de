"""Events that the fence refused, since somebody else had moved on: counted and told, and nothing ends by them."""

from __future__ import annotations

import logging

from attrs import define

from .items import current_item
from .protocol import Ledger
from .records import Change, Item, SupersededError
from .states import Event

__all__ = ["Superseded"]

_log = logging.getLogger("invoicing_async")


@define(eq=False)
class Superseded:
    """How many events of a run's items came too late, since somebody else had moved on with the item."""

    count: int = 0

    async def recorded(self, ledger: Ledger, change: Change) -> Item:
        """Record an event, unless somebody else has moved on, and return the item as it then stands."""
        try:
            await ledger.transition_many((change,))
        except SupersededError as error:
            return await self.item(ledger, change, error)
        return await current_item(ledger, change.ref)

    async def item(self, ledger: Ledger, change: Change, error: SupersededError) -> Item:
        """Count an event that was refused, tell of it, and return the item as somebody else has left it."""
        item = await self.passed(ledger, change)
        # Of an intent the call fails that it was for, and that is logged.
        if change.event is not Event.INTENT and (change.request_id or "") != item.other_request_id:
            _log.warning("%s of invoice %r came when somebody else had moved on: %s", change.event, item.key, error)
        return item

    async def passed(self, ledger: Ledger, change: Change) -> Item:
        """Count an event after which the item does not stand as expected; return the item as it does.

        An acceptance beside the one that the item has, or that is under way, is an error for people to see to.
        """
        self.count += 1
        item = await current_item(ledger, change.ref)
        other = change.request_id
        if other is not None and item.other_request_id == other:
            first = f"request {item.request_id}" if item.request_id is not None else "another attempt"
            _log.error(
                "invoice %r is %s and was accepted once more as request %s: there may be two invoices",
                item.key,
                first,
                other,
            )
        return item
