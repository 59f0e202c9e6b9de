"""The planner: whoever comes first gives a job to what is open and has none, and takes away what the dead had."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from ..events import ChunksPlanned, ChunkTakenOver, Event
from ._lives import EngineLives
from ._outlook import Outlook
from ._queue import JobQueue

__all__ = ["Planner"]

SOON = 0.05
"""Seconds after which it looks again whether the run rests, at first."""


class Planner:
    """Plans every few seconds, and says when the run rests: when nobody has anything to do, nor will have by itself."""

    def __init__(
        self,
        sweep: Callable[[], Awaitable[object]],
        lives: EngineLives,
        *,
        every: float,
        exports: Callable[[], bool],
        is_idle: Callable[[], bool],
        tell: Callable[[Event], None],
    ) -> None:
        self._sweep = sweep
        self._lives = lives
        self._every = every
        self._exports = exports
        self._is_idle = is_idle
        self._tell = tell
        self._nudged = asyncio.Event()
        self._planned: set[int] = set()
        self.cut: set[int] = set()
        """Jobs of this process that the engine let go of, and may not have ended in the queue."""

    def nudge(self) -> None:
        """Let it look at once: there may be something to do, or nothing any more."""
        self._nudged.set()

    async def go_on(self, *, until_rest: bool) -> None:
        """Plan, whenever it is this worker's turn; with `until_rest` until the run rests, without it for good."""
        is_due, wait = True, SOON
        while True:
            waits_for_rest = until_rest and self._is_idle()
            if is_due or waits_for_rest:
                outlook = await self.plan()
                if waits_for_rest and outlook.rests and self._is_idle():
                    return
            wait = min(2 * wait, self._every) if waits_for_rest else self._every
            if await self._nudged_within(wait):
                wait = SOON
            is_due = await self._lives.asked(lambda queue: queue.turn(self._every))

    async def plan(self) -> Outlook:
        """Take away what the dead had, give a job to what is due one, and return what there was to do."""
        await self._sweep()
        return await self._lives.asked(self._plan)

    async def _nudged_within(self, seconds: float) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._nudged.wait()
        is_nudged = self._nudged.is_set()
        self._nudged.clear()
        return is_nudged

    async def _plan(self, queue: JobQueue) -> Outlook:
        if self.cut:
            cut = {*self.cut}
            await queue.forget(cut)
            self.cut -= cut
        for lo, hi in await queue.sweep():
            self._tell(ChunkTakenOver(lo=lo, hi=hi))
        await queue.tidy()
        outlook = await queue.plan(export=self._exports())
        if outlook.due:
            lows = {lo for lo, _ in outlook.due}
            self._tell(ChunksPlanned(chunks=len(lows), again=len(lows & self._planned)))
            self._planned |= lows
        return outlook
