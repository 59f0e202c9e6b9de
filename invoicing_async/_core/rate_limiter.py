"""How many attempts of one session may begin in a second. Pure, without a clock or a loop."""

from __future__ import annotations

from attrs import define, field

__all__ = ["RateLimiter"]


@define
class RateLimiter:
    """Spaces attempts evenly: at most `per_second` begin in a second; after a pause `burst` of them may at once.

    The generic cell rate algorithm, asked in two steps by one caller at a time: `wait` looks and changes nothing,
    `take` takes the place. Who gives up between the two has delayed nobody.
    """

    per_second: float
    burst: int = 1
    _free_at: float = field(default=float("-inf"), init=False)

    def wait(self, now: float) -> float:
        """Return the seconds from `now` (monotonic seconds) to the next free place, 0 if it is now."""
        return max(0.0, self._free_at - (self.burst - 1) / self.per_second - now)

    def take(self, due: float, now: float) -> None:
        """Take the place that was due at `due`, at `now`: lateness of up to one interval is made up for."""
        interval = 1.0 / self.per_second
        self._free_at = max(self._free_at, due, now - interval) + interval
