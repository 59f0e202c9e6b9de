"""How many of a lane's attempts may be retries: pure, without a clock or a loop.

The token bucket of gRPC's retry throttling and of botocore's retry quota: a retry takes a token, a success gives one
back. So when nearly everything fails, what is repeated is no more than what went well, and the service is not asked
twice as much for being unwell.
"""

from __future__ import annotations

from attrs import define, field

__all__ = ["RetryBudget"]

CAPACITY = 100.0
"""Retries that a lane may make ahead of its successes."""

REFUND = 1.0
"""Tokens for a success: retries are at most half of what is sent in the long run."""

TRICKLE = 1.0
"""Tokens a second that come by themselves, so that what waits for one is never forgotten."""


@define
class RetryBudget:
    """Tokens for retries. Times are monotonic seconds."""

    capacity: float = CAPACITY
    tokens: float = field(default=CAPACITY)
    _filled: float | None = None

    def wait(self, now: float) -> float:
        """Return the seconds before there is a token, 0 if there is one."""
        if self.tokens >= 1:
            return 0.0
        self._fill(now)
        return max(0.0, (1 - self.tokens) / TRICKLE)

    def take(self, now: float) -> bool:
        """Take a token for a retry, and tell whether there was one."""
        self._fill(now)
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True

    def refund(self) -> None:
        """Hear of a success."""
        self.tokens = min(self.capacity, self.tokens + REFUND)

    def _fill(self, now: float) -> None:
        if self._filled is not None and now > self._filled:
            self.tokens = min(self.capacity, self.tokens + (now - self._filled) * TRICKLE)
        self._filled = now
