"""How fast attempts begin: pure, without a clock or a loop."""

from __future__ import annotations

from attrs import define, field

__all__ = ["Rate"]


@define
class Rate:
    """At most `per_second` attempts begin in a second, evenly spaced; after a quiet time `burst` of them at once.

    The generic cell rate algorithm, asked in two steps by one caller at a time: `wait` looks and changes nothing,
    `take` takes the turn. Who gives up between the two has held nobody up. Times are monotonic seconds.
    """

    per_second: float
    burst: int = 1
    _free_at: float = field(default=float("-inf"), init=False)
    """When the turn after all that were taken is due, if there were no burst."""

    def wait(self, now: float) -> float:
        """Return the seconds to the next turn, 0 if it is now."""
        return max(0.0, self._free_at - (self.burst - 1) / self.per_second - now)

    def take(self, due: float, now: float) -> None:
        """Take the turn that was due at `due`, at `now`: lateness of up to one interval is made up for."""
        interval = 1.0 / self.per_second
        self._free_at = max(self._free_at, due, now - interval) + interval
