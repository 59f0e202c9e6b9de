"""An outage that several processes know together: pure, without a clock or a loop.

One of them sees it, all pause. When a probe is due, the one that claimed it sends it, and the others wait for what it
finds. A pause that the own answers contradict is the other's own trouble, as of a host that is cut off from the
service: the first own failure lets it count.
"""

from __future__ import annotations

from math import inf

from attrs import define

from .._core.shared_lanes import LanePause
from .outage import Outage

__all__ = ["SharedOutage"]

AGAIN = 1.0
"""Seconds before a probe is claimed again that another has; what becomes of it is heard of before."""

FORGOTTEN = 10.0
"""Seconds after a probe was due from which on whoever began the pause is taken for gone."""


@define
class SharedOutage(Outage):
    """As `Outage`, but a probe has to be claimed, and what others learned counts. Times are monotonic seconds."""

    is_claimed: bool = False
    """True if this process may send the probe that is due."""
    _answered: float = -inf
    """When the last attempt began that was answered."""

    def wait(self, now: float) -> float:
        """Return the seconds before an attempt may begin, infinity also while a probe is due and not claimed."""
        seconds = super().wait(now)
        return inf if not seconds and self.since is not None and not self.is_claimed else seconds

    def is_due(self, now: float) -> bool:
        """Tell whether a probe is to be claimed."""
        return self.since is not None and not self.is_claimed and not super().wait(now)

    def claimed(self, now: float, *, granted: bool) -> None:
        """Hear whether this process may send the probe."""
        self.is_claimed = granted and self.since is not None
        if not granted:
            self._next = now + AGAIN

    def probe(self) -> None:
        """Hear that a probe begins."""
        self.is_claimed = False
        super().probe()

    def answered(self, begun: float) -> None:
        """Hear when an attempt began that the service answered."""
        self._answered = max(self._answered, begun)

    @property
    def next_probe(self) -> float:
        """When the next probe is due."""
        return self._next

    @property
    def distance(self) -> float:
        """The seconds between two probes, before their jitter."""
        return self._distance

    @property
    def held_until(self) -> float:
        """Until when the service asked to wait."""
        return self._held_until

    def adopt(self, pause: LanePause) -> bool:
        """Take over what others know of a pause, and tell whether it begins one here."""
        is_new = self.since is None
        if pause.since is None or (is_new and self._answered > pause.since and not self.streak):
            return False
        self._next = max(pause.next_probe, pause.probed_until)
        self._distance = max(pause.distance, self.policy.probe)
        if is_new:
            self.since, self.is_calm = pause.since, False
            self._closed_since = max(self._closed_since, pause.since)
        return is_new

    def is_forgotten(self, pause: LanePause, now: float) -> bool:
        """Tell whether a pause that does not count here has nobody any more who looks for its end."""
        return pause.since is not None and max(pause.next_probe, pause.probed_until) + FORGOTTEN < now

    def resume(self) -> None:
        """Hear that the service answers another: begin again, slowly."""
        self.since, self.places, self.streak, self.closed = None, 1, 0, 0
        self.is_claimed = False
