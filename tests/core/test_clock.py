"""The real clock is the machine's; names made by chance do not repeat."""

from __future__ import annotations

import asyncio
import time

import pytest

from invoicing_async._core.clock import Clock, RealClock, boottime_of, token


def test_now_is_epoch_seconds() -> None:
    clock: Clock = RealClock()
    assert abs(clock.now() - time.time()) < 5


def test_monotonic_never_goes_back() -> None:
    clock = RealClock()
    readings = [clock.monotonic() for _ in range(1000)]
    assert readings == sorted(readings)


def test_the_clock_that_goes_on_in_sleep_goes_on_as_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock of before, without it, has its monotonic one in its place."""
    clock = RealClock()
    begun = clock.boottime() - clock.monotonic()
    assert abs(clock.boottime() - clock.monotonic() - begun) < 5
    assert boottime_of(clock) is clock.boottime
    monkeypatch.delattr(RealClock, "boottime")
    assert boottime_of(clock) is clock.monotonic


def test_random_is_in_the_half_open_unit_interval() -> None:
    clock = RealClock()
    drawn = [clock.random() for _ in range(1000)]
    assert all(0 <= number < 1 for number in drawn)
    assert len(set(drawn)) > 990


@pytest.mark.asyncio
async def test_sleep_suspends() -> None:
    clock = RealClock()
    before = clock.monotonic()
    await clock.sleep(0.01)
    assert clock.monotonic() - before >= 0.009


@pytest.mark.asyncio
async def test_timeout_ends_a_block_and_none_does_not() -> None:
    clock = RealClock()
    with pytest.raises(TimeoutError):
        async with clock.timeout(0):
            await asyncio.sleep(10)
    bound = clock.timeout(None)
    async with bound:
        await asyncio.sleep(0)
    assert not bound.expired()


def test_a_token_is_hex_of_its_size_and_unlike_the_last() -> None:
    assert len(token()) == 16
    assert len(token(3)) == 6
    assert int(token(4), 16) >= 0
    assert len({token() for _ in range(1000)}) == 1000


@pytest.mark.asyncio
async def test_bounds_of_one_clock_end_each_at_its_own_time() -> None:
    """A shorter bound made later is not kept waiting by a longer one, nor the other way round."""
    clock = RealClock()
    ended: list[str] = []

    async def bounded(name: str, seconds: float) -> None:
        with pytest.raises(TimeoutError):
            async with clock.timeout(seconds):
                await asyncio.sleep(10)
        ended.append(name)

    await asyncio.gather(bounded("long", 0.06), bounded("short", 0.01), bounded("middle", 0.03))
    assert ended == ["short", "middle", "long"]


@pytest.mark.asyncio
async def test_an_inner_bound_ends_its_own_block_only() -> None:
    """The outer block goes on, and its own bound still holds."""
    clock = RealClock()
    async with clock.timeout(5) as outer:
        with pytest.raises(TimeoutError):
            async with clock.timeout(0.01):
                await asyncio.sleep(10)
        await asyncio.sleep(0)
    assert not outer.expired()


@pytest.mark.asyncio
async def test_a_cancellation_of_somebody_elses_goes_on_as_one() -> None:
    """Also when the bound expires in the same step."""
    clock = RealClock()

    async def waiting() -> None:
        async with clock.timeout(0.01):
            try:
                await asyncio.sleep(10)
            finally:
                asyncio.current_task().cancel()  # type: ignore[union-attr] # it runs in a task

    task = asyncio.create_task(waiting())
    await asyncio.wait([task])
    assert task.cancelled()


@pytest.mark.asyncio
async def test_an_error_of_the_block_is_not_taken_for_its_end() -> None:
    """What the block raises passes through."""
    with pytest.raises(KeyError):
        async with RealClock().timeout(1):
            raise KeyError


def test_a_clock_serves_one_loop_after_the_other() -> None:
    """The shared timer belongs to the loop that runs."""
    clock = RealClock()

    async def bounded() -> bool:
        with pytest.raises(TimeoutError):
            async with clock.timeout(0.001):
                await asyncio.sleep(10)
        return True

    assert asyncio.run(bounded())
    assert asyncio.run(bounded())
