"""The run file as a `Ledger`: what a run is recorded in, in SQLite.

One thread owns the one connection. It takes whatever was queued while its last commit ran, does all of it in one
transaction and answers every waiter with one call into the loop (natural group commit: `benchmarks/journal` has its
figures). Nothing is answered before it is on disk. An operation that fails undoes itself and nothing else; a file
that fails (a full disk) fails the whole group, and then nothing of the group is recorded.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Self

from .._core.clock import Clock, RealClock
from .._core.shared_lanes import SharedLanes
from .._values.validators import at_least_one
from .database import open_to_read, open_to_write, resolve_path
from .figures import RunFigures
from .intake import add_drafts, stage, take_ids, unstage
from .intake_parts import chunks
from .integrity import Log
from .kept_paths import KeptPaths
from .lock import holder_of
from .opening import OpenedRun, describe_run, open_run, store_moved
from .protocol import ID_BATCH
from .queries import (
    count_states,
    count_without_file,
    list_duplicates,
    read_entries,
    read_history,
    read_items,
    read_twice,
    to_send,
)
from .records import Change, Holder, Intake, Item, JournalEntry, Moved, NewDraft, Pause, json_text
from .report_queries import read_figures, read_oldest, read_pauses, read_timeline
from .states import ON_DISK, TO_FETCH, DocumentState, Event, RunKind, State
from .timeline import Timeline
from .transaction import find_item, one_line, store_meta
from .transitions import Transitions, keep_late, record_document, undo, write_pause
from .writer import Writer

__all__ = ["SqliteLedger", "SqliteReader"]


class SqliteReader:
    """A run file open for reading, also while another process writes it.

    `kind`, `settings` and `created` (epoch seconds) are those of the file; `late` is how many seconds after its intent
    a submission may still arrive at the service, 0 before the first; `moved` says where it goes on, if not here.
    """

    is_shared = False
    """A run file has one writer at a time."""

    def __init__(self, path: Path, worker: Writer, opened: OpenedRun) -> None:
        self.path = path
        self.kind: RunKind = opened.kind
        self.created: float = opened.created
        self.late: float = opened.late
        self.moved: Moved | None = opened.moved
        self._settings = opened.settings
        self._paths = KeptPaths.of(opened.settings)
        self._worker = worker

    @classmethod
    @asynccontextmanager
    async def read(cls, path: str | os.PathLike[str], *, clock: Clock | None = None) -> AsyncIterator[SqliteReader]:
        """Open for reading. Raises `FileNotFoundError`, and `RunFileError` for a file that is not a run file."""
        resolved = resolve_path(path)
        worker = Writer(resolved, partial(open_to_read, resolved), "BEGIN", clock or RealClock())
        try:
            yield SqliteReader(resolved, worker, await worker.run(partial(describe_run, path=resolved)))
        finally:
            await worker.stop()

    @property
    def name(self) -> str:
        """The path of the file, without links."""
        return str(self.path)

    @property
    def settings(self) -> Mapping[str, object]:
        """What the run was begun with and keeps, as the caller gave it; it must hold no secret."""
        return self._settings

    async def close(self) -> None:
        """Do what is queued, then leave the file as one file. Closing twice does nothing."""
        await self._worker.stop()

    async def holders(self) -> tuple[Holder, ...]:
        """Return the process that works on the run; none if nobody does."""
        holder = holder_of(self.path)
        return () if holder is None else (holder,)

    async def get(self, ref: int | str) -> Item | None:
        """Return the item with this `seq` or key, its payload included; None if there is none."""
        found: Item | None = await self._worker.run(partial(find_item, ref=ref))
        return None if found is None else self._paths.item(found)

    async def rows(
        self, states: Iterable[str] | None = None, *, after: int = 0, limit: int = 1000, payload: bool = False
    ) -> list[Item]:
        """Return up to `limit` items in the order of the input, those behind `seq` `after`; None for every state."""
        at_least_one("limit", limit)
        wanted = None if states is None else tuple(dict.fromkeys(str(state) for state in states))
        read = partial(read_items, states=wanted, after=after, limit=limit, payload=payload)
        return [self._paths.item(item) for item in await self._worker.run(read)]

    async def items(self, states: Iterable[str] | None = None, *, payload: bool = False) -> AsyncGenerator[Item]:
        """Yield the items in these states in the order of the input, read a page at a time; None for every state.

        An item that changes meanwhile is neither missed nor yielded twice, as long as its state is one of these.
        """
        wanted = None if states is None else tuple(states)
        after = 0
        while page := await self.rows(wanted, after=after, payload=payload):
            for item in page:
                yield item
            after = page[-1].seq

    async def pending(self, *, after: int = 0, limit: int = 1000, verify: bool = False) -> list[Item]:
        """Return up to `limit` items that are still to be done, behind `seq` `after`.

        Documents: planned, deferred and failed, with `verify` also those whose file is to be checked. Invoices:
        planned and not sent, with their payload, but for those of which there may be two invoices.
        """
        if self.kind is RunKind.INVOICES:
            return await self._worker.run(partial(to_send, after=after, limit=limit))
        return await self.rows((*TO_FETCH, *ON_DISK) if verify else TO_FETCH, after=after, limit=limit)

    async def counts(self) -> dict[str, int]:
        """Return how many items are in each state, zeros included. Kept up with every change, so it costs nothing."""
        return await self._worker.run(partial(count_states, kind=self.kind))

    async def count_without_file(self) -> int:
        """Return how many finished invoices have no file of theirs."""
        return await self._worker.run(count_without_file)

    async def duplicates(self, *, after: str = "", limit: int = 1000) -> list[tuple[str, int]]:
        """Return the ids that the last `add_ids` met more than once, in order, and how often beyond the first."""
        at_least_one("limit", limit)
        return await self._worker.run(partial(list_duplicates, after=after, limit=limit))

    async def history(self, ref: int | str) -> list[JournalEntry]:
        """Return everything that ever happened to an invoice item, oldest first.

        Reads the whole journal: an index for this would cost every submission what it saves here.
        """
        return await self._worker.run(partial(read_history, ref=ref))

    async def figures(self) -> RunFigures:
        """Return the figures of the run at one moment.

        Reads all of it once: a million invoices take some seconds, in which a run that is open for writing records
        nothing. Ask a `SqliteReader` beside it.
        """
        return await self._worker.run(partial(read_figures, kind=self.kind))

    async def timeline(self) -> Timeline:
        """Return what happened when: of e-invoices every event, of order documents what was last recorded of each."""
        return await self._worker.run(partial(read_timeline, kind=self.kind))

    async def pauses(self) -> tuple[Pause, ...]:
        """Return when calls waited because the service was down; none of a run that was made before that was kept."""
        return await self._worker.run(read_pauses)

    async def oldest(self) -> Item | None:
        """Return the e-invoice that is on its way, or with the service, for the longest time; None if none is."""
        found: Item | None = await self._worker.run(read_oldest)
        return None if found is None else self._paths.item(found)

    async def twice(self, *, limit: int = 1000) -> list[Item]:
        """Return up to `limit` items of which there may be two invoices, in the order of the input."""
        at_least_one("limit", limit)
        return await self._worker.run(partial(read_twice, limit=limit))

    async def journal(self, *, after: int = 0, limit: int = 1000) -> list[JournalEntry]:
        """Return up to `limit` entries of the whole run's journal, behind entry `after`."""
        at_least_one("limit", limit)
        return await self._worker.run(partial(read_entries, after=after, limit=limit))


class SqliteLedger(SqliteReader):
    """A run file open for writing: a `Ledger`. `recovered` counts the items a crash left in doubt at this opening."""

    def __init__(self, path: Path, worker: Writer, opened: OpenedRun, clock: Clock) -> None:
        super().__init__(path, worker, opened)
        self.now = clock.now
        self.recovered = opened.recovered
        self.lanes: SharedLanes | None = None  # nobody else works on a file that is held
        self._importing = asyncio.Lock()

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        path: str | os.PathLike[str],
        *,
        kind: RunKind | None = None,
        settings: Mapping[str, object] | None = None,
        create: bool = True,
        accept_lost_log: bool = False,
        to_move: bool = False,
        clock: Clock | None = None,
    ) -> AsyncIterator[Self]:
        """Open a run file for writing and hold it; with `create`, make it if it is not there.

        A file that was in use and has lost its write-ahead log is refused (`DamagedRunError`); with `accept_lost_log`
        it is taken as it is, and all that may have been sent meanwhile is in doubt.

        `kind` may be None to take an existing file as it is; `settings` (JSON, no secrets) are kept when the file is
        made, an existing one keeps its own. Raises `RunLockedError` if another process holds it, `RunFileError` if it
        is not a run file of this kind and version or lies on a network file system, `FileNotFoundError`; unless it is
        opened `to_move`, `RunMovedError` if its run was carried over elsewhere.
        """
        resolved, ticks = resolve_path(path), clock or RealClock()
        kind = None if kind is None else RunKind(kind)
        log = Log()
        enter = partial(
            open_to_write,
            resolved,
            kind,
            settings,
            create=create,
            accept_lost_log=accept_lost_log,
            log=log,
            clock=ticks,
        )
        worker = Writer(resolved, enter, "BEGIN IMMEDIATE", ticks, log)
        try:
            begun = await worker.run(partial(open_run, path=resolved, kind=kind, to_move=to_move))
            yield cls(resolved, worker, begun, ticks)
        finally:
            await worker.stop()

    async def update_settings(self, settings: Mapping[str, object]) -> None:
        """Replace the settings of the run."""
        text = json_text(settings)
        await self._worker.run(partial(store_meta, name="settings", value=text))
        self._settings = json.loads(text)
        self._paths = KeptPaths.of(self._settings)

    async def keep_moved(self, moved: Moved | None) -> None:
        """Keep where the run is carried over to; from then on the file can only be read. None takes that back."""
        await self._worker.run(partial(store_moved, moved=moved))
        self.moved = moved

    async def keep_late(self, late: float) -> None:
        """Keep how many seconds after its intent a submission may arrive; the longest counts."""
        if late > self.late:
            await self._worker.run(partial(keep_late, late=late))
            self.late = max(self.late, late)  # another may have kept a longer one meanwhile

    async def record_pause(self, pause: Pause) -> None:
        """Record a pause, or how far one is that is recorded."""
        await self._worker.run(partial(write_pause, pause=pause))

    async def undo(self, ref: int | str) -> None:
        """Put an item in doubt again whose doubt was settled by hand. Raises `ValueError` otherwise."""
        self._only(RunKind.INVOICES, "undo")
        await self._worker.run(partial(undo, ref=ref))

    async def add_ids(self, ids: Iterable[str] | AsyncIterable[str], *, batch: int = ID_BATCH) -> Intake:
        """Take in order ids, all of them or, after an error or a crash, none; the first of equal ones counts.

        The input is read `batch` at a time, the next only when the last is on disk.
        """
        self._only(RunKind.DOCUMENTS, "add_ids")
        at_least_one("batch", batch)
        async with self._importing:
            await self._worker.run(unstage)
            async for chunk in chunks(ids, batch):
                await self._worker.run(partial(stage, ids=chunk))
            return await self._worker.run(take_ids)

    async def add_drafts(self, drafts: Iterable[NewDraft]) -> Intake:
        """Take in the drafts of one command in one transaction: all of them or none.

        A key with the same content is known and changes nothing. Raises `DraftConflictError` for keys with other
        content; only a draft that is invalid, so never sent, may be replaced by another.
        """
        self._only(RunKind.INVOICES, "add_drafts")
        return await self._worker.run(partial(add_drafts, drafts=tuple(drafts)))

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
        """Record the outcome of an id, by its `seq` (cheaper) or itself; it replaces what stood there.

        With `begun` only while the item stands in that attempt. Raises `SupersededError` otherwise.
        """
        self._only(RunKind.DOCUMENTS, "record_document")
        values = (attempt, request_id, self._paths.kept(path), size, sha256, code, one_line(error))
        await self._worker.run(
            partial(record_document, ref=ref, state=DocumentState(state), values=values, begun=begun)
        )

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
        """Let events happen in turn, all of them or none."""
        if self.kind is not RunKind.INVOICES:
            self._only(RunKind.INVOICES, "transition")
        taken = tuple(changes)
        for change in taken:
            if change.path is not None:  # nearly none has one, and a call for each would cost them all
                taken = self._paths.changes(taken)
                break
        return await self._worker.run(Transitions(taken))

    def _only(self, kind: RunKind, name: str) -> None:
        if self.kind is not kind:
            raise ValueError(f"{name} is for a run of {kind.value}; {self.path} is one of {self.kind.value}")
