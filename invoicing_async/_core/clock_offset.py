"""How far the service's clock is from this machine's, learned from its answers, and what of it a signature needs.

Pure: told of each answer's `Date` and of each refusal. A correction is made only after a refusal that the clocks
explain, and only as long as it helps, so that a gateway with a wrong clock changes nothing that works.
"""

from __future__ import annotations

from typing import Self

from attrs import define, field, frozen

__all__ = ["ClockOffset", "Interval"]

EXPLAINS = 5.0
"""Seconds between a signature's time and the service's `Date` from which a 401 may be for that."""

FURTHEST = 86_400.0
"""Seconds of difference that are corrected at most; beyond a day a clock, or the `Date`, is simply wrong."""

NOTHING = 1.0
"""Seconds of difference below which there is nothing to correct: a `Date` has whole seconds."""

DRIFT = 1e-3
"""Seconds by which two clocks may come apart in one second: what was learned widens by it."""


@frozen
class Interval:
    """Where the difference lies, the service's clock less this machine's, in seconds."""

    low: float
    high: float

    @classmethod
    def of(cls, date: float, *, sent: float, received: float) -> Self:
        """Return what one answer says: its `Date`, in whole seconds, was written between sending and receiving."""
        return cls(date - max(received, sent), date + 1.0 - sent)

    @property
    def least(self) -> float:
        """The difference nearest to none that the answer allows."""
        return max(self.low, min(self.high, 0.0))

    def narrowed(self, other: Interval, *, drift: float) -> Interval:
        """Return what both say, or the newer `other` where they contradict each other: a clock was set."""
        low, high = max(self.low - drift, other.low), min(self.high + drift, other.high)
        return Interval(low, high) if low <= high else other


@define
class ClockOffset:
    """What one session knows of the service's clock. Times are epoch seconds of this machine.

    `applied` is what is added to this machine's time for a signature: 0 until a refusal shows that it is needed.
    """

    applied: float = field(default=0.0, init=False)
    futile: float | None = field(default=None, init=False)
    """A correction that did not help, until a signature is accepted."""
    _announced: float = field(default=0.0, init=False)
    _known: Interval | None = field(default=None, init=False)
    _heard_at: float = field(default=0.0, init=False)

    @property
    def estimate(self) -> float | None:
        """The seconds by which the service's clock is ahead at least, negative behind; None while nothing is known."""
        return None if self._known is None else self._known.least

    def observe(self, date: float, *, sent: float, received: float) -> None:
        """Hear of an answer's `Date`, and when its request was sent and its head received.

        One from a cache (with `Age`) says nothing: leave it out.
        """
        heard = Interval.of(date, sent=sent, received=received)
        drift = DRIFT * abs(received - self._heard_at)
        self._known = heard if self._known is None else self._known.narrowed(heard, drift=drift)
        self._heard_at = received
        if self.applied:
            self.applied = self._needed()

    def refused(self, date: float, *, signed_for: float, corrected: float = 0.0) -> bool:
        """Hear of a 401 with this `Date`, whose signature bore the time `signed_for`; true if the time explains it.

        `corrected` is what was added to this machine's time for it. If the time explains the refusal another signature
        is worth one attempt: it bears the service's time as far as that is known. If it does not though it was
        corrected, time is not what is wrong, and the same correction is not made again before a signature is accepted.
        """
        if abs(date + 0.5 - signed_for) < EXPLAINS:
            if corrected:
                self.futile, self.applied = corrected, 0.0
            return False
        needed = self._needed()
        if self.futile is not None and abs(needed - self.futile) < EXPLAINS:
            return False
        self.applied = needed
        return True

    def accepted(self) -> None:
        """Hear that a signature was accepted: what was tried in vain before may be tried again."""
        self.futile = None

    def announce(self) -> float | None:
        """Return the correction that was last told of if it has changed since, None otherwise: each is told once.

        It has if it began, ended, or moved by more than `NOTHING`.
        """
        before = self._announced
        if bool(self.applied) == bool(before) and abs(self.applied - before) <= NOTHING:
            return None
        self._announced = self.applied
        return before

    def _needed(self) -> float:
        """Return the correction that would make a signature bear the service's time."""
        offset = self.estimate or 0.0
        return offset if NOTHING < abs(offset) <= FURTHEST else 0.0
