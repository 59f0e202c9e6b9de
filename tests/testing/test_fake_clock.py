"""`FakeClock`: time stands still until a test turns it, or until nothing else is left to do."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

import pytest

from invoicing_async.clock import Clock
from invoicing_async.testing import START, FakeClock, _quiet

pytestmark = pytest.mark.asyncio


async def turns(count: int = 50) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def times(clock: FakeClock, *waits: float) -> list[float]:
    """When each of these sleeps, begun together, ended."""

    async def until(seconds: float) -> float:
        await clock.sleep(seconds)
        return clock.monotonic()

    return await asyncio.gather(*map(until, waits))


class TestByHand:
    async def test_time_stands_still_until_it_is_turned(self) -> None:
        clock: Clock = FakeClock(auto=False)
        first = clock.now(), clock.monotonic()
        await turns()
        assert (clock.now(), clock.monotonic()) == first == (START, 0.0)

    async def test_it_begins_when_it_is_told(self) -> None:
        clock = FakeClock(start=1e9)
        clock.advance(5)
        assert (clock.now(), clock.monotonic(), clock.elapsed) == (1e9 + 5, 5.0, 5.0)

    async def test_a_sleep_ends_when_it_is_due_and_not_before(self) -> None:
        clock = FakeClock(auto=False)
        sleeping = asyncio.create_task(clock.sleep(10))
        await turns()
        clock.advance(9.999)
        await turns()
        assert (sleeping.done(), clock.sleeping) == (False, 1)
        clock.advance(0.001)
        await turns(2)
        assert (sleeping.done(), clock.sleeping, clock.slept) == (True, 0, [10])

    async def test_it_never_goes_back(self) -> None:
        clock = FakeClock(auto=False)
        clock.advance(5)
        clock.advance(-3)
        assert clock.elapsed == 5

    async def test_what_falls_due_sees_its_own_time_and_comes_in_order(self) -> None:
        clock = FakeClock(auto=False)
        ended = asyncio.create_task(times(clock, 3, 1, 2))
        await turns()
        await clock.elapse(10)
        assert (await ended, clock.elapsed) == ([3, 1, 2], 10)

    async def test_elapse_runs_what_sleeps_again(self) -> None:
        """Where `advance` wakes each sleep once, since it awaits nothing."""
        clock, seen = FakeClock(auto=False), list[float]()

        async def each_second() -> None:
            while True:
                await clock.sleep(1)
                seen.append(clock.monotonic())

        ticking = asyncio.create_task(each_second())
        await clock.elapse(4.5)
        assert (seen, clock.elapsed) == ([1, 2, 3, 4], 4.5)
        ticking.cancel()
        await asyncio.wait([ticking])
        assert clock.sleeping == 0

    async def test_a_time_out_ends_its_block(self) -> None:
        clock = FakeClock(auto=False)

        async def limited() -> None:
            async with clock.timeout(30):
                await asyncio.get_running_loop().create_future()

        waiting = asyncio.create_task(limited())
        await turns()
        assert clock.sleeping == 1
        clock.advance(30)
        with pytest.raises(TimeoutError):
            await waiting

    @pytest.mark.parametrize("seconds", [0, -1])
    async def test_a_time_out_of_no_time_ends_at_once(self, seconds: float) -> None:
        """As `asyncio.timeout` does: who has nothing left of a deadline waits for nobody."""
        clock = FakeClock(auto=False)
        async with asyncio.timeout(5):
            with pytest.raises(TimeoutError):
                async with clock.timeout(seconds) as limit:
                    await asyncio.get_running_loop().create_future()
        assert (limit.expired(), clock.elapsed, clock.sleeping) == (True, 0, 0)

    async def test_a_time_out_whose_block_ended_is_forgotten(self) -> None:
        clock = FakeClock(auto=False)
        async with clock.timeout(30) as limit:
            pass
        assert (limit.expired(), clock.sleeping) == (False, 0)
        clock.advance(60)
        await turns()
        async with clock.timeout(None):
            clock.advance(1e9)
            await turns()

    async def test_chances_come_in_turn_and_the_last_stays(self) -> None:
        clock = FakeClock(chances=(0.1, 0.9))
        assert [clock.random() for _ in range(4)] == [0.1, 0.9, 0.9, 0.9]


class TestByItself:
    async def test_an_hour_of_sleep_takes_no_time(self) -> None:
        clock, begun = FakeClock(), time.monotonic()
        for _ in range(60):
            await clock.sleep(60)
        assert (clock.elapsed, time.monotonic() - begun < 3) == (3600, True)

    async def test_sleeps_side_by_side_take_as_long_as_the_longest(self) -> None:
        """Each ends at its own time, however many there are."""
        clock = FakeClock()
        assert await times(clock, 30, 10, 20) == [30, 10, 20]
        assert clock.elapsed == 30

    async def test_it_waits_for_what_goes_on_without_the_clock(self) -> None:
        """A shorter sleep that begins some turns later ends first all the same."""
        clock = FakeClock()

        async def later() -> float:
            await turns(20)
            return (await times(clock, 1))[0]

        long, short = await asyncio.gather(times(clock, 50), later())
        assert (long, short) == ([50], 1)

    async def test_a_time_out_does_not_move_it(self) -> None:
        clock = FakeClock()
        async with clock.timeout(1):
            await asyncio.sleep(0.02)
        assert clock.elapsed == 0

    async def test_a_sleep_beyond_a_time_out_runs_into_it(self) -> None:
        """At the time-out's own time, and not at that of the sleep."""
        clock = FakeClock()
        with pytest.raises(TimeoutError):
            async with clock.timeout(5):
                await clock.sleep(60)
        assert clock.elapsed == 5

    async def test_switched_off_it_stands_still_again(self) -> None:
        clock = FakeClock()
        await clock.sleep(1)
        clock.auto = False
        sleeping = asyncio.create_task(clock.sleep(1))
        await asyncio.sleep(0.02)
        assert (sleeping.done(), clock.elapsed) == (False, 1)
        clock.advance(1)
        await sleeping

    async def test_switched_on_again_it_turns_for_who_sleeps_already(self) -> None:
        clock = FakeClock(auto=False)
        sleeping = asyncio.create_task(clock.sleep(7))
        await turns(2)
        clock.auto = True
        async with asyncio.timeout(5):
            await sleeping
        assert (clock.auto, clock.elapsed) == (True, 7)

    async def test_it_leaves_no_task_behind(self) -> None:
        clock = FakeClock()
        sleeping = [asyncio.create_task(clock.sleep(5)) for _ in range(3)]
        await turns(3)
        for task in sleeping:
            task.cancel()
        await asyncio.wait(sleeping)
        await turns(3)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert (clock.elapsed, clock.sleeping) == (0, 0)


class TestSeveralLoops:
    @pytest.mark.parametrize("turn", [lambda clock: clock.advance(5), None], ids=["by hand", "by itself"])
    async def test_a_sleep_in_another_thread_ends_when_it_is_due(
        self, turn: Callable[[FakeClock], None] | None
    ) -> None:
        clock, woken = FakeClock(auto=turn is None), list[float]()

        async def other() -> None:
            woken.extend(await times(clock, 5))

        thread = threading.Thread(target=lambda: asyncio.run(other()))
        thread.start()
        async with asyncio.timeout(5):
            while turn and not clock.sleeping:  # noqa: ASYNC110 - a count of the clock's
                await asyncio.sleep(0.001)
            if turn:
                turn(clock)
            await asyncio.to_thread(thread.join)
        assert woken == [5]

    @pytest.mark.parametrize("slept", [0, 60], ids=["works", "sleeps"])
    async def test_a_service_at_work_in_another_thread_keeps_time_still(
        self, slept: float, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """For as long as it is patient; one that itself sleeps does not."""
        monkeypatch.setattr(_quiet, "PATIENCE", 60.0)
        clock, ready, ended = FakeClock(quiet=0), threading.Event(), threading.Event()

        async def serve() -> None:
            with clock.patient(lambda: (0, 0 if ended.is_set() else 1)):
                ready.set()
                if slept:
                    await clock.sleep(slept)
                    ended.set()
                await asyncio.to_thread(ended.wait)

        thread = threading.Thread(target=lambda: asyncio.run(serve()))
        thread.start()
        await asyncio.to_thread(ready.wait)
        sleeping = asyncio.create_task(clock.sleep(100))
        await asyncio.to_thread(ended.wait, None if slept else 0.05)
        assert (clock.elapsed > 0) == (slept > 0)
        ended.set()
        await sleeping
        await asyncio.to_thread(thread.join)
        assert clock.elapsed in {100, 100 + slept}

    async def test_a_service_that_hangs_keeps_time_still_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_quiet, "PATIENCE", 0.02)
        clock, begun = FakeClock(quiet=0), time.monotonic()
        with clock.patient(lambda: (3, 2)):
            for _ in range(200):
                await clock.sleep(1)
        assert (clock.elapsed, 0.02 <= time.monotonic() - begun < 2) == (200, True)

    async def test_a_loop_that_is_closed_is_no_trouble(self) -> None:
        clock = FakeClock(auto=False)

        async def given_up() -> None:
            sleeping = asyncio.create_task(clock.sleep(5))
            await turns(2)
            sleeping.cancel()

        await asyncio.to_thread(lambda: asyncio.run(given_up()))
        clock.advance(10)
        assert clock.elapsed == 10
