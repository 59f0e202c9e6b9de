"""An open answer holds a place only while more of it is waited for, and nothing once its reader is gone."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest
from fakes import FakeClock

from invoicing_async._core.hold import Hold
from invoicing_async._core.semaphore import FifoSemaphore
from invoicing_async.errors import TransportError

pytestmark = pytest.mark.asyncio


class Open:
    """A hold on one place, with a clock that is turned by hand."""

    def __init__(self, *, left: float = 60.0, seconds: float = 120.0) -> None:
        self.clock, self.places, self.closed = FakeClock(auto=False), FifoSemaphore(1), 0
        self.hold = Hold(self.places, self.clock, left, seconds, self._close)

    async def _close(self) -> None:
        self.closed += 1

    async def read(self, wait: Any = None) -> None:
        async with self.hold.reading():
            assert self.places.free == 0
            if wait is not None:
                await wait


def never() -> asyncio.Future[None]:
    return asyncio.get_running_loop().create_future()


async def steps(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def tasks() -> int:
    return len(asyncio.all_tasks())


async def test_the_place_is_held_while_more_is_waited_for() -> None:
    opened = Open()
    assert opened.places.free == 1
    await opened.read()
    assert opened.places.free == 1


async def test_who_waits_for_more_waits_in_line_for_the_place_in_no_ones_time() -> None:
    opened = Open(left=5)
    assert opened.places.try_acquire()
    reading = asyncio.create_task(opened.read())
    await steps()
    opened.clock.advance(1000)
    await steps()
    assert not reading.done()
    opened.places.release()
    await reading
    assert opened.places.free == 1


async def test_only_the_time_in_which_more_was_waited_for_counts() -> None:
    opened = Open(left=10)
    for _ in range(3):
        wait = never()
        reading = asyncio.create_task(opened.read(wait))
        await steps()
        opened.clock.advance(3)
        wait.set_result(None)
        await reading
        opened.clock.advance(1000)
    reading = asyncio.create_task(opened.read(never()))
    await steps()
    opened.clock.advance(2)
    with pytest.raises(TransportError, match=r"Timeouts\.attempt \(120 s\)"):
        await reading
    assert opened.places.free == 1


async def test_a_time_out_of_somebody_elses_passes_through() -> None:
    opened, wait = Open(), never()
    wait.set_exception(TimeoutError("mine"))
    with pytest.raises(TimeoutError, match="mine"):
        await opened.read(wait)
    assert opened.places.free == 1


async def test_who_is_cancelled_while_waiting_gives_the_place_back() -> None:
    opened = Open()
    for wait in (None, never()):
        if wait is None:
            assert opened.places.try_acquire()
        reading = asyncio.create_task(opened.read(wait))
        await steps()
        reading.cancel()
        await asyncio.wait([reading])
        if wait is None:
            opened.places.release()
        assert opened.places.free == 1


async def test_what_nobody_asks_for_any_more_is_given_up() -> None:
    opened = Open()
    opened.hold.watch()
    await steps()
    opened.clock.advance(119)
    await opened.read()
    opened.clock.advance(119)
    await steps()
    assert opened.closed == 0
    opened.clock.advance(1)
    await steps()
    assert opened.closed == 1
    with pytest.raises(TransportError, match="nobody asked for more of it for 120 s"):
        await opened.read()
    await opened.hold.release()
    assert tasks() == 1


async def test_what_is_waited_for_is_not_given_up() -> None:
    """However long the service takes, the attempt bounds it; and the time in line is nobody's."""
    opened = Open()
    opened.hold.watch()
    assert opened.places.try_acquire()
    reading = asyncio.create_task(opened.read())
    for _ in range(5):
        await steps()
        opened.clock.advance(100)
    await steps()
    opened.places.release()
    await reading
    assert opened.closed == 0
    await opened.hold.release()


async def test_releasing_leaves_no_task_and_twice_does_nothing_more() -> None:
    opened = Open()
    opened.hold.watch()
    await steps()
    for _ in range(2):
        await opened.hold.release()
        assert (opened.closed > 0, tasks()) == (True, 1)
    with pytest.raises(TransportError, match="left"):
        await opened.read()


async def test_leaving_while_it_is_being_given_up_waits_for_that() -> None:
    opened, wait = Open(), never()

    async def close() -> None:
        await wait
        opened.closed += 1

    opened.hold = Hold(opened.places, opened.clock, 60, 120, close)
    opened.hold.watch()
    await steps()
    opened.clock.advance(120)
    await steps()
    leaving = asyncio.create_task(opened.hold.release())
    await steps()
    assert not leaving.done()
    wait.set_result(None)
    await leaving
    assert (opened.closed, tasks()) == (2, 1)


async def test_the_connection_is_closed_though_leaving_is_cancelled() -> None:
    opened = Open()
    opened.hold.watch()
    leaving = asyncio.create_task(opened.hold.release())
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.wait([leaving])
    assert opened.closed == 1
    await steps()
    assert tasks() == 1


async def test_trouble_with_closing_what_nobody_asks_for_is_nobodys() -> None:
    """It is raised to whoever leaves only if it comes again."""
    opened = Open()
    troubles = [OSError("reset")]

    async def close() -> None:
        if troubles:
            raise troubles.pop()

    opened.hold = Hold(opened.places, opened.clock, 60, 120, close)
    opened.hold.watch()
    await steps()
    opened.clock.advance(120)
    await steps()
    await opened.hold.release()
    assert (troubles, tasks()) == ([], 1)
    gc.collect()
