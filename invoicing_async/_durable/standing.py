"""How a run on a server stands, as values: what an operator sees of it."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import field, frozen

from .records import Item
from .states import DocumentState, RunKind, State

__all__ = ["ALIVE", "LaneStanding", "Standing", "TableStanding", "WorkerStanding"]

ALIVE = 15.0
"""Seconds after its last heartbeat in which a worker still counts as at work."""

_OPEN = {
    RunKind.INVOICES: (State.PLANNED, State.NOT_SENT, State.SENDING, State.SUBMITTED),
    RunKind.DOCUMENTS: (DocumentState.PLANNED, DocumentState.DEFERRED, DocumentState.FAILED),
}
"""The states in which there is still something to be done by itself."""


@frozen(kw_only=True)
class WorkerStanding:
    """A worker of a run: who it is, and how it was when it was last heard of.

    Times are in epoch seconds; `silent` is for how many seconds nothing was heard of it, `done` how many items it has
    done, `rate` how many a second since it started.
    """

    worker: int
    host: str
    pid: int
    version: str
    started: float
    silent: float
    done: int
    rate: float
    slots: int
    doing: str | None

    @property
    def is_alive(self) -> bool:
        """Whether it counts as at work."""
        return self.silent < ALIVE


@frozen(kw_only=True)
class LaneStanding:
    """What the workers of a run share of the service: until when it is taken, since when it is paused; epoch seconds.

    `per_second` is the rate they share, None for none; `probe_by` the worker that asks whether the service is back.
    """

    lane: str
    per_second: float | None
    free_at: float
    paused_since: float | None
    paused_until: float | None
    probe_by: int | None
    probe_until: float | None


@frozen(kw_only=True)
class TableStanding:
    """How a table is kept: its rows, dead rows, and when it was last vacuumed in epoch seconds, None for never."""

    table: str
    rows: int
    dead: int
    vacuumed: float | None


@frozen(kw_only=True)
class Standing:
    """How a run stands at one moment `at`, in epoch seconds by the database's clock.

    `counts` are of its items by state. `oldest` is the item that is being sent for the longest time, `stuck` how many
    are being sent for longer than they can be, `first_stuck` some of them. `twice` counts items of which two attempts
    were accepted: there may be two invoices. `halted` and `paused` are since when, None if not.
    """

    name: str
    kind: RunKind
    at: float
    counts: Mapping[str, int]
    late: float
    halted: float | None
    halted_why: str | None
    paused: float | None
    oldest: Item | None
    stuck: int
    first_stuck: tuple[Item, ...]
    twice: int
    workers: tuple[WorkerStanding, ...]
    lanes: tuple[LaneStanding, ...]
    tables: tuple[TableStanding, ...] = field(default=())

    @property
    def open(self) -> int:
        """How many items there is still something to be done for by itself; exports are not among them."""
        return sum(self.counts[state.value] for state in _OPEN[self.kind])

    @property
    def in_flight(self) -> int:
        """How many items are being sent."""
        return self.counts.get(State.SENDING.value, 0)

    @property
    def doubts(self) -> int:
        """How many items are in doubt."""
        return self.counts.get(State.IN_DOUBT.value, 0)

    @property
    def oldest_age(self) -> float | None:
        """For how many seconds the oldest one is being sent; None if none is."""
        sent_at = None if self.oldest is None else self.oldest.sent_at
        return None if sent_at is None else self.at - sent_at
