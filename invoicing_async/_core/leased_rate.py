"""The permits that are leased of a rate which several processes share. Pure, without a clock or a loop."""

from __future__ import annotations

from collections import deque
from math import ceil, inf

from attrs import define, field

from .shared_lanes import Lease

__all__ = ["LeasedRate"]

SPAN, LONGEST = 0.1, 1.0
"""Seconds of the rate that are leased at a time: so many that asking ten times a second is enough, and so few that
those who share it take turns often; and at most where asking takes long."""

ASKING = 3
"""How many times as long as asking for it a lease lasts at least: the next is asked for when this one begins."""

LATE = 0.015
"""Seconds after its time that a permit may still be used, if its interval is no longer: so no second has more than
1.5 percent and one attempt too many, and a loop that wakes late loses nothing."""


@define
class LeasedRate:
    """Spends leases evenly: each permit has its time, and is forfeited when that is past.

    `burst` of them may be used at once after a quiet time. Times are monotonic seconds.
    """

    per_second: float
    """What is wanted; each lease has the rate that it was given at."""
    burst: int = 1
    forfeited: int = 0
    _leases: deque[Lease] = field(factory=deque, init=False)
    _next: int = field(default=0, init=False)
    """The next permit of the first lease."""
    _used: int = field(default=0, init=False)
    """How many permits of the first lease were used."""
    _size: int = field(default=1, init=False)
    """How many permits the last lease that ended says are of use."""
    _span: float = field(default=SPAN, init=False)

    def add(self, lease: Lease) -> None:
        """Have another lease, which follows those in hand."""
        self._leases.append(lease)
        self.per_second = lease.permits / (lease.ends - lease.begins)
        self._span = min(LONGEST, max(SPAN, ASKING * lease.took))

    def wait(self, now: float) -> float:
        """Return the seconds to the next permit in hand, 0 if it is now, infinity if there is none."""
        while self._leases:
            lease = self._leases[0]
            interval = (lease.ends - lease.begins) / lease.permits
            past = ceil((now - max(LATE, interval) - lease.begins) / interval - 1e-6)
            if past > self._next:
                self.forfeited += min(past, lease.permits) - self._next
                self._next = min(past, lease.permits)
            if self._next < lease.permits:
                return max(0.0, lease.begins + (self._next - self.burst + 1) * interval - now)
            self._leave(lease)
        return inf

    def take(self) -> None:
        """Use the permit whose time has come."""
        self._next += 1
        self._used += 1
        if self._next == self._leases[0].permits:
            self._leave(self._leases[0])

    def is_short(self, now: float) -> bool:
        """Tell whether another lease is needed, now or once that in hand is spent: the last one has begun."""
        return not self._leases or self._leases[-1].begins - (self.burst - 1) / self.per_second <= now

    def wanted(self, waiting: int) -> int:
        """Return how many permits to lease for so many who wait: no more than will be used, as far as can be known."""
        most = max(1, int(self.per_second * self._span))
        return min(most, max(self._size, waiting))

    def _leave(self, lease: Lease) -> None:
        """Let a lease go, and learn from it: one that was used up might have been larger."""
        self._leases.popleft()
        most = 2 * lease.permits
        self._size = most if self._used == lease.permits else max(1, self._used)
        self._next = self._used = 0
