"""A run's ledger whose open items come chunk by chunk, as they are given out, and not all at once.

`InvoiceRun` and `DocumentRun` work over it as over any other: they ask for the next page, and wait for it. So one
command submits, polls and exports the chunks of its part in one stream each: it begins slowly once, counts the same
trouble once, and no chunk waits for the slowest item of the one before.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Callable, Iterable

from .._durable.part import LedgerPart
from .._durable.protocol import Ledger
from .._durable.records import Change, Item, SupersededError
from .._durable.states import State

__all__ = ["LedgerFeed", "Pages"]


IDLE = 0.3
"""Seconds without anything to read after which the input ends, if that is waited for."""


class Pages:
    """Items to be read page by page; a reader waits until there are some, or there will be no more.

    With `is_end_awaited` it ends by itself when nothing came for a moment and somebody waits for that.
    """

    def __init__(self, is_end_awaited: Callable[[], bool] = bool) -> None:
        self._is_end_awaited = is_end_awaited
        self._items: deque[Item] = deque()
        self._changed = asyncio.Event()
        self.is_closed = False

    def put(self, items: Iterable[Item]) -> None:
        """Let these be read next. What is put after the end is not read."""
        self._items.extend(items)
        self._changed.set()

    def close(self) -> None:
        """Let a reader of all that was put come to the end."""
        self.is_closed = True
        self._changed.set()

    async def read(self, limit: int) -> list[Item]:
        """Return the next items, none at the end."""
        while not self._items and not self.is_closed:
            self._changed.clear()
            try:
                async with asyncio.timeout(IDLE):
                    await self._changed.wait()
            except TimeoutError:
                if self._is_end_awaited():
                    self.close()
        return [self._items.popleft() for _ in range(min(limit, len(self._items)))]


class LedgerFeed(LedgerPart):
    """A ledger whose `pending`, and `rows` that are submitted or finished, are what is put into these pages.

    `is_end_awaited` tells whether something is under way of what is to be sent: an item that used up its attempts is
    tried once more when the input has ended. `on_superseded` is told of what came too late.
    """

    def __init__(
        self, ledger: Ledger, *, is_end_awaited: Callable[[], bool], on_superseded: Callable[[SupersededError], None]
    ) -> None:
        super().__init__(ledger, 1, sys.maxsize)
        self._record = ledger.transition_many
        self._on_superseded = on_superseded
        self.transition_many = self._recorded
        self.to_send = Pages(is_end_awaited)
        self.to_settle = Pages()
        self.to_export = Pages()
        self._pages: dict[tuple[str, ...], Pages] = {
            (State.SUBMITTED,): self.to_settle,
            (State.SUCCESS,): self.to_export,
        }

    async def _recorded(self, changes: Iterable[Change]) -> list[State]:
        try:
            return await self._record(changes)
        except SupersededError as error:
            self._on_superseded(error)
            raise

    async def pending(self, *, after: int = 0, limit: int = 1000, verify: bool = False) -> list[Item]:
        """Return the next items that are to be sent or downloaded, wherever they are in the run."""
        return await self.to_send.read(limit)

    async def rows(
        self, states: Iterable[str] | None = None, *, after: int = 0, limit: int = 1000, payload: bool = False
    ) -> list[Item]:
        """Return the next items that are to be awaited or exported, or the rows of the run in other states."""
        wanted = None if states is None else tuple(states)
        pages = None if wanted is None else self._pages.get(wanted)
        if pages is not None:
            return await pages.read(limit)
        return await super().rows(wanted, after=after, limit=limit, payload=payload)
