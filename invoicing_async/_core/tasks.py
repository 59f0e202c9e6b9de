"""Tasks of a session: how they begin, and how closing the session ends what is under way in it.

`started` begins a task in the loop's next turn whatever task factory the loop has: an eager one (Python 3.12 and later)
would run it there and then, in the middle of what begins it. A `Lifetime` ends, as `asyncio.timeout` does, every
`Scope` that is under way when the session is closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, TypeVar

from attrs import define, field

from ..errors import SessionError

__all__ = ["Lifetime", "Scope", "current", "started"]

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
    """The scopes of one session that are under way, so that all of them can be ended."""

    def __init__(self) -> None:
        self.scopes: set[Scope] = set()
        self.left: asyncio.Future[None] | None = None
        """Done when a scope is left, while `end` waits for that."""

    async def end(self) -> None:
        """End every scope but those of the task that calls this, and wait until they are left."""
        own = current()
        for scope in tuple(self.scopes):
            if scope.task is not own:
                scope.end()
        while any(scope.task is not own for scope in self.scopes):
            self.left = asyncio.get_running_loop().create_future()
            await self.left


@define(eq=False)
class Scope:
    """A block that ends with `SessionError` when its `Lifetime` does."""

    lifetime: Lifetime
    task: asyncio.Task[Any] = field(init=False)
    _cancelling: int = field(init=False)
    _is_ended: bool = field(default=False, init=False)

    def end(self) -> None:
        """Cancel the block; what leaves it is `SessionError`."""
        self._is_ended = True
        self.task.cancel()

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - the library works in tasks; for the type checker
        self.task, self._cancelling = task, task.cancelling()
        self.lifetime.scopes.add(self)

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        lifetime = self.lifetime
        lifetime.scopes.discard(self)
        if lifetime.left is not None and not lifetime.left.done():
            lifetime.left.set_result(None)
        # A cancellation of somebody else's that came as well goes on as one.
        mine = self._is_ended and self.task.uncancel() <= self._cancelling
        if mine and kind is not None and issubclass(kind, asyncio.CancelledError):
            raise SessionError("the session was closed meanwhile") from exc
