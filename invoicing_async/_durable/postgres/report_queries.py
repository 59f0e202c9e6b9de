"""What a report says of a run, read at one moment. Rows are streamed, and never all kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping

from attrs import frozen

from ...models import AuthorityStatus
from ..answers import authority_status
from ..figures import Durations, RunFigures
from ..records import Item, Pause
from ..report_parts import (
    DOCUMENT_NUMBERED,
    EVENT_NUMBERED,
    LISTED,
    ROWS,
    STATES_AMISS,
    WORDINGS,
    Latencies,
    frequent_reasons,
    joined_pauses,
    timeline_of,
)
from ..states import DocumentState, RunKind, State
from ..timeline import Moments, Timeline
from .connection import Connection
from .queries import COUNTS, OLDEST, PAUSES, WITHOUT_FILE, Row, item, page, state_counts

__all__ = ["Report"]

_JOURNAL = f"""
SELECT item, {EVENT_NUMBERED}, extract(epoch FROM at)::float8 FROM invoicing.journal
WHERE run = %(run)s AND item BETWEEN 1 AND %(last)s ORDER BY id
"""  # noqa: S608 - made of constants

_RECORDED = f"""
SELECT seq, {DOCUMENT_NUMBERED}, extract(epoch FROM updated)::float8 FROM invoicing.items
WHERE run = %(run)s AND state <> '{DocumentState.PLANNED.value}'
"""  # noqa: S608 - made of constants

_LAST = "SELECT coalesce(max(seq), 0) FROM invoicing.items WHERE run = %(run)s"

_RESULTS = """
SELECT seq, '', state, 0, request_id, NULL, NULL, NULL, NULL, NULL, NULL, result FROM invoicing.items
WHERE run = %(run)s AND state = 'success'
"""

_LOST = "AND i.path IS NULL AND i.error IS NOT NULL"

_LOST_EXPORTS = f"SELECT count(*) FROM invoicing.items AS i WHERE run = %(run)s AND state = 'success' {_LOST}"  # noqa: S608 - made of constants

_SIZE = "SELECT coalesce(sum(size), 0) FROM invoicing.items WHERE run = %(run)s AND path IS NOT NULL"

_REASONS: Mapping[RunKind, str] = {
    kind: f"""
SELECT state, code, replace(error, '''' || key || '''', '…') COLLATE "C" AS said, count(*) AS number
FROM invoicing.items
WHERE run = %(run)s AND state IN ({", ".join(f"'{state.value}'" for state in states)})
GROUP BY state, code, said ORDER BY number DESC, said LIMIT {WORDINGS}
"""  # noqa: S608 - made of constants
    for kind, states in STATES_AMISS.items()
}


@frozen
class Report:
    """Reads for a report, by a connection that sees one moment."""

    connection: Connection
    run: int
    kind: RunKind

    async def figures(self) -> RunFigures:
        """Read everything."""
        pauses = await self.pauses()
        latencies = Latencies(await self._number(_LAST))
        timeline = await self.timeline(pauses, latencies)
        authority = await self._authority()
        return RunFigures(
            kind=self.kind,
            counts=state_counts(await self._rows(COUNTS), self.kind),
            timeline=timeline,
            pauses=pauses,
            answered=Durations.of(latencies.answered),
            settled=Durations.of(latencies.settled),
            reasons=frequent_reasons((str(s), c, w, int(n)) for s, c, w, n in await self._rows(_REASONS[self.kind])),
            authority=authority,
            listed={state.value: await self._listed((state.value,)) for state in STATES_AMISS[self.kind]},
            refused=await self._refused() if any(map(AuthorityStatus.refuses, authority)) else (),
            not_exported=await self._listed((State.SUCCESS.value,), _LOST),
            lost_exports=await self._number(_LOST_EXPORTS),
            without_file=await self._number(WITHOUT_FILE),
            size=await self._number(_SIZE),
            oldest=await self.oldest(),
        )

    async def timeline(self, pauses: tuple[Pause, ...], latencies: Latencies | None = None) -> Timeline:
        """Read what happened when; `latencies` take the journal as well."""
        moments = Moments()
        is_journal = self.kind is RunKind.INVOICES
        values = {"last": await self._number(_LAST)} if is_journal else {}
        async for rows in self._stream(_JOURNAL if is_journal else _RECORDED, **values):
            moments.take(rows)
            if latencies is not None and is_journal:
                latencies.take(rows)
        return timeline_of(moments, self.kind, pauses)

    async def pauses(self) -> tuple[Pause, ...]:
        """Read when calls waited because the service was down."""
        return joined_pauses(Pause(*row) for row in await self._rows(PAUSES))

    async def oldest(self) -> Item | None:
        """Read what has been on its way, or with the service, for the longest time; of what is on its way first."""
        for sql in OLDEST:
            for row in await self._rows(sql):
                return item(row)
        return None

    async def _authority(self) -> Counter[str]:
        """Count how the finished invoices stand with the tax authority, as far as the service said."""
        counted = Counter[str]()
        if self.kind is RunKind.INVOICES:
            async for rows in self._stream(_RESULTS):
                counted.update(status for row in rows if (status := authority_status(item(row))) is not None)
        return counted

    async def _refused(self) -> tuple[Item, ...]:
        found: list[Item] = []
        after = 0
        while rows := await self._rows(page((State.SUCCESS.value,)), after=after, limit=ROWS):
            items = [item(row) for row in rows]
            found += (each for each in items if AuthorityStatus.refuses(authority_status(each)))
            if len(found) >= LISTED:
                break
            after = items[-1].seq
        return tuple(found[:LISTED])

    async def _listed(self, states: tuple[str, ...], more: str = "") -> tuple[Item, ...]:
        return tuple(map(item, await self._rows(page(states, more=more), after=0, limit=LISTED)))

    async def _rows(self, sql: str, **values: int) -> list[Row]:
        return await (await self.connection.execute(sql.encode(), {"run": self.run, **values})).fetchall()

    async def _number(self, sql: str) -> int:
        [row] = await self._rows(sql)
        return int(row[0])

    async def _stream(self, sql: str, **values: int) -> AsyncIterator[Iterable[Row]]:
        async with self.connection.cursor("rows") as cursor:
            await cursor.execute(sql.encode(), {"run": self.run, **values})
            while rows := await cursor.fetchmany(ROWS):
                yield rows
