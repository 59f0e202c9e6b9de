"""The life of a session: whether it may be used, what is under way in it, and how that ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeVar

from .._core.clock import ClockTimeout
from .._core.hold import Hold
from .._core.tasks import Lifetime
from ..errors import ProtocolError, SessionError, TransportError

if TYPE_CHECKING:
    from ._call import Call

__all__ = ["Kept", "Life", "State"]

T = TypeVar("T")
Kept = AbstractAsyncContextManager[tuple[T, Hold]]
"""What the reader of a call made of its answer, which is kept open, and what that has hold of."""


class State(Enum):
    """What a session is; the value says it to who uses one that is not open."""

    NEW = "not open yet: enter it with `async with`"
    OPEN = "open"
    DRAINING = "closing: it takes no more calls"
    CLOSED = "closed"


class Life:
    """What a session and its views have in common, once and for all."""

    def __init__(self) -> None:
        self.state = State.NEW
        self.lifetime = Lifetime()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._kept: set[Call[Any]] = set()
        """Calls whose answers are kept open."""

    def check_new(self) -> None:
        """Raise `SessionError` if the session was open before."""
        if self.state is not State.NEW:
            raise SessionError(f"this session was {self.state.name.lower()} before; make a new one")

    def begin(self) -> None:
        """Open the session, in the event loop that runs."""
        self._loop = asyncio.get_running_loop()
        self.state = State.OPEN

    def check_usable(self, *, draining: bool = False) -> None:
        """Raise `SessionError` unless the session is open, or `draining` too, and this is its event loop."""
        if self.state is not State.OPEN and not (draining and self.state is State.DRAINING):
            raise SessionError(f"the session is {self.state.value}")
        if asyncio.get_running_loop() is not self._loop:
            self.check_loop()

    def check_loop(self) -> None:
        """Raise `SessionError` in another event loop than the session's."""
        if asyncio.get_running_loop() is not self._loop:
            raise SessionError("the session belongs to another event loop; make one for each loop")

    @asynccontextmanager
    async def keeping(self, call: Call[T]) -> AsyncIterator[tuple[T, Hold]]:
        """Make a call whose answer is kept open until this is left or the session is closed."""
        hold: Hold | None = None
        self._kept.add(call)
        try:
            value = await call.run()
            hold = call.hold()
            yield value, hold
        except (ProtocolError, TransportError) as exc:
            if self.state is not State.CLOSED:
                raise
            raise SessionError("the session was closed meanwhile") from exc
        finally:
            self._kept.discard(call)
            if self.lifetime.left is not None:
                self.lifetime.tell_left()
            await (call if hold is None else hold).release()

    async def drain(self, timeout: ClockTimeout) -> bool:
        """Wait until the calls under way have ended or the time is over; false if another task closed the session."""
        self.state = State.DRAINING
        for scope in self.lifetime.under_way():
            if not scope.call:
                scope.end()
        try:
            async with timeout:
                await self.lifetime.emptied(lambda: self._kept or self.lifetime.under_way())
        except TimeoutError:
            if not timeout.expired():
                raise
        return self.state is State.DRAINING

    def close(self) -> tuple[str, ...]:
        """Let nothing more begin, and return the operations of the calls that `end` will cut off."""
        self.state = State.CLOSED
        cut = [scope.call for scope in self.lifetime.under_way() if scope.call]
        return (*cut, *(call.request.operation for call in self._kept))

    async def end(self, *, cut_answers: bool) -> None:
        """End what is under way and wait for that, then cut the answers that are still open if that is asked for."""
        await self.lifetime.end()
        for call in tuple(self._kept) if cut_answers else ():
            await call.release()
