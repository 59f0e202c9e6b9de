"""A part of a run, as a ledger: what one worker does of it while others do the rest."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping

from .._values.validators import at_least_one
from .protocol import Ledger
from .records import Item
from .states import RunKind

__all__ = ["LedgerPart"]


class LedgerPart:
    """A `Ledger` of the items from `lo` to `hi` of another, both included, by their `seq`.

    Its `rows`, `items` and `pending` are those of the part, and no page that it asks for is longer than that; so a run
    of it submits, settles, exports, verifies, refreshes and reconciles the part alone. All else is of the whole run:
    what is counted, taken in and reported, and `get` of any item. To close it is to close the ledger.
    """

    def __init__(self, ledger: Ledger, lo: int, hi: int) -> None:
        at_least_one("lo", lo)
        if hi < lo:
            raise ValueError(f"hi must be {lo} or more, which is lo, got {hi}")
        self._ledger = ledger
        self._lo = lo
        self._hi = hi
        # Bound once: an item goes through several of these, and none has anything to add.
        self.holders = ledger.holders
        self.get = ledger.get
        self.counts = ledger.counts
        self.count_without_file = ledger.count_without_file
        self.duplicates = ledger.duplicates
        self.history = ledger.history
        self.journal = ledger.journal
        self.figures = ledger.figures
        self.timeline = ledger.timeline
        self.pauses = ledger.pauses
        self.oldest = ledger.oldest
        self.twice = ledger.twice
        self.close = ledger.close
        self.now = ledger.now
        self.lanes = ledger.lanes
        self.update_settings = ledger.update_settings
        self.keep_late = ledger.keep_late
        self.record_pause = ledger.record_pause
        self.add_ids = ledger.add_ids
        self.add_drafts = ledger.add_drafts
        self.record_document = ledger.record_document
        self.transition = ledger.transition
        self.transition_many = ledger.transition_many
        self.undo = ledger.undo

    @property
    def is_shared(self) -> bool:
        """Whether several processes may work on the run at once."""
        return self._ledger.is_shared

    @property
    def name(self) -> str:
        """What messages and commands name the run by."""
        return self._ledger.name

    @property
    def kind(self) -> RunKind:
        """Whether it is of documents or of e-invoices."""
        return self._ledger.kind

    @property
    def settings(self) -> Mapping[str, object]:
        """What the run was begun with and keeps."""
        return self._ledger.settings

    @property
    def created(self) -> float:
        """When the run was made, in epoch seconds."""
        return self._ledger.created

    @property
    def late(self) -> float:
        """How many seconds after its intent a submission may still arrive at the service; 0 before the first."""
        return self._ledger.late

    @property
    def recovered(self) -> int:
        """How many items of the whole run were left in doubt by the end of the process before."""
        return self._ledger.recovered

    async def rows(
        self, states: Iterable[str] | None = None, *, after: int = 0, limit: int = 1000, payload: bool = False
    ) -> list[Item]:
        """Return up to `limit` items of the part in the order of the input, those behind `seq` `after`."""
        begin, limit = self._page(after, limit)
        return self._kept(await self._ledger.rows(states, after=begin, limit=limit, payload=payload)) if limit else []

    async def items(self, states: Iterable[str] | None = None, *, payload: bool = False) -> AsyncGenerator[Item]:
        """Yield the items of the part in these states, read a page at a time; None for every state."""
        wanted, after = None if states is None else tuple(states), 0
        while page := await self.rows(wanted, after=after, payload=payload):
            for item in page:
                yield item
            after = page[-1].seq

    async def pending(self, *, after: int = 0, limit: int = 1000, verify: bool = False) -> list[Item]:
        """Return up to `limit` items of the part that are still to be done, behind `seq` `after`."""
        begin, limit = self._page(after, limit)
        return self._kept(await self._ledger.pending(after=begin, limit=limit, verify=verify)) if limit else []

    def _page(self, after: int, limit: int) -> tuple[int, int]:
        """Return behind which `seq` a page begins, and how many rows of it may be in the part: 0 if none may."""
        at_least_one("limit", limit)
        begin = max(after, self._lo - 1)
        return begin, max(0, min(limit, self._hi - begin))

    def _kept(self, page: list[Item]) -> list[Item]:
        return [item for item in page if item.seq <= self._hi]
