"""What the scheduler of polls asks of those who wait: their schedule, and to take what came of it."""

from __future__ import annotations

from typing import Protocol

from ..models import InvoiceRequest

__all__ = ["Result", "Schedule", "Watcher"]

Result = InvoiceRequest | Exception


class Schedule(Protocol):
    """When to poll; `Poller` is one.

    It may also have `error_time` and `not_found_grace` as `Poller` has them, and `spread`: false if its first poll
    must not be drawn from the first wait.
    """

    @property
    def timeout(self) -> float | None:
        """Seconds after which the wait gives up, None for never."""

    @property
    def poll_timeout(self) -> float:
        """Seconds after which one poll counts as failed."""

    @property
    def errors(self) -> int:
        """Failed polls in a row that are tolerated, however short a time they take."""

    def delay(self, attempt: int, elapsed: float = 0.0, *, chance: float = 0.0) -> float | None:
        """Seconds to wait before poll `attempt`, `elapsed` seconds after the wait began; None to give up."""

    def learn(self, after: float, by: float, *, done: bool) -> None:
        """Note that an operation was NEW at age `after` and, at age `by`, either `done` or still NEW."""


class Watcher(Protocol):
    """Somebody who waits for operations under one schedule."""

    @property
    def schedule(self) -> Schedule: ...

    def deliver(self, request_id: str, result: Result) -> None:
        """Take an operation's end: its terminal answer, or why nothing more will come."""
