"""Events that the fence refused, since somebody else had moved on: counted and told, and nothing ends by them."""

from __future__ import annotations

import logging

from attrs import define

from .fence import POLLS
from .items import current_item
from .protocol import Ledger
from .records import Change, Item, SupersededError
from .states import Event, State

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
            return await self.current(ledger, change, error)
        return await current_item(ledger, change.ref)

    async def current(self, ledger: Ledger, change: Change, error: SupersededError | None = None) -> Item:
        """Return the item as it stands after an event that came too late, or may have; if it did, count it and tell.

        An acceptance beside the one that the item has, or that is under way, is an error for people to see to.
        """
        item, request = await current_item(ledger, change.ref), change.request_id
        if error is None and item.request_id == request:
            return item
        self.count += 1
        if request is not None and item.other_request_id == request:
            text = "invoice %r was accepted as request %s beside %s: there may be two invoices"
            _log.error(text, item.key, request, f"request {item.request_id}" if item.request_id else "another attempt")
        elif change.event in POLLS and item.attempt == change.attempt and item.state in {State.SUCCESS, State.FAILED}:
            _log.debug("%s of invoice %r was recorded by another who awaited it", change.event, item.key)
        elif change.event is not Event.INTENT:  # of which the call fails that it was for, and that is logged
            _log.warning("%s of invoice %r came when somebody else had moved on: %s", change.event, item.key, error)
        return item
