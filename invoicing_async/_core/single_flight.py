"""One piece of work under way however many wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from copy import copy
from typing import Any

from attrs import define, field

from ..errors import InvoicingError
from .tasks import started

__all__ = ["SingleFlight"]


@define(eq=False)
class SingleFlight:
    """Work that is begun by the first who needs it and waited for by all; who comes later begins it anew."""

    _task: asyncio.Task[None] | None = field(default=None, init=False)
    _waiters: int = field(default=0, init=False)

    async def join(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Wait for the work under way, or begin it. It is cancelled only with the last who waits for it.

        Raises what it raised, an error of this library as a copy: a call writes its history into its own.
        """
        if self._task is None:
            self._task, self._waiters = started(work()), 0
        task = self._task
        self._waiters += 1
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            self._waiters -= 1
            if self._waiters == 0 and self._task is task:
                self._task = None
                task.cancel()
                await asyncio.wait([task])
                if not task.cancelled():
                    # It ended otherwise, before or because of this; nobody is left to raise its error to.
                    task.exception()
            raise
        if self._task is task:
            self._task = None
        error = None if task.cancelled() else task.exception()
        if isinstance(error, InvoicingError):
            raise copy(error) from error
        task.result()
