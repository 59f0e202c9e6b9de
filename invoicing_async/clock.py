"""Time and chance: the one `Clock` that a session, a run file and a sandbox can be given in place of the machine's."""

from __future__ import annotations

from ._core.clock import Bound, Clock, RealClock

__all__ = ["Bound", "Clock", "RealClock"]
