"""A counted number of places, in order, that no cancellation can lose."""

from __future__ import annotations

import asyncio

import pytest

from invoicing_async._core.semaphore import FifoSemaphore

pytestmark = pytest.mark.asyncio


async def taking(slots: FifoSemaphore) -> asyncio.Task[None]:
    task = asyncio.create_task(slots.acquire())
    await asyncio.sleep(0)
    return task


async def test_a_free_place_is_taken_without_waiting() -> None:
    slots = FifoSemaphore(2)
    assert (slots.try_acquire(), (await taking(slots)).done(), slots.try_acquire(), slots.free) == (
        True,
        True,
        False,
        0,
    )


async def test_a_place_goes_to_the_one_that_has_waited_longest_and_not_to_a_newcomer() -> None:
    slots = FifoSemaphore(1)
    slots.try_acquire()
    first, second = await taking(slots), await taking(slots)
    slots.release()
    assert not slots.try_acquire()
    await asyncio.sleep(0)
    assert (first.done(), second.done()) == (True, False)
    slots.release()
    await second
    slots.release()
    assert slots.free == 1


async def test_one_that_left_the_queue_is_passed_over() -> None:
    slots = FifoSemaphore(1)
    slots.try_acquire()
    first, second = await taking(slots), await taking(slots)
    first.cancel()
    await asyncio.sleep(0)
    slots.release()
    await second
    assert slots.free == 0


async def test_a_place_given_to_one_that_is_cancelled_at_that_moment_goes_on() -> None:
    slots = FifoSemaphore(1)
    slots.try_acquire()
    first, second = await taking(slots), await taking(slots)
    slots.release()
    first.cancel()
    await second
    assert first.cancelled()
    slots.release()
    assert slots.free == 1
