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
        """True unless a lane waits for the time of its next attempt: what a readiness probe asks.

        A pause whose next attempt is due, or under way, counts as ready. Only a call finds out whether the service is
        there again, and none would come to a process that is kept out of rotation.
        """
        return all(lane.state in {LaneState.OPEN, LaneState.RESUMING} or not lane.next_probe for lane in self.lanes)
