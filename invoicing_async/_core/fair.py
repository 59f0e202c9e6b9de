"""Turns between several, each with a line of its own: pure, without a clock or a loop."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

__all__ = ["FairQueue"]

Owner = TypeVar("Owner", bound=Hashable)
Item = TypeVar("Item")


class FairQueue(Generic[Owner, Item]):
    """Lines that take turns: one item of each owner in order, whoever has how many. Within a line, first come first."""

    __slots__ = ("_turns", "lines")

    def __init__(self) -> None:
        self.lines: dict[Owner, deque[Item]] = {}
        """What each owner has in line; no owner without anything."""
        self._turns: deque[Owner] = deque()

    def push(self, owner: Owner, item: Item) -> None:
        """Put an item at the end of its owner's line; a line that begins has its turn after all others."""
        line = self.lines.get(owner)
        if line is None:
            line = self.lines[owner] = deque()
            self._turns.append(owner)
        line.append(item)

    def pop(self) -> Item:
        """Take the next item. Raises `IndexError` if there is none."""
        owner = self._turns.popleft()
        line = self.lines[owner]
        item = line.popleft()
        if line:
            self._turns.append(owner)
        else:
            del self.lines[owner]
        return item
