"""What several processes that work on one run keep together: the rate of all, and the pauses of each lane.

Below it stands whatever all of them reach, such as the database that keeps the run. Every time here is of this
process's monotonic clock: whoever implements `SharedLanes` reckons in times of its own and hands out these, so that no
host's wall clock has a say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from math import inf
from typing import Protocol

from attrs import frozen

__all__ = ["Hear", "LaneNews", "LanePause", "LaneReport", "Lease", "SharedLanes"]


@frozen(kw_only=True)
class Lease:
    """So many permits to begin an attempt, one after another between two times; nobody else has that time."""

    permits: int
    begins: float
    ends: float
    took: float = 0.0
    """The seconds that asking for it took."""


@frozen(kw_only=True)
class LanePause:
    """A lane in which nobody sends, as all know it."""

    since: float | None = None
    """When the service's first failure came, None for a `Retry-After` alone."""
    next_probe: float = -inf
    """Before this nobody may ask whether the service is there again."""
    distance: float = 0.0
    """The seconds between the last two probes, before their jitter."""
    probed_until: float = -inf
    """When the probe that another process has under way counts as lost."""
    held_until: float = -inf
    """Until when the service asked to wait."""


class LaneNews(Enum):
    """What a process learned of a lane."""

    PAUSED = "paused"
    """The service is down."""
    HELD = "held"
    """It asked to wait."""
    PROBED = "probed"
    """The probe that this process had came to nothing."""
    RELEASED = "released"
    """The probe that this process might have made was not made, or says nothing."""
    RESUMED = "resumed"
    """The service answers."""


@frozen(kw_only=True)
class LaneReport:
    """What a process tells the others of a lane."""

    lane: str
    news: LaneNews
    since: float = 0.0
    until: float = 0.0
    """The time of the next probe, or that until which the service asked to wait."""
    distance: float = 0.0


Hear = Callable[[Mapping[str, LanePause]], None]
"""Called with all pauses that there are, by the lane's name, whenever they were looked up."""


class SharedLanes(Protocol):
    """The lanes of one run, for one process of several.

    While what all of them reach is away, `lease` and `claim` wait, reports are kept, and nobody hears anything: what is
    leased is spent and nothing beyond it, and a pause that is known stays one.
    """

    def join(self, hear: Hear) -> None:
        """Begin to look for pauses, soon and then each second, and tell `hear` of them."""

    def leave(self, hear: Hear) -> None:
        """End telling it."""

    async def lease(self, permits: int, per_second: float) -> Lease:
        """Lease the next permits of the run's rate, which is `per_second` unless another was set since.

        Raises `SessionError` once the run is closed, which nobody can wait out.
        """

    async def claim(self, lane: str) -> bool:
        """Ask to make the one probe of a lane that is due, and tell whether it may be made.

        It may until one of `PROBED`, `RELEASED` and `RESUMED` is reported, and for some seconds if this process dies.
        """

    def report(self, report: LaneReport) -> None:
        """Tell the others, as soon as they can be reached."""
