"""The shifts of a worker, one after the other, and the chunks that it has in hand meanwhile."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import aclosing
from typing import Generic, Protocol, TypeVar

from .._core.tasks import started
from .._durable.records import RunPausedError
from ._outlet import Outlet
from ._outlook import Chunk
from ._shift import Shift, ShiftOverError

__all__ = ["ChunkNotes", "Parts", "Shifts"]

_log = logging.getLogger("invoicing_async")

T = TypeVar("T")


class Shifts(Generic[T]):
    """One shift after another while the run may be worked on; their results go to an outlet, as does what ends them.

    A shift takes on chunks until it lacks them, is paused or fails; the next one may begin while it finishes.
    """

    def __init__(self, begin: Callable[[], Shift[T]], outlet: Outlet[T]) -> None:
        self._begin = begin
        self._outlet = outlet
        self._last: Shift[T] | None = None
        self._running: dict[asyncio.Task[None], Shift[T]] = {}
        self._changed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.is_ending = False
        self.is_paused = False
        self.exports = False

    async def go_on(self) -> None:
        """Wait until no other shift is to begin, and those there are have ended; cancelled, cut them off."""
        try:
            while not self.is_ending:
                await asyncio.shield(self._changed)
            while self._running:
                await asyncio.wait([*self._running])
        finally:
            for task in self._running:
                task.cancel()
            if self._running:
                await asyncio.wait([*self._running])
            await self._outlet.close()

    async def current(self) -> Shift[T] | None:
        """Return a shift that takes on chunks; None if there is none any more."""
        while self.is_paused and not self.is_ending:
            await asyncio.shield(self._changed)
        if self.is_ending:
            return None
        if self._last is None or self._last.is_over:
            self._last = self._begin()
            self.exports = self._last.exports
            task = started(self._work(self._last))
            self._running[task] = self._last
            task.add_done_callback(self._running.pop)
        return self._last

    async def _work(self, shift: Shift[T]) -> None:
        try:
            async with aclosing(shift.results()) as results:
                async for result in results:
                    await self._outlet.put(result)
                    self.exports = self._last is not None and self._last.exports
        except RunPausedError:  # an intent met the pause before the heartbeat did
            self.pause(True)
        except Exception as error:  # noqa: BLE001 - whoever takes the results is told
            self.note(error)
            self.rest()

    def note(self, error: Exception) -> None:
        """Keep an error that is not everybody's; the first is raised to whoever takes the results, at their end."""
        self._outlet.error = self._outlet.error or error

    def pause(self, paused: bool) -> None:  # noqa: FBT001 - what it is from now on
        """Let what is in flight finish and begin nothing more until it may go on."""
        if paused and not self.is_paused:
            self._stop_all()
        if paused is not self.is_paused:
            self.is_paused = paused
            self._tell_change()

    def stop(self, error: Exception | None = None) -> None:
        """Let what is in flight finish; there is no other shift. `error` is raised to whoever takes the results."""
        if error is not None:
            self.note(error)
        self._stop_all()
        self.rest()

    def rest(self) -> None:
        """Finish what was taken on, and end."""
        self.is_ending = True
        for shift in [*self._running.values()]:
            shift.end()
        self._tell_change()

    def _stop_all(self) -> None:
        for shift in [*self._running.values()]:
            shift.stop()

    def _tell_change(self) -> None:
        """Wake whoever waits for a change."""
        changed, self._changed = self._changed, asyncio.get_running_loop().create_future()
        changed.set_result(None)


class ChunkNotes(Protocol):
    """What is noted of chunks where all workers see it."""

    async def left_open(self, chunk: Chunk, *, export: bool) -> dict[str, str]:
        """Return what a chunk still has to do: each open item by its key, with a mark of how it stands."""

    async def walked(self, chunk: Chunk, left: dict[str, str]) -> None:
        """Note that a chunk was worked through, and as what its open items were left."""


class Parts(Generic[T]):
    """The chunks in hand, each worked on once whatever jobs come for it, and longer than its job.

    There is room for another while less than `slots` of them have something to be sent: what is only awaited keeps
    nothing from being sent, however long the service takes.
    """

    def __init__(self, shifts: Shifts[T], notes: ChunkNotes, slots: int, *, ended: Callable[[], None]) -> None:
        self._shifts = shifts
        self._notes = notes
        self._slots = slots
        self._sending: set[Chunk] = set()
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._under_way: dict[Chunk, asyncio.Task[None]] = {}
        self._ended = ended

    def __len__(self) -> int:
        return len(self._under_way)

    async def work(self, chunk: Chunk) -> None:
        """Return when a chunk was worked through; whoever waits for that may leave."""
        task = self._under_way.get(chunk)
        if task is None:
            self._begin(chunk)
            task = self._under_way[chunk] = started(self._work(chunk))
            task.add_done_callback(lambda task: self._forget(chunk, task))
        await asyncio.shield(task)

    async def room(self) -> None:
        """Wait until there is room for another chunk."""
        await self._has_room.wait()

    def _begin(self, chunk: Chunk) -> None:
        self._sending.add(chunk)
        if len(self._sending) >= self._slots:
            self._has_room.clear()

    def _is_sent(self, chunk: Chunk) -> None:
        self._sending.discard(chunk)
        if len(self._sending) < self._slots:
            self._has_room.set()

    async def close(self) -> None:
        """Leave what is in hand, when no shift works on it any more: only that it was worked through is not noted."""
        tasks = [*self._under_way.values()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _forget(self, chunk: Chunk, task: asyncio.Task[None]) -> None:
        self._under_way.pop(chunk, None)
        self._is_sent(chunk)
        if not task.cancelled() and (error := task.exception()) is not None:  # its job may have left
            _log.error("it could not be noted that items %d to %d were worked on: %s", *chunk, error)
        self._ended()

    async def _work(self, chunk: Chunk) -> None:
        while (shift := await self._shifts.current()) is not None:
            try:
                await self.walk(shift, chunk)
            except ShiftOverError:
                continue
            except Exception as error:  # noqa: BLE001 - each chunk's is its own
                _log.error("items %d to %d could not be worked on: %s", *chunk, error)
                self._shifts.note(error)
                await self._notes.walked(chunk, await self._notes.left_open(chunk, export=shift.exports))
            return

    async def walk(self, shift: Shift[T], chunk: Chunk) -> None:
        """Work through a chunk until all that is open of it was tried, and note as what that was left.

        What came open meanwhile, as when a doubt was settled, is worked on too: nobody else would be told of it.
        """
        tried: set[str] = set()
        while True:
            found = await shift.work(chunk, tried, lambda: self._is_sent(chunk))
            tried |= found or set()
            left = await self._notes.left_open(chunk, export=shift.exports)
            if left.keys() <= tried:
                await self._notes.walked(chunk, left)
                return
            if found is None:  # another's, or seen too late: the planner comes back to it
                return
