"""Somebody's own waits as a schedule of polls."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .._einvoices.poll_scheduler import Schedule
from ..polling import Poller

__all__ = ["schedule_of"]


class _FixedDelays:
    """Somebody's own waits as a schedule that gives up when they end.

    A sequence serves any number of operations, an iterator, which has a state, only one.
    """

    timeout: float | None = None
    poll_timeout = Poller().poll_timeout
    errors = Poller().errors

    def __init__(self, waits: Iterable[float]) -> None:
        self._listed = tuple(map(_checked_wait, waits)) if isinstance(waits, Sequence) else None
        self._others = iter(waits)

    def delay(self, attempt: int, elapsed: float = 0.0, *, chance: float = 0.0) -> float | None:
        if self._listed is not None:
            return self._listed[attempt - 1] if attempt <= len(self._listed) else None
        wait = next(self._others, None)
        return None if wait is None else _checked_wait(wait)

    def learn(self, after: float, by: float, *, done: bool) -> None:
        """Waits that are given learn nothing."""


def _checked_wait(wait: object) -> float:
    if isinstance(wait, bool) or not isinstance(wait, (int, float)) or not 0 <= wait < float("inf"):
        raise ValueError(f"a wait of the poller must be a finite number of 0 or more, got {wait!r}")
    return wait


def schedule_of(poller: Schedule | Iterable[float] | None, *, many: bool = False) -> Schedule:
    if poller is None:
        return Poller()
    if not isinstance(poller, Iterable):
        return poller
    if many and not isinstance(poller, Sequence):
        raise ValueError("poller must be a Poller or a sequence of waits: an iterator can serve one operation only")
    return _FixedDelays(poller)
