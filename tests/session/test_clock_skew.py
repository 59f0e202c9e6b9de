"""A machine whose clock is off, or that slept between signing and sending, is understood after one refusal."""

from __future__ import annotations

import time
from email.utils import formatdate

import pytest
from fakes import START, FakeClock
from peers import Connection, Peer, Play, listening
from session_calls import body, document

from invoicing_async import AuthenticationError, HmacAuth, RetryPolicy, Session
from invoicing_async.events import ClockCorrected
from invoicing_async.session._session import internals_of

KEY = "the-right-key"
WINDOW = 60.0
HOUR = 3600.0


class Clock(FakeClock):
    """A clock that an operator can set, and a process that can be suspended between two looks at it."""

    ahead = 0.0
    sleeps = 0.0

    def now(self) -> float:
        seen = START + self.ahead
        self.ahead, self.sleeps = self.ahead + self.sleeps, 0.0
        return seen


def service(seen: list[float], *, ahead: float = 0.0, clock: Clock | None = None, age: bool = False) -> Play:
    """Accept a timestamp within a minute of the service's own clock, which is `ahead` of the true time."""

    async def play(connection: Connection, peer: Peer) -> None:
        while True:
            request = await connection.request()
            stamp = next(line for line in request.split(b"\r\n") if line.lower().startswith(b"x-timestamp"))
            now = START + ahead + (0.0 if clock is None else clock.ahead)
            off = int(stamp.split(b":")[1]) / 1000 - now
            seen.append(off)
            date = formatdate(now, usegmt=True).encode()
            date += b"\r\nAge: 1" if age else b""
            status = b"200 OK" if abs(off) <= WINDOW and b"wrong" not in request else b"401 X"
            await connection.say(b"HTTP/1.1 %s\r\nDate: %s\r\nContent-Length: 4\r\n\r\nfine" % (status, date))

    return play


def session_to(peer: Peer, clock: Clock, client: str = "p") -> Session:
    auth = HmacAuth(partner_client_id=client, secret_key=KEY)
    return Session(peer.url, auth=auth, clock=clock, retry=RetryPolicy(attempts=1))


@pytest.mark.parametrize("ahead", [-7 * HOUR, -HOUR, -90.0, 90.0, HOUR, 7 * HOUR])
@pytest.mark.asyncio
async def test_a_clock_that_is_off_costs_one_refusal_and_no_call(ahead: float) -> None:
    """The first call is signed twice, the others once, each within a second or two of the service's clock."""
    seen: list[float] = []
    async with listening(service(seen, ahead=ahead)) as peer, session_to(peer, Clock()) as session:
        for _ in range(4):
            assert await session.call(document(), body) == b"fine"
    assert len(seen) == 5
    assert all(abs(off) < 2 for off in seen[1:])


@pytest.mark.asyncio
async def test_a_correction_is_told_once_when_it_begins() -> None:
    """With the call whose refusal showed it; not for every answer after that."""
    told: list[ClockCorrected] = []
    clock = Clock()
    async with listening(service([], ahead=HOUR, clock=clock)) as peer, session_to(peer, clock) as session:
        internals_of(session).on_event = lambda event: told.append(event) if isinstance(event, ClockCorrected) else None
        for _ in range(5):
            assert await session.call(document(), body) == b"fine"
        [begun] = told
        assert abs(begun.offset - HOUR) < 2
        assert (begun.before, begun.status, begun.operation) == (0.0, 401, "document")
        assert begun.call_id > 0


@pytest.mark.asyncio
async def test_a_wrong_key_is_an_error_whatever_the_clocks_say() -> None:
    """Time is tried once; later calls of the same session do not try it again."""
    seen: list[float] = []
    async with listening(service(seen, ahead=HOUR)) as peer, session_to(peer, Clock(), "wrong") as session:
        for _ in range(3):
            with pytest.raises(AuthenticationError, match="60 min behind the service's"):
                await session.call(document(), body)
        assert internals_of(session).clock_offset.applied == 0
    assert len(seen) <= 3 + 2 + 1


@pytest.mark.asyncio
async def test_a_signature_that_slept_is_made_anew() -> None:
    """A process suspended for ten minutes between signing and sending: one more attempt, no correction."""
    seen: list[float] = []
    clock = Clock()
    async with listening(service(seen, clock=clock)) as peer, session_to(peer, clock) as session:
        await session.call(document(), body)
        clock.sleeps = 600.0
        assert await session.call(document(), body) == b"fine"
        assert internals_of(session).clock_offset.applied == 0
    assert [round(off) for off in seen] == [0, -600, 0]


@pytest.mark.asyncio
async def test_a_clock_that_is_set_right_ends_the_correction() -> None:
    """What was learned of a wrong clock is forgotten with the first answer after it was set."""
    seen: list[float] = []
    clock = Clock()
    async with listening(service(seen, ahead=HOUR)) as peer, session_to(peer, clock) as session:
        await session.call(document(), body)
        clock.ahead = HOUR
        await session.call(document(), body)
        await session.call(document(), body)
        assert internals_of(session).clock_offset.applied == 0
    assert abs(seen[-1]) < 2


@pytest.mark.asyncio
async def test_an_answer_out_of_a_cache_says_nothing_of_the_clock() -> None:
    """With `Age` the `Date` is that of another moment."""
    seen: list[float] = []
    async with listening(service(seen, ahead=HOUR, age=True)) as peer, session_to(peer, Clock()) as session:
        with pytest.raises(AuthenticationError):
            await session.call(document(), body)
        assert internals_of(session).clock_offset.estimate is None


def test_the_fake_starts_where_the_machine_could_be() -> None:
    """`Date` headers of these tests are dates that a service could send."""
    assert 0 < START < time.time() + 10 * 366 * 24 * HOUR
