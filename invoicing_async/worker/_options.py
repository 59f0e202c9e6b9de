"""How a worker works, checked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict

from attrs import field, frozen

from .._values.validators import at_least_one

if TYPE_CHECKING:
    from procrastinate import App

__all__ = ["OptionValues", "Options"]

EVERY = 2.0
"""Seconds between two looks of all workers at what has no job."""


LEAST_WATCHDOG = 30.0
"""Seconds for which a process may stand still at least: less is met by a busy machine, or a database that restarts."""


class OptionValues(TypedDict, total=False):
    """The options of a `Worker` by their names."""

    slots: int
    chunk: int
    concurrency: int | None
    heartbeat: float
    until_done: bool
    listen: bool
    every: float
    is_pooled: bool
    watchdog: float | None
    app: App | None


@frozen(kw_only=True)
class Options:
    """The options of a `Worker`, with their defaults. Raises `ValueError`."""

    slots: int = 8
    chunk: int = 200
    concurrency: int | None = None
    heartbeat: float = 5.0
    until_done: bool = True
    listen: bool = True
    is_pooled: bool = False
    watchdog: float | None = None
    app: Any = field(default=None, repr=False)
    every: float = EVERY

    def __attrs_post_init__(self) -> None:
        at_least_one("slots", self.slots)
        at_least_one("chunk", self.chunk)
        if self.concurrency is not None:
            at_least_one("concurrency", self.concurrency)
        if self.heartbeat <= 0:
            raise ValueError(f"heartbeat must be above 0 s, got {self.heartbeat}")
        if self.watchdog is not None and self.watchdog < LEAST_WATCHDOG:
            raise ValueError(f"watchdog must be {LEAST_WATCHDOG:g} s or more, got {self.watchdog:g}")
        if self.watchdog is not None and self.watchdog < 2 * self.heartbeat:
            raise ValueError(
                f"watchdog must be at least two heartbeats, {2 * self.heartbeat:g} s, got {self.watchdog:g}"
            )
