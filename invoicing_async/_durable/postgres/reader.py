"""A run on a server, open for reading: `PostgresReader`."""

from __future__ import annotations

import errno
import json
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from attrs import frozen

from ..._core.clock import Clock
from ..._values.validators import at_least_one
from ..address import ServerAddress
from ..figures import RunFigures
from ..kept_paths import KeptPaths
from ..records import Holder, Item, JournalEntry, Pause
from ..report_parts import joined_pauses
from ..standing import ALIVE, Standing
from ..states import ON_DISK, SENDABLE, TO_FETCH, RunKind
from ..timeline import Timeline
from . import queries
from .arrays import array, storable
from .lookups import Lookups
from .operations import read_standing
from .reading import Reading, Row
from .report_queries import Report

__all__ = ["KeptRun", "PostgresReader", "describe_run"]


@frozen(kw_only=True)
class KeptRun:
    """What is kept of a run: its number in the database, and what it was made with."""

    run: int
    kind: RunKind
    settings: Mapping[str, object]
    created: float
    late: float


async def describe_run(reading: Reading) -> KeptRun | None:
    """Return the run of the address, None if there is none."""
    for row in await reading.rows(queries.DESCRIBE, {"name": reading.address.run}):
        run, kind, settings, created, late = row
        kept: Mapping[str, object] = json.loads(settings)
        return KeptRun(run=run, kind=RunKind(kind), settings=kept, created=created, late=late)
    return None


BESIDE = 20
"""Items that one who sends beside others reads ahead."""

_SENDABLE = queries.page(SENDABLE, payload=True, more="AND i.other_request_id IS NULL")


class PostgresReader:
    """A run on a server open for reading, also while others work on it.

    `kind`, `settings` and `created` (epoch seconds) are those of the run; `late` is how many seconds after its intent
    a submission may still arrive at the service, 0 before the first; `run` is its number in the database.
    """

    def __init__(self, reading: Reading, kept: KeptRun, clock: Clock | None = None) -> None:
        self.address = reading.address
        self.run: int = kept.run
        self.kind: RunKind = kept.kind
        self.created: float = kept.created
        self.late: float = kept.late
        self._settings = kept.settings
        self._paths = KeptPaths.of(kept.settings)
        self._reading = reading
        self._clock = clock
        self._lookups = Lookups(self._find_many)
        self._command: int | None = None
        """The number of the last `add_ids` by this ledger, whose duplicates are told; None for that of the run."""

    @classmethod
    @asynccontextmanager
    async def read(
        cls, address: ServerAddress, *, clock: Clock | None = None, environ: Mapping[str, str] | None = None
    ) -> AsyncIterator[PostgresReader]:
        """Open for reading. Raises `FileNotFoundError` if there is no such run, and as `open_connection` does."""
        reading = Reading(address, waits=False, environ=environ)
        try:
            kept = await describe_run(reading)
            if kept is None:
                raise FileNotFoundError(errno.ENOENT, "no such run", address.text)
            yield PostgresReader(reading, kept, clock)
        finally:
            await reading.close()

    @property
    def is_shared(self) -> bool:
        """True: any number of processes may work on it at once."""
        return True

    @property
    def name(self) -> str:
        """The address of the run, in which no password stands."""
        return self.address.text

    @property
    def settings(self) -> Mapping[str, object]:
        """What the run was begun with and keeps, as the caller gave it; it must hold no secret."""
        return self._settings

    async def close(self) -> None:
        """Let go of the connection. Closing twice does nothing."""
        await self._reading.close()

    async def holders(self) -> tuple[Holder, ...]:
        """Return who works on the run: the workers that were heard of in the last `ALIVE` seconds."""
        rows = await self.select(queries.HOLDERS, alive=ALIVE)
        return tuple(
            Holder(pid, host, datetime.fromtimestamp(started, UTC).isoformat(timespec="seconds"))
            for pid, host, started in rows
        )

    async def get(self, ref: int | str) -> Item | None:
        """Return the item with this `seq` or key, its payload included; None if there is none."""
        if isinstance(ref, int):
            return await self._lookups.find(ref)
        if storable(ref) != ref:
            return None  # nothing can be kept under it
        return next(iter(await self._given(await self.select(queries.FIND, key=ref))), None)

    async def _find_many(self, seqs: list[int]) -> list[Item]:
        return await self._given(await self.select(queries.FIND_MANY, seqs=array(seqs)))

    async def rows(
        self, states: Iterable[str] | None = None, *, after: int = 0, limit: int = 1000, payload: bool = False
    ) -> list[Item]:
        """Return up to `limit` items in the order of the input, those behind `seq` `after`; None for every state."""
        at_least_one("limit", limit)
        wanted = None if states is None else tuple(str(state) for state in states)
        return await self._given(await self.select(queries.page(wanted, payload=payload), after=after, limit=limit))

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
            return await self._sendable(_SENDABLE, after=after, limit=limit)
        return await self.rows((*TO_FETCH, *ON_DISK) if verify else TO_FETCH, after=after, limit=limit)

    async def pending_from_end(self, *, after: int = 0, limit: int = 1000) -> list[Item]:
        """Return up to `limit` invoices that are still to be sent as `pending`, the last first, before `seq` `after`.

        0: from the end. Whoever sends them so beside others, who begin at the front, meets them once; of what is read
        in one page, most may be sent by them before its turn, so that there are few.
        """
        limit = min(limit, BESIDE)
        return await self._sendable(queries.from_end(_SENDABLE), after=after or sys.maxsize, limit=limit)

    async def _sendable(self, statement: str, *, after: int, limit: int) -> list[Item]:
        at_least_one("limit", limit)
        return [queries.item(row) for row in await self.select(statement, after=after, limit=limit)]

    async def counts(self) -> dict[str, int]:
        """Return how many items are in each state, zeros included. Kept up with every change, so it costs nothing."""
        return queries.state_counts(await self.select(queries.COUNTS), self.kind)

    async def count_without_file(self) -> int:
        """Return how many finished invoices have no file of theirs."""
        [row] = await self.select(queries.WITHOUT_FILE)
        return int(row[0])

    async def duplicates(self, *, after: str = "", limit: int = 1000) -> list[tuple[str, int]]:
        """Return the ids that the last `add_ids` met more than once, in order, and how often beyond the first."""
        at_least_one("limit", limit)
        rows = await self.select(queries.DUPLICATES, after=after, limit=limit, command=self._command)
        return [(key, times) for key, times in rows]

    async def history(self, ref: int | str) -> list[JournalEntry]:
        """Return everything that ever happened to an invoice item, oldest first. Raises `ValueError` if unknown."""
        found = await self.get(ref)
        if found is None:
            raise ValueError(f"this run has no item {ref!r}")
        return [queries.entry(row) for row in await self.select(queries.HISTORY, item=found.seq)]

    async def journal(self, *, after: int = 0, limit: int = 1000) -> list[JournalEntry]:
        """Return up to `limit` entries of the whole run's journal, behind entry `after`.

        Entries that are being written at this moment may later appear before the last of them.
        """
        at_least_one("limit", limit)
        return [queries.entry(row) for row in await self.select(queries.ENTRIES, after=after, limit=limit)]

    async def figures(self) -> RunFigures:
        """Return the figures of the run at one moment. Reads all of it once, by a connection of its own."""
        async with self._report() as report:
            return await report.figures()

    async def timeline(self) -> Timeline:
        """Return what happened when: of e-invoices every event, of order documents what was last recorded of each."""
        async with self._report() as report:
            return await report.timeline(await report.pauses())

    async def pauses(self) -> tuple[Pause, ...]:
        """Return when calls waited because the service was down."""
        return joined_pauses(Pause(*row) for row in await self.select(queries.PAUSES))

    async def oldest(self) -> Item | None:
        """Return the e-invoice that is on its way, or with the service, for the longest time; None if none is."""
        for sql in queries.OLDEST:
            if found := await self._given(await self.select(sql)):
                return found[0]
        return None

    async def standing(self) -> Standing:
        """Return how the run stands at this moment, for who watches over it."""
        return await read_standing(self.select, self.name, self.kind)

    async def twice(self, *, limit: int = 1000) -> list[Item]:
        """Return up to `limit` items of which the service accepted another attempt as well: perhaps two invoices."""
        at_least_one("limit", limit)
        statement = queries.page(None, more=f"AND {queries.TWICE}")
        return await self._given(await self.select(statement, after=0, limit=limit))

    async def _given(self, rows: list[Row]) -> list[Item]:
        """Return items with whole paths, by the store of the run, which may have been set since it was opened."""
        items = [*map(queries.item, rows)]
        if self._paths.lack(items) and (kept := await describe_run(self._reading)) is not None:
            self._paths = KeptPaths.of(kept.settings)
        return [self._paths.item(item) for item in items]

    async def select(self, sql: str, **values: object) -> list[Row]:
        """Return the rows of a statement; `run`, and `now` of a clock that was given, are among its values."""
        now = None if self._clock is None else self._clock.now()
        return await self._reading.rows(sql, {"run": self.run, "now": now, **values})

    @asynccontextmanager
    async def _report(self) -> AsyncIterator[Report]:
        async with self._reading.snapshot() as connection:
            yield Report(connection, self.run, self.kind)
