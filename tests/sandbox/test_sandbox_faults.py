"""A fault is a value with a text form, in force when it says, and each kind does in-process what it says."""

from __future__ import annotations

import asyncio
import re
from email.utils import parsedate_to_datetime
from typing import Any

import pytest
from fakes import START, FakeClock
from hypothesis import given
from hypothesis import strategies as st
from sandbox_requests import ORDER, ask, bearer, draft, made, signed, submission
from vtime import VirtualClock, run

from invoicing_async._core.http import Exchange
from invoicing_async.errors import TransportError
from invoicing_async.sandbox import (
    FAULT_KINDS,
    Answer,
    Capacity,
    ClockSkew,
    ConnectionReset,
    Fault,
    Faults,
    GatewayTimeout,
    LostAnswer,
    Operation,
    Outage,
    Random503,
    Sandbox,
    SandboxCredentials,
    SandboxSettings,
    StoreRate,
    TooManyRequests,
    demo_orders,
)

ORDERS = demo_orders(200)
TENTHS = st.integers(1, 3000).map(lambda number: number / 10)


def faulty(*texts: str, clock: FakeClock | None = None, **fields: Any) -> tuple[Sandbox, FakeClock]:
    """A sandbox with these faults in force from now, and its clock."""
    clock = clock or FakeClock()
    sandbox = made(clock, **fields)
    sandbox.inject(*map(Fault.parse, texts))
    return sandbox, clock


async def statuses(sandbox: Sandbox, orders: tuple[str, ...]) -> list[int]:
    return [(await ask(sandbox, signed(sandbox, order))).status for order in orders]


def counted(sandbox: Sandbox) -> list[dict[str, int]]:
    return [dict(counts) for counts in sandbox.injected.values()]


async def broken(sandbox: Sandbox, order: str = ORDERS[0]) -> tuple[int, bytes, TransportError | None]:
    """Ask for a document: its status, what came of its body, and how it broke off."""
    got = b""
    async with sandbox.send(signed(sandbox, order), Exchange()) as response:
        try:
            async for chunk in response.chunks():
                got += chunk
        except TransportError as error:
            return response.status, got, error
    return response.status, got, None


class TestText:
    @pytest.mark.parametrize("kind", FAULT_KINDS)
    def test_the_example_of_every_kind_is_read_and_written_back(self, kind: str) -> None:
        """`str` of a fault is a text form of the same fault."""
        fault = Fault.parse(FAULT_KINDS[kind].example)
        assert type(fault) is FAULT_KINDS[kind]
        assert Fault.parse(str(fault)) == fault

    def test_values_and_text_name_the_same_things(self) -> None:
        """From Python the fields are as on the command line."""
        texts = {
            "outage:start=20,length=20": Outage(start=20, length=20),
            "capacity:8,queue=8": Capacity(8, queue=8),
            "random503:0.3,seed=7": Random503(0.3, seed=7),
            " skew : -1.5 ".replace(" :", ":"): ClockSkew(-1.5),
            "429:none": TooManyRequests(None),
            "429:retry_after=5,date=true": TooManyRequests(5, date=True),
            "reset:stage=in-body, at=7": ConnectionReset("in-body", at=7),
            "lost:operation=any": LostAnswer(operation="any"),
            "gateway504": GatewayTimeout(),
        }
        assert {text: Fault.parse(text) for text in texts} == texts

    @given(
        st.floats(0, 1e9),
        st.none() | st.floats(1e-6, 1e9),
        st.floats(0, 1),
        st.integers(0, 10**12),
        st.none() | st.integers(1, 10**6),
        st.sampled_from(["any", *Operation]),
    )
    def test_any_value_survives_its_text(
        self, start: float, length: float | None, share: float, seed: int, first: int | None, operation: str
    ) -> None:
        """No digit of a number is lost."""
        operation = str(operation)
        fault = Random503(share, start=start, length=length, seed=seed, first=first, operation=operation)
        assert Fault.parse(str(fault)) == fault

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("outge:start=1", "there is no fault 'outge'; did you mean outage?"),
            ("", "there is no fault ''; the kinds are outage, capacity, random503, 429, rate, skew"),
            ("capacity", "capacity.limit must be given, as in capacity:8,queue=8"),
            ("capacity:0", "capacity.limit must be a whole number of 1 or more, got 0"),
            ("capacity:8.5", "capacity.limit must be a whole number, got '8.5'"),
            ("capacity:8,que=1", "capacity has no field 'que'; did you mean queue?"),
            ("outage:lenght=3", "outage has no field 'lenght'; did you mean length?"),
            ("capacity:8,x=1", "capacity has no field 'x'; its fields are limit, queue, seconds, start, length"),
            ("capacity:8,9", "capacity takes name=value, got '9'"),
            ("capacity:8,limit=9", "capacity.limit is given twice"),
            ("outage:20", "outage takes name=value, got '20'"),
            ("outage:start=soon", "outage.start must be a number, got 'soon'"),
            ("outage:start=-1", "outage.start must be a finite number of 0 or more, got -1.0"),
            ("outage:length=nan", "outage.length must be a finite number above 0, got nan"),
            ("outage:every=5", "outage.every must be longer than length, which must be given too"),
            ("outage:length=5,every=5", "outage.every must be longer than length"),
            ("outage:answer=504", "outage.answer must be one of 503, refused, got '504'"),
            ("outage:answer=refused,operation=submit", "outage.answer must be 503 with recovery or operation"),
            ("outage:operation=submits", "outage.operation must be one of any, document, token"),
            ("random503:2", "random503.share must be a finite number from 0 to 1, got 2.0"),
            ("429:1,date=yes", "429.date must be true or false, got 'yes'"),
            ("429:inf", "429.retry_after must be a finite number of 0 or more, got inf"),
            ("reset:midway", "reset.stage must be one of before-work, before-head, after-head, in-body, got 'midway'"),
            ("unended:then=stop", "unended.then must be one of close, hang, more, got 'stop'"),
            ("truncate:1,first=0", "truncate.first must be a whole number of 1 or more, got 0"),
        ],
    )
    def test_what_is_wrong_is_named_with_its_limit(self, text: str, said: str) -> None:
        """The kind and the field as they are written, and what may stand there."""
        with pytest.raises(ValueError, match=re.escape(said)):
            Fault.parse(text)

    @pytest.mark.parametrize("kind", FAULT_KINDS)
    def test_every_kind_says_what_it_does_and_counts(self, kind: str) -> None:
        """The help of the command line and the table are made of it."""
        made = FAULT_KINDS[kind]
        assert (made.__doc__ or "").partition("\n")[0].rstrip().endswith((".", ",")) or "\n" in (made.__doc__ or "")
        assert "Counts " in (made.__doc__ or "")
        assert made.example.startswith(kind)


class TestWhen:
    @pytest.mark.parametrize(
        ("text", "within", "without"),
        [
            ("outage", [0, 5, 1e9], []),
            ("outage:start=20", [20, 1e9], [0, 19.9]),
            ("outage:start=20,length=20", [20, 39.9], [0, 19.9, 40, 1e9]),
            ("outage:start=20,length=20,every=60", [20, 39.9, 80, 99, 20 + 600], [0, 40, 79.9, 100, 40 + 600]),
        ],
    )
    def test_start_length_and_every_say_when(self, text: str, within: list[float], without: list[float]) -> None:
        """The end of a length is no longer in it."""
        fault = Fault.parse(text)
        assert [age for age in within + without if fault.holds(age)] == within

    @given(start=TENTHS, length=st.none() | TENTHS, again=st.booleans(), age=TENTHS)
    def test_the_next_change_is_where_it_changes(
        self, start: float, length: float | None, *, again: bool, age: float
    ) -> None:
        """Nothing changes before, and something does right after."""
        fault = Outage(start=start, length=length, every=length * 2 if length and again else None)
        change = fault.next_change(age)
        if change is None:
            assert fault.holds(age) is fault.holds(age + 1000)
        else:
            assert fault.holds(age) is fault.holds(age + change - 1e-6)
            assert fault.holds(age) is not fault.holds(age + change + 1e-6)

    @pytest.mark.asyncio
    async def test_faults_begin_when_they_are_injected_and_end_when_others_are(self) -> None:
        """`inject` takes the place of all that were, and counts anew."""
        sandbox, clock = faulty("outage:length=10")
        clock.advance(100)
        sandbox.inject(Outage(length=10))
        assert await statuses(sandbox, ORDERS[:2]) == [503, 503]
        assert sandbox.injected == {Outage(length=10): {"unavailable": 2}}
        sandbox.inject()
        assert await statuses(sandbox, ORDERS[:1]) == [200]
        assert sandbox.injected == {}

    def test_the_same_fault_twice_is_refused_and_what_was_in_force_stays(self) -> None:
        """Two of them would share one count."""
        sandbox = Sandbox(inject=[Capacity(8)])
        with pytest.raises(ValueError, match="the fault outage is given twice"):
            sandbox.inject(Outage(), Outage())
        assert list(sandbox.injected) == [Capacity(8)]

    @pytest.mark.asyncio
    async def test_an_operation_is_hit_and_no_other(self) -> None:
        """By the name of `Operation`."""
        sandbox, _ = faulty("outage:operation=submit")
        assert (await ask(sandbox, submission(sandbox))).status == 503
        assert await statuses(sandbox, ORDERS[:1]) == [200]

    @pytest.mark.asyncio
    async def test_a_call_meets_faults_in_their_order(self) -> None:
        """One that answers keeps the call from those behind it."""
        sandbox, _ = faulty("429:5,times=1", "outage")
        assert await statuses(sandbox, ORDERS[:2]) == [429, 503]
        assert counted(sandbox) == [{"refused": 1}, {"unavailable": 1}]

    @pytest.mark.asyncio
    async def test_a_script_stands_behind_the_faults(self) -> None:
        """An answer of another's is altered as the services' own."""
        sandbox, _ = faulty("truncate:3")
        sandbox.script(Operation.DOCUMENT, [Answer(body=b"abcdef")])
        assert (await broken(sandbox))[1] == b"abc"


class TestSamples:
    @pytest.mark.asyncio
    async def test_the_share_of_random_503_is_drawn_for_each_try_in_any_order(self) -> None:
        """The same seed hits the same tries of the same requests, at any concurrency."""
        there, back = ((await_all(orders)) for orders in (ORDERS, ORDERS[::-1]))
        first, second = await there, await back
        assert first == second
        hit = sum(answers.count(503) for answers in first.values())
        assert 0.25 * 3 * len(ORDERS) < hit < 0.35 * 3 * len(ORDERS)
        assert len({tuple(answers) for answers in first.values()}) == 8

    @pytest.mark.asyncio
    async def test_another_seed_hits_others(self) -> None:
        one, _ = faulty("random503:0.3,seed=1")
        two, _ = faulty("random503:0.3,seed=2")
        assert await statuses(one, ORDERS) != await statuses(two, ORDERS)

    @pytest.mark.asyncio
    async def test_first_and_times_limit_it(self) -> None:
        """`first` is for the tries of each request, `times` for all calls."""
        sandbox, _ = faulty("random503:1,first=2")
        assert await statuses(sandbox, ORDERS[:2] * 3) == [503] * 4 + [200] * 2
        sandbox, _ = faulty("random503:1,times=3")
        assert await statuses(sandbox, ORDERS[:4]) == [503] * 3 + [200]


async def await_all(orders: tuple[str, ...]) -> dict[str, list[int]]:
    """Ask three times for each order at once."""
    sandbox, _ = faulty("random503:0.3,seed=7")
    turns = [await asyncio.gather(*(ask(sandbox, signed(sandbox, order)) for order in orders)) for _ in range(3)]
    return {order: [answer.status for answer in answers] for order, *answers in zip(orders, *turns, strict=True)}


class TestOutage:
    @pytest.mark.asyncio
    async def test_it_answers_sys_dep_503_while_it_lasts_and_processes_nothing(self) -> None:
        sandbox, clock = faulty("outage:start=20,length=20")
        assert (await ask(sandbox, submission(sandbox))).status == 200
        clock.advance(20)
        answer = await ask(sandbox, submission(sandbox))
        assert (answer.status, answer.json["error"]["code"]) == (503, "SYS_DEP_503")
        clock.advance(20)
        assert (await ask(sandbox, submission(sandbox))).status == 200
        assert len(sandbox.created) == 2
        assert counted(sandbox) == [{"unavailable": 1}]

    @pytest.mark.asyncio
    async def test_refused_connections_send_nothing(self) -> None:
        """The error says so, and no request is seen."""
        sandbox, clock = faulty("outage:length=5,answer=refused")
        exchange = Exchange()
        with pytest.raises(TransportError) as caught:
            async with sandbox.send(submission(sandbox), exchange):
                pass
        assert (caught.value.sent, exchange.sent, len(sandbox.log)) == ("no", False, 0)
        assert counted(sandbox) == [{"refused": 1}]
        clock.advance(5)
        assert (await ask(sandbox, submission(sandbox))).status == 200

    @pytest.mark.asyncio
    async def test_what_is_in_flight_when_it_goes_down_loses_its_answer(self) -> None:
        """The invoice is made; whether it was is not known."""
        sandbox, clock = faulty("capacity:1,seconds=3", "outage:start=2,answer=refused")
        with pytest.raises(TransportError) as caught:
            await ask(sandbox, submission(sandbox))
        assert (caught.value.sent, len(sandbox.created), clock.elapsed) == ("unknown", 1, 3)
        assert counted(sandbox)[1] == {"cut": 1}

    @pytest.mark.asyncio
    async def test_it_recovers_little_by_little(self) -> None:
        """Fewer calls are refused from tenth to tenth of the recovery, and none after it."""
        sandbox, clock = faulty("outage:length=10,recovery=100,seed=3")
        clock.advance(10)
        refused = []
        for _ in range(10):
            refused.append((await statuses(sandbox, ORDERS[:100])).count(503))
            clock.advance(10)
        assert refused[0] >= 95
        assert refused[-1] <= 20
        assert sum(refused[:5]) > 2 * sum(refused[5:])
        assert await statuses(sandbox, ORDERS[:50]) == [200] * 50


class TestCapacity:
    def test_it_serves_so_many_at_once_queues_so_many_and_refuses_the_rest(self) -> None:
        """In virtual time: twenty at once are eight in the first half second, eight in the next, four refused."""

        async def burst() -> tuple[list[int], list[float], list[dict[str, int]]]:
            sandbox = Sandbox(clock=VirtualClock(), inject=[Capacity(8, queue=8, seconds=0.5)])

            async def one(order: str) -> tuple[int, float]:
                answer = await ask(sandbox, signed(sandbox, order))
                return answer.status, sandbox.clock.monotonic()

            ended = await asyncio.gather(*map(one, ORDERS[:20]))
            return [status for status, _ in ended], [at for _, at in ended], counted(sandbox)

        answered, at, counts = run(burst())
        assert answered == [200] * 16 + [503] * 4
        assert at == pytest.approx([0.5] * 8 + [1.0] * 8 + [0.0] * 4)
        assert counts == [{"served": 16, "queued": 8, "refused": 4}]

    def test_a_place_is_held_until_the_body_ends_and_given_back_by_who_leaves(self) -> None:
        """Nobody who was cancelled, waiting or served, keeps a place."""

        async def held() -> int:
            sandbox = Sandbox(clock=VirtualClock(), inject=[Capacity(1, queue=9, seconds=0)])
            async with sandbox.send(signed(sandbox, ORDERS[0]), Exchange()):
                waiting = [asyncio.create_task(ask(sandbox, signed(sandbox, order))) for order in ORDERS[1:4]]
                await asyncio.sleep(1)
                assert not any(task.done() for task in waiting)
                waiting[0].cancel()
                await asyncio.sleep(1)
            answers = await asyncio.gather(*waiting[1:])
            return len([answer for answer in answers if answer.status == 200])

        assert run(held()) == 2

    def test_it_may_change_on_the_way(self) -> None:
        """Two windows are two capacities."""

        async def changing() -> list[float]:
            faults = map(Fault.parse, ("capacity:1,queue=99,seconds=1,length=10", "capacity:10,seconds=1,start=10"))
            sandbox = Sandbox(clock=VirtualClock(), inject=faults)
            took = []
            for _ in range(2):
                begun = sandbox.clock.monotonic()
                await asyncio.gather(*(ask(sandbox, signed(sandbox, order)) for order in ORDERS[:10]))
                took.append(sandbox.clock.monotonic() - begun)
            return took

        assert run(changing()) == pytest.approx([10, 1])


class TestLimits:
    @pytest.mark.asyncio
    async def test_429_says_when_in_seconds_as_a_date_or_not_at_all(self) -> None:
        sandbox, clock = faulty("429:600")
        sandbox_date, _ = faulty("429:600,date=true", clock=clock)
        sandbox_none, _ = faulty("429:none")
        said = [(await ask(box, signed(box))).headers.get("Retry-After") for box in (sandbox, sandbox_none)]
        assert said == ["600", None]
        answer = await ask(sandbox_date, signed(sandbox_date))
        assert parsedate_to_datetime(answer.headers["Retry-After"]).timestamp() == START + 600

    @pytest.mark.asyncio
    async def test_each_store_has_its_own_rate(self) -> None:
        """What one store sends does not count for another, and `Retry-After` is when its next call passes."""
        credentials = SandboxCredentials(stores={"b": "token-b"})
        clock = FakeClock()
        sandbox = Sandbox(SandboxSettings(credentials=credentials), clock=clock, inject=[StoreRate(0.5, burst=2)])
        other: Any = {"x_store_client_id": "b", "x_store_token": "token-b"}
        first = [await ask(sandbox, signed(sandbox)) for _ in range(3)]
        second = [await ask(sandbox, signed(sandbox, **other)) for _ in range(3)]
        for answers in (first, second):
            assert [answer.status for answer in answers] == [200, 200, 429]
            assert answers[-1].headers["Retry-After"] == "2"
        clock.advance(2)
        assert [(await ask(sandbox, signed(sandbox))).status for _ in range(2)] == [200, 429]
        assert counted(sandbox) == [{"passed": 5, "refused": 3, "refused store_sandbox": 2, "refused b": 1}]
        assert credentials.partner("b")["store_token"] == "token-b"
        assert "token-b" not in repr(credentials)

    @pytest.mark.asyncio
    async def test_a_store_with_anothers_token_is_refused(self) -> None:
        sandbox = made(credentials=SandboxCredentials(stores={"b": "token-b"}))
        answer = await ask(sandbox, signed(sandbox, x_store_client_id="b"))
        assert answer.json["error"]["details"]["context"] == {"reason": "x-store-token missing or not known"}


class TestClock:
    @pytest.mark.asyncio
    @pytest.mark.parametrize("seconds", [-600, 600])
    async def test_a_clock_that_is_off_refuses_right_timestamps_and_shows_it(self, seconds: int) -> None:
        """`Date` is what the services believe, and a timestamp by it is accepted."""
        sandbox, _ = faulty(f"skew:{seconds}")
        refused = await ask(sandbox, signed(sandbox))
        assert refused.status == 401
        shown = parsedate_to_datetime(refused.headers["Date"]).timestamp()
        assert shown == START + seconds
        assert (await ask(sandbox, signed(sandbox, ms=int(shown * 1000)))).status == 200
        assert sandbox.log[0].at == START
        assert counted(sandbox) == [{"answers": 2}]

    @pytest.mark.asyncio
    async def test_within_the_window_nothing_is_refused(self) -> None:
        sandbox, _ = faulty("skew:299")
        assert (await ask(sandbox, signed(sandbox))).status == 200


class TestEinvoices:
    @pytest.mark.asyncio
    async def test_an_invoice_may_never_be_done(self) -> None:
        """By its request id, at any poll; when the fault ends it is."""
        sandbox, clock = faulty("neverdone:share=0.5,length=50", faults=Faults(polls_until_done=(0, 0)))
        bodies = [draft(consumer={"code": str(number)}) for number in range(60)]
        answers = [(await ask(sandbox, submission(sandbox, body))).json for body in bodies]
        stuck = [answer["request_id"] for answer in answers if answer["status"] == "NEW"]
        assert 15 < len(stuck) < 45
        for _ in range(5):
            polled = [(await ask(sandbox, status(sandbox, one))).json["status"] for one in stuck]
            assert set(polled) == {"NEW"}
        clock.advance(50)
        assert {(await ask(sandbox, status(sandbox, one))).json["status"] for one in stuck} == {"SUCCESS"}

    @pytest.mark.asyncio
    async def test_an_export_may_be_built_for_ever(self) -> None:
        sandbox, _ = faulty("neverdone:operation=export", faults=Faults(polls_until_done=(0, 0)))
        await ask(sandbox, submission(sandbox))
        (record,) = sandbox.created.values()
        for _ in range(5):
            request = bearer(sandbox, f"/v2/ob/invoices/{record.invoice_id}/export", query="format=pdf")
            assert (await ask(sandbox, request)).json == {"download_url": "", "status": "BUILDING"}

    @pytest.mark.asyncio
    async def test_an_answer_may_be_lost_after_the_invoice_is_made(self) -> None:
        """Each of these makes one, and none of them says so."""
        for text in ("lost", "reset:before-head", "reset:after-head", "reset:in-body,at=5", "truncate:5"):
            sandbox, _ = faulty(text)
            with pytest.raises(TransportError) as caught:
                await ask(sandbox, submission(sandbox))
            assert (caught.value.sent, len(sandbox.created)) == ("unknown", 1), text

    @pytest.mark.asyncio
    async def test_a_gateway_may_answer_in_its_place(self) -> None:
        """After its own time-out, with a page of its own."""
        sandbox, clock = faulty("gateway504:30")
        answer = await ask(sandbox, submission(sandbox))
        assert (answer.status, answer.headers["Content-Type"], clock.elapsed) == (504, "text/html", 30)
        assert len(sandbox.created) == 1

    @pytest.mark.asyncio
    async def test_lost_and_gateway504_are_for_submissions_unless_told(self) -> None:
        sandbox, _ = faulty("lost", "gateway504")
        assert await statuses(sandbox, ORDERS[:1]) == [200]
        sandbox, _ = faulty("gateway504:operation=document")
        assert await statuses(sandbox, ORDERS[:1]) == [504]

    @pytest.mark.asyncio
    async def test_a_reset_before_the_work_makes_no_invoice(self) -> None:
        sandbox, _ = faulty("reset:before-work")
        with pytest.raises(TransportError):
            await ask(sandbox, submission(sandbox))
        assert not sandbox.created


def status(sandbox: Sandbox, request_id: str) -> Any:
    return bearer(sandbox, f"/v2/ob/invoices/by-request-id/{request_id}")


class TestBodies:
    @pytest.mark.asyncio
    @pytest.mark.parametrize(("text", "length"), [("truncate:7", 7), ("truncate:0", 0), ("reset:after-head", 0)])
    async def test_a_body_breaks_off_where_it_says(self, text: str, length: int) -> None:
        """The head is there and counts the whole."""
        sandbox, _ = faulty(text)
        code, got, error = await broken(sandbox)
        assert (code, len(got), error is not None) == (200, length, True)

    @pytest.mark.asyncio
    async def test_what_is_shorter_than_the_truncation_is_whole(self) -> None:
        sandbox, _ = faulty("truncate:1000000")
        _, got, error = await broken(sandbox)
        assert (got[:5], error) == (b"%PDF-", None)
        assert counted(sandbox) == [{}]

    @pytest.mark.asyncio
    async def test_a_body_without_an_end_has_no_length(self) -> None:
        """All of it comes, and the end does not."""
        sandbox, _ = faulty("unended")
        whole = (await ask(made(), signed(made()))).body
        async with sandbox.send(signed(sandbox), Exchange()) as response:
            assert response.header("content-length") is None
        assert (await broken(sandbox, ORDER))[1] == whole

    @pytest.mark.asyncio
    async def test_a_body_without_an_end_may_go_on_for_ever(self) -> None:
        sandbox, _ = faulty("unended:more")
        size = 0
        async with sandbox.send(signed(sandbox), Exchange()) as response:
            async for chunk in response.chunks():
                size += len(chunk)
                if size > 500_000:
                    break
        assert counted(sandbox) == [{"unended": 1}]

    @pytest.mark.asyncio
    @pytest.mark.parametrize("text", ["hang", "hang:at=10", "unended:hang"])
    async def test_silence_lasts_until_the_caller_leaves(self, text: str) -> None:
        sandbox, _ = faulty(text)
        task = asyncio.create_task(broken(sandbox))
        for _ in range(5):
            await asyncio.sleep(0)
        assert sandbox.in_flight == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert sandbox.in_flight == 0

    @pytest.mark.asyncio
    async def test_a_drip_takes_its_time_on_the_clock(self) -> None:
        sandbox, clock = faulty("drip:0.5,size=100")
        answer = await ask(sandbox, signed(sandbox))
        pieces = -(-len(answer.body) // 100)
        assert clock.elapsed == pieces * 0.5
        assert counted(sandbox) == [{"slow": 1, "pieces": pieces}]

    @pytest.mark.asyncio
    async def test_faults_of_a_body_work_on_top_of_each_other(self) -> None:
        """A drip that is cut short."""
        sandbox, clock = faulty("truncate:250", "drip:1,size=100")
        _, got, error = await broken(sandbox)
        assert (len(got), clock.elapsed, error is not None) == (250, 3, True)
