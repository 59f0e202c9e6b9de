"""How many items a batch begins with, and when the same failure of the first few ends it: two pure state machines.

A batch begins with one piece of work and has one more with every answer, so that a round trip doubles them: 1, 2, 4,
up to its concurrency. Until something went well, the same cause met by the first few ends it.
"""

from __future__ import annotations

from collections.abc import Hashable
from enum import Enum

from attrs import define, field, frozen

__all__ = ["Cause", "Ramp", "Streak", "Verdict", "limit"]

SIDE_BY_SIDE = 10
"""How many times as many refusals of items themselves may stand side by side once something went well."""


class Verdict(Enum):
    """What an outcome that is no cause for stopping says of the service."""

    WELL = "well"
    """It does what it is asked: the batch grows, and what went wrong before is forgotten."""
    ANSWERED = "answered"
    """It spoke of this item alone: the batch grows, nothing is forgotten."""
    SILENT = "silent"
    """Nothing: it was not asked."""


@frozen
class Cause:
    """Why an item went wrong, without the item's own words: equal for all that went wrong for the same reason.

    `error` is the error of this one. `of_item` is true if the service judged the item, and not all of them alike.
    """

    key: Hashable
    error: Exception = field(eq=False)
    of_item: bool = field(default=False, eq=False)


@define
class Ramp:
    """How many may be under way: one at first, one more with each answer, `top` at most."""

    top: int
    places: int = 1

    def grow(self) -> bool:
        """Record an answer. Return true if there is a place more."""
        if self.places >= self.top:
            return False
        self.places += 1
        return True


def limit(first: int, width: int, *, well: bool, of_item: bool) -> int:
    """Return how many of one cause, with no success between, end a batch of `width` at once.

    The first ones: `first`. Once something went `well`, all that were under way may have met one moment's trouble,
    so that it takes `first` more than those; and refusals of the items themselves may just be neighbours in the
    input, so that it takes ten times `first`.
    """
    if not well:
        return first
    return first * SIDE_BY_SIDE if of_item else first + width


@define
class Streak:
    """Counts each cause since the last success. `first` is None if nothing is to end the batch."""

    first: int | None
    width: int
    well: bool = False
    _met: dict[Cause, int] = field(factory=dict)

    def succeed(self) -> None:
        """Record a success, which forgets the failures before it: they were not for all."""
        self.well = True
        if self._met:
            self._met.clear()

    def meet(self, cause: Cause) -> Cause | None:
        """Record a failure. If it ends the batch, return the first failure of the same cause, else None."""
        if self.first is None:
            return None
        self._met[cause] = count = self._met.get(cause, 0) + 1
        if count < limit(self.first, self.width, well=self.well, of_item=cause.of_item):
            return None
        return next(first for first in self._met if first == cause)

    def count(self, cause: Cause) -> int:
        """Return how many had this cause since the last success."""
        return self._met.get(cause, 0)
