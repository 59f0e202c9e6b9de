"""Admission by a rate that several processes share: its permits are leased, some at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from math import inf

from ..policies import Limits
from .admission import Admission
from .clock import Clock
from .leased_rate import LeasedRate
from .shared_lanes import SharedLanes
from .tasks import started

__all__ = ["SharedAdmission"]


class SharedAdmission(Admission):
    """Places of this process, and the turns of a rate that is the run's."""

    __slots__ = ("_asking", "_lanes", "_leased", "_per_second", "_waiting")

    def __init__(self, limits: Limits, clock: Clock, lanes: SharedLanes) -> None:
        super().__init__(limits, clock)
        assert limits.per_second is not None  # noqa: S101 - without a rate there is nothing to lease
        self._lanes = lanes
        self._per_second = limits.per_second
        self._leased = LeasedRate(limits.per_second, limits.burst)
        self._waiting = 0
        self._asking: asyncio.Task[None] | None = None

    async def _take_turn(self, owner: Hashable) -> None:
        self._waiting += 1
        try:
            await self._turn.acquire(owner)
            try:
                while wait := self._wait():
                    if wait < inf:
                        await self._clock.sleep(wait)
                    elif self._asking is not None:
                        await asyncio.shield(self._asking)
                self._leased.take()
            finally:
                self._turn.release()
        finally:
            self._waiting -= 1

    def _wait(self) -> float:
        """Return the seconds to the next permit, infinity if it has to be leased first; lease what will be needed."""
        now = self._clock.monotonic()
        wait = self._leased.wait(now)
        # Whoever waits alone and has a permit may be the last for a while.
        if (self._waiting > 1 or wait == inf) and self._leased.is_short(now) and self._asking is None:
            self._asking = started(self._lease())
            self._asking.add_done_callback(self._asked)
        return wait

    async def _lease(self) -> None:
        leased = self._leased
        leased.add(await self._lanes.lease(leased.wanted(self._waiting), self._per_second))

    def _asked(self, task: asyncio.Task[None]) -> None:
        self._asking = None
        if not task.cancelled():
            task.exception()  # whoever waits for it has it; nobody may

    def leave(self) -> None:
        """End being one of its sessions; the last one asks for nothing more."""
        super().leave()
        if not self._sessions and self._asking is not None:
            self._asking.cancel()
