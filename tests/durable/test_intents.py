"""How old an intent may be when its first byte leaves: judged at the connection, renewed at once, never sent stale."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path

import pytest
from attrs import evolve
from fakes import FakeClock, FakeResponse, FakeTransport
from peers import OK, answering, listening
from places import SUPPORT
from short_form import IN_FULL

from invoicing_async._core.clock import RealClock
from invoicing_async._core.http import Exchange, Repeat, Request, Response
from invoicing_async._transport.client import AiohttpTransport
from invoicing_async.auth import StaticToken
from invoicing_async.errors import TransportError
from invoicing_async.policies import RetryPolicy, Timeouts
from invoicing_async.session import RENEWALS, Session, StaleIntentError

CALL = Request(method="POST", path="/x", body=b"{}", repeat=Repeat.IF_NOT_SENT, operation="test")


class Slow(FakeTransport):
    """Takes so many seconds to connect, the next time that much."""

    def __init__(self, clock: FakeClock, *connecting: float) -> None:
        super().__init__(answers=[FakeResponse(pieces=(b"fine",))])
        self.clock = clock
        self.connecting = list(connecting)

    @asynccontextmanager
    async def send(self, request: Request, exchange: Exchange) -> AsyncIterator[Response]:
        seconds = self.connecting.pop(0) if self.connecting else 0.0
        self.clock.advance(seconds)
        exchange.leave()
        async with super().send(request, exchange) as answer:
            yield answer


class Told:
    """Counts what a call tells."""

    def __init__(self) -> None:
        self.intents = 0
        self.left = 0

    async def before(self) -> None:
        self.intents += 1

    def leaves(self) -> None:
        self.left += 1


async def read(response: Response) -> bytes:
    return await response.read(100)


async def called(transport: Slow, told: Told, *, retry: RetryPolicy | None = None) -> bytes:
    async with Session(
        "http://x", auth=StaticToken("t"), transport=transport, clock=transport.clock, retry=retry
    ) as session:
        return await session.call(CALL, read, before_send=told.before, on_send=told.leaves)


@pytest.mark.asyncio
class TestRenewal:
    async def test_an_intent_that_is_young_enough_is_used(self, clock: FakeClock) -> None:
        told = Told()
        assert await called(Slow(clock, 4.9), told) == b"fine"
        assert (told.intents, told.left, clock.slept) == (1, 1, [])

    async def test_an_older_one_is_renewed_at_once_and_costs_no_attempt(self, clock: FakeClock) -> None:
        told = Told()
        assert await called(Slow(clock, 5.1, 15, 6), told, retry=RetryPolicy(attempts=1)) == b"fine"
        assert (told.intents, told.left, clock.slept) == (4, 1, [0, 0, 0])

    async def test_one_that_is_always_too_old_ends_the_call_unsent(self, clock: FakeClock) -> None:
        told = Told()
        transport = Slow(clock, *[6.0] * 99)
        with pytest.raises(StaleIntentError) as caught:
            await called(transport, told, retry=RetryPolicy(attempts=2, deadline=None))
        assert (caught.value.sent, told.left, transport.sent) == ("no", 0, [])
        assert told.intents == RENEWALS + 2

    async def test_a_machine_that_slept_is_noticed_by_the_time_of_day(self) -> None:
        class Sleeping(FakeClock):
            asleep = 0.0

            def now(self) -> float:
                return super().now() + self.asleep

        clock, told = Sleeping(), Told()

        async def before() -> None:
            await told.before()
            clock.asleep += 3600 if told.intents == 1 else 0

        async with Session("http://x", auth=StaticToken("t"), transport=Slow(clock), clock=clock) as session:
            assert await session.call(CALL, read, before_send=before) == b"fine"
        assert told.intents == 2

    async def test_a_machine_that_slept_is_noticed_though_its_clock_was_set_back(self) -> None:
        """By the clock that goes on in sleep and is never set, where there is one."""

        class Sleeping(FakeClock):
            asleep = 0.0

            def boottime(self) -> float:
                return self.monotonic() + self.asleep

        clock, told = Sleeping(), Told()

        async def before() -> None:
            await told.before()
            clock.asleep += 6 if told.intents == 1 else 0

        async with Session("http://x", auth=StaticToken("t"), transport=Slow(clock), clock=clock) as session:
            assert await session.call(CALL, read, before_send=before) == b"fine"
        assert told.intents == 2

    async def test_its_age_begins_before_it_is_handed_over(self, clock: FakeClock) -> None:
        """What takes long to be recorded is old when it is: others judge it by when they see it."""
        told = Told()

        async def before() -> None:
            await told.before()
            clock.advance(5.1 if told.intents == 1 else 4.9)

        async with Session("http://x", auth=StaticToken("t"), transport=Slow(clock), clock=clock) as session:
            assert await session.call(CALL, read, before_send=before) == b"fine"
        assert told.intents == 2

    async def test_a_request_that_may_be_repeated_has_no_deadline(self, clock: FakeClock) -> None:
        transport = Slow(clock, 60)
        async with Session("http://x", auth=StaticToken("t"), transport=transport, clock=clock) as session:
            assert await session.call(evolve(CALL, repeat=Repeat.ALWAYS), read) == b"fine"


class Asleep(RealClock):
    """A clock of which one sees for how long the machine was asleep."""

    def __init__(self, sees: str) -> None:
        super().__init__()
        self.sees = sees
        self.asleep = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.asleep * (self.sees == "monotonic")

    def now(self) -> float:
        return super().now() + self.asleep * (self.sees == "now")

    def boottime(self) -> float:
        return super().boottime() + self.asleep * (self.sees == "boottime")


@pytest.mark.asyncio
@pytest.mark.usefixtures("both_paths")
class TestAtTheConnection:
    async def test_one_that_is_too_late_is_not_written_and_its_connection_serves_the_next(self) -> None:
        def late() -> None:
            raise StaleIntentError("late", sent="no")

        async with listening(answering(OK)) as peer:
            door = AiohttpTransport()
            exchange = Exchange(on_send=late)
            with pytest.raises(TransportError) as caught:
                await door.send(evolve(CALL, base_url=peer.url), exchange).__aenter__()
            assert (caught.value.sent, exchange.sent) == ("no", False)
            async with door.send(evolve(CALL, base_url=peer.url), Exchange()) as answer:
                assert await answer.read(10) == b"ok"
            await door.close()
        assert (peer.connections, len(peer.requests)) == (1, 1)

    async def test_what_slept_on_its_way_to_the_connection_is_not_written(self) -> None:
        """The machine slept between intent and connection, and only one clock saw it."""

        class Waking(AiohttpTransport):
            @asynccontextmanager
            async def send(self, request: Request, exchange: Exchange) -> AsyncIterator[Response]:
                clock.asleep += 6 if told.intents == 1 else 0
                async with super().send(request, exchange) as response:
                    yield response

        clock, told, door = Asleep("boottime"), Told(), Waking()
        async with (
            listening(answering(OK)) as peer,
            Session(peer.url, auth=StaticToken("t"), transport=door, clock=clock) as session,
        ):
            assert await session.call(CALL, read, before_send=told.before, on_send=told.leaves) == b"ok"
        await door.close()
        assert (told.intents, told.left, len(peer.requests)) == (2, 1, 1)

    @pytest.mark.parametrize("clock_that_saw_it", ["monotonic", "now", "boottime"])
    async def test_what_was_stopped_between_its_head_and_its_body_becomes_no_request(
        self, clock_that_saw_it: str
    ) -> None:
        """When it wakes, others have given it up: its connection is aborted, whichever clock saw it stand still."""
        clock, told = Asleep(clock_that_saw_it), Told()

        class Stopping(AiohttpTransport):
            @asynccontextmanager
            async def send(self, request: Request, exchange: Exchange) -> AsyncIterator[Response]:
                complete = exchange.on_complete

                def stopped() -> None:
                    clock.asleep += asleep
                    assert complete is not None
                    complete()

                exchange.on_complete = stopped
                async with super().send(request, exchange) as response:
                    yield response

        door, timeouts = Stopping(), Timeouts(intent=2.0, attempt=10.0)
        async with (
            listening(answering(OK, OK)) as peer,
            Session(peer.url, auth=StaticToken("t"), transport=door, clock=clock, timeouts=timeouts) as session,
        ):
            asleep = 11.5
            assert await session.call(CALL, read, before_send=told.before, on_send=told.leaves) == b"ok"
            asleep = 12.5
            with pytest.raises(TransportError, match="stood still") as caught:
                await session.call(CALL, read, before_send=told.before, on_send=told.leaves)
            await peer.gone()
        await door.close()
        assert (caught.value.sent, told.intents, told.left) == ("unknown", 2, 2)
        assert len(peer.requests) == 1  # of the other one only a head came

    async def test_what_leaves_is_told_on_a_connection_that_is_there(self) -> None:
        seen: list[int] = []
        async with listening(answering(OK)) as peer:
            door = AiohttpTransport()
            exchange = Exchange(on_send=lambda: seen.append(len(peer.requests)))
            async with door.send(evolve(CALL, base_url=peer.url), exchange):
                assert exchange.sent
            await door.close()
        assert seen == [0]
        assert peer.requests[0].endswith(b"\r\n\r\n{}")


STOPPED = """
import asyncio, sys
from contextlib import aclosing
from invoicing_async import AsyncInvoices, Limits, Session, StaticToken, Timeouts
from invoicing_async.runs import InvoiceRun
sys.path.append(sys.argv.pop(1))
from kill_work import draft

async def main(url, file, loop):
    timeouts, limits = Timeouts(intent=0.5), Limits(concurrency=40, stop_after=None)
    async with Session(url, auth=StaticToken("t"), limits=limits, timeouts=timeouts) as session:
        async with InvoiceRun.open(file) as run:
            await run.add(map(draft, range(600)))
            print("ready", flush=True)
            # On a machine that is slow for a moment an intent may be too old again and again: then it was not sent.
            while await run.ledger.pending():
                async with aclosing(run.submit(AsyncInvoices(session))) as items:
                    async for item in items:
                        pass

if sys.argv[3] == "uvloop":
    import uvloop
    uvloop.run(main(*sys.argv[1:]))
else:
    asyncio.run(main(*sys.argv[1:]))
"""

STOPS = 3

SERVICE = """
import asyncio, re, sys, time
from uuid import uuid4

async def answer(reader, writer):
    try:
        while True:
            head = await reader.readuntil(b"\\r\\n\\r\\n")
            body = await reader.readexactly(int(re.search(rb"(?i)content-length: (\\d+)", head)[1]))
            print(re.search(rb'"name": ?"([^"]+)"', body)[1].decode(), time.time(), flush=True)
            await asyncio.sleep(0.05)
            said = b'{"request_id": "%s", "status": "NEW"}' % str(uuid4()).encode()
            writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(said) + said)
    except (OSError, asyncio.IncompleteReadError):
        writer.close()

async def main():
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()

asyncio.run(main())
"""


@pytest.mark.slow
@pytest.mark.parametrize("loop", [pytest.param("asyncio", marks=IN_FULL), "uvloop"])
def test_a_process_that_was_stopped_with_a_full_anteroom_sends_no_stale_intent(tmp_path: Path, loop: str) -> None:
    """Each submission arrives within the limit of the intent that is recorded for it, and once."""
    file, arrived = tmp_path / "run.db", dict[str, list[float]]()
    with started(SERVICE) as service, started(STOPPED, str(SUPPORT), port_of(service), str(file), loop) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "ready\n"
        for _ in range(STOPS):
            time.sleep(0.15)
            run.send_signal(signal.SIGSTOP)
            time.sleep(2)
            run.send_signal(signal.SIGCONT)
        assert run.wait(60) == 0
        service.terminate()
        assert service.stdout is not None
        for line in service.stdout:
            key, at = line.split()
            arrived.setdefault(key, []).append(float(at))
    with closing(sqlite3.connect(file)) as rows:
        intents = dict(rows.execute("SELECT key, sent_at FROM items"))
    assert len(intents) == 600
    assert {key: len(times) for key, times in arrived.items()} == dict.fromkeys(intents, 1)
    # A stop may fall between the last look at the clock and the write, of one submission at most: the others that
    # were in line for their places must have looked again.
    stale = [key for key, times in arrived.items() if times[0] - intents[key] >= 1.9]
    assert len(stale) <= STOPS


@contextmanager
def started(code: str, *words: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([sys.executable, "-c", code, *words], stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def port_of(service: subprocess.Popen[str]) -> str:
    assert service.stdout is not None
    return f"http://127.0.0.1:{int(service.stdout.readline())}"
