"""Faults of the services themselves: they are down, small, limit their callers, never finish, or have a wrong clock."""

from __future__ import annotations

import asyncio
import json
from email.utils import formatdate
from http import HTTPStatus
from math import ceil
from typing import ClassVar

from attrs import define, field, frozen

from .._values.validators import count, finite, not_negative, optional, positive, share, whole
from ._answers import Reply
from ._faults import ANY, Fault, InFlight, Injection, Proceed, SampledFault, kind_of_fault, one_of
from ._shared import Call, Dice, Operation, Shared, json_reply

__all__ = ["Capacity", "ClockSkew", "NeverDone", "Outage", "Random503", "StoreRate", "TooManyRequests"]


@kind_of_fault
@frozen(kw_only=True)
class Outage(Fault):
    """Every call gets SYS_DEP_503, or connections are refused, while it is in force.

    `answer` is "503" for SYS_DEP_503, or "refused" for connections that are refused: in-process `TransportError` with
    `sent` "no"; on a port nobody listens, and what is connected is cut. For `recovery` seconds behind its `length` a
    share of the calls that falls evenly from all to none still gets SYS_DEP_503, drawn from `seed`.

    Counts "unavailable" and "refused" calls and those "cut"; on a port how often it "closed", and connections "cut".
    """

    kind: ClassVar[str] = "outage"
    example: ClassVar[str] = "outage:start=20,length=20,answer=refused"

    recovery: float = field(default=0.0, validator=not_negative)
    seed: int = field(default=0, validator=whole)
    answer: str = field(default="503", validator=one_of("503", "refused"))

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        if self.answer == "refused" and (self.recovery or self.operation != ANY):
            raise ValueError(
                "Outage.answer must be 503 with recovery or operation: refused connections are all or none"
            )

    def refuses(self, age: float) -> bool:
        """Tell whether connections are refused so many seconds after it was injected."""
        return self.answer == "refused" and self.holds(age)

    def memory(self, shared: Shared) -> dict[str, int]:
        """Count the calls during the recovery, to draw for each."""
        return {"drawn": 0}

    def hits(self, injection: Injection, call: Call, age: float) -> bool:
        """Tell whether the call meets the outage, or is drawn during the recovery."""
        if self.answer == "refused":
            return False
        if super().hits(injection, call, age):
            return True
        if self.length is None or not self.recovery or self.operation not in {ANY, call.operation.value}:
            return False
        since = age - self.start
        late = (since % self.every if self.every else since) - self.length
        if since < 0 or not 0 <= late < self.recovery:
            return False
        injection.memory["drawn"] += 1
        return Dice(self.seed).chance("recovery", injection.memory["drawn"]) < 1 - late / self.recovery

    async def apply(self, injection: Injection, flight: InFlight, proceed: Proceed) -> Reply:
        """Refuse without processing."""
        injection.counts["unavailable"] += 1
        return injection.shared.unavailable(flight.call)


@define
class _Places:
    """The places of a service, and how many wait for one."""

    free: asyncio.Semaphore
    waiting: int = 0


@kind_of_fault
@frozen
class Capacity(Fault):
    """At most `limit` calls are served at once; `queue` more wait in order, and what comes then gets SYS_DEP_503.

    A call holds its place from its turn to the end of its answer's body, and for `seconds` at least.

    Counts "served", "queued" and "refused" calls.
    """

    kind: ClassVar[str] = "capacity"
    example: ClassVar[str] = "capacity:8,queue=8,seconds=0.05"

    limit: int = field(validator=count)
    queue: int = field(default=0, validator=whole, kw_only=True)
    seconds: float = field(default=0.05, validator=not_negative, kw_only=True)

    def memory(self, shared: Shared) -> _Places:
        """Make the places."""
        return _Places(asyncio.Semaphore(self.limit))

    async def apply(self, injection: Injection, flight: InFlight, proceed: Proceed) -> Reply:
        """Wait for a place and go on, or refuse without processing if too many wait."""
        places: _Places = injection.memory
        if places.free.locked():
            if places.waiting >= self.queue:
                injection.counts["refused"] += 1
                return injection.shared.unavailable(flight.call)
            injection.counts["queued"] += 1
        places.waiting += 1
        try:
            await places.free.acquire()
        finally:
            places.waiting -= 1
        flight.ended.callback(places.free.release)
        injection.counts["served"] += 1
        await injection.shared.clock.sleep(self.seconds)
        return await proceed()


@kind_of_fault
@frozen
class Random503(SampledFault):
    """A share of the calls gets SYS_DEP_503, each try drawn anew. Counts "unavailable" calls."""

    kind: ClassVar[str] = "random503"
    example: ClassVar[str] = "random503:0.3,seed=7"

    share: float = field(validator=share)

    async def apply(self, injection: Injection, flight: InFlight, proceed: Proceed) -> Reply:
        """Refuse without processing."""
        injection.counts["unavailable"] += 1
        return injection.shared.unavailable(flight.call)


@kind_of_fault
@frozen
class TooManyRequests(SampledFault):
    """429 with `Retry-After` of `retry_after` seconds, as an HTTP-date if `date`; None sends none. Counts "refused"."""

    kind: ClassVar[str] = "429"
    example: ClassVar[str] = "429:600,first=1"

    retry_after: float | None = field(default=1.0, validator=optional(not_negative))
    date: bool = field(default=False, kw_only=True)

    async def apply(self, injection: Injection, flight: InFlight, proceed: Proceed) -> Reply:
        """Refuse without processing."""
        injection.counts["refused"] += 1
        seconds = self.retry_after
        text = None if seconds is None else str(ceil(seconds))
        if seconds is not None and self.date:
            text = formatdate(ceil(injection.shared.clock.now() + seconds), usegmt=True)
        return injection.shared.rate_limited(flight.call, text)


@kind_of_fault
@frozen
class StoreRate(Fault):
    """Each store may begin `per_second` calls, `burst` at once; what is more gets 429 and when to come again.

    A store is an `x-store-client-id`; all calls of the e-invoices are one store's. `retry_after` false leaves the
    header out. Counts "passed" and "refused" calls, and those of each store as "refused STORE".
    """

    kind: ClassVar[str] = "rate"
    example: ClassVar[str] = "rate:10,burst=5"

    per_second: float = field(validator=positive)
    burst: int = field(default=1, validator=count, kw_only=True)
    retry_after: bool = field(default=True, kw_only=True)

    def memory(self, shared: Shared) -> dict[str, tuple[float, float]]:
        """Keep for each store the calls that it has left, and when that was."""
        return {}

    async def apply(self, injection: Injection, flight: InFlight, proceed: Proceed) -> Reply:
        """Go on if the store has a call left, or refuse without processing."""
        stores: dict[str, tuple[float, float]] = injection.memory
        store = flight.call.headers.get("x-store-client-id", "e-invoices")
        now = injection.shared.clock.monotonic()
        left, then = stores.get(store, (float(self.burst), now))
        left = min(self.burst, left + (now - then) * self.per_second)
        # Clocks count in binary fractions: a call a hair before its time is on time.
        if left >= 1 - 1e-9:
            stores[store] = (left - 1, now)
            injection.counts["passed"] += 1
            return await proceed()
        stores[store] = (left, now)
        injection.counts.update(["refused", f"refused {store}"])
        text = str(max(1, ceil((1 - left) / self.per_second))) if self.retry_after else None
        return injection.shared.rate_limited(flight.call, text)


@kind_of_fault
@frozen
class ClockSkew(Fault):
    """The services' clock is `seconds` ahead, negative for behind.

    It is what `x-timestamp` is compared with and what `Date` and every time in an answer show; a `Date` is sent with
    every answer. Counts "answers" with such a `Date`.
    """

    kind: ClassVar[str] = "skew"
    example: ClassVar[str] = "skew:-600"

    seconds: float = field(validator=finite)


@kind_of_fault
@frozen(kw_only=True)
class NeverDone(Fault):
    """A `share` of the e-invoices stays NEW, and the export of a share BUILDING, while this is in force.

    Drawn from `seed` and the request's id, for an export the invoice's. Counts "unfinished" answers.
    """

    kind: ClassVar[str] = "neverdone"
    example: ClassVar[str] = "neverdone:share=0.1,seed=3"

    share: float = field(default=1.0, validator=share)
    seed: int = field(default=0, validator=whole)

    def hits(self, injection: Injection, call: Call, age: float) -> bool:
        """Tell whether the answer would say how far something is."""
        told = call.operation in {Operation.SUBMIT, Operation.STATUS, Operation.EXPORT}
        return told and super().hits(injection, call, age)

    async def apply(self, injection: Injection, flight: InFlight, proceed: Proceed) -> Reply:
        """Process the call, and say that it is not done yet."""
        reply = await proceed()
        if reply.status != HTTPStatus.OK:
            return reply
        subject = flight.call.subject or json.loads(reply.body)["request_id"]
        if Dice(self.seed).chance("never done", subject) >= self.share:
            return reply
        injection.counts["unfinished"] += 1
        if flight.call.operation is Operation.EXPORT:
            return json_reply({"download_url": "", "status": "BUILDING"})
        return json_reply({"request_id": subject, "status": "NEW"})
