"""The timer of the scheduler of polls, and its tasks that were cancelled and have not ended yet."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from .._core.tasks import started
from ..errors import SessionError

__all__ = ["Ending", "Timer"]


class Ending(set[asyncio.Task[None]]):
    """Tasks that were cancelled and have not ended yet."""

    def end(self, task: asyncio.Task[None]) -> None:
        """Cancel a task, which is one of these until it has ended."""
        task.cancel()
        self.add(task)
        task.add_done_callback(self.discard)


class Timer:
    """Calls `on_time` at the earliest of the moments it was set to, or `on_end` before that if `sleep` says it is over.

    It has a task while it is set, and no more than one.
    """

    def __init__(
        self,
        sleep: Callable[[float], Awaitable[None]],
        ending: Ending,
        *,
        on_time: Callable[[], None],
        on_end: Callable[[SessionError], None],
    ) -> None:
        self.task: asyncio.Task[None] | None = None
        self._due = 0.0
        self._sleep = sleep
        self._ending = ending
        self._on_time = on_time
        self._on_end = on_end

    def set(self, due: float, now: float) -> None:
        """Let it go off at `due`, unless it does so earlier: one that is early only looks again."""
        if self.task is not None:
            if self._due <= due:
                return
            self._ending.end(self.task)
        self._due = due
        self.task = started(self._wait(due - now))

    def stop(self) -> None:
        """End its task, if it has one."""
        if self.task is not None:
            self._ending.end(self.task)
            self.task = None

    async def _wait(self, seconds: float) -> None:
        try:
            await self._sleep(seconds)
        except SessionError as error:
            self._on_end(error)
        self.task = None
        self._on_time()
