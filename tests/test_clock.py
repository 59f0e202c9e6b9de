"""The real clock is the machine's; names made by chance do not repeat."""

from __future__ import annotations

import asyncio
import time

import pytest

from invoicing_async._clock import Clock, RealClock, token


def test_now_is_epoch_seconds() -> None:
    clock: Clock = RealClock()
    assert abs(clock.now() - time.time()) < 5


def test_monotonic_never_goes_back() -> None:
    clock = RealClock()
    readings = [clock.monotonic() for _ in range(1000)]
    assert readings == sorted(readings)


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
