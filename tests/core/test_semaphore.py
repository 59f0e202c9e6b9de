"""A counted number of places, in order, that no cancellation can lose."""

from __future__ import annotations

import asyncio

import pytest

from invoicing_async._core.semaphore import FifoSemaphore

pytestmark = pytest.mark.asyncio


async def taking(places: FifoSemaphore) -> asyncio.Task[None]:
    task = asyncio.create_task(places.acquire())
    await asyncio.sleep(0)
    return task


async def test_a_free_place_is_taken_without_waiting() -> None:
    places = FifoSemaphore(2)
    assert (places.try_acquire(), (await taking(places)).done(), places.try_acquire(), places.free) == (
        True,
        True,
        False,
        0,
    )


async def test_a_place_goes_to_the_one_that_has_waited_longest_and_not_to_a_newcomer() -> None:
    places = FifoSemaphore(1)
    places.try_acquire()
    first, second = await taking(places), await taking(places)
    places.release()
    assert not places.try_acquire()
    await asyncio.sleep(0)
    assert (first.done(), second.done()) == (True, False)
    places.release()
    await second
    places.release()
    assert places.free == 1


async def test_one_that_left_the_queue_is_passed_over() -> None:
    places = FifoSemaphore(1)
    places.try_acquire()
    first, second = await taking(places), await taking(places)
    first.cancel()
    await asyncio.sleep(0)
    places.release()
    await second
    assert places.free == 0


async def test_a_place_given_to_one_that_is_cancelled_at_that_moment_goes_on() -> None:
    places = FifoSemaphore(1)
    places.try_acquire()
    first, second = await taking(places), await taking(places)
    places.release()
    first.cancel()
    await second
    assert first.cancelled()
    places.release()
    assert places.free == 1
