"""How a service is doing, as frozen values: what `Session.health()` returns."""

from __future__ import annotations

from enum import Enum

from attrs import frozen

__all__ = ["Health", "LaneHealth", "LaneState"]


class LaneState(Enum):
    """What a lane does now."""

    OPEN = "open"
    """Attempts begin as soon as there is a place."""
    PAUSED = "paused"
    """Nobody sends: the service is down, or asked to wait (Retry-After)."""
    PROBING = "probing"
    """The service is down, and one attempt is under way to find out whether it still is."""
    RESUMING = "resuming"
    """The service answers again; attempts begin few at a time, and more with each success."""


@frozen(kw_only=True)
class LaneHealth:
    """How one kind of call to the service is doing.

    `operation` and `store` name the lane; `store` is empty for calls of no store. `since` is when a pause began, in
    epoch seconds, and `next_probe` the seconds to the next attempt; both are None if there is no pause. `in_use`
    attempts are under way, `concurrency` at most may be at once.
    """

    operation: str
    store: str = ""
    state: LaneState = LaneState.OPEN
    since: float | None = None
    next_probe: float | None = None
    in_use: int = 0
    concurrency: int


@frozen(kw_only=True)
class Health:
    """How a session's service is doing, lane by lane; a lane is there from its first call on."""

    lanes: tuple[LaneHealth, ...] = ()

    @property
    def ready(self) -> bool:
        """True if no lane is paused or probing: what a readiness probe asks."""
        return all(lane.state in {LaneState.OPEN, LaneState.RESUMING} for lane in self.lanes)
