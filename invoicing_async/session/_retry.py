"""What follows from a failed attempt, decided without I/O: whether it is tried again, and after how long."""

from __future__ import annotations

from attrs import frozen

from .._core.http import Repeat
from .._core.outcomes import may_repeat
from ..errors import ApiError, DeadlineError, InvoicingError, ServiceDownError
from ..policies import RetryPolicy

__all__ = ["RENEWALS", "Failure"]

RENEWALS = 10
"""Stale attempts of a call that are not counted: their intent had grown too old before the first byte, or the idle
connection that they took had been closed by its peer."""


@frozen(kw_only=True)
class Failure:
    """A failed attempt, with all that the decision about the next one depends on.

    `made` attempts were made so far, this one included; `stale` of them could not succeed, and `at_once` says
    that this one is such; `spared` of them failed with the service, and not by themselves. `ready` says that its
    credential could be had; `left` are the seconds to the deadline. A `patient` call leaves a Retry-After to its lane,
    which lets nobody send before it.
    """

    error: InvoicingError
    repeat: Repeat
    policy: RetryPolicy
    made: int
    stale: int = 0
    spared: int = 0
    at_once: bool = False
    ready: bool = True
    left: float | None = None
    patient: bool = False

    @property
    def repeatable(self) -> bool:
        """True if another attempt could end otherwise, and does no harm."""
        # A credential that cannot be had was already tried for under the same policy.
        return (
            self.ready
            and not isinstance(self.error, (DeadlineError, ServiceDownError))
            and may_repeat(self.error, self.repeat)
        )

    @property
    def counted(self) -> int:
        """How many of the attempts count: not those that were spared, nor, up to a limit, those that were stale."""
        return self.made - min(self.stale, RENEWALS) - self.spared

    def wait(self, chance: float) -> float:
        """Return the seconds before the next attempt, for `chance` in [0, 1)."""
        if self.at_once:
            return 0.0
        retry_after = None if self.patient or not isinstance(self.error, ApiError) else self.error.retry_after
        return self.policy.delay(max(1, self.counted), chance, retry_after=retry_after)

    def is_last(self, wait: float) -> bool:
        """Tell whether no attempt is left, or none that would begin within the deadline after so many seconds."""
        return self.counted >= self.policy.attempts or (self.left is not None and wait >= self.left)
