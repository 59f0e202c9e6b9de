"""Faults of an answer on its way: slow, cut short, without an end, reset, lost, or replaced by a gateway's."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from functools import partial
from typing import ClassVar

from attrs import evolve, field, frozen

from .._values.validators import count, not_negative, optional, whole
from ..errors import TransportError
from ._answers import CHUNK, Reply, broken_off, cut, endless, reply, silence
from ._faults import InFlight, Injection, Proceed, SampledFault, kind_of_fault, one_of
from ._shared import Operation

__all__ = ["ConnectionReset", "Drip", "GatewayTimeout", "LostAnswer", "Silence", "Truncation", "UnendedBody"]

GATEWAY = (
    b"<html><head><title>504 Gateway Time-out</title></head><body>The gateway had no answer in time.</body></html>"
)

BEFORE_WORK, BEFORE_HEAD, AFTER_HEAD, IN_BODY = "before-work", "before-head", "after-head", "in-body"


def _altered(whole: Reply, alter: Callable[[AsyncIterator[bytes]], AsyncIterator[bytes]]) -> Reply:
    """Return an answer whose body is sent as `alter` makes it of the pieces."""
    return evolve(whole, stream=lambda body: alter(whole.stream(body)))


@kind_of_fault
@frozen
class Drip(SampledFault):
    """The body comes in pieces of `size` bytes, `seconds` before each. Counts "slow" answers and their "pieces"."""

    kind: ClassVar[str] = "drip"
    example: ClassVar[str] = "drip:0.1,size=1024"

    seconds: float = field(validator=not_negative)
    size: int = field(default=1024, validator=count, kw_only=True)

    async def apply(self, injection: Injection, flight: InFlight, proceed: Proceed) -> Reply:
        """Process the call and let its answer drip."""
        injection.counts["slow"] += 1

        async def dripping(body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
            async for chunk in body:
                for start in range(0, len(chunk), self.size):
                    await injection.shared.clock.sleep(self.seconds)
                    injection.counts["pieces"] += 1
                    yield chunk[start : start + self.size]

        return _altered(await proceed(), dripping)


@kind_of_fault
@frozen
class Truncation(SampledFault):
    """The connection closes after the first `at` bytes of the body, though the head says more.

    What is no longer than `at` arrives whole. Counts "truncated" answers.
    """

    kind: ClassVar[str] = "truncate"
    example: ClassVar[str] = "truncate:1000,operation=document,first=1"

    at: int = field(validator=whole)

    async def apply(self, injection: Injection, flight: InFlight, proceed: Proceed) -> Reply:
        """Process the call and lose the end of its answer."""

        async def truncated(body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
            left = self.at
            async for chunk in body:
                if left:
                    yield chunk[:left]
                if len(chunk) > left:
                    injection.counts["truncated"] += 1
                    raise TransportError(f"the sandbox closed the connection after {self.at:,} bytes of the body")
                left -= len(chunk)

        return _altered(await proceed(), truncated)


@kind_of_fault
@frozen
class UnendedBody(SampledFault):
    """The body has no Content-Length, and is chunked on a port, without the chunk that ends it.

    `then` is what comes behind its last byte: "close" closes the connection, "hang" sends nothing more, "more" sends
    further bytes for ever. Counts "unended" answers.
    """

    kind: ClassVar[str] = "unended"
    example: ClassVar[str] = "unended:hang,first=1"

    then: str = field(default="close", validator=one_of("close", "hang", "more"))

    async def apply(self, injection: Injection, flight: InFlight, proceed: Proceed) -> Reply:
        """Process the call and leave its answer without an end."""
        injection.counts["unended"] += 1

        async def unended(body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
            async for chunk in body:
                yield chunk
            if self.then == "hang":
                await silence()
            if self.then == "more":
                async with aclosing(endless(b"", size=CHUNK)) as more:
                    async for chunk in more:
                        yield chunk
            raise TransportError("the sandbox closed the connection before the end of the body")

        whole = _altered(await proceed(), unended)
        headers = {name: value for name, value in whole.headers.items() if name.lower() != "content-length"}
        return evolve(whole, headers=headers)


@kind_of_fault
@frozen
class ConnectionReset(SampledFault):
    """The connection is reset at one `stage`, on a port by a TCP reset. Counts calls by their stage.

    "before-work" does not process the call; "before-head" processes it and sends
    nothing; "after-head" sends the head
    and nothing of the body; "in-body" sends `at` bytes of the body too.
    """

    kind: ClassVar[str] = "reset"
    example: ClassVar[str] = "reset:in-body,at=500,first=1"

    stage: str = field(default=BEFORE_HEAD, validator=one_of(BEFORE_WORK, BEFORE_HEAD, AFTER_HEAD, IN_BODY))
    at: int = field(default=1, validator=count, kw_only=True)

    async def apply(self, injection: Injection, flight: InFlight, proceed: Proceed) -> Reply:
        """Reset the connection at its stage."""
        injection.counts[self.stage] += 1
        reset = partial(cut, f"the sandbox reset the connection {self.stage.replace('-', ' the ', 1)}")
        if self.stage == BEFORE_WORK:
            await reset()
        whole = await proceed()
        if self.stage == BEFORE_HEAD:
            await reset()
        return broken_off(whole, self.at if self.stage == IN_BODY else 0, reset)


@kind_of_fault
@frozen(kw_only=True)
class LostAnswer(SampledFault):
    """The call is processed and the connection closes without an answer; submissions only, unless `operation` says.

    Counts "lost" answers.
    """

    kind: ClassVar[str] = "lost"
    example: ClassVar[str] = "lost:share=0.1,seed=5"

    operation: str = field(default=Operation.SUBMIT.value, validator=one_of("any", *Operation))

    async def apply(self, injection: Injection, flight: InFlight, proceed: Proceed) -> Reply:
        """Process the call, then raise."""
        await proceed()
        injection.counts["lost"] += 1
        raise TransportError("the sandbox lost the answer")


@kind_of_fault
@frozen
class GatewayTimeout(SampledFault):
    """The call is processed, and a gateway's 504 page comes `seconds` later; submissions only, unless `operation` says.

    Counts "replaced" answers.
    """

    kind: ClassVar[str] = "gateway504"
    example: ClassVar[str] = "gateway504:share=0.2,seed=5"

    seconds: float = field(default=0.0, validator=not_negative)
    operation: str = field(default=Operation.SUBMIT.value, validator=one_of("any", *Operation), kw_only=True)

    async def apply(self, injection: Injection, flight: InFlight, proceed: Proceed) -> Reply:
        """Process the call and answer as the gateway before it."""
        await proceed()
        injection.counts["replaced"] += 1
        await injection.shared.clock.sleep(self.seconds)
        return reply(GATEWAY, status=504, content_type="text/html")


@kind_of_fault
@frozen(kw_only=True)
class Silence(SampledFault):
    """Nothing more comes, until the caller gives up. Counts "silent" answers.

    `at` none does not process the call and sends nothing; a number sends the head and so many bytes of the body.
    """

    kind: ClassVar[str] = "hang"
    example: ClassVar[str] = "hang:at=100,first=1"

    at: int | None = field(default=None, validator=optional(whole))

    async def apply(self, injection: Injection, flight: InFlight, proceed: Proceed) -> Reply:
        """Wait for ever, or answer with a body that does."""
        injection.counts["silent"] += 1
        if self.at is None:
            await silence()
        return broken_off(await proceed(), self.at or 0, silence)
