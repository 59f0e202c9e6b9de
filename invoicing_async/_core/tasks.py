"""Tasks of a session: how they begin, and how closing the session ends what is under way in it.

`started` begins a task in the loop's next turn whatever task factory the loop has: an eager one (Python 3.12 and later)
would run it there and then, in the middle of what begins it. A `Lifetime` ends, as `asyncio.timeout` does, every
`Scope` that is under way when the session is closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine
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
    """The scopes of one session that are under way, so that all of them can be ended or waited for."""

    def __init__(self) -> None:
        self.scopes: set[Scope] = set()
        self.left: asyncio.Future[None] | None = None
        """Done when a scope is left, while somebody waits for that."""

    def under_way(self) -> list[Scope]:
        """Return the scopes of all tasks but the one that calls this."""
        own = current()
        return [scope for scope in self.scopes if scope.task is not own]

    async def end(self) -> None:
        """End what is under way, and wait until it is left."""
        for scope in self.under_way():
            scope.end()
        await self.emptied(self.under_way)

    async def emptied(self, of: Callable[[], Collection[object]]) -> None:
        """Wait until there is nothing more of what `of` returns; it is asked when a scope is left."""
        while of():
            if self.left is None or self.left.done():
                self.left = asyncio.get_running_loop().create_future()
            await asyncio.shield(self.left)

    def tell_left(self) -> None:
        """Say that something is no longer under way."""
        if self.left is not None and not self.left.done():
            self.left.set_result(None)


@define(eq=False)
class Scope:
    """A block that ends with `SessionError` when its `Lifetime` does. `call` names it, if it is a call's."""

    lifetime: Lifetime
    call: str = ""
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
        self.lifetime.scopes.discard(self)
        if self.lifetime.left is not None:
            self.lifetime.tell_left()
        # A cancellation of somebody else's that came as well goes on as one.
        mine = self._is_ended and self.task.uncancel() <= self._cancelling
        if mine and kind is not None and issubclass(kind, asyncio.CancelledError):
            raise SessionError("the session was closed meanwhile") from exc
