"""The addresses of one host, tried beside each other until one leads to a connection, TLS included (RFC 8305).

aiohttp's own race ends when an address has taken the call: one that then stalls would eat the time of all the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Sequence
from itertools import zip_longest
from typing import TypeAlias

from aiohttp.client_proto import ResponseHandler

from .errors import furthest
from .sockets import AddressInfo

__all__ = ["HEAD_START", "ConnectionAttempt", "by_turns", "first"]

HEAD_START = 0.25
"""Seconds until the next address is tried beside one that has not taken the call (RFC 8305, section 5)."""

Made: TypeAlias = tuple[asyncio.Transport, ResponseHandler]
Factory: TypeAlias = Callable[[], ResponseHandler]


def by_turns(addresses: Iterable[AddressInfo]) -> Iterator[AddressInfo]:
    """Yield addresses of one family and another by turns, each in the resolver's order (RFC 8305, section 4)."""
    families: dict[object, list[AddressInfo]] = {}
    for address in addresses:
        families.setdefault(address[0], []).append(address)
    for turn in zip_longest(*families.values()):
        yield from (address for address in turn if address is not None)


class ConnectionAttempt:
    """An attempt to connect to one address."""

    def __init__(self, connect: Callable[[Factory], Awaitable[Made]], factory: Factory) -> None:
        self._connect = connect
        self._factory = factory
        self.is_accepted = False
        """The address has accepted the connection; a handshake may follow."""

    async def run(self) -> Made:
        return await self._connect(self._protocol)

    def _protocol(self) -> ResponseHandler:
        self.is_accepted = True
        return self._factory()


async def first(attempts: Sequence[ConnectionAttempt], seconds: float | None) -> Made:
    """Return the first connection that is made; what else was begun is closed. `seconds` are for all attempts together.

    Each has `HEAD_START` on the next, or its share of `seconds` once it has taken the call, since a handshake may be
    slow; when one fails the next begins at once. Raises the failure that came furthest.
    """
    share = _share(seconds, len(attempts))
    waiting, running, failures = iter(attempts), set[asyncio.Task[Made]](), list[Exception]()
    try:
        while (attempt := next(waiting, None)) is not None or running:
            if attempt is not None:
                running.add(asyncio.create_task(attempt.run()))
            done = await _ended(running, attempt, share)
            running -= done
            for task in done:
                failure = task.exception()
                if failure is None:
                    running |= done - {task}
                    return task.result()
                if not isinstance(failure, Exception):
                    raise failure
                failures.append(failure)
        raise furthest(failures)
    finally:
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)
        for task in running:
            if not task.cancelled() and task.exception() is None:
                task.result()[1].close()


def _share(seconds: float | None, attempts: int) -> float:
    """Return the seconds that each of several attempts has, so that something is left after the last one."""
    return HEAD_START if seconds is None else seconds / (attempts + 1)


async def _ended(
    running: Collection[asyncio.Task[Made]], last: ConnectionAttempt | None, share: float
) -> set[asyncio.Task[Made]]:
    """Wait until one has ended, or until the next may begin."""
    until = None if last is None else min(HEAD_START, share)
    done, _ = await asyncio.wait(running, timeout=until, return_when=asyncio.FIRST_COMPLETED)
    if not done and last is not None and last.is_accepted and share > HEAD_START:
        done, _ = await asyncio.wait(running, timeout=share - HEAD_START, return_when=asyncio.FIRST_COMPLETED)
    return done
