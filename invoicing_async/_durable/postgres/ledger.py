"""A run on a PostgreSQL server, open to be worked on: `PostgresLedger`.

Any number of processes work on one run. Each records by one connection of its own, in groups of whatever was queued
while its last statement ran (`recorder`); what two of them want of one item is judged by the database, on the item's
state and attempt (`fence`). Nobody takes over at opening what another may still be sending.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Self

from ..._core.clock import Clock
from ..._core.shared_lanes import SharedLanes
from ..._values.validators import at_least_one
from ..address import ServerAddress
from ..kept_paths import KeptPaths
from ..protocol import ID_BATCH
from ..records import Change, Intake, NewDraft, Pause, json_text, one_line
from ..states import DocumentState, Event, RunKind, State
from . import intake, run_changes, sweep
from .groups import DocumentOutcome, Transition
from .opening import OpenedRun, open_run
from .queries import OWN_COUNTS
from .reader import PostgresReader
from .run_changes import RunOrders
from .transitions import change_in_turn

__all__ = ["PostgresLedger"]


class PostgresLedger(PostgresReader):
    """A run on a server open for writing: a `Ledger`. `recovered` counts the items that its opening put in doubt."""

    def __init__(self, opened: OpenedRun, clock: Clock | None) -> None:
        super().__init__(opened.reading, opened.kept, clock)
        self.recovered = 0
        self.now = opened.recorder.clock.now
        self._recorder = opened.recorder
        self._lanes = opened.lanes
        self.lanes: SharedLanes | None = opened.lanes
        self._connect = opened.connect
        self._importing = asyncio.Lock()

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        address: ServerAddress,
        *,
        kind: RunKind | None = None,
        settings: Mapping[str, object] | None = None,
        create: bool = True,
        clock: Clock | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> AsyncIterator[Self]:
        """Open a run to work on it beside others; with `create`, make it if it is not there.

        `kind` may be None to take an existing run as it is; `settings` (JSON, no secrets) are kept when the run is
        made, an existing one keeps its own. Raises `RunFileError` if it is of another kind, `FileNotFoundError`, and
        as `open_connection` does.
        """
        async with open_run(
            address, kind=kind, settings=settings, create=create, clock=clock, environ=environ
        ) as opened:
            ledger = cls(opened, clock)
            if ledger.kind is RunKind.INVOICES:
                ledger.recovered = await ledger.sweep()
            yield ledger

    @property
    def worker_id(self) -> int:
        """The number that this process is registered with."""
        return self._recorder.worker.number

    async def own_counts(self) -> dict[str, int]:
        """Return by how many items each state grew by what this worker recorded; less than 0 for what it moved on."""
        return dict(await self.select(OWN_COUNTS, worker=self.worker_id))

    async def close(self) -> None:
        """Do what is queued, for as long as the database takes, then let go. Closing twice does nothing."""
        try:
            await self._recorder.stop()
        finally:
            await self._lanes.aclose()
            await super().close()

    async def update_settings(self, settings: Mapping[str, object]) -> None:
        """Replace the settings of the run."""
        kept: Mapping[str, object] = json.loads(json_text(settings))
        await self._recorder.do(partial(run_changes.update_settings, settings=kept))
        self._settings, self._paths = kept, KeptPaths.of(kept)

    async def keep_late(self, late: float) -> None:
        """Keep how many seconds after its intent a submission may arrive; the longest counts."""
        if late > self.late:
            kept = await self._recorder.do(partial(run_changes.keep_late, late=late))
            self.late = max(self.late, kept)

    async def record_pause(self, pause: Pause) -> None:
        """Record a pause, or how far one is that is recorded."""
        await self._recorder.do(partial(run_changes.write_pause, pause=pause))

    async def undo(self, ref: int | str) -> None:
        """Put an item in doubt again whose doubt was settled by hand. Raises `ValueError` otherwise."""
        self._only(RunKind.INVOICES, "undo")
        await self._recorder.do(partial(run_changes.undo, ref=ref))

    async def add_ids(self, ids: Iterable[str] | AsyncIterable[str], *, batch: int = ID_BATCH) -> Intake:
        """Take in order ids, all of them or, after an error or a crash, none; the first of equal ones counts."""
        self._only(RunKind.DOCUMENTS, "add_ids")
        at_least_one("batch", batch)
        async with self._importing, await self._connect() as connection:
            counted = await intake.add_ids(connection, self.run, ids, batch=batch, **self._taking_in)
        self._command = counted.command
        return counted.intake

    async def add_drafts(self, drafts: Iterable[NewDraft]) -> Intake:
        """Take in the drafts of one command in one transaction: all of them or none.

        A key with the same content is known and changes nothing. Raises `DraftConflictError` for keys with other
        content; only a draft that is invalid, so never sent, may be replaced by another.
        """
        self._only(RunKind.INVOICES, "add_drafts")
        async with self._importing, await self._connect() as connection:
            return await intake.add_drafts(connection, self.run, tuple(drafts), **self._taking_in)

    @property
    def _taking_in(self) -> dict[str, Any]:
        return {"name": self.name, "now": self._recorder.clock.parameter()}

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
        """Record the outcome of an id, by its `seq` (cheaper) or itself; with `begun` only in that attempt."""
        self._only(RunKind.DOCUMENTS, "record_document")
        where, said = self._paths.kept(path), one_line(error)
        values = (DocumentState(state).value, attempt, request_id, where, size, sha256, code, said)
        await self._recorder.do(DocumentOutcome(ref, values, attempt, begun))

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
        """Let an event happen to an invoice item, journal it and return the state that follows; see `Change`.

        Raises `ValueError` if the table refuses the event, the item is unknown or its request id is missing.
        """
        change = Change(
            ref=ref,
            event=event,
            request_id=request_id,
            invoice_id=invoice_id,
            result=result,
            code=code,
            error=error,
            path=path,
            size=size,
            sha256=sha256,
        )
        [state] = await self.transition_many((change,))
        return state

    async def transition_many(self, changes: Iterable[Change]) -> list[State]:
        """Let events happen in turn, all of them or none.

        Raises `SupersededError` for an event whose attempt somebody else has moved on from; `RunPausedError` and
        `RunHaltedError` for an intent.
        """
        self._only(RunKind.INVOICES, "transition")
        taken = self._paths.changes(changes)
        if len(taken) == 1:
            states: list[State] = await self._recorder.do(Transition(taken[0]))
        else:
            states = await self._recorder.do(partial(change_in_turn, changes=taken))
        return states

    async def beat(self, doing: str | None = None, slots: int = 0) -> RunOrders:
        """Say that this worker lives, what it does and how many items it works on at once; return what it is told."""
        orders: RunOrders = await self._recorder.do(partial(run_changes.beat, doing=doing, slots=slots))
        return orders

    async def sweep(self) -> int:
        """Put in doubt what is being sent for longer than it may still arrive; return how many there were."""
        swept, is_more = 0, True
        while is_more:
            count, is_more = await self._recorder.do(sweep.sweep_part)
            swept += count
        return swept

    async def pause(self) -> None:
        """Let no worker begin to send anything more of the run; what is under way is recorded."""
        await self._recorder.do(run_changes.pause_run)

    async def unpause(self) -> None:
        """Let a paused run go on."""
        await self._recorder.do(run_changes.unpause_run)

    async def unhalt(self, doubt_since: float, *, restored: bool = False) -> int:
        """Let a halted run go on, when all of it that may have been sent unrecorded is in doubt; return how many.

        `doubt_since`, in epoch seconds, is since when records are missing.
        """
        return await sweep.unhalt_run(self._recorder, doubt_since, restored=restored)

    def _only(self, kind: RunKind, name: str) -> None:
        if self.kind is not kind:
            raise ValueError(f"{name} is for a run of {kind.value}; {self.name} is one of {self.kind.value}")
