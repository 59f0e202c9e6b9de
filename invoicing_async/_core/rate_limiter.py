"""How many attempts of one session may begin in a second. Pure, without a clock or a loop."""

from __future__ import annotations

from attrs import define, field

__all__ = ["RateLimiter"]


@define
class RateLimiter:
    """Spaces attempts evenly: at most `per_second` begin in a second, without a burst after a pause.

    The generic cell rate algorithm with no tolerance, asked in two steps by one caller at a time: `wait` looks and
    changes nothing, `take` takes the place. Who gives up between the two has delayed nobody.
    """

    per_second: float
    _free_at: float = field(default=float("-inf"), init=False)

    def wait(self, now: float) -> float:
        """Return the seconds from `now` (monotonic seconds) to the next free place, 0 if it is now."""
        return max(0.0, self._free_at - now)

    def take(self, due: float, now: float) -> None:
        """Take the place that was due at `due`, at `now`: lateness of up to one interval is made up for."""
        interval = 1.0 / self.per_second
        self._free_at = max(due, now - interval) + interval
