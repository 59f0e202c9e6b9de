"""A lane against a service, in virtual time: a small discrete-event simulation without a loop."""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable
from itertools import count
from math import inf
from typing import Any

from attrs import define, field, frozen

from invoicing_async._governor.lane import Answer, Lane
from invoicing_async.policies import OutagePolicy, RetryPolicy

Seconds = Callable[[random.Random], float]
"""Draws how long the service works on one call."""

REFUSAL = 0.001
"""Seconds that a service takes to refuse a call."""


def constant(seconds: float) -> Seconds:
    return lambda _: seconds


def lognormal(median: float, sigma: float) -> Seconds:
    return lambda chance: median * chance.lognormvariate(0.0, sigma)


@define
class Service:
    """Does `capacity` calls at once and queues as many as `queue`; refuses the rest, and a `share` by chance."""

    seconds: Seconds
    capacity: float = inf
    queue: float = inf
    share: float = 0.0
    down: tuple[float, float] = (inf, inf)
    network: float = 0.002
    working: int = 0
    waiting: deque[Call] = field(factory=deque)


@define(eq=False)
class Call:
    item: Item
    ticket: Any
    is_probe: bool


@define(eq=False)
class Item:
    counted: int = 0
    seen: int = -1
    """The lane's answers when its last attempt began."""
    is_second: bool = False


@frozen
class Result:
    """What came of a batch: `sent` attempts, `refused` of them; `failed` items; `in_outage` attempts while down."""

    seconds: float
    sent: int
    refused: int
    failed: int
    in_outage: int
    pauses: int
    done: list[float]
    limits: list[tuple[float, int]]

    @property
    def amplification(self) -> float:
        return self.sent / len(self.done)

    def rate(self, begin: float, end: float) -> float:
        """Return the successes a second between two times."""
        return sum(begin <= at < end for at in self.done) / (end - begin)


class Simulation:
    """A batch of `items` through one lane, or without a governor through so many places."""

    def __init__(
        self,
        service: Service,
        items: int,
        *,
        top: int = 64,
        seed: int = 1,
        governed: bool = True,
        retry: RetryPolicy | None = None,
        changes: tuple[tuple[float, float], ...] = (),
        policy: OutagePolicy | None = None,
    ) -> None:
        self.service, self.retry = service, retry or RetryPolicy()
        self.governed = governed
        self.lane = Lane(policy or OutagePolicy(), top, adaptive=governed)
        self.chance = random.Random(seed)
        self.ready: deque[Item] = deque()
        self.fresh = items
        self.again: list[Item] = []
        self.left = items
        self.now = 0.0
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.numbers = count()
        self.in_use = self.sent = self.refused = self.failed = self.in_outage = 0
        self.done: list[float] = []
        self.limits: list[tuple[float, int]] = []
        self.timer = inf
        self.parked = 0
        self.places = 1
        for at, capacity in changes:
            self.at(at, lambda capacity=capacity: self.change(capacity))  # type: ignore[misc]

    def change(self, capacity: float) -> None:
        self.service.capacity = self.service.queue = capacity
        self.start_waiting()

    def at(self, when: float, what: Callable[[], None]) -> None:
        heapq.heappush(self.events, (when, next(self.numbers), what))

    def run(self) -> Result:
        self.pump()
        while self.left:
            self.now, _, what = heapq.heappop(self.events)
            what()
            self.pump()
        return Result(
            self.now, self.sent, self.refused, self.failed, self.in_outage, self.lane.pauses, self.done, self.limits
        )

    def pump(self) -> None:
        """Begin whatever may begin."""
        lane = self.lane
        while self.ready or self.fresh or self.again:
            if self.in_use >= lane.top:
                return
            if self.governed and (wait := lane.wait(self.now)) > 0:
                if wait < inf and not self.now < self.timer <= self.now + wait:
                    self.timer = self.now + wait
                    self.at(self.timer, lambda: None)
                return
            if self.ready:
                item = self.ready.popleft()
            elif self.fresh:
                self.fresh -= 1
                item = Item()
            elif self.in_use == self.parked == 0:
                item = self.again.pop()
            else:
                return
            self.begin(item)

    def begin(self, item: Item) -> None:
        self.in_use += 1
        self.sent += 1
        service = self.service
        ticket = self.lane.begin(self.now)
        item.seen = self.lane.answers
        call = Call(item, ticket, is_probe=ticket.is_probe)
        if service.down[0] <= self.now < service.down[1]:
            self.in_outage += 1
            self.at(self.now + REFUSAL, lambda: self.end(call, Answer.REFUSED))
        elif self.chance.random() < service.share:
            self.at(self.now + service.network + service.seconds(self.chance), lambda: self.end(call, Answer.REFUSED))
        elif service.working < service.capacity:
            self.work(call)
        elif len(service.waiting) < service.queue:
            service.waiting.append(call)
        else:
            self.at(self.now + service.network + REFUSAL, lambda: self.end(call, Answer.REFUSED))

    def work(self, call: Call) -> None:
        self.service.working += 1
        self.at(self.now + self.service.network + self.service.seconds(self.chance), lambda: self.worked(call))

    def worked(self, call: Call) -> None:
        service = self.service
        service.working -= 1
        self.start_waiting()
        answer = Answer.REFUSED if service.down[0] <= self.now < service.down[1] else Answer.SUCCESS
        self.in_outage += answer is Answer.REFUSED
        self.end(call, answer)

    def start_waiting(self) -> None:
        while self.service.waiting and self.service.working < self.service.capacity:
            self.work(self.service.waiting.popleft())

    def end(self, call: Call, answer: Answer) -> None:
        self.in_use -= 1
        lane, item = self.lane, call.item
        lane.end(call.ticket, answer, self.now, self.chance.random)
        if not self.limits or self.limits[-1][1] != lane.limit:
            self.limits.append((self.now, lane.limit))
        if answer is Answer.SUCCESS:
            self.left -= 1
            self.done.append(self.now)
            return
        self.refused += 1
        item.counted += not self.governed or lane.answers > item.seen or item.counted == 0
        if item.counted >= self.retry.attempts:
            if item.is_second or not self.governed:
                self.failed += 1
                self.left -= 1
                self.done.append(self.now)
                return
            item.is_second, item.counted = True, 0
            self.again.append(item)
            return
        self.parked += 1
        self.at(self.now + self.retry.delay(max(1, item.counted), self.chance.random()), lambda: self.back(item))

    def back(self, item: Item) -> None:
        if self.governed and not self.lane.budget.take(self.now):
            self.at(self.now + self.lane.budget.wait(self.now) + 0.01, lambda: self.back(item))
            return
        self.parked -= 1
        self.ready.append(item)
