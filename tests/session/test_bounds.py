"""What bounds a call: its deadline, the limits of its session, the renewal of its credential, its cancellation."""

from __future__ import annotations

import asyncio
import gc
import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import vtime
from attrs import evolve
from fakes import START, FakeClock, FakeResponse, FakeTransport
from leaks import in_use, others
from peers import listening, silent
from session_calls import (
    BASE,
    CALL,
    DOWN,
    FINE,
    ONCE,
    SUBMISSION,
    body,
    document,
    oauth,
    scripted,
    sent,
    served,
    status,
    steps,
)

from invoicing_async._core.batch import map_concurrently
from invoicing_async._core.http import Exchange, Repeat, Request, Response
from invoicing_async._transport.server import serve
from invoicing_async.auth import Auth, HmacAuth, StaticToken
from invoicing_async.errors import (
    ApiError,
    AuthenticationError,
    DeadlineError,
    PermissionDeniedError,
    ProtocolError,
    ServiceUnavailableError,
    TransportError,
)
from invoicing_async.policies import Limits, RetryPolicy, Timeouts
from invoicing_async.sandbox import (
    Answer,
    Operation,
    Reset,
    Sandbox,
    SandboxSettings,
    Unavailable,
)
from invoicing_async.session import CHECKS, Session
from invoicing_async.session._session import internals_of


def hanging() -> Callable[[Request], Awaitable[FakeResponse]]:
    async def answer(request: Request) -> FakeResponse:
        await asyncio.get_running_loop().create_future()
        raise AssertionError("nothing ever comes")

    return answer


class TestDeadline:
    @pytest.mark.asyncio
    async def test_a_deadline_of_one_second_ends_within_one_and_a_fifth(self) -> None:
        """In real time, against a peer that takes everything and answers nothing."""
        policy = RetryPolicy(deadline=1)
        async with listening(silent) as peer, Session(peer.url, auth=StaticToken("t"), retry=policy) as session:
            begun = time.monotonic()
            with pytest.raises(DeadlineError, match="the deadline of 1 s") as caught:
                await session.call(CALL, body)
            assert 0.9 < time.monotonic() - begun < 1.2
            await asyncio.wait_for(peer.gone(), 2)
            assert in_use(session) == 0
        assert caught.value.sent == "unknown"
        assert len(caught.value.attempts) == 1

    @pytest.mark.asyncio
    async def test_it_bounds_attempts_and_sleeps_together(self) -> None:
        clock = FakeClock(auto=False, chances=(0.5,))
        async with scripted(DOWN, hanging(), clock=clock, retry=RetryPolicy(deadline=10)) as session:
            task = asyncio.create_task(session.call(CALL, body))
            await steps()
            clock.advance(0.25)
            await steps()
            clock.advance(9.7)
            await steps()
            assert not task.done()
            clock.advance(0.05)
            with pytest.raises(DeadlineError) as caught:
                await task
        assert isinstance(caught.value.__cause__, ServiceUnavailableError)
        first, second = caught.value.attempts
        assert (first.waited, second.number) == (0.25, 2)
        assert second.elapsed == pytest.approx(9.75)
        assert second.at == START + 0.25
        assert caught.value.sent == "unknown"

    @pytest.mark.asyncio
    async def test_it_bounds_the_wait_for_a_place_too(self) -> None:
        """And the error says what the call did then."""
        clock = FakeClock(auto=False)
        limits, policy = Limits(concurrency=1), RetryPolicy(deadline=10)
        async with scripted(hanging(), clock=clock, limits=limits, retry=policy) as session:
            tasks = [asyncio.create_task(session.call(CALL, body)) for _ in range(2)]
            await steps()
            clock.advance(10)
            await steps()
            assert [task.done() for task in tasks] == [True, True]
            first, second = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(first, DeadlineError)
        assert isinstance(second, DeadlineError)
        assert (first.sent, second.sent) == ("unknown", "no")
        assert str(first) == "the deadline of 10 s ended the call during attempt 1"
        assert str(second) == "the deadline of 10 s ended the call while attempt 1 waited for its place"

    @pytest.mark.parametrize("places", [(4, 4), (4, 40), (40, 4)])
    def test_it_counts_from_the_admission_of_a_batchs_item(self, places: tuple[int, int]) -> None:
        """Two hundred are refused once and then taken, a second each time: no wait for a place counts."""
        calls: Counter[bytes] = Counter()

        async def answer(request: Request) -> FakeResponse:
            await asyncio.sleep(1)
            calls[request.body] += 1
            return DOWN if calls[request.body] == 1 else FINE

        async def work(number: int, sleep: Any) -> bytes:
            return await internals_of(session).call(evolve(SUBMISSION, body=b"%d" % number), body, sleep=sleep)

        async def main() -> list[bytes]:
            async with session:
                outcomes = map_concurrently(
                    range(200),
                    work,
                    concurrency=places[1],
                    sleep=asyncio.sleep,
                    on_not_started=lambda _, error: b"lost",
                )
                return [outcome async for outcome in outcomes]

        session = Session(
            BASE,
            auth=StaticToken("t"),
            transport=FakeTransport(answers=[answer]),
            clock=vtime.VirtualClock(),
            limits=Limits(concurrency=places[0]),
            retry=RetryPolicy(attempts=3, first=0.4, deadline=2.6),
        )
        assert Counter(vtime.run(main())) == {b"fine": 200}
        assert set(calls.values()) == {2}

    @pytest.mark.asyncio
    async def test_one_that_falls_into_a_callers_own_sleep(self) -> None:
        """Nothing of the next attempt had left, and the refusal before it was declared."""
        clock = FakeClock(auto=False)

        async def for_ever(seconds: float) -> None:
            await asyncio.get_running_loop().create_future()

        async with scripted(DOWN, clock=clock) as session:
            task = asyncio.create_task(internals_of(session).call(SUBMISSION, body, sleep=for_ever))
            await steps()
            clock.advance(300)
            with pytest.raises(DeadlineError) as caught:
                await task
        assert caught.value.sent == "no"
        assert caught.value.attempts[1].elapsed == 0.0

    @pytest.mark.asyncio
    async def test_none_is_no_bound(self) -> None:
        clock = FakeClock(auto=False)
        async with scripted(DOWN, FINE, clock=clock, retry=RetryPolicy(deadline=None)) as session:
            task = asyncio.create_task(session.call(CALL, body))
            await steps()
            clock.advance(1e6)
            assert await task == b"fine"

    @pytest.mark.parametrize(("request_", "expected"), [(CALL, "fine"), (SUBMISSION, "unknown")])
    @pytest.mark.asyncio
    async def test_the_attempt_timeout_ends_one_attempt(self, request_: Request, expected: str) -> None:
        clock = FakeClock(auto=False, chances=(0,))
        async with scripted(hanging(), FINE, clock=clock, timeouts=Timeouts(attempt=7)) as session:
            task = asyncio.create_task(session.call(request_, body))
            await steps()
            clock.advance(7)
            await steps()
            clock.advance(0)
            if expected == "fine":
                assert await task == b"fine"
                return
            with pytest.raises(TransportError, match="within the attempt timeout of 7 s") as caught:
                await task
        assert caught.value.sent == expected

    @pytest.mark.asyncio
    async def test_an_attempt_timeout_before_anything_was_sent_says_so(self) -> None:
        clock = FakeClock(auto=False)

        class Unreachable(FakeTransport):
            @asynccontextmanager
            async def send(self, request: Request, exchange: Exchange) -> AsyncIterator[Response]:
                await asyncio.get_running_loop().create_future()
                yield FINE

        async with scripted(clock=clock, transport=Unreachable(), retry=ONCE) as session:
            task = asyncio.create_task(session.call(CALL, body))
            await steps()
            clock.advance(120)
            with pytest.raises(TransportError) as caught:
                await task
        assert caught.value.sent == "no"


@pytest.mark.asyncio
class TestLimits:
    async def test_the_concurrency_limit_covers_the_body(self) -> None:
        slow = FakeResponse(pieces=(b"x",) * 20)
        async with scripted(slow, limits=Limits(concurrency=3)) as session:
            await asyncio.gather(*(session.call(CALL, body) for _ in range(20)))
            transport = internals_of(session).transport
        assert isinstance(transport, FakeTransport)
        assert (transport.most_open, transport.open) == (3, 0)

    async def test_an_open_answer_holds_its_place_to_the_end_of_its_block(self) -> None:
        async with scripted(FINE, limits=Limits(concurrency=1)) as session:
            async with session.open(CALL, body) as content:
                assert content == b"fine"
                waiting = asyncio.create_task(session.call(CALL, body))
                await steps()
                assert len(sent(session)) == 1
            assert await waiting == b"fine"

    async def test_a_held_answer_has_a_place_while_it_is_read_on(self) -> None:
        one = Limits(concurrency=1)
        async with scripted(FINE, limits=one) as session, internals_of(session).hold(CALL, body) as (content, hold):
            assert content == await session.call(CALL, body) == b"fine"
            async with hold.reading():
                waiting = asyncio.create_task(session.call(CALL, body))
                await steps()
                assert len(sent(session)) == 2
            assert await waiting == b"fine"

    async def test_an_open_answer_is_given_back_when_its_block_fails(self) -> None:
        async with scripted(FINE, limits=Limits(concurrency=1)) as session:
            for _ in range(3):
                with pytest.raises(ZeroDivisionError):
                    async with session.open(CALL, body):
                        raise ZeroDivisionError
            transport = internals_of(session).transport
        assert isinstance(transport, FakeTransport)
        assert transport.open == 0

    async def test_an_answer_that_cannot_be_opened_is_retried_and_raised_before_the_block(self) -> None:
        async with scripted(DOWN, FakeResponse(status=403), limits=Limits(concurrency=1)) as session:
            with pytest.raises(PermissionDeniedError) as caught:
                async with session.open(CALL, body):
                    raise AssertionError("the block must not begin")
            assert len(sent(session)) == 2
        assert len(caught.value.attempts) == 2

    async def test_a_backoff_sleep_holds_neither_place_nor_connection(self) -> None:
        clock = FakeClock(auto=False)
        async with scripted(DOWN, FINE, clock=clock, limits=Limits(concurrency=1)) as session:
            refused = asyncio.create_task(session.call(CALL, body))
            await steps()
            transport = internals_of(session).transport
            assert isinstance(transport, FakeTransport)
            assert transport.open == 0
            assert await session.call(CALL, body) == b"fine"
            assert not refused.done()
            clock.advance(1)
            assert await refused == b"fine"

    async def test_attempts_begin_evenly_spaced(self, clock: FakeClock) -> None:
        async with scripted(
            DOWN, FINE, clock=clock, limits=Limits(per_second=2), retry=RetryPolicy(first=0)
        ) as session:
            for _ in range(3):
                await session.call(CALL, body)
        assert clock.slept == [0.0, 0.5, 0.5, 0.5]

    async def test_what_queued_for_a_place_does_not_begin_in_a_burst(self) -> None:
        clock, begun = FakeClock(auto=False), list[float]()
        release = asyncio.Event()

        async def answer(request: Request) -> FakeResponse:
            begun.append(clock.monotonic())
            await release.wait()
            return FINE

        limits = Limits(concurrency=2, per_second=1)
        async with scripted(answer, clock=clock, limits=limits) as session:
            tasks = [asyncio.create_task(session.call(CALL, body)) for _ in range(5)]
            for _ in range(10):
                await steps(5)
                clock.advance(1)
            release.set()
            for _ in range(5):
                await steps(20)
                clock.advance(1)
            await asyncio.gather(*tasks)
        assert begun == [0.0, 1.0, 10.0, 11.0, 12.0]

    async def test_a_place_is_given_back_by_who_is_cancelled_while_it_is_paced(self) -> None:
        clock = FakeClock(auto=False)
        async with scripted(FINE, clock=clock, limits=Limits(concurrency=1, per_second=1)) as session:
            await session.call(CALL, body)
            paced = asyncio.create_task(session.call(CALL, body))
            await steps()
            paced.cancel()
            with pytest.raises(asyncio.CancelledError):
                await paced
            clock.advance(5)
            assert await session.call(CALL, body) == b"fine"


@pytest.mark.asyncio
class TestRenewal:
    async def test_fifty_concurrent_calls_ask_for_one_token(self) -> None:
        sandbox = Sandbox()
        sandbox.script(Operation.STATUS, [Answer(body=b"fine")] * 50)
        async with served(sandbox, auth=oauth(sandbox)) as session:
            answers = await asyncio.gather(*(session.call(status(), body) for _ in range(50)))
        assert set(answers) == {b"fine"}
        assert sandbox.calls(Operation.TOKEN) == 1

    async def test_a_revoked_token_is_renewed_once_for_everybody(self) -> None:
        sandbox = Sandbox()
        async with served(sandbox, auth=oauth(sandbox)) as session:
            with pytest.raises(ApiError):
                await session.call(status(), body)
            sandbox.revoke_tokens()
            answers = await asyncio.gather(*(session.call(status(), body) for _ in range(20)), return_exceptions=True)
        assert all(isinstance(answer, ApiError) and answer.status == 404 for answer in answers)
        assert sandbox.calls(Operation.TOKEN) == 2

    async def test_a_401_is_raised_when_several_new_tokens_were_refused(self) -> None:
        sandbox = Sandbox()
        sandbox.script(Operation.STATUS, [Answer(status=401)] * 9)
        async with served(sandbox, auth=oauth(sandbox)) as session:
            with pytest.raises(AuthenticationError) as caught:
                await session.call(status(), body)
        assert sandbox.calls(Operation.STATUS) == 1 + CHECKS
        assert sandbox.calls(Operation.TOKEN) == 1 + CHECKS
        assert [attempt.status for attempt in caught.value.attempts] == [401] * (1 + CHECKS)

    @pytest.mark.parametrize("key", ["partner", "token"])
    async def test_a_credential_without_renewal_is_tried_once_more(self, key: str) -> None:
        sandbox = Sandbox()
        known = sandbox.credentials
        auth: Auth = StaticToken("other") if key == "token" else HmacAuth(**{**known.partner(), "secret_key": "other"})
        async with served(sandbox, auth=auth) as session:
            with pytest.raises(AuthenticationError):
                await session.call(status() if key == "token" else document(), body)
        assert sandbox.counts.total() == 2

    async def test_a_token_is_renewed_before_it_ends(self, clock: FakeClock) -> None:
        sandbox = Sandbox(SandboxSettings(token_lifetime=100), clock=clock)
        sandbox.script(Operation.STATUS, [Answer(body=b"fine")] * 3)
        async with served(sandbox, auth=oauth(sandbox)) as session:
            for elapsed in (0, 69, 2):
                clock.advance(elapsed)
                await session.call(status(), body)
        assert sandbox.calls(Operation.TOKEN) == 2
        assert (Operation.STATUS, 401) not in sandbox.counts

    @pytest.mark.parametrize(
        ("answer", "kind", "calls"),
        [
            (Answer(status=400, body=b'{"error": "invalid_grant"}'), ApiError, 1),
            (Answer(status=401), AuthenticationError, 1),
            (Answer(body=b"<html>"), ProtocolError, 1),
            (Answer(status=503), ServiceUnavailableError, 3),
            (Reset(), TransportError, 3),
        ],
    )
    async def test_a_credential_that_cannot_be_had_ends_the_call_unsent(
        self, clock: FakeClock, answer: Any, kind: type[ApiError], calls: int
    ) -> None:
        """The token call has its own retry; the call that waits for it does not repeat that."""
        sandbox = Sandbox(clock=clock)
        sandbox.script(Operation.TOKEN, [answer] * 20)
        async with served(sandbox, auth=oauth(sandbox), retry=RetryPolicy(attempts=3)) as session:
            with pytest.raises(kind) as caught:
                await session.call(evolve(status(), repeat=Repeat.IF_NOT_SENT), body)
        assert sandbox.calls(Operation.TOKEN) == calls
        assert sandbox.calls(Operation.STATUS) == 0
        assert caught.value.sent == "no"
        assert len(caught.value.attempts) == 1
        token_call = caught.value.__cause__
        assert isinstance(token_call, kind)
        assert len(token_call.attempts) == calls

    async def test_an_unauthorised_request_renews_nothing(self) -> None:
        sandbox = Sandbox()
        async with served(sandbox, auth=oauth(sandbox)) as session:
            with pytest.raises(AuthenticationError):
                await session.call(evolve(status(), authorised=False), body)
        assert sandbox.counts.total() == 1


@pytest.mark.asyncio
class TestCancellation:
    async def test_at_any_step_it_ends_the_call_and_leaves_nothing(self) -> None:
        """A call with a token, a refusal and a retry over a real socket, cancelled after k steps of the loop."""
        finished, k = False, 0
        while not finished:
            finished = await self.cancelled_after(k)
            k += 1
        assert k > 20
        gc.collect()

    async def cancelled_after(self, k: int) -> bool:
        sandbox = Sandbox()
        sandbox.script(status().path, [Unavailable(), Answer(headers={"Content-Length": "4"}, body=b"fine")])
        async with serve(sandbox) as url:
            before = others()
            session = Session(url, auth=oauth(sandbox), retry=RetryPolicy(first=0), limits=Limits(concurrency=2))
            async with session:
                task = asyncio.create_task(session.call(status(), body))
                await steps(k)
                finished = task.done()
                task.cancel()
                await asyncio.wait([task])
                assert task.cancelled() is not finished
                seen = sandbox.counts.total()
                assert in_use(session) == 0
                assert internals_of(session).admission.places.free == 2
                await self.settled(sandbox)
                assert sandbox.counts.total() - seen <= 1, "at most what was already on its way arrives"
            while others() != before:  # noqa: ASYNC110 - the server's own tasks end as its connections do
                await asyncio.sleep(0)
        return finished

    async def settled(self, sandbox: Sandbox) -> None:
        await steps(20)
        while sandbox.in_flight:  # noqa: ASYNC110 - the server notices a client that left when it does
            await asyncio.sleep(0)

    async def test_an_open_answer_at_any_step(self) -> None:
        for k in itertools.count():
            slow = FakeResponse(pieces=(b"x",) * 5)
            async with scripted(DOWN, slow, limits=Limits(concurrency=1, per_second=1000)) as session:
                task = asyncio.create_task(self.opened(session))
                await steps(k)
                finished = task.done()
                task.cancel()
                await asyncio.wait([task])
                assert task.cancelled() is not finished
                transport = internals_of(session).transport
                assert isinstance(transport, FakeTransport)
                assert (transport.open, internals_of(session).admission.places.free) == (0, 1)
                assert others() == set()
            if finished:
                break

    async def opened(self, session: Session) -> None:
        async with session.open(CALL, body):
            await steps(3)

    async def test_during_a_backoff_sleep(self) -> None:
        clock = FakeClock(auto=False)
        async with scripted(DOWN, clock=clock) as session:
            task = asyncio.create_task(session.call(CALL, body))
            await steps()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert len(sent(session)) == 1

    async def test_one_that_comes_with_the_deadline_stays_a_cancellation(self) -> None:
        clock = FakeClock(auto=False)
        async with scripted(hanging(), clock=clock, retry=RetryPolicy(deadline=1)) as session:
            task = asyncio.create_task(session.call(CALL, body))
            await steps()
            clock.advance(1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
