"""A service in virtual time that is down, slow, small or moody, and a record of what it was asked.

Everything happens on the running loop's clock, so that on a loop in virtual time an outage of ten minutes takes as long
as the requests that are sent into it.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from typing import NamedTuple

MEDIAN, SIGMA = 0.05, 0.3  # seconds of work on a request: lognormal
RTT = 0.005  # seconds on the way there and back; a refusal takes no longer
MEAN = MEDIAN * math.exp(SIGMA**2 / 2)
BUCKETS = 20  # of a second, for the record


class RefusedError(ConnectionError):
    """Nobody listens: the request never left."""


class Answer(NamedTuple):
    status: int
    retry_after: float | None = None


DONE, UNAVAILABLE = Answer(200), Answer(503)


class Down(NamedTuple):
    """From `begin` to `end`, requests are answered SYS_DEP_503 at once, or their connections `refused`.

    `share` of them, of the operations `lanes` (None: of all).
    """

    begin: float
    end: float
    refused: bool = False
    share: float = 1.0
    lanes: frozenset[str] | None = None


class Profile(NamedTuple):
    """What is wrong with a service.

    `capacity` says from when on how many requests are worked on at once, with a queue as long; none: any number.
    `chance` is that of SYS_DEP_503 after the work. In `limited`, from begin to end, everybody is told by a 429 and its
    Retry-After to come back at the end.
    """

    down: tuple[Down, ...] = ()
    capacity: tuple[tuple[float, int], ...] = ()
    chance: float = 0.0
    limited: tuple[float, float] | None = None


class Record:
    """What a service was asked and answered: counts by operation, and by time in buckets of 1 / `BUCKETS` s."""

    def __init__(self) -> None:
        self.arrived: defaultdict[str, Counter[int]] = defaultdict(Counter)
        self.done: defaultdict[str, Counter[int]] = defaultdict(Counter)
        self.down = self.crowded = 0
        """Requests that came while it was down or had said when to come back, and those for which it was too small."""

    def sent(self) -> int:
        return sum(lane.total() for lane in self.arrived.values())

    def arrivals(self) -> Counter[int]:
        return sum(self.arrived.values(), Counter())

    def successes(self) -> Counter[int]:
        return sum(self.done.values(), Counter())


class Service:
    """Answers as its profile says. Make it inside the loop that it lives in."""

    def __init__(self, profile: Profile, seed: int = 1) -> None:
        self.record = Record()
        self._profile = profile
        self._loop = asyncio.get_running_loop()
        self._random = random.Random(seed)
        self._busy = 0
        self._queue: deque[asyncio.Future[None]] = deque()
        for begin, _ in profile.capacity[1:]:
            self._loop.call_at(begin, self._admit)

    async def ask(self, lane: str, leaves: Callable[[], None] = lambda: None) -> Answer:
        """Carry out a request of the operation `lane`, which `leaves` once there is a connection.

        Raises `RefusedError` where nobody listens.
        """
        now, record = self._loop.time(), self.record
        record.arrived[lane][int(now * BUCKETS)] += 1
        down = next((down for down in self._profile.down if self._meets(down, lane, now)), None)
        if down is None or not down.refused:
            leaves()
        if down is not None:
            record.down += 1
            await asyncio.sleep(RTT)
            if down.refused:
                raise RefusedError
            return UNAVAILABLE
        limited = self._profile.limited
        if limited is not None and limited[0] <= now < limited[1]:
            record.down += 1
            await asyncio.sleep(RTT)
            return Answer(429, limited[1] - now)
        if self._profile.capacity and not await self._entered():
            record.crowded += 1
            await asyncio.sleep(RTT)
            return UNAVAILABLE
        await self._work()
        if self._profile.chance and self._random.random() < self._profile.chance:
            return UNAVAILABLE
        record.done[lane][int(self._loop.time() * BUCKETS)] += 1
        return DONE

    def capacity(self, now: float) -> int:
        return next(places for begin, places in reversed(self._profile.capacity) if begin <= now)

    def _meets(self, down: Down, lane: str, now: float) -> bool:
        if not down.begin <= now < down.end or (down.lanes is not None and lane not in down.lanes):
            return False
        return down.share >= 1.0 or self._random.random() < down.share

    async def _entered(self) -> bool:
        """Wait in the queue for a place; false if the queue is full."""
        places = self.capacity(self._loop.time())
        if self._busy < places and not self._queue:
            self._busy += 1
            return True
        if len(self._queue) >= places:
            return False
        waiter = self._loop.create_future()
        self._queue.append(waiter)
        await waiter
        return True

    async def _work(self) -> None:
        seconds = MEDIAN * math.exp(self._random.gauss(0.0, SIGMA))
        if self._profile.capacity:
            self._loop.call_later(seconds, self._leave)  # also of one whose client is gone
        await asyncio.sleep(seconds + RTT)

    def _leave(self) -> None:
        self._busy -= 1
        self._admit()

    def _admit(self) -> None:
        places = self.capacity(self._loop.time())
        while self._queue and self._busy < places:
            waiter = self._queue.popleft()
            if not waiter.done():
                self._busy += 1
                waiter.set_result(None)
