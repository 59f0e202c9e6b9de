"""Which items of an open run are under way, so that several submissions of it at once send each one once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from attrs import define, field

__all__ = ["Claim", "Claims"]

Ending = TypeVar("Ending")


@define(eq=False)
class Claim(Generic[Ending]):
    """One item under way: whoever comes later waits for what becomes of it."""

    _told: asyncio.Future[Ending | BaseException | None] = field(
        factory=lambda: asyncio.get_running_loop().create_future()
    )

    def tell(self, ending: Ending | BaseException | None) -> None:
        """Say what became of it: its ending, the error, or None if it was cut off."""
        if not self._told.done():
            self._told.set_result(ending)

    async def ended(self) -> Ending | BaseException | None:
        """Wait for that, without disturbing it."""
        return await asyncio.shield(self._told)


class Claims(Generic[Ending]):
    """The items under way, and who is at work. What was read while another was at work may have changed since."""

    def __init__(self) -> None:
        self._held: dict[int, Claim[Ending]] = {}
        self._at_work: set[int] = set()
        self._beside: set[int] = set()
        self._number = 0

    @contextmanager
    def at_work(self) -> Iterator[int]:
        """Be one who submits, and give one's number."""
        self._number += 1
        mine = self._number
        self._at_work.add(mine)
        if len(self._at_work) > 1:
            self._beside |= self._at_work
        try:
            yield mine
        finally:
            self._at_work.discard(mine)
            self._beside.discard(mine)

    def has_company(self, number: int) -> bool:
        """Tell whether another was at work at any time since."""
        return number in self._beside

    def held(self, seq: int) -> Claim[Ending] | None:
        """Return the claim on an item that is under way."""
        return self._held.get(seq)

    @contextmanager
    def hold(self, seq: int) -> Iterator[Claim[Ending]]:
        """Claim an item that nobody holds, until the end of the block."""
        assert seq not in self._held  # noqa: S101 - or it would be sent twice
        claim = self._held[seq] = Claim[Ending]()
        try:
            yield claim
        finally:
            del self._held[seq]
            claim.tell(None)
