"""What a run needs of the place where it is recorded, whatever that is: `LedgerReader` and `Ledger`.

The run file is one such place (`ledger`); only what opens a run names it. Runs, their parts and repairs know these two.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Mapping
from typing import Protocol

from .._core.shared_lanes import SharedLanes
from .figures import RunFigures
from .records import Change, Holder, Intake, Item, JournalEntry, NewDraft, Pause
from .states import DocumentState, Event, RunKind, State
from .timeline import Timeline

__all__ = ["ID_BATCH", "Ledger", "LedgerReader"]

ID_BATCH = 10_000
"""Ids taken from the input at a time: what `add_ids` keeps in memory."""


class LedgerReader(Protocol):
    """Where a run is recorded, for reading."""

    @property
    def is_shared(self) -> bool:
        """Whether several processes may work on the run at once."""

    @property
    def name(self) -> str:
        """What messages and commands name it by: of a run file its path."""

    @property
    def kind(self) -> RunKind:
        """Whether it is of documents or of e-invoices."""

    @property
    def settings(self) -> Mapping[str, object]:
        """What the run was begun with and keeps, as JSON can hold it; no secrets."""

    @property
    def created(self) -> float:
        """When it was made, in epoch seconds."""

    @property
    def late(self) -> float:
        """How many seconds after its intent a submission may still arrive at the service; 0 before the first."""

    async def holders(self) -> tuple[Holder, ...]:
        """Return who works on the run at this moment."""

    async def get(self, ref: int | str) -> Item | None:
        """Return the item with this `seq` or key, its payload included; None if there is none."""

    async def rows(
        self, states: Iterable[str] | None = None, *, after: int = 0, limit: int = 1000, payload: bool = False
    ) -> list[Item]:
        """Return up to `limit` items in the order of the input, those behind `seq` `after`; None for every state."""

    def items(self, states: Iterable[str] | None = None, *, payload: bool = False) -> AsyncGenerator[Item]:
        """Yield the items in these states in the order of the input, read a page at a time; None for every state."""

    async def pending(self, *, after: int = 0, limit: int = 1000, verify: bool = False) -> list[Item]:
        """Return up to `limit` items that are still to be done, behind `seq` `after`, those to be sent with payload.

        With `verify` of documents also those whose file is to be checked.
        """

    async def counts(self) -> dict[str, int]:
        """Return how many items are in each state, zeros included."""

    async def count_without_file(self) -> int:
        """Return how many finished invoices have no file of theirs."""

    async def duplicates(self, *, after: str = "", limit: int = 1000) -> list[tuple[str, int]]:
        """Return ids that the last `add_ids` met more than once, in their own order, and how often beyond the first."""

    async def history(self, ref: int | str) -> list[JournalEntry]:
        """Return everything that ever happened to an invoice item, oldest first."""

    async def journal(self, *, after: int = 0, limit: int = 1000) -> list[JournalEntry]:
        """Return up to `limit` entries of the whole run's journal, behind entry `after`."""

    async def figures(self) -> RunFigures:
        """Return the figures of the run at one moment."""

    async def timeline(self) -> Timeline:
        """Return what happened when: of e-invoices every event, of order documents what was last recorded of each."""

    async def pauses(self) -> tuple[Pause, ...]:
        """Return when calls waited because the service was down."""

    async def oldest(self) -> Item | None:
        """Return the e-invoice that is on its way, or with the service, for the longest time; None if none is."""

    async def twice(self, *, limit: int = 1000) -> list[Item]:
        """Return up to `limit` items of which there may be two invoices, in the order of the input.

        Each has an `other_request_id`: that of an attempt that was accepted beside its own. A person may say that it
        is the item's own, and then it is no more one of these.
        """

    async def close(self) -> None:
        """Do what is queued, then let go. Closing twice does nothing."""


class Ledger(LedgerReader, Protocol):
    """Where a run is recorded, for the process that works on it. Every method returns when what it did is durable."""

    @property
    def recovered(self) -> int:
        """How many items were left in doubt by the end of the process before."""

    @property
    def lanes(self) -> SharedLanes | None:
        """The rate and the pauses that all processes share which work on the run; None if only one can."""

    def now(self) -> float:
        """Return the time by which everything is recorded, in epoch seconds."""

    async def update_settings(self, settings: Mapping[str, object]) -> None:
        """Replace the settings of the run."""

    async def keep_late(self, late: float) -> None:
        """Keep how many seconds after its intent a submission may arrive; the longest counts."""

    async def record_pause(self, pause: Pause) -> None:
        """Record a pause, or how far one is that is recorded."""

    async def add_ids(self, ids: Iterable[str] | AsyncIterable[str], *, batch: int = ID_BATCH) -> Intake:
        """Take in order ids, all of them or, after an error or a crash, none; the first of equal ones counts."""

    async def add_drafts(self, drafts: Iterable[NewDraft]) -> Intake:
        """Take in drafts, all of them or none. Raises `DraftConflictError` for known keys with other content."""

    async def record_document(
        self,
        ref: int | str,
        state: DocumentState,
        *,
        path: str | None = None,
        size: int | None = None,
        sha256: str | None = None,
        request_id: str | None = None,
        code: str | None = None,
        error: str | None = None,
        attempt: int = 0,
        begun: int | None = None,
    ) -> None:
        """Record the outcome of an id, by its `seq` or itself; it replaces what stood there.

        `begun` is the item's attempt when its work was begun: if it stands in another by now, somebody else has moved
        on with it, nothing is recorded and `SupersededError` is raised. None: it is recorded whatever stands there.
        `path` is given whole, and kept as its name below the run's store if it is there (`kept_paths`).
        """

    async def transition(
        self,
        ref: int | str,
        event: Event,
        *,
        request_id: str | None = None,
        invoice_id: str | None = None,
        result: str | None = None,
        code: str | None = None,
        error: str | None = None,
        path: str | None = None,
        size: int | None = None,
        sha256: str | None = None,
    ) -> State:
        """Let an event happen to an invoice item, journal it, and return the state that follows.

        Raises `ValueError` if the table of states refuses it, the item is unknown or its request id is missing;
        `RequestIdTakenError` for a request id that another item has.
        """

    async def transition_many(self, changes: Iterable[Change]) -> list[State]:
        """Let events happen in turn, all of them or none, and return the state that follows each.

        Raises as `transition` does, and `SupersededError` for an event that bears an attempt with which somebody else
        has moved on (see `fence`), and for the intent of an item of which there may be two invoices already;
        `RunPausedError` and `RunHaltedError` for an intent of a run that takes none.
        """

    async def undo(self, ref: int | str) -> None:
        """Put an item in doubt again whose doubt was settled by hand. Raises `ValueError` otherwise."""
