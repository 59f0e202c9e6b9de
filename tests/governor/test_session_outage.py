"""A session, its batches and its single calls while the service is down: in virtual time, on real lanes."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
import vtime
from outages import LATENCY, Calls, Unsteady, governed
from session_calls import BASE, CALL, FINE, body
from vtime import VirtualClock

from invoicing_async._core.http import Repeat, Request
from invoicing_async.auth import HmacAuth, StaticToken
from invoicing_async.errors import (
    BatchStoppedError,
    DeadlineError,
    ServiceDownError,
    ServiceUnavailableError,
    TransportError,
)
from invoicing_async.events import Event, LimitChanged, Paused, Probing, Resumed
from invoicing_async.health import LaneState
from invoicing_async.policies import Limits, OutagePolicy, RetryPolicy
from invoicing_async.session import Session
from invoicing_async.session._session import internals_of

WIDE = Limits(concurrency=64)


def batch(service: Unsteady, many: int, **settings: Any) -> tuple[int, BaseException | None, list[Event]]:
    """Run a batch, and return how many items failed, what ended it, and what was told."""
    events: list[Event] = []

    async def work() -> tuple[int, BaseException | None, list[Event]]:
        async with governed(service, on_event=events.append, **{"limits": WIDE, **settings}) as session:
            outcomes, error = await Calls(session).run(many)
            assert len(outcomes) == many
            return sum(failed is not None for _, failed in outcomes), error, events

    return vtime.run(work())


def of(events: list[Event], *kinds: type) -> list[str]:
    return [type(event).__name__ for event in events if isinstance(event, kinds)]


@pytest.mark.parametrize("connects", [True, False])
def test_an_outage_in_a_batch_fails_no_item(connects: bool) -> None:  # noqa: FBT001
    """At most 64 requests and the probes go into it; it is told as a pause that goes on after each probe, and ends."""
    service = Unsteady(down=(5.0, 65.0), connects=connects)
    failed, error, events = batch(service, 10_000)
    assert (failed, error) == (0, None)
    assert service.in_outage <= 64 + 60 / 3.4 + 3
    told = of(events, Paused, Probing, Resumed)
    assert told == ["Paused", "Probing"] * (len(told) // 2) + ["Resumed"]
    lasted = [event.paused for event in events if isinstance(event, (Paused, Resumed))]
    assert lasted == sorted(lasted)
    assert (lasted[0], lasted[1] > 0) == (0.0, True)


def test_no_more_goes_into_an_outage_than_may_be_sent_at_once_and_the_probes() -> None:
    """Not also those that prepare for a place, a quarter as many: what was under way still succeeds."""

    class Refusing(Unsteady):
        async def answer(self, request: Request, exchange: Any) -> Any:
            if self.is_down():
                return await super().answer(request, exchange)
            await asyncio.sleep(LATENCY * (0.5 + random.random()))
            return FINE

    random.seed(1)
    service = Refusing(down=(1.0, 5.0), connects=False)
    failed, error, events = batch(service, 2_000, limits=Limits(concurrency=64, adaptive=False))
    assert (failed, error) == (0, None)
    assert service.in_outage <= 64 + len(of(events, Probing))


@pytest.mark.slow
def test_the_rate_is_soon_what_it_was() -> None:
    """Five seconds after the service is back, at the latest."""
    service = Unsteady(down=(5.0, 65.0))
    batch(service, 15_000)
    before = sum(4 <= at < 5 for at in service.at)
    assert sum(70 <= at < 71 for at in service.at) >= 0.95 * before


def test_beyond_its_patience_a_batch_ends_with_what_is_left_not_begun() -> None:
    """It can be resumed: nothing of what is left was sent."""
    service = Unsteady(down=(5.0, 1e9))
    failed, error, _ = batch(service, 8_000, outage=OutagePolicy(patience=60.0))
    assert isinstance(error, ServiceDownError)
    assert error.sent == "no"
    assert failed > 1_000
    assert max(service.at) <= 5 + 60 + 8


@pytest.mark.parametrize("retry_after", [None, "600"])
def test_a_session_that_is_told_to_stop_waiting_ends_its_batches_at_once(retry_after: str | None) -> None:
    """Also while the service asked for a pause: what is left was not sent, and nobody asks again."""
    service = Unsteady(down=(1.0, 1e9), retry_after=retry_after)

    async def work() -> None:
        async with governed(service, limits=WIDE) as session:
            running = asyncio.create_task(Calls(session).run(3_000))
            await asyncio.sleep(20.0)
            assert not running.done()
            session.stop_waiting()
            outcomes, error = await running
            assert asyncio.get_running_loop().time() <= 20.0 + LATENCY
            assert isinstance(error, ServiceDownError)
            assert len(outcomes) == 3_000
            with pytest.raises(ServiceDownError):
                await internals_of(session).call(CALL, body, patient=True)

    vtime.run(work())
    assert max(service.at) <= 20.0


def test_a_session_that_waits_for_nobody_calls_a_service_that_is_there() -> None:
    """Only a pause is not waited for; the turn among others is."""
    service = Unsteady()

    async def work() -> None:
        async with governed(service, limits=Limits(concurrency=2)) as session:
            session.stop_waiting()
            outcomes, error = await Calls(session).run(50)
            assert (error, {failed for _, failed in outcomes}) == (None, {None})

    vtime.run(work())


def test_a_lane_that_is_made_later_is_not_waited_for_either() -> None:
    service = Unsteady(down=(1.0, 1e9))

    async def work() -> None:
        async with governed(service, limits=WIDE) as session:
            session.stop_waiting()
            _, error = await Calls(session).run(3_000)
            assert isinstance(error, ServiceDownError)
            assert asyncio.get_running_loop().time() <= 5.0

    vtime.run(work())


def test_an_address_where_nobody_ever_answered_ends_a_batch_soon() -> None:
    """It may be a wrong one: that is no outage to be waited for."""
    service = Unsteady(down=(0.0, 1e9), connects=False)
    failed, error, _ = batch(service, 1_000)
    assert isinstance(error, BatchStoppedError)
    assert (failed, max(service.at) < 120) == (1_000, True)


def test_what_fails_by_itself_fails_and_stops_nobody() -> None:
    """A few items that always meet SYS_DEP_503 are tried to the last attempt, and once more at the end."""
    service = Unsteady(bad=frozenset({b"7", b"9"}))
    failed, error, events = batch(service, 500, retry=RetryPolicy(attempts=3))
    assert (failed, error, of(events, Paused)) == (2, None, [])
    assert (service.by_path["/7"], service.by_path["/9"], service.sent) == (6, 6, 498 + 12)


def test_an_item_that_had_bad_luck_is_saved_at_the_end() -> None:
    """It had used up its attempts while others succeeded."""

    class Unlucky(Unsteady):
        async def answer(self, request: Request, exchange: Any) -> Any:
            self.bad = frozenset({b"3"}) if self.by_path["/3"] <= 3 else frozenset()
            return await super().answer(request, exchange)

    service = Unlucky()
    failed, error, _ = batch(service, 300, retry=RetryPolicy(attempts=3))
    assert (failed, error, service.by_path["/3"]) == (0, None, 4)


@pytest.mark.parametrize("capacity", [2, 8, pytest.param(30, marks=pytest.mark.slow)])
def test_a_small_service_is_found_out(capacity: int) -> None:
    """Nothing fails, few calls are refused, and it is hardly slower than at the best concurrency."""
    service = Unsteady(capacity=capacity)
    failed, error, events = batch(service, 400 * capacity)
    assert (failed, error) == (0, None)
    assert service.sent <= 1.05 * 400 * capacity
    assert max(service.at) <= 1.10 * 400 * LATENCY + 1
    assert [event.concurrency for event in events if isinstance(event, LimitChanged)][-1] <= 2 * capacity + 1


def test_a_retry_after_is_the_lanes() -> None:
    """Nobody sends before it, whoever it was said to; then all goes on."""
    service = Unsteady(down=(1.0, 1.5), retry_after="600")
    failed, error, _ = batch(service, 2_000)
    assert (failed, error) == (0, None)
    later = [at for at in service.at if at > 1.5]
    assert min(later) >= 601.0
    assert service.in_outage <= 64


async def down(session: Session) -> None:
    """Let the lane of `CALL` pause: one success, then more failures than it takes."""
    await session.call(CALL, body)
    await asyncio.sleep(1.0)
    results = await asyncio.gather(
        *(session.call(CALL, body, retry=RetryPolicy(attempts=3)) for _ in range(20)), return_exceptions=True
    )
    assert {type(result) for result in results} <= {ServiceUnavailableError, ServiceDownError}
    assert session.health().lanes[0].state is LaneState.PAUSED


def test_a_single_call_fails_at_once_while_the_service_is_down() -> None:
    """Its error says since when, and when the next attempt is made; the call that comes then is that attempt."""
    service = Unsteady(down=(0.5, 30.0))

    async def work() -> None:
        async with governed(service) as session:
            await down(session)
            sent, now = service.sent, asyncio.get_running_loop().time()
            with pytest.raises(ServiceDownError, match=r"^the service is down since \d s; next try in \d s$") as caught:
                await session.call(CALL, body)
            assert (service.sent, asyncio.get_running_loop().time(), caught.value.sent) == (sent, now, "no")
            assert not session.health().ready
            await asyncio.sleep(caught.value.next_probe)
            with pytest.raises((ServiceUnavailableError, ServiceDownError)):
                await session.call(CALL, body)
            assert service.sent == sent + 1
            await asyncio.sleep(30.0)
            assert await session.call(CALL, body) == b"fine"
            assert session.health().ready

    vtime.run(work())


def test_who_is_out_of_rotation_becomes_ready_without_a_call() -> None:
    """When the next attempt is due: no call comes to a process that is not ready, and only a call finds out."""
    service = Unsteady(down=(0.5, 30.0))

    async def work() -> None:
        async with governed(service) as session:
            await down(session)
            assert not session.health().ready
            (lane,) = session.health().lanes
            assert lane.next_probe
            await asyncio.sleep(lane.next_probe)
            assert session.health().ready
            with pytest.raises((ServiceUnavailableError, ServiceDownError)):
                await session.call(CALL, body)
            assert not session.health().ready
            await asyncio.sleep(30.0)
            assert session.health().ready
            assert await session.call(CALL, body) == b"fine"

    vtime.run(work())


def test_a_single_call_that_is_told_to_waits() -> None:
    """To the end of the outage, or until its deadline would come first: by the policy of the session or of a view."""
    service = Unsteady(down=(0.5, 30.0))

    async def work() -> None:
        async with governed(service) as session:
            await down(session)
            hurried = session.with_options(outage=OutagePolicy(wait=True), retry=RetryPolicy(deadline=5.0))
            with pytest.raises((ServiceDownError, DeadlineError)):
                await hurried.call(CALL, body)
            patient = session.with_options(outage=OutagePolicy(wait=True), retry=RetryPolicy(attempts=50))
            assert await patient.call(CALL, body) == b"fine"
            assert 30.0 <= asyncio.get_running_loop().time() < 60.0

    vtime.run(work())


def test_a_submission_that_waits_is_sent_once() -> None:
    """What refused a connection, or answered SYS_DEP_503, has not taken it; then it is taken once."""
    service = Unsteady(down=(5.0, 25.0), connects=False)

    async def work() -> None:
        async with governed(service, limits=WIDE) as session:

            class Submissions(Calls):
                async def tried(self, item: bytes, sleep: Any) -> tuple[bytes, Exception | None]:
                    request = Request(
                        method="POST", path=f"/{item.decode()}", body=item, operation="c", repeat=Repeat.IF_NOT_SENT
                    )
                    await internals_of(session).call(request, body, sleep=sleep)
                    return item, None

            outcomes, error = await Submissions(session).run(8_000)
            assert (len(outcomes), error, len(service.done), set(service.done.values())) == (8_000, None, 8_000, {1})

    vtime.run(work())


def test_a_view_shares_all_but_its_settings() -> None:
    """It is usable as long as its session is, and is neither entered nor closed."""

    async def work() -> None:
        async with governed(Unsteady()) as session:
            view = session.with_options(retry=RetryPolicy(attempts=1))
            assert (view.retry.attempts, view.timeouts, internals_of(view).governor) == (
                1,
                session.timeouts,
                internals_of(session).governor,
            )
            assert await view.call(CALL, body) == b"fine"
            for misuse in (view.__aenter__, view.close):
                with pytest.raises(RuntimeError, match="neither entered nor closed"):
                    await misuse()
        with pytest.raises(RuntimeError, match="closed"):
            await view.call(CALL, body)

    vtime.run(work())


def test_stores_that_share_a_session_have_equal_shares() -> None:
    """Of its places and of its rate, whoever asks for more at once; within a tenth."""
    service = Unsteady()

    def of_store(name: str) -> HmacAuth:
        return HmacAuth(partner_client_id="p", secret_key="k", store_client_id=name, store_token="t")

    async def work() -> None:
        limits = Limits(concurrency=8, per_second=50.0, burst=5)
        async with Session(
            BASE, auth=StaticToken("t"), clock=VirtualClock(), transport=service, limits=limits
        ) as session:
            views = {name: session.with_options(auth=of_store(name), retry=RetryPolicy(deadline=None)) for name in "ab"}
            waiting = {"a": 200, "b": 40}
            calls = [
                asyncio.ensure_future(views[name].call(Request(method="POST", path=f"/{name}", operation="test"), body))
                for name, many in waiting.items()
                for _ in range(many)
            ]
            await asyncio.gather(*calls[200:])
            assert service.by_path["/a"] <= 44 + limits.burst
            await asyncio.gather(*calls)
            assert {lane.store for lane in session.health().lanes} == {"a", "b"}

    vtime.run(work())


@pytest.mark.parametrize("connects", [True, False])
def test_single_calls_of_a_process_that_begins_in_an_outage_fail_at_once_before_long(connects: bool) -> None:  # noqa: FBT001
    """And it is not ready, though nothing ever answered it; when the service is back, so is it."""
    service = Unsteady(down=(0.0, 60.0), connects=connects)

    async def work() -> None:
        async with governed(service) as session:
            errors: list[Exception] = []
            for _ in range(10):
                with pytest.raises((TransportError, ServiceUnavailableError)) as raised:
                    await session.call(CALL, body)
                errors.append(raised.value)
            assert isinstance(errors[-1], ServiceDownError)
            assert ("never answered" in str(errors[-1])) is not connects
            assert not session.health().ready
            assert service.sent <= OutagePolicy().after + 6
            await asyncio.sleep(64)
            assert session.health().ready
            assert await session.call(CALL, body) == b"fine"

    vtime.run(work())
