"""What is sent again and when: the rule of retries, each attempt's headers, the backoff and the history."""

from __future__ import annotations

import asyncio
from email.utils import formatdate
from typing import Any

import pytest
from attrs import evolve
from fakes import START, FakeClock, FakeResponse
from mocked import Mocked
from session_calls import (
    BASE,
    CALL,
    DOWN,
    ENVELOPE,
    FINE,
    ONCE,
    ORDER,
    SUBMISSION,
    body,
    checked,
    declared,
    document,
    oauth,
    scripted,
    sent,
    served,
    status,
    steps,
)

from invoicing_async._core import signing
from invoicing_async._core.http import Repeat, Request, Response
from invoicing_async.auth import HmacAuth
from invoicing_async.errors import (
    ApiError,
    AuthenticationError,
    IncompleteDocumentError,
    InterruptedDocumentError,
    OrderStatusError,
    OversizedDocumentError,
    PermissionDeniedError,
    PollTimeoutError,
    ProtocolError,
    RateLimitError,
    ServiceUnavailableError,
    SessionError,
    TransportError,
)
from invoicing_async.events import (
    AttemptFailed,
    CallStarted,
    Event,
    RequestStarted,
    RequestSucceeded,
    RetryScheduled,
)
from invoicing_async.policies import Limits, RetryPolicy
from invoicing_async.sandbox import (
    Answer,
    JsonUnder200,
    NotEligible,
    Operation,
    Reset,
    Sandbox,
    SandboxSettings,
    Unavailable,
)
from invoicing_async.session import Session, may_repeat
from invoicing_async.session._session import internals_of


@pytest.mark.parametrize(
    ("error", "always", "if_not_sent"),
    [
        (declared, True, True),
        (ServiceUnavailableError(status=200, code="SYS_DEP_503"), True, True),
        (ServiceUnavailableError(status=502), True, False),
        (ServiceUnavailableError(status=503), True, False),
        (ServiceUnavailableError(status=504), True, False),
        (RateLimitError(status=429), True, True),
        (RateLimitError(status=429, code="RATE_001"), True, True),
        (TransportError(sent="no"), True, True),
        (TransportError(sent="unknown"), True, False),
        (IncompleteDocumentError(), True, False),
        (InterruptedDocumentError(), True, False),
        (OversizedDocumentError(), False, False),
        (ProtocolError(), False, False),
        (ApiError(status=500), True, False),
        (ServiceUnavailableError(status=503, code="UPSTREAM_RESET"), True, False),
        (ApiError(status=408), True, False),
        (ApiError(status=501), False, False),
        (ApiError(status=400, code="VALIDATION_001"), False, False),
        (AuthenticationError(status=401), False, False),
        (PermissionDeniedError(status=403), False, False),
        (OrderStatusError(status=422, code="ORDER_021"), False, False),
        (SessionError(), False, False),
        (PollTimeoutError(), False, False),
        (TimeoutError(), False, False),
        (ConnectionResetError(), False, False),
        (asyncio.CancelledError(), False, False),
        (KeyboardInterrupt(), False, False),
    ],
)
def test_the_retry_rule(error: BaseException, always: bool, if_not_sent: bool) -> None:  # noqa: FBT001 - a table
    assert may_repeat(error, Repeat.ALWAYS) is always
    assert may_repeat(error, Repeat.IF_NOT_SENT) is if_not_sent


@pytest.mark.asyncio
class TestAttempts:
    async def test_every_attempt_signs_anew(self, clock: FakeClock) -> None:
        """The sandbox's own log shows three valid signatures with three timestamps."""
        sandbox = Sandbox(clock=clock)
        sandbox.script(ORDER, [Unavailable(), Unavailable()])
        async with served(sandbox) as session:
            assert (await session.call(document(), body)).startswith(b"%PDF-")
        assert [entry.status for entry in sandbox.log] == [503, 503, 200]
        assert all(entry.verified for entry in sandbox.log)
        assert len({entry.timestamp for entry in sandbox.log}) == 3
        assert len({entry.signature for entry in sandbox.log}) == 3

    @pytest.mark.parametrize("answer", [Unavailable(), JsonUnder200(), Unavailable(status=422), Reset()])
    async def test_a_temporary_refusal_is_known_by_its_code(self, clock: FakeClock, answer: Any) -> None:
        """SYS_DEP_503 counts whatever its HTTP status is, 200 included."""
        sandbox = Sandbox(clock=clock)
        sandbox.script(ORDER, [answer, answer])
        async with served(sandbox) as session:
            assert (await session.call(document(), checked)).startswith(b"%PDF-")
        assert sandbox.calls(Operation.DOCUMENT) == 3

    @pytest.mark.parametrize("order_id", ["INV/2025/0001", "50% off", "ä?#&", "..%2F.."])
    async def test_the_path_is_sent_as_it_is_signed(self, clock: FakeClock, order_id: str) -> None:
        sandbox = Sandbox(clock=clock)
        async with served(sandbox) as session:
            assert (await session.call(document(order_id), body)).startswith(b"%PDF-")
        assert sandbox.log[0].verified

    @pytest.mark.parametrize("rules", [{"prefix": ""}, {"full_path": True}, {"include_query": True}])
    async def test_the_open_points_of_signing_are_settings(self, clock: FakeClock, rules: Any) -> None:
        chosen = signing.SigningRules(**rules)
        sandbox = Sandbox(SandboxSettings(rules=chosen), clock=clock)
        auth = HmacAuth(**sandbox.credentials.partner(), rules=chosen)
        async with served(sandbox, auth=auth) as session:
            await session.call(evolve(document(), query="a=%2F"), body)
            await session.call(document("INV/1"), body)
        assert [entry.verified for entry in sandbox.log] == [True, True]

    @pytest.mark.parametrize(
        ("answer", "kind"),
        [
            (Answer(status=403), PermissionDeniedError),
            (NotEligible(), OrderStatusError),
            (Answer(status=404, body=b"<html>"), ApiError),
            (Answer(status=501), ApiError),
        ],
    )
    async def test_a_final_answer_is_raised_at_once(self, clock: FakeClock, answer: Any, kind: type[ApiError]) -> None:
        sandbox = Sandbox(clock=clock)
        sandbox.script(ORDER, [answer])
        async with served(sandbox) as session:
            with pytest.raises(kind) as caught:
                await session.call(document(), body)
        assert sandbox.calls(Operation.DOCUMENT) == 1
        assert type(caught.value) is kind
        assert len(caught.value.attempts) == 1
        assert clock.slept == []

    @pytest.mark.parametrize("code", [502, 503, 504])
    async def test_a_bare_gateway_error_declares_nothing(self, code: int) -> None:
        """A gateway may have passed the request on: a PDF is asked for again, a submission is not sent again."""
        async with scripted(FakeResponse(status=code), FINE) as session:
            assert await session.call(CALL, body) == b"fine"
        async with scripted(FakeResponse(status=code), FINE) as session:
            with pytest.raises(ServiceUnavailableError):
                await session.call(SUBMISSION, body)
            assert len(sent(session)) == 1

    @pytest.mark.parametrize("refusal", [DOWN, FakeResponse(status=429), TransportError(sent="no")])
    async def test_a_submission_is_sent_again_after_a_declared_refusal_or_if_unsent(self, refusal: Any) -> None:
        async with scripted(refusal, FINE) as session:
            assert await session.call(SUBMISSION, body) == b"fine"

    async def test_a_submission_whose_answer_was_lost_is_not_sent_again(self) -> None:
        async with scripted(TransportError(sent="unknown"), FINE) as session:
            with pytest.raises(TransportError) as caught:
                await session.call(SUBMISSION, body)
            assert len(sent(session)) == 1
        assert caught.value.sent == "unknown"

    @pytest.mark.parametrize("code", [302, 307, 304])
    async def test_a_redirect_is_not_as_documented(self, code: int) -> None:
        answer = FakeResponse(status=code, headers={"Location": "https://elsewhere.test"}, pieces=(b"moved",))
        async with scripted(answer) as session:
            with pytest.raises(ProtocolError) as caught:
                await session.call(CALL, body)
            assert len(sent(session)) == 1
        assert (caught.value.status, caught.value.head) == (code, b"moved")

    async def test_an_error_whose_body_breaks_off_or_never_ends_is_still_that_error(self) -> None:
        broken = FakeResponse(status=403, pieces=(b'{"suc', TransportError("cut")))
        endless = FakeResponse(status=403, pieces=(b"x" * 40_000,) * 1000)
        async with scripted(broken, endless) as session:
            for _ in range(2):
                with pytest.raises(PermissionDeniedError):
                    await session.call(CALL, body)
            assert len(sent(session)) == 2

    async def test_a_broken_body_is_read_anew(self) -> None:
        half = FakeResponse(pieces=(b"fi", TransportError("cut")))
        async with scripted(half, FINE) as session:
            assert await session.call(CALL, body) == b"fine"

    @pytest.mark.parametrize("defect", [TimeoutError("the reader's own"), ZeroDivisionError()])
    @pytest.mark.parametrize("policy", [RetryPolicy(), RetryPolicy(deadline=None)])
    async def test_what_else_the_reader_raises_passes_through(self, defect: Exception, policy: RetryPolicy) -> None:
        async def read(response: Response) -> None:
            raise defect

        async with scripted(FINE, retry=policy) as session:
            with pytest.raises(type(defect)) as caught:
                await session.call(CALL, read)
            assert len(sent(session)) == 1
        assert caught.value is defect

    async def test_a_policy_for_one_call(self) -> None:
        async with scripted(DOWN) as session:
            with pytest.raises(ServiceUnavailableError):
                await session.call(CALL, body, retry=ONCE)
            assert len(sent(session)) == 1

    async def test_what_is_done_before_an_attempt_is_done_before_each_of_its_first_bytes(self) -> None:
        """An intent is on disk before a submission leaves."""
        async with scripted(DOWN, FINE, limits=Limits(concurrency=1)) as session:
            seen: list[tuple[int, int]] = []

            async def before() -> None:
                seen.append((len(sent(session)), internals_of(session).admission.places.free))

            await session.call(SUBMISSION, body, before_send=before)
        assert seen == [(0, 0), (1, 0)]

    async def test_an_attempt_whose_preparation_fails_is_not_made(self) -> None:
        async def before() -> None:
            raise OSError("disk full")

        async with scripted(FINE, limits=Limits(concurrency=1)) as session:
            for _ in range(2):
                with pytest.raises(OSError, match="disk full"):
                    await session.call(SUBMISSION, body, before_send=before)
            assert sent(session) == []

    async def test_up_to_the_default_concurrency_it_is_done_with_the_place_in_hand(self) -> None:
        """So that a crash leaves no more in doubt than there were places."""
        told: list[str] = []

        async def before() -> None:
            told.append("before")

        async with scripted(FINE, limits=Limits(concurrency=32)) as session:
            assert all(internals_of(session).admission.try_acquire() for _ in range(32))
            call = asyncio.create_task(session.call(SUBMISSION, body, before_send=before))
            await steps(10)
            assert told == []
            internals_of(session).admission.release()
            await call
            assert told == ["before"]

    async def test_while_all_of_many_places_are_taken_it_is_done_next_in_line_for_one(self) -> None:
        """Few do so at a time, and none of them holds a place with it."""
        clock = FakeClock(auto=False)
        async with scripted(FINE, clock=clock, limits=Limits(concurrency=40, adaptive=False)) as session:
            held = [internals_of(session).admission.try_acquire() for _ in range(40)]
            told: list[str] = []

            async def before() -> None:
                told.append("before")
                await clock.sleep(1)

            calls = [
                asyncio.create_task(
                    session.call(SUBMISSION, body, before_send=before, on_send=lambda: told.append("leaves"))
                )
                for _ in range(13)
            ]
            await steps(5)
            assert (all(held), told) == (True, ["before"] * 10)
            clock.advance(1)
            await steps(5)
            assert told == ["before"] * 10
            internals_of(session).admission.release()
            await steps(5)
            assert told[:11] == ["before"] * 10 + ["leaves"]
            for _ in range(39):
                internals_of(session).admission.release()
            while not all(call.done() for call in calls):
                clock.advance(1)
                await steps(5)
            assert (
                sorted(told),
                internals_of(session).admission.places.free,
                internals_of(session).admission.preparing.free,
            ) == (
                ["before"] * 13 + ["leaves"] * 13,
                40,
                10,
            )

    async def test_a_call_that_is_cancelled_in_line_leaves_its_place_in_it(self) -> None:
        async with scripted(FINE, limits=Limits(concurrency=33)) as session:
            left: list[str] = []

            async def before() -> None:
                left.append("before")

            assert all(internals_of(session).admission.try_acquire() for _ in range(33))
            call = asyncio.create_task(
                session.call(SUBMISSION, body, before_send=before, on_send=lambda: left.append("leaves"))
            )
            await steps(5)
            call.cancel()
            await asyncio.wait([call])
            internals_of(session).admission.release()
            assert (left, sent(session)) == (["before"], [])
            assert (internals_of(session).admission.places.free, internals_of(session).admission.preparing.free) == (
                1,
                8,
            )

    async def test_a_request_for_another_host_carries_no_credential(self) -> None:
        async with scripted(FINE) as session:
            link = evolve(CALL, base_url="https://files.test", authorised=False)
            await session.call(link, body)
            (request,) = sent(session)
        assert request.url == "https://files.test/x"
        assert not request.headers


class TestHeaders:
    """What aiohttp is handed, by aioresponses."""

    @pytest.mark.asyncio
    async def test_service_a_gets_the_documented_headers(self, clock: FakeClock) -> None:
        sandbox = Sandbox()
        auth = HmacAuth(**sandbox.credentials.partner())
        async with Session(BASE, auth=auth, clock=clock) as session:
            with Mocked() as mocked:
                mocked.post(BASE + document("INV/1").path, body=b"%PDF-")
                await session.call(document("INV/1"), body)
        (request,) = mocked.sent
        assert "INV%2F1" in request.url
        assert set(request.headers) == {
            "x-signature",
            "x-partner-client-id",
            "x-store-client-id",
            "x-store-token",
            "x-timestamp",
            "accept-encoding",
            "user-agent",
        }
        assert request.headers["x-timestamp"] == str(int(START * 1000))
        assert request.headers["accept-encoding"] == "identity"
        assert not request.follows_redirects
        assert request.body == b""

    @pytest.mark.asyncio
    async def test_the_bytes_that_are_signed_are_those_that_are_sent(self, clock: FakeClock) -> None:
        content = '{"tên":  "Cà phê", "price": 1.10}'.encode()
        sandbox = Sandbox()
        known = sandbox.credentials
        async with Session(BASE, auth=HmacAuth(**known.partner()), clock=clock) as session:
            with Mocked() as mocked:
                mocked.post(f"{BASE}/x")
                await session.call(evolve(CALL, headers={"Content-Type": "application/json"}, body=content), body)
        (request,) = mocked.sent
        assert request.body == content
        assert request.headers["content-type"] == "application/json"
        assert signing.verify(
            known.secret_key,
            method="POST",
            path="/x",
            headers=request.headers.get,
            body=request.body,
            rules=signing.SigningRules(),
        )

    @pytest.mark.asyncio
    async def test_an_attempt_after_a_refusal_has_headers_of_its_own(self, clock: FakeClock) -> None:
        async with Session(BASE, auth=HmacAuth(**Sandbox().credentials.partner()), clock=clock) as session:
            with Mocked() as mocked:
                mocked.post(f"{BASE}/x", status=503, body=ENVELOPE)
                mocked.post(f"{BASE}/x", body=b"fine")
                assert await session.call(CALL, body) == b"fine"
        first, second = (request.headers for request in mocked.sent)
        assert int(second["x-timestamp"]) - int(first["x-timestamp"]) == 250
        assert first["x-signature"] != second["x-signature"]


@pytest.mark.asyncio
class TestBackoff:
    async def test_full_jitter_under_a_doubling_ceiling(self) -> None:
        clock = FakeClock(chances=(0.1, 0.9, 0.5, 1.0))
        async with scripted(DOWN, clock=clock, retry=RetryPolicy(attempts=5, first=1, ceiling=3)) as session:
            with pytest.raises(ServiceUnavailableError):
                await session.call(CALL, body)
        assert clock.slept == pytest.approx([0.1, 1.8, 1.5, 3.0])

    @pytest.mark.parametrize("text", ["60", formatdate(START + 60, usegmt=True)])
    async def test_retry_after_exceeds_the_ceiling(self, clock: FakeClock, text: str) -> None:
        busy = FakeResponse(status=429, headers={"Retry-After": text})
        async with scripted(busy, FINE, clock=clock, retry=RetryPolicy(ceiling=2)) as session:
            assert await session.call(CALL, body) == b"fine"
        assert clock.slept == [60.0]

    async def test_retry_after_is_a_floor(self) -> None:
        clock = FakeClock(chances=(0.9,))
        busy = FakeResponse(status=429, headers={"Retry-After": "1"})
        async with scripted(busy, FINE, clock=clock, retry=RetryPolicy(first=10)) as session:
            await session.call(CALL, body)
        assert clock.slept == [9.0]

    @pytest.mark.parametrize("text", ["300", "86400", formatdate(START + 400, usegmt=True)])
    async def test_a_retry_after_beyond_the_deadline_is_not_waited_for(self, clock: FakeClock, text: str) -> None:
        busy = FakeResponse(status=429, headers={"Retry-After": text})
        async with scripted(busy, clock=clock, retry=RetryPolicy(deadline=300)) as session:
            with pytest.raises(RateLimitError) as caught:
                await session.call(CALL, body)
            assert len(sent(session)) == 1
        assert clock.slept == []
        assert caught.value.retry_after is not None
        assert caught.value.retry_after >= 299
        assert len(caught.value.attempts) == 1

    async def test_a_sleep_of_the_callers_own(self, clock: FakeClock) -> None:
        waited: list[float] = []

        async def sleep(seconds: float) -> None:
            waited.append(seconds)

        async with scripted(DOWN, FINE, clock=clock) as session:
            await internals_of(session).call(CALL, body, sleep=sleep)
        assert waited == [0.25]
        assert clock.slept == []

    async def test_attempts_are_counted_with_the_first(self, clock: FakeClock) -> None:
        async with scripted(DOWN, clock=clock, retry=RetryPolicy(attempts=3)) as session:
            with pytest.raises(ServiceUnavailableError):
                await session.call(CALL, body)
            assert len(sent(session)) == 3


@pytest.mark.asyncio
class TestHistory:
    async def test_it_holds_every_attempt_with_what_followed(self, clock: FakeClock) -> None:
        async def late(request: Request) -> FakeResponse:
            clock.advance(2)
            return DOWN

        cut = TransportError("cut", sent="unknown")
        async with scripted(late, cut, DOWN, clock=clock, retry=RetryPolicy(attempts=3, first=1)) as session:
            with pytest.raises(ServiceUnavailableError) as caught:
                await session.call(CALL, body)
        first, second, third = caught.value.attempts
        assert (first.number, first.at, first.elapsed, first.waited) == (1, START, 2.0, 0.5)
        assert (first.status, first.code, first.request_id) == (503, "SYS_DEP_503", "r-1")
        assert first.error == "ServiceUnavailableError: down (SYS_DEP_503, HTTP 503, request r-1)"
        assert (second.number, second.at, second.elapsed, second.waited) == (2, START + 2.5, 0.0, 1.0)
        assert (second.status, second.code, second.error) == (None, None, "TransportError: cut")
        assert (third.number, third.waited) == (3, 0.0)

    async def test_events_come_in_order(self, clock: FakeClock) -> None:
        heard: list[Event] = []
        async with scripted(DOWN, FINE, clock=clock, on_event=heard.append) as session:
            await session.call(CALL, body)
        about: dict[str, Any] = {"operation": "test", "path": "/x"}
        failed = heard[2]
        assert isinstance(failed, AttemptFailed)
        assert isinstance(failed.error, ServiceUnavailableError)
        assert heard == [
            CallStarted(**about, method="POST", base_url=BASE),
            RequestStarted(**about, attempt=1),
            AttemptFailed(**about, attempt=1, error=failed.error),
            RetryScheduled(**about, attempt=1, delay=0.25),
            RequestStarted(**about, attempt=2),
            RequestSucceeded(**about, attempts=2, elapsed=0.25),
        ]

    async def test_a_renewed_credential_counts_as_an_attempt_in_every_event(self, clock: FakeClock) -> None:
        heard: list[Event] = []
        sandbox = Sandbox(clock=clock)
        sandbox.script(status().path, [Answer(status=401), Unavailable(), Answer(body=b"fine")])
        async with served(sandbox, auth=oauth(sandbox), on_event=heard.append) as session:
            await session.call(status(), body)
        ours = [event for event in heard if getattr(event, "operation", "") == "status"]
        assert [(type(event).__name__, getattr(event, "attempt", 0)) for event in ours] == [
            ("CallStarted", 0),
            ("RequestStarted", 1),
            ("AttemptFailed", 1),
            ("RetryScheduled", 1),
            ("RequestStarted", 2),
            ("AttemptFailed", 2),
            ("RetryScheduled", 2),
            ("RequestStarted", 3),
            ("RequestSucceeded", 0),
        ]

    @pytest.mark.parametrize("kind", [ZeroDivisionError, asyncio.CancelledError])
    async def test_what_an_observer_raises_is_logged_once_of_each_kind_and_changes_nothing(
        self, clock: FakeClock, caplog: pytest.LogCaptureFixture, kind: type[BaseException]
    ) -> None:
        def refuse(event: Event) -> None:
            raise kind

        async with scripted(DOWN, FINE, clock=clock, on_event=refuse, limits=Limits(concurrency=1)) as session:
            for _ in range(2):
                assert await session.call(SUBMISSION, body) == b"fine"
            internals_of(session).on_event = None
            internals_of(session).tell(RequestStarted(operation="", path="", attempt=1))
        told = {"CallStarted", "RequestStarted", "AttemptFailed", "RetryScheduled", "RequestSucceeded"}
        assert len(caplog.records) == len(told)
        assert all(any(name in record.getMessage() for record in caplog.records) for name in told)
