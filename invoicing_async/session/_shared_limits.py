"""Limits that several sessions of one event loop keep together."""

from __future__ import annotations

from .._core.admission import Admission
from .._core.clock import Clock
from .._core.shared_admission import SharedAdmission
from .._core.shared_lanes import SharedLanes
from ..policies import Limits

__all__ = ["SharedLimits", "admission_of", "lanes_of", "limits_over"]


class SharedLimits:
    """Limits that hold for several sessions together: give the same one to each, as `Session(…, limits=shared)`.

    Of its `limits`, `concurrency`, `per_second` and `burst` are the sum of all of them. Stores, and sessions whose
    credentials name no store, take turns, however many calls each has waiting. The lanes, with what they learn of an
    outage and of the concurrency that a service can do, stay each session's own. Sessions that share limits run in one
    event loop: opening one in another while the first is open raises `SessionError`.

    Those that `limits` of a run on a server returns are the run's: `per_second` and `burst` are the sum of all
    processes that work on it, and when one of them finds the service down, all pause. `concurrency` is each one's.
    """

    __slots__ = ("_admission", "_lanes", "limits")

    def __init__(self, limits: Limits) -> None:
        self.limits: Limits = limits
        self._admission: Admission | None = None
        self._lanes: SharedLanes | None = None

    def __repr__(self) -> str:
        return f"SharedLimits({self.limits!r})"

    def _shared(self, clock: Clock) -> Admission:
        if self._admission is None:
            if self._lanes is not None and self.limits.per_second is not None:
                self._admission = SharedAdmission(self.limits, clock, self._lanes)
            else:
                self._admission = Admission(self.limits, clock)
        return self._admission


def limits_over(limits: Limits, lanes: SharedLanes | None) -> SharedLimits:
    """Return limits whose rate and pauses all processes share that these lanes are of; None: this process alone."""
    shared = SharedLimits(limits)
    shared._lanes = lanes  # noqa: SLF001 - this module's own class
    return shared


def lanes_of(limits: Limits | SharedLimits) -> SharedLanes | None:
    """Return what the sessions that have these limits share with other processes, None for nothing."""
    return limits._lanes if isinstance(limits, SharedLimits) else None  # noqa: SLF001 - this module's own class


def admission_of(limits: Limits | SharedLimits, clock: Clock) -> Admission:
    """Return what lets the calls of a session begin: its own, or what it shares with others."""
    if isinstance(limits, SharedLimits):
        return limits._shared(clock)  # noqa: SLF001 - this module's own class
    return Admission(limits, clock)
