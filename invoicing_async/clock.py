"""Time and chance: the `Clock` that a session, a run file and a sandbox can be given in place of the machine's."""

from __future__ import annotations

from ._core.clock import Clock, ClockTimeout, RealClock

__all__ = ["Bound", "Clock", "ClockTimeout", "RealClock"]

Bound = ClockTimeout
"""The former name of `ClockTimeout`."""
