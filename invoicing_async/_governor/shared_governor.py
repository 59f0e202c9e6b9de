"""The lanes of a session of one of several processes, which share what they learn of the service's outages."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from .._core.clock import Clock
from .._core.shared_lanes import LanePause, SharedLanes
from ..events import Event
from ..policies import Limits, OutagePolicy
from .gate import Gate, Governor
from .lane import Lane, LaneKey
from .shared_gate import SharedGate, lane_name
from .shared_outage import SharedOutage

__all__ = ["SharedGovernor"]


class SharedGovernor(Governor):
    """As `Governor`; between `open` and `close` it hears of the pauses of all."""

    def __init__(
        self,
        limits: Limits,
        policy: OutagePolicy,
        clock: Clock,
        *,
        shared: SharedLanes,
        ahead: int = 0,
        tell: Callable[[Event], None] | None = None,
    ) -> None:
        super().__init__(limits, policy, clock, ahead=ahead, tell=tell)
        self._shared = shared
        self._pauses: Mapping[str, LanePause] = {}

    def open(self) -> None:
        """Begin to hear what the others learn of the lanes."""
        self._shared.join(self._hear)

    def close(self) -> None:
        """End every timer, and hear nothing more."""
        super().close()
        self._shared.leave(self._hear)

    def _made(self, key: LaneKey, lane: Lane) -> Gate:
        outage = SharedOutage(self._policy)
        lane.outage = outage
        gate = SharedGate(
            key=key,
            lane=lane,
            most=self._limits.concurrency,
            clock=self._clock,
            tell=self._told,
            on_answer=self._answered,
            shared=self._shared,
            outage=outage,
        )
        gate.hear(self._pauses.get(lane_name(key)))
        return gate

    def _hear(self, pauses: Mapping[str, LanePause]) -> None:
        self._pauses = pauses
        for gate in [*self._gates.values()]:
            if isinstance(gate, SharedGate):
                gate.hear(pauses.get(lane_name(gate.key)))
