"""What an answer that is read on after its call has hold of, and for how long: the inside of `Session.open`.

Its reader is somebody else, such as a web client, who may be slow or gone. So a place in the concurrency limit is held
only while somebody waits for more of the body; that time alone is the service's, and the attempt's timeout bounds it;
and the connection is given up when nobody has asked for more for as long as an attempt may take.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from attrs import define, field

from ..errors import TransportError
from .clock import Clock
from .semaphore import FifoSemaphore

__all__ = ["Hold"]


@define(eq=False)
class Hold:
    """One open answer. `left` is what is left of the attempt of `seconds`; `close` gives its connection up."""

    _places: FifoSemaphore
    _clock: Clock
    _left: float
    _seconds: float
    _close: Callable[[], Awaitable[None]]
    _since: float = field(default=0.0, init=False)
    """When somebody last waited for more."""
    _waiting: int = field(default=0, init=False)
    _watch: asyncio.Task[None] | None = field(default=None, init=False)
    _ended: str | None = field(default=None, init=False)
    """Why nothing more can be read."""

    def watch(self) -> None:
        """Begin to close the answer when nobody has asked for more of it for too long."""
        self._since = self._clock.monotonic()
        self._watch = asyncio.get_running_loop().create_task(self._watched())

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[None]:
        """Let the block wait for more of the body. Raises `TransportError` if it may not, or not for any longer."""
        self._refuse_ended()
        self._waiting += 1
        try:
            await self._places.acquire()
            try:
                self._refuse_ended()
                begun, timeout = self._clock.monotonic(), self._clock.timeout(self._left)
                try:
                    async with timeout:
                        yield
                except TimeoutError as exc:
                    if not timeout.expired():
                        raise
                    text = (
                        f"no whole body within Timeouts.attempt ({self._seconds:g} s) or what the deadline left of it"
                    )
                    raise TransportError(text) from exc
                finally:
                    self._left -= self._clock.monotonic() - begun
            finally:
                self._places.release()
        finally:
            self._waiting -= 1
            self._since = self._clock.monotonic()

    async def release(self) -> None:
        """Release everything. Doing it twice does nothing."""
        await self._end("it was left")

    def _refuse_ended(self) -> None:
        if self._ended is not None:
            raise TransportError(self._ended)

    async def _watched(self) -> None:
        while (left := self._seconds - (0 if self._waiting else self._clock.monotonic() - self._since)) > 0:
            with suppress(TimeoutError):
                async with self._clock.timeout(left):
                    await asyncio.get_running_loop().create_future()
        await self._end(f"nobody asked for more of it for {self._seconds:g} s, so its connection was given up")

    async def _end(self, why: str) -> None:
        watch, ended = self._watch, self._ended
        self._ended = ended or why
        try:
            if watch is not None and watch is not asyncio.current_task():
                if ended is None:
                    watch.cancel()
                await asyncio.wait([watch])
                # What closing raised there is not for whoever leaves.
                _ = watch.cancelled() or watch.exception()
        finally:
            await self._close()
