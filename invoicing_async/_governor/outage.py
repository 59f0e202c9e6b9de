"""When a lane stops sending because the service is down, and how it begins again: pure, without a clock or a loop.

```
open --- `after` failures with no answer between ----> paused --- `probe` s later ---> probing (one attempt)
  ^                                                      ^                                |
  |                                                      +--- it failed: wait longer -----+
  +--- as many at once as before --- resuming: 1, 2, 4 … at once <--- any answer ---------+
```

A `Retry-After` holds the lane in the same way until it is over, but no longer than `patience`.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from attrs import define

from ..health import LaneState
from ..policies import OutagePolicy

__all__ = ["KEPT", "Outage"]

SHORTEST = 0.85
"""The least share of a probe's distance that its jitter leaves."""

SOON = 1e-6
"""Seconds that are no wait: what is due by another's reckoning is due."""

CHANCE = 0.02
"""The share of failures from which on one of them is nothing unusual."""

MEMORY = 200
"""Answers that the share of failures is a mean of."""

SURE = 8
"""Failures in a row that are no chance where failures were as rare as `CHANCE` for as long as `MEMORY`."""

KEPT = 1 - 1 / MEMORY
"""What is left of that share after an answer that is no failure."""

GIVING_WAY = 1
"""Failures more than the places of a slow start that end it."""


@define
class Outage:
    """Counts failures with no answer between them. Times are monotonic seconds, `random` draws from [0, 1)."""

    policy: OutagePolicy
    streak: int = 0
    """Failures since the last answer."""
    closed: int = 0
    """Failures since the last answer to what was begun after the first of them: each closes a place."""
    since: float | None = None
    """When the first failure of the pause came, None if there is no pause."""
    places: float = inf
    """How many attempts a slow start allows at once."""
    is_calm: bool = True
    """True if nothing of all this is the case: no failure, no pause, no slow start, no Retry-After."""
    _next: float = 0.0
    _distance: float = 0.0
    share: float = 0.0
    """The share of failures, lately."""
    _first_failure: float = 0.0
    _closed_since: float = -inf
    _held_until: float = -inf
    _held_since: float = 0.0
    _probes: int = 0

    def state(self, now: float) -> LaneState:
        """Return what the lane does now."""
        if self._held_until > now:
            return LaneState.PAUSED
        if self.since is not None:
            return LaneState.PROBING if self._probes else LaneState.PAUSED
        return LaneState.OPEN if self.places == inf else LaneState.RESUMING

    @property
    def is_stopped(self) -> bool:
        """True while the service counts as down; a Retry-After is none of that."""
        return self.since is not None

    def wait(self, now: float) -> float:
        """Return the seconds before an attempt may begin, 0 for now, infinity while a probe is under way."""
        held = self._held_until - now
        if self.since is None:
            if held <= SOON:
                self._held_until = -inf
                return 0.0
            return held
        wait = max(held, self._next - now)
        return inf if self._probes else wait if wait > SOON else 0.0

    def paused_since(self, now: float) -> float | None:
        """Return when the pause began, by an outage or a Retry-After; None if there is none."""
        return self.since if self.since is not None or self._held_until <= now else self._held_since

    def probe(self) -> None:
        """Hear that a probe begins."""
        self._probes += 1

    def probed(self) -> None:
        """Hear that a probe ended, whatever it found."""
        self._probes -= 1

    def hold(self, seconds: float, now: float) -> None:
        """Let nobody send for so many seconds: the service said so."""
        if seconds > 0:
            if self._held_until <= now:
                self._held_since = now
            self._held_until = max(self._held_until, now + min(seconds, self.policy.patience))
            self.places = 1
            self.is_calm = False

    def fail(self, now: float, random: Callable[[], float], *, top: int, probe: bool, answers: int = 0) -> bool:
        """Hear that the service was not there, and tell whether that begins a pause.

        So do `after` failures in a row, or as many as there are places, `top`, with no answer to anything begun later;
        after many `answers` with hardly a failure among them, one more in a row than there are places will do.
        """
        self.streak += 1
        self.is_calm = False
        if not self.closed:
            # Of a service that often fails by chance any answer says enough.
            self._closed_since = now if self.share < CHANCE else -inf
        self.closed += 1
        if self.streak == 1:
            self._first_failure = now
        if self.since is not None:
            if probe:
                self._distance = min(self.policy.ceiling, 2 * self._distance)
                self._next = now + self._jittered(random())
            return False
        self.share += (1 - self.share) / MEMORY
        after = self.policy.after
        if answers >= MEMORY and self._closed_since > -inf:
            after = min(after, max(top, SURE) + GIVING_WAY)
        if self.streak < min(after, self.places + GIVING_WAY) and self.closed < max(after, top):
            return False
        # One that comes back while the last one is hardly over goes on with its distance.
        self._distance = self.policy.probe if self.places == inf else max(self._distance, self.policy.probe)
        self.since, self._next = self._first_failure, now + self._jittered(random())
        return True

    def answer(self, top: float, *, begun: float) -> bool:
        """Hear that the service answered; `top` attempts are under way at once without this. Tell of a pause's end.

        What was `begun` before the first failure says that the service was there then, and opens no place: what would
        take it might go into an outage that has only begun.
        """
        if begun < self._closed_since:
            if self.since is None:
                self.streak = 0
            return False
        self.streak = self.closed = 0
        if self.since is not None:
            self.since, self.places = None, 1
            return True
        if self.places != inf:
            self.places = inf if self.places >= top else self.places + 1
        self.is_calm = not self.closed and self.places == inf and self._held_until == -inf
        return False

    def _jittered(self, chance: float) -> float:
        return self._distance * (SHORTEST + (1 - SHORTEST) * chance)
