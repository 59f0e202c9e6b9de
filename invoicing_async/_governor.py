"""How fast one session may press a service: pure, without a clock or a loop."""

from __future__ import annotations

from attrs import define, field

__all__ = ["Pacer"]


@define
class Pacer:
    """Spaces attempts evenly: at most `per_second` begin in a second, without a burst after a pause.

    The generic cell rate algorithm with no tolerance: a reservation gives the seconds to wait from `now`
    (monotonic seconds), in the order in which they are asked for.
    """

    per_second: float
    _free_at: float = field(default=float("-inf"), init=False)

    def reserve(self, now: float) -> float:
        """Take the next place and give the seconds to wait for it, 0 if it is now."""
        at = max(now, self._free_at)
        self._free_at = at + 1.0 / self.per_second
        return at - now
