"""What the inside of every client of a service takes from its session: limits, time, and batches that keep to both."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable
from contextlib import AbstractContextManager
from typing import TypeVar

from .._core.batch import Careful, checked_places, map_concurrently
from .._core.ramp import Cause, Verdict
from ..events import Observer
from ..policies import Timeouts
from ._call import Sleep
from ._internals import Internals

__all__ = ["Feature"]

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")


class Feature:
    """The inside of a client: what it has of its session, for itself and for runs that go through it."""

    def __init__(self, session: Internals) -> None:
        self.session = session

    @property
    def concurrency(self) -> int:
        """How many calls are under way by default: the session's limit."""
        return self.session.limits.concurrency

    @property
    def stop_after(self) -> int | None:
        """How many of one cause end a batch, as the session's limits say."""
        return self.session.limits.stop_after

    @property
    def sleep(self) -> Sleep:
        """How the session waits."""
        return self.session.clock.sleep

    @property
    def timeouts(self) -> Timeouts:
        """The session's time-outs, which say how long a submission may be on its way."""
        return self.session.timeouts

    def ends_batch(self, error: BaseException) -> bool:
        """Tell whether the next call would meet `error` too; see `Internals.ends_batch`."""
        return self.session.ends_batch(error)

    def lanes_heard_by(self, listener: Observer) -> AbstractContextManager[None]:
        """Call `listener` with each pause of the session's calls, and what is told of it, while the block runs."""
        return self.session.governor.heard_by(listener)

    def each(
        self,
        items: Iterable[Item] | AsyncIterable[Item],
        work: Callable[[Item, Sleep], Awaitable[Outcome]],
        *,
        on_not_started: Callable[[Item, BaseException], Outcome],
        concurrency: int | None = None,
        cancel: bool = True,
        judge: Callable[[Outcome], Cause | Verdict] | None = None,
    ) -> AsyncGenerator[Outcome]:
        """Do `work` for many items at once and yield the outcomes as they finish; see `_core.batch.map_concurrently`.

        `concurrency` is by default the client's own; fewer than one is a `ValueError`, at once. With `judge` the batch
        begins with one item and ends as `stop_after` says. Close what is left early with `contextlib.aclosing`.
        """
        return map_concurrently(
            items,
            work,
            concurrency=self.places(concurrency),
            sleep=self.sleep,
            on_not_started=on_not_started,
            cancel=cancel,
            careful=None if judge is None else Careful(judge, self.stop_after),
        )

    def places(self, concurrency: int | None) -> int:
        """Return how many items a batch has under way. Raises `ValueError` for fewer than one."""
        return checked_places(concurrency, self.concurrency)
