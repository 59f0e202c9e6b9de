"""What happens to the service, what is to be done meanwhile, and how each client does it.

`played` runs one client through one scenario in virtual time and gives its figures.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from itertools import repeat
from pathlib import Path
from typing import NamedTuple

import ours
from model import BUCKETS, MEAN, Down, Profile, Record, Service
from rivals import RIVALS, Insisting, Rival

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "support"))
import vtime

OURS = "invoicing_async"
BEFORE = 10.0  # seconds before an outage from which the full rate is taken
AFTER = 10.0  # seconds after it in which a burst is looked for
BURST = 0.25  # seconds of a burst
PART = 0.95  # of the full rate


class Scenario(NamedTuple):
    """`work` says how many items there are of each operation; `concurrency` is one client's, of `clients`.

    `ends` are the seconds from and to which the operations that are polled end, one after the other.
    """

    name: str
    profile: Profile
    work: dict[str, int]
    concurrency: int = 64
    clients: int = 1
    ends: tuple[float, float] = (0.0, 0.0)

    @property
    def items(self) -> int:
        return sum(self.work.values()) * self.clients

    @property
    def recovered(self) -> float:
        """When the service is well again."""
        if self.profile.limited is not None:
            return self.profile.limited[1]
        return max((down.end for down in self.profile.down), default=0.0)

    @property
    def begins(self) -> float:
        if self.profile.limited is not None:
            return self.profile.limited[0]
        return min((down.begin for down in self.profile.down), default=0.0)

    def end_of(self, number: int) -> float:
        first, last = self.ends
        return first + (last - first) * number / max(1, self.work.get("polls", 1))


class Figures(NamedTuple):
    """What became of a scenario with one client. Seconds from the recovery, and from the start, of the run."""

    items: int
    sent: int
    down: int  # sent while the service was down, or had said when to come back
    crowded: int  # refused for want of a place
    failed: int  # items given as failed
    lost: int  # items not done at the end: those, and what a batch that stopped never began
    pauses: int
    back: float | None  # to 95 % of the full rate; None: never
    burst: float | None  # the most requests in a quarter of a second after the recovery, over the full rate
    other: float | None  # rate while down of the operations that were not, over what it was before
    time: float

    @property
    def amplification(self) -> float:
        return self.sent / self.items

    @property
    def crowded_share(self) -> float:
        return self.crowded / self.sent


def rate(done: Counter[int], begin: float, end: float) -> float:
    """How many a second there were."""
    first, last = int(begin * BUCKETS), int(end * BUCKETS)
    return sum(done[bucket] for bucket in range(first, last)) * BUCKETS / (last - first)


def back(done: Counter[int], recovered: float, full: float) -> float | None:
    """Seconds from the recovery to the end of the first second that had `PART` of the full rate."""
    if not done:
        return None
    first, last = int(recovered * BUCKETS), max(done)
    for end in range(first + 1, last + 1):
        if sum(done[bucket] for bucket in range(max(first, end - BUCKETS), end)) >= PART * full:
            return end / BUCKETS - recovered
    return None


def burst(arrived: Counter[int], recovered: float, full: float) -> float:
    """The most requests within `BURST` seconds after the recovery, over those of the full rate."""
    first, width = int(recovered * BUCKETS), int(BURST * BUCKETS)
    starts = range(first, first + int(AFTER * BUCKETS))
    most = max(sum(arrived[bucket] for bucket in range(start, start + width)) for start in starts)
    return most / (full * BURST)


def figures(scenario: Scenario, record: Record, told: Counter[str], time: float) -> Figures:
    begins, recovered = scenario.begins, scenario.recovered
    after = over = other = None
    if recovered:
        done = record.successes()
        full = rate(done, max(0.0, begins - BEFORE), begins)
        after, over = back(done, recovered, full), burst(record.arrivals(), recovered, full)
        lanes = scenario.profile.down[0].lanes if scenario.profile.down else None
        if lanes:
            well = sum((done for lane, done in record.done.items() if lane not in lanes), Counter[int]())
            other = rate(well, begins, recovered) / rate(well, max(0.0, begins - BEFORE), begins)
    return Figures(
        items=scenario.items,
        sent=record.sent(),
        down=record.down,
        crowded=record.crowded,
        failed=sum(told[name] for name in told if name not in {"done", "stopped", "paused", "NotStarted"}),
        lost=scenario.items - told["done"],
        pauses=told["paused"],
        back=after,
        burst=over,
        other=other,
        time=time,
    )


def played(scenario: Scenario, client: str, *, seed: int = 1) -> Figures:
    """Run a client through a scenario: the library, one of `RIVALS`, or a number at once that insists."""

    async def play() -> Figures:
        random.seed(seed)
        service, told = Service(scenario.profile, seed), Counter[str]()
        if client.startswith(OURS):
            await library(scenario, service, told, seed, watched=not scenario.profile.down, stops="on" not in client)
        elif client in RIVALS:
            await rivals(scenario, service, told, RIVALS[client], scenario.concurrency)
        else:
            await rivals(scenario, service, told, Insisting, int(client))
        return figures(scenario, service.record, told, asyncio.get_running_loop().time())

    return vtime.run(play())


async def library(
    scenario: Scenario, service: Service, told: Counter[str], seed: int, *, watched: bool, stops: bool
) -> None:
    def heard(event: object) -> None:
        told["paused"] += "pause" in type(event).__name__.lower()

    async def client(number: int) -> None:
        transport = ours.Modelled(service, scenario.end_of)
        settings = {"on_event": heard} if watched else {}
        if not stops:
            settings["limits"] = {"stop_after": None}
        async with ours.session(transport, scenario.concurrency, seed=seed + number, **settings) as live:
            await asyncio.gather(*(ours.WORK[name](live, count, told) for name, count in scenario.work.items()))

    await asyncio.gather(*map(client, range(scenario.clients)))


async def rivals(
    scenario: Scenario, service: Service, told: Counter[str], rule: Callable[[], Rival], concurrency: int
) -> None:
    """Do the work as a loop over workers does, each of which holds its place until its item is done or given up."""

    async def client() -> None:
        rival, places = rule(), asyncio.Semaphore(concurrency)

        async def one(lane: str) -> bool:
            async with places:
                return await rival.call(lambda: service.ask(lane))

        async def item(lane: str) -> None:
            told["done" if await one(lane) else "failed"] += 1

        async def operation(end: float) -> None:
            loop = asyncio.get_running_loop()
            over = False
            await asyncio.sleep(random.random() * ours.EVERY)
            while not over:
                over = loop.time() >= end
                if not await one("polls"):
                    told["failed"] += 1
                    return
                await asyncio.sleep(0.0 if over else ours.EVERY * random.uniform(0.8, 1.0))
            told["done"] += 1

        work: list[Awaitable[None]] = [
            many(map(item, repeat(lane, count)), concurrency)
            for lane, count in scenario.work.items()
            if lane != "polls"
        ]
        work += [operation(scenario.end_of(number)) for number in range(scenario.work.get("polls", 0))]
        await asyncio.gather(*work)

    await asyncio.gather(*(client() for _ in range(scenario.clients)))


async def many(work: Iterable[Awaitable[None]], concurrency: int) -> None:
    left = iter(work)

    async def worker() -> None:
        for piece in left:
            await piece

    await asyncio.gather(*(worker() for _ in range(concurrency)))


def outage(begin: float, seconds: float, *, refused: bool = False, lanes: Iterable[str] = ()) -> Profile:
    return Profile(down=(Down(begin, begin + seconds, refused, lanes=frozenset(lanes) or None),))


def busy_for(seconds: float, capacity: int) -> int:
    """How many items so many at once do in so many seconds."""
    return int(seconds * capacity / MEAN)
