"""Tasks of a session: how they begin, and how closing the session ends what is under way in it.

`started` begins a task in the loop's next turn whatever task factory the loop has: an eager one (Python 3.12 and later)
would run it there and then, in the middle of what begins it. `Lifetime` cuts short, as `asyncio.timeout` does, every
block that is under way when the session is closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, TypeVar

from ..errors import SessionError

__all__ = ["Lifetime", "current", "started"]

T = TypeVar("T")


def started(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Begin a task in the loop's next turn."""
    return asyncio.Task(work, loop=asyncio.get_running_loop())


def current() -> asyncio.Task[Any]:
    """Return the task that runs."""
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - the library works in tasks; for the type checker
    return task


class Lifetime:
    """Knows every block that is under way, so that all of them can be ended."""

    def __init__(self) -> None:
        self.scopes: set[_Scope] = set()
        self._left: asyncio.Future[None] | None = None

    def scope(self) -> _Scope:
        """Return a context that `end` leaves with `SessionError`."""
        return _Scope(self)

    def leave(self, scope: _Scope) -> None:
        self.scopes.discard(scope)
        if self._left is not None and not self._left.done():
            self._left.set_result(None)

    async def end(self) -> None:
        """End every block but those of the task that calls this, and wait until they are left."""
        own = current()
        for scope in tuple(self.scopes):
            if scope.task is not own:
                scope.end()
        while any(scope.task is not own for scope in self.scopes):
            self._left = asyncio.get_running_loop().create_future()
            await self._left


class _Scope:
    __slots__ = ("_cancelling", "_ended", "_lifetime", "task")

    def __init__(self, lifetime: Lifetime) -> None:
        self._lifetime = lifetime
        self._ended = False

    def end(self) -> None:
        self._ended = True
        self.task.cancel()

    def __enter__(self) -> None:
        task = self.task = current()
        self._cancelling = task.cancelling()
        self._lifetime.scopes.add(self)

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lifetime.leave(self)
        # A cancellation of somebody else's that came as well goes on as one.
        mine = self._ended and self.task.uncancel() <= self._cancelling
        if mine and kind is not None and issubclass(kind, asyncio.CancelledError):
            raise SessionError("the session was closed meanwhile") from exc
