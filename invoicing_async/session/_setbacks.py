"""What failures for the service's sake mean for one call: which of them count, and how many retries its lane allows.

An outage is nobody's fault: while many calls fail with no answer between, no attempt counts against its item. Bad luck
is none either: an item of a batch that used up its attempts while others were answered is tried once more at the end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._core.batch import in_batch, is_batch_item, until_end
from ..errors import InvoicingError

if TYPE_CHECKING:
    from ._call import Call

__all__ = ["FAILING", "Setbacks"]

FAILING = 5
"""Calls that fail with no answer between, from which on it is the service's trouble and not theirs.

A token is one call for all, and in a batch its trouble is nobody's from its first failure on.
"""


class Setbacks:
    """The failed attempts of one call for the service's sake, from the first one on."""

    def __init__(self, call: Call[Any]) -> None:
        self._call = call
        self._answers = -1
        """The lane's answers at the failure before."""
        self._answers_at_first = call.gate.lane.answers
        self._enough = FAILING if call.request.authorised else 1
        self._is_second_round = False
        self._is_refused = False
        self.spared = 0
        """Attempts that do not count."""

    def add(self, *, is_refused: bool) -> None:
        """Note a failed attempt. It does not count if many calls fail and nobody had an answer since the one before."""
        self._is_refused = is_refused
        if not is_refused:
            return
        lane, before = self._call.gate.lane, self._answers
        self._answers = lane.answers
        if before != lane.answers:
            lane.failing += 1
        elif self._call.patience is not None and lane.is_known and lane.failing >= self._enough:
            self.spared += 1

    async def begins_again(self, counted: int) -> bool:
        """Wait for the end of the batch, where the item is tried once more, and tell if that is so.

        It is not outside a batch, nor a second time, nor if nobody had an answer since its first failure.
        """
        call = self._call
        nobody_was_answered = call.gate.lane.answers == self._answers_at_first
        if not self._is_refused or self._is_second_round or nobody_was_answered or not is_batch_item():
            return False
        self._is_second_round = True
        self.spared += counted
        await call.sleep(0.0)
        await until_end()
        call.deadline.restart()
        return True

    def check_budget(self, error: InvoicingError) -> None:
        """Raise the error if the lane allows no retry now, and the call is none of a batch, which waits for one."""
        budget, clock = self._call.gate.lane.budget, self._call.session.clock
        if self._is_refused and not in_batch() and not budget.take(clock.monotonic()):
            raise error

    async def wait_for_budget(self) -> None:
        """Wait until the lane allows a retry."""
        call = self._call
        budget, clock = call.gate.lane.budget, call.session.clock
        while self._is_refused and not budget.take(clock.monotonic()):
            await call.sleep(budget.wait(clock.monotonic()))
