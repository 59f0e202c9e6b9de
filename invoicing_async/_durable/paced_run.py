"""What every run keeps of how it is worked on: its settings, and limits for the sessions that do."""

from __future__ import annotations

from ..policies import Limits
from ..session._shared_limits import SharedLimits, limits_over
from .protocol import Ledger
from .run_settings import RunSettings

__all__ = ["PacedRun"]


class PacedRun:
    """A run with a pace, whatever it is of."""

    ledger: Ledger

    @property
    def settings(self) -> RunSettings:
        """What the run keeps for whoever goes on with it; where documents go is `folder` and `layout`."""
        return RunSettings.read(self.ledger.settings)

    def limits(self, limits: Limits | None = None) -> SharedLimits:
        """Return limits, by default the run's, for a session that works on it: `Session(…, limits=run.limits())`.

        Of a run on a server `per_second` and `burst` hold for all processes that work on it together, and when one of
        them finds the service down, all pause. A file's are the process's, which has it for itself.
        """
        return limits_over(limits or self.settings.pace.limits, self.ledger.lanes)
