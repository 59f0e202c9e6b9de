"""Every item gets one outcome, in bounded memory, with back-pressure on both sides."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing, suppress
from random import Random
from typing import Any, TypeAlias

import pytest
from examples import examples
from fakes import FakeClock
from hypothesis import given
from hypothesis import strategies as st

from invoicing_async._core import batch_places
from invoicing_async._core import batch_source as batch_module
from invoicing_async._core.batch import BACKING_OFF, _Batch, _working, map_concurrently
from invoicing_async._core.batch_source import IDLE, READ_ON, Sleep

pytestmark = pytest.mark.asyncio

Given: TypeAlias = tuple[str, int]
Work: TypeAlias = Callable[[int, Sleep], Any]


class FatalError(Exception):
    """What ends a batch."""


def run(items: Any, work: Work, *, concurrency: int = 3, **named: Any) -> AsyncGenerator[Given]:
    named.setdefault("sleep", FakeClock().sleep)
    return map_concurrently(
        items, work, concurrency=concurrency, on_not_started=lambda item, error: ("left", item), **named
    )


async def instantly(item: int, sleep: Sleep) -> Given:
    return "done", item


async def in_a_step(item: int, sleep: Sleep) -> Given:
    await asyncio.sleep(0)
    return "done", item


class Gate:
    """Work that waits until the test lets it go on; counts what is inside."""

    def __init__(self) -> None:
        self.inside: dict[int, asyncio.Future[None]] = {}
        self.most = 0

    async def work(self, item: int, sleep: Sleep) -> Given:
        self.inside[item] = asyncio.get_running_loop().create_future()
        self.most = max(self.most, len(self.inside))
        try:
            await self.inside[item]
        finally:
            del self.inside[item]
        return "done", item

    def open(self, item: int) -> None:
        self.inside[item].set_result(None)


class Counted:
    """An endless input that counts what was read of it."""

    def __init__(self, end: int = 10**9) -> None:
        self.read = 0
        self.end = end

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        if self.read == self.end:
            raise StopIteration
        self.read += 1
        return self.read - 1


async def steps(number: int = 20) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


async def counting(end: int) -> AsyncIterator[int]:
    for number in range(end):
        await asyncio.sleep(0)
        yield number


async def gathered(outcomes: AsyncGenerator[Given]) -> tuple[list[Given], Exception | None]:
    """Give all outcomes and the error that ended them."""
    found = []
    try:
        async for outcome in outcomes:
            found.append(outcome)  # noqa: PERF401 - what came before an error is kept
    except (FatalError, LookupError) as error:
        return found, error
    return found, None


async def leftovers() -> set[asyncio.Task[Any]]:
    return asyncio.all_tasks() - {asyncio.current_task()}


@pytest.mark.parametrize("items", [range(50), list(range(50)), iter(range(50)), dict.fromkeys(range(50), "")])
async def test_any_iterable_is_taken_and_each_item_given_once(items: Any) -> None:
    assert sorted([item async for _, item in run(items, in_a_step)]) == list(range(50))


async def test_an_async_iterable_is_taken_and_preferred_to_the_plain_one() -> None:
    class Both:
        def __iter__(self) -> Iterator[int]:
            return iter((99,))

        def __aiter__(self) -> AsyncIterator[int]:
            return counting(50)

    assert sorted([item async for _, item in run(counting(50), instantly)]) == list(range(50))
    assert sorted([item async for _, item in run(Both(), instantly)]) == list(range(50))


@pytest.mark.parametrize("nothing", [(), iter(()), counting(0)])
async def test_no_items_give_no_outcomes(nothing: Any) -> None:
    assert [outcome async for outcome in run(nothing, instantly)] == []


async def test_what_cannot_be_iterated_is_an_error_and_not_an_empty_batch() -> None:
    with pytest.raises(TypeError, match="not iterable"):
        await anext(run(None, instantly))


async def test_outcomes_come_as_they_finish_not_as_they_were_read() -> None:
    gate = Gate()
    async with aclosing(run(range(3), gate.work)) as outcomes:
        first = asyncio.ensure_future(anext(outcomes))
        await steps()
        gate.open(2)
        assert await first == ("done", 2)
        gate.open(0)
        assert await anext(outcomes) == ("done", 0)


@given(
    items=st.lists(st.integers(0, 5), max_size=40),
    concurrency=st.integers(1, 5),
    waits=st.lists(st.integers(0, 3), min_size=1, max_size=8),
    rests=st.lists(st.integers(0, 2), min_size=1, max_size=8),
    is_async=st.booleans(),
)
@examples(150)
async def test_every_item_ends_in_exactly_one_outcome(
    items: list[int], concurrency: int, waits: list[int], rests: list[int], *, is_async: bool
) -> None:
    """Whatever the order in which they wait, back off and finish."""
    turn = iter(range(10**6))

    async def work(item: int, sleep: Sleep) -> Given:
        number = next(turn)
        for _ in range(rests[number % len(rests)]):
            await sleep(1.0 + number % 3)
        for _ in range(waits[number % len(waits)]):
            await asyncio.sleep(0)
        return "done", item

    async def source() -> AsyncIterator[int]:
        for item in items:
            yield item

    found = [item async for _, item in run(source() if is_async else items, work, concurrency=concurrency)]
    assert Counter(found) == Counter(items)
    assert await leftovers() == set()


async def test_of_those_in_excess_who_end_together_only_so_many_leave() -> None:
    """One comes back from backing off while another still does; two end in one step, and one of them must go on."""
    clock, gate = FakeClock(auto=False), Gate()

    async def work(item: int, sleep: Sleep) -> Given:
        if item < 2:
            await sleep(1.0 + 99.0 * item)
        return await gate.work(item, sleep)

    async with aclosing(run(Counted(), work, concurrency=2, sleep=clock.sleep)) as outcomes:
        first = asyncio.ensure_future(anext(outcomes))
        await steps()
        assert sorted(gate.inside) == [2, 3]
        clock.advance(1.0)
        await steps()
        gate.open(2)
        gate.open(3)
        assert [(await first)[1], (await anext(outcomes))[1]] == [2, 3]
        await steps()
        assert sorted(gate.inside) == [0, 4]


class TestBackPressure:
    async def test_nothing_is_read_beyond_the_concurrency(self) -> None:
        items, gate = Counted(), Gate()
        async with aclosing(run(items, gate.work, concurrency=4)) as outcomes:
            first = asyncio.ensure_future(anext(outcomes))
            await steps(50)
            assert items.read == 4
            gate.open(1)
            await first
            await steps(50)
            assert items.read == 5

    async def test_a_slow_consumer_stops_the_reading(self) -> None:
        items = Counted()
        async with aclosing(run(items, instantly, concurrency=4)) as outcomes:
            for taken in range(1, 30):
                await anext(outcomes)
                await steps(30)
                assert items.read <= taken + 4

    async def test_no_more_than_the_concurrency_works_at_once(self) -> None:
        gate = Gate()
        found, _ = await gathered(run(range(40), self.opening(gate), concurrency=5))
        assert gate.most == 5
        assert len(found) == 40

    def opening(self, gate: Gate) -> Work:
        async def work(item: int, sleep: Sleep) -> Given:
            asyncio.get_running_loop().call_later(0.0005, lambda: gate.open(item))
            return await gate.work(item, sleep)

        return work

    async def test_who_backs_off_lends_out_its_place(self) -> None:
        """With one place, nine items go through while the first one waits."""
        clock = FakeClock(auto=False)

        async def work(item: int, sleep: Sleep) -> Given:
            if item == 0:
                await sleep(30.0)
            return "done", item

        async with aclosing(run(range(10), work, concurrency=1, sleep=clock.sleep)) as outcomes:
            assert [(await anext(outcomes))[1] for _ in range(9)] == list(range(1, 10))
            assert clock.slept == [30.0]
            clock.advance(30.0)
            assert await anext(outcomes) == ("done", 0)
            assert [outcome async for outcome in outcomes] == []

    async def test_only_so_many_may_back_off_without_a_place(self) -> None:
        """When a whole service is down, the reading stops too."""
        items, clock = Counted(), FakeClock(auto=False)

        async def work(item: int, sleep: Sleep) -> Given:
            await sleep(60.0)
            return "done", item

        async with aclosing(run(items, work, concurrency=2, sleep=clock.sleep)) as outcomes:
            first = asyncio.ensure_future(anext(outcomes))
            await steps(200)
            assert items.read == 2 * BACKING_OFF + 2
            clock.advance(60.0)
            await first

    async def test_who_comes_back_waits_for_a_place(self) -> None:
        clock, gate = FakeClock(auto=False), Gate()

        async def work(item: int, sleep: Sleep) -> Given:
            if item == 0:
                await sleep(1.0)
            return await gate.work(item, sleep)

        async with aclosing(run(range(3), work, concurrency=1, sleep=clock.sleep)) as outcomes:
            first = asyncio.ensure_future(anext(outcomes))
            await steps()
            clock.advance(1.0)
            await steps()
            assert list(gate.inside) == [1]
            gate.open(1)
            assert await first == ("done", 1)
            assert gate.most == 1


class TestTheEnd:
    async def test_a_fatal_error_ends_the_batch_and_the_rest_is_given_as_left(self) -> None:
        cancelled = []

        async def work(item: int, sleep: Sleep) -> Given:
            if item == 5:
                raise FatalError
            if item > 3:
                try:
                    await asyncio.get_running_loop().create_future()
                except asyncio.CancelledError:
                    cancelled.append(item)
                    raise
            return "done", item

        found, error = await gathered(run(range(12), work))
        assert isinstance(error, FatalError)
        assert sorted(item for _, item in found) == list(range(12))
        assert {item for kind, item in found if kind == "done"} == {0, 1, 2, 3}
        assert 4 in cancelled
        assert await leftovers() == set()

    async def test_an_async_inputs_rest_is_given_as_left_too(self) -> None:
        """The one who waits for the input is not cancelled: that would end the generator and lose its rest."""

        async def work(item: int, sleep: Sleep) -> Given:
            if item == 2:
                raise FatalError
            return await in_a_step(item, sleep)

        found, error = await gathered(run(counting(30), work))
        assert isinstance(error, FatalError)
        assert sorted(item for _, item in found) == list(range(30))
        assert [item for kind, item in found if kind == "left"][-1] == 29

    async def test_without_cancel_what_is_in_flight_finishes_but_no_backoff_does(self) -> None:
        clock, gate = FakeClock(auto=False), Gate()

        async def work(item: int, sleep: Sleep) -> Given:
            if item == 0:
                await sleep(99.0)
            if item == 2:
                await asyncio.sleep(0)
                raise FatalError
            return await gate.work(item, sleep)

        outcomes = run(range(9), work, concurrency=2, sleep=clock.sleep, cancel=False)
        begun = [await anext(outcomes), await anext(outcomes)]
        gate.open(1)
        more, error = await gathered(outcomes)
        found = begun + more
        assert isinstance(error, FatalError)
        assert ("done", 1) in found
        assert ("left", 0) in found
        assert sorted(item for _, item in found) == list(range(9))

    async def test_two_fatal_errors_raise_the_first(self) -> None:
        async def work(item: int, sleep: Sleep) -> Given:
            raise FatalError(item)

        found, error = await gathered(run(range(6), work))
        assert isinstance(error, FatalError)
        assert "0" in str(error)
        assert sorted(found) == [("left", item) for item in range(6)]

    async def test_an_error_of_the_input_is_raised_after_what_is_in_flight(self) -> None:
        def broken() -> Iterator[int]:
            yield from range(5)
            raise LookupError("the cursor died")

        found, error = await gathered(run(broken(), in_a_step))
        assert isinstance(error, LookupError)
        assert "cursor died" in str(error)
        assert sorted(found) == [("done", item) for item in range(5)]

    async def test_an_error_of_an_async_input_is_too(self) -> None:
        async def broken() -> AsyncIterator[int]:
            yield 1
            await asyncio.sleep(0)
            raise LookupError("the cursor died")

        found, error = await gathered(run(broken(), in_a_step))
        assert isinstance(error, LookupError)
        assert "cursor died" in str(error)
        assert found == [("done", 1)]

    async def test_a_fatal_error_while_the_input_is_broken_raises_the_fatal_one(self) -> None:
        def broken() -> Iterator[int]:
            yield 0
            raise LookupError

        async def work(item: int, sleep: Sleep) -> Given:
            await asyncio.sleep(0)
            raise FatalError

        outcomes = run(broken(), work)
        assert await anext(outcomes) == ("left", 0)
        with pytest.raises(FatalError):
            await anext(outcomes)


@pytest.mark.usefixtures("collected")
class TestLeavingEarly:
    async def test_closing_cancels_what_is_in_flight_and_leaves_no_task(self) -> None:
        gate = Gate()
        outcomes = run(Counted(), gate.work, concurrency=6)
        first = asyncio.ensure_future(anext(outcomes))
        await steps()
        gate.open(0)
        await first
        await steps()
        assert len(gate.inside) == 6
        await outcomes.aclose()
        assert gate.inside == {}
        assert await leftovers() == set()

    async def test_a_break_ends_every_task_soon(self) -> None:
        async for _ in run(Counted(), in_a_step):
            break
        gc.collect()
        await steps()
        assert await leftovers() == set()

    @pytest.mark.parametrize("is_async", [True, False])
    async def test_cancelling_at_any_step_leaves_no_task(self, *, is_async: bool) -> None:
        async def consumed() -> None:
            clock = FakeClock()

            async def work(item: int, sleep: Sleep) -> Given:
                if item % 3 == 0:
                    await sleep(1.0)
                return await in_a_step(item, sleep)

            items = counting(12) if is_async else range(12)
            async with aclosing(run(items, work, sleep=clock.sleep)) as outcomes:
                async for _ in outcomes:
                    await asyncio.sleep(0)

        for step in range(10_000):
            task = asyncio.create_task(consumed())
            await steps(step)
            task.cancel()
            await asyncio.wait([task])
            await steps(3)
            assert await leftovers() == set()
            if not task.cancelled():
                break
        assert task.exception() is None

    async def test_a_consumer_who_waits_for_news_can_be_cancelled(self) -> None:
        gate = Gate()
        task = asyncio.create_task(anext(run(Counted(), gate.work)))
        await steps()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert gate.inside == {}


class TestAnInputThatIsCancelled:
    @pytest.mark.parametrize("is_async", [False, True])
    async def test_is_an_error_that_a_task_group_tells(self, *, is_async: bool) -> None:
        """Raised as a cancellation it would end the task without a word, and the rest of the input with it."""

        def plain() -> Iterator[int]:
            yield 1
            raise asyncio.CancelledError

        async def asynchronous() -> AsyncIterator[int]:
            yield 1
            raise asyncio.CancelledError

        given: list[Given] = []

        async def read() -> None:
            async for outcome in run(asynchronous() if is_async else plain(), instantly):
                given.append(outcome)  # noqa: PERF401 - what came before the error counts

        with pytest.raises(ExceptionGroup) as caught:
            async with asyncio.TaskGroup() as group:
                group.create_task(read())
        assert caught.group_contains(RuntimeError, match="cancelled before its end")
        assert len(given) == 1


class TestAnErrorBesideAnInputThatDoesNotEnd:
    """It is raised at once; of the input only what comes at once is still given, so that each item has an outcome."""

    @staticmethod
    async def fails_at_two(item: int, sleep: Sleep) -> Given:
        await asyncio.sleep(0)
        if item == 2:
            raise FatalError
        return "done", item

    async def given(self, items: Any, **named: Any) -> Counter[str]:
        found: Counter[str] = Counter()
        try:
            async with aclosing(run(items, self.fails_at_two, **named)) as outcomes:
                async for kind, _ in outcomes:
                    found[kind] += 1
        except FatalError:
            return found
        raise AssertionError("nothing was raised")

    @pytest.mark.parametrize("cancel", [True, False])
    async def test_an_idle_one(self, *, cancel: bool) -> None:
        queue: asyncio.Queue[int] = asyncio.Queue()
        closed = False

        async def feed() -> AsyncIterator[int]:
            nonlocal closed
            try:
                while True:
                    yield await queue.get()
            finally:
                closed = True

        for number in range(3):
            queue.put_nowait(number)
        begun = asyncio.get_running_loop().time()
        found = await asyncio.wait_for(self.given(feed(), cancel=cancel), 5)
        assert asyncio.get_running_loop().time() - begun < IDLE + 1.0
        assert found.total() == 3
        assert closed

    @pytest.mark.parametrize("cancel", [True, False])
    @pytest.mark.parametrize("is_async", [True, False])
    async def test_an_endless_one(self, *, is_async: bool, cancel: bool) -> None:
        async def feed() -> AsyncIterator[int]:
            for number in Counted():
                yield number

        source = feed() if is_async else Counted()
        found = await asyncio.wait_for(self.given(source, cancel=cancel), 5)
        assert 3 <= found.total() <= READ_ON + 10

    async def test_a_slow_one_has_no_more_than_its_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(batch_module, "READ_ON_FOR", 0.3)

        async def feed() -> AsyncIterator[int]:
            for number in Counted():
                yield number
                await asyncio.sleep(0 if number < 3 else 0.1)

        found = await asyncio.wait_for(self.given(feed()), 5)
        assert 3 <= found.total() <= 8

    @pytest.mark.parametrize("number", [3, 50, READ_ON])
    @pytest.mark.parametrize("source", [iter, list])
    async def test_one_that_ends_is_given_to_its_end(self, number: int, source: Callable[[Any], Any]) -> None:
        assert (await self.given(source(range(number)))).total() == number

    async def test_one_with_a_length_is_given_to_its_end_however_long(self) -> None:
        assert (await self.given(range(READ_ON * 2))).total() == READ_ON * 2


@pytest.mark.parametrize("concurrency", [1, 2, 5])
async def test_an_item_that_backs_off_comes_back_though_the_input_waits_for_it(concurrency: int) -> None:
    """Whoever waits for the next item holds places, and that item comes only when this one is done."""
    done = asyncio.Event()

    async def items() -> AsyncIterator[int]:
        yield 1
        yield 2
        await done.wait()
        yield 3

    async def work(item: int, sleep: Sleep) -> Given:
        await sleep(0.01 * item)
        if item == 2:
            done.set()
        return await instantly(item, sleep)

    async with asyncio.timeout(5):
        outcomes, error = await gathered(run(items(), work, concurrency=concurrency))
    assert (sorted(item for _, item in outcomes), error) == ([1, 2, 3], None)


@given(seed=st.integers(0, 2**32), concurrency=st.integers(1, 4), number=st.integers(0, 25))
@examples(100)
async def test_every_place_is_given_back_once(seed: int, concurrency: int, number: int) -> None:
    """Whoever backs off, is cut off meanwhile or comes back into a place that is lent; the input waits for items."""
    chance = Random(seed)
    batches, done = set[_Batch[int, Given]](), [asyncio.Event() for _ in range(number)]
    inside, most = 0, 0

    async def items() -> AsyncIterator[int]:
        for item in range(number):
            if item >= concurrency and chance.random() < 0.3:
                await done[chance.randrange(item - concurrency + 1)].wait()
            yield item

    async def work(item: int, sleep: Sleep) -> Given:
        nonlocal inside, most
        batches.update(filter(None, [_working.get()]))
        for _ in range(chance.randrange(3)):
            with suppress(TimeoutError):
                async with asyncio.timeout(chance.choice([None, 0.0, 0.0003])):
                    await sleep(chance.choice([0.0, 0.0005]))
            if chance.random() < 0.5:
                inside += 1
                most = max(most, inside)
                await asyncio.sleep(0)
                inside -= 1
        done[item].set()
        return "done", item

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch_places, "LENT_AFTER", 0.001)
        async with asyncio.timeout(10):
            found = [item async for _, item in run(items(), work, concurrency=concurrency, sleep=asyncio.sleep)]
    assert sorted(found) == [*range(number)]
    for batch in batches:
        assert (batch.places.free, batch.places.lent) == (concurrency, 0)
    assert await leftovers() == set()


async def test_what_comes_when_the_batch_has_ended_is_not_begun_though_its_place_was_lent() -> None:
    """One that waits for the place it lent begins nothing after an error, also where what is in flight finishes."""
    begun, gate, back = list[int](), asyncio.Event(), asyncio.Event()

    async def items() -> AsyncIterator[int]:
        yield 1
        yield 2
        await back.wait()
        yield 3

    async def work(item: int, sleep: Sleep) -> Given:
        begun.append(item)
        if item == 2:
            await sleep(0.01)
            back.set()
            await gate.wait()
            raise FatalError
        return await instantly(item, sleep)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch_places, "LENT_AFTER", 0.001)
        asyncio.get_running_loop().call_later(0.05, gate.set)
        async with asyncio.timeout(5):
            outcomes, error = await gathered(run(items(), work, concurrency=1, cancel=False, sleep=asyncio.sleep))
    assert isinstance(error, FatalError)
    assert begun == [1, 2]
    assert sorted(outcomes) == [("done", 1), ("left", 2), ("left", 3)]
