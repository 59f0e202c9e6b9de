"""Which items of an open run are under way, so that several submissions of it at once send each one once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from attrs import define

__all__ = ["Claim", "Claims"]

Ending = TypeVar("Ending")


@define(eq=False)
class Claim(Generic[Ending]):
    """One item under way: whoever comes later waits for what becomes of it."""

    _told: asyncio.Future[Ending | BaseException | None]
    ending: Ending | BaseException | None = None
    """What became of it: its ending, the error, or None if it was cut off. Told at the end of the claim."""

    async def ended(self) -> Ending | BaseException | None:
        """Wait until the claim ends and return its `ending`; a cancelled wait leaves the claim alone."""
        return await asyncio.shield(self._told)


class Claims(Generic[Ending]):
    """The items under way, and who is at work. What was read while another was at work may have changed since.

    `held` are the claims by item. `accompanied` are the numbers of those beside whom another was at work at any time
    since they began.
    """

    def __init__(self) -> None:
        self.held: dict[int, Claim[Ending]] = {}
        self.accompanied: set[int] = set()
        self._at_work: set[int] = set()
        self._number = 0

    @contextmanager
    def at_work(self) -> Iterator[int]:
        """Count the caller among those who submit; the block has its number."""
        self._number += 1
        mine = self._number
        self._at_work.add(mine)
        if len(self._at_work) > 1:
            self.accompanied |= self._at_work
        try:
            yield mine
        finally:
            self._at_work.discard(mine)
            self.accompanied.discard(mine)

    @contextmanager
    def hold(self, seq: int) -> Iterator[Claim[Ending]]:
        """Claim an item that nobody holds, until the end of the block."""
        assert seq not in self.held  # noqa: S101 - or it would be sent twice
        told: asyncio.Future[Ending | BaseException | None] = asyncio.get_running_loop().create_future()
        claim = self.held[seq] = Claim(told)
        try:
            yield claim
        finally:
            del self.held[seq]
            told.set_result(claim.ending)
