"""Taking in ids and drafts, by a connection of its own and in one transaction: all of a command or nothing.

Two who take in for one run take turns by an advisory lock: the row of the run stays free for who pauses it meanwhile.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from attrs import frozen

from ..intake_parts import DraftJudge, JudgedDrafts, KnownDraft, chunks
from ..records import DraftConflictError, Intake, NewDraft, json_text, one_line
from ..states import Event, State
from .arrays import storable
from .connection import Connection
from .errors import database_errors
from .queries import NOW

__all__ = ["CountedIntake", "add_drafts", "add_ids"]

TURNS = 0x496E7449
"""The first half of the advisory lock, the second is the run: "InTI"."""

TOGETHER = 1_000
"""Drafts that are looked up and written together."""

MANY = 50_000
"""Items after which the database looks at what its tables hold, so that it plans by what is there."""

SHOWN = 80
"""Characters of a text that an error shows."""

_STAGED = """
CREATE TEMPORARY TABLE staged (place bigint GENERATED ALWAYS AS IDENTITY, key text COLLATE "C") ON COMMIT DROP
"""

_TURN = "SELECT pg_advisory_xact_lock(%(turns)s, %(run)s)"

_LAST = "SELECT last_seq, last_command FROM invoicing.runs WHERE run = %(run)s"

_NOTE_DUPLICATES = """
WITH noted AS (
    INSERT INTO invoicing.duplicates (run, command, key, times)
    SELECT %(run)s, %(command)s, key, count(*) - 1 FROM staged GROUP BY key HAVING count(*) > 1 RETURNING times
)
SELECT coalesce(sum(times), 0)::bigint FROM noted
"""

_TAKE_IDS = f"""
INSERT INTO invoicing.items (run, seq, key, state, updated)
SELECT %(run)s, %(last)s + row_number() OVER (ORDER BY place), key, 'planned', {NOW}
FROM (
    SELECT key, min(place) AS place FROM staged
    WHERE NOT EXISTS (SELECT FROM invoicing.items AS i WHERE i.run = %(run)s AND i.key = staged.key)
    GROUP BY key
) AS fresh
ORDER BY place
"""  # noqa: S608 - made of constants

_KEEP_LAST = """
UPDATE invoicing.runs SET last_seq = %(last)s, last_command = %(command)s WHERE run = %(run)s
"""

_COUNT = """
INSERT INTO invoicing.tally AS t (run, state, worker, count) VALUES (%(run)s, %(state)s, %(worker)s, %(change)s)
ON CONFLICT (run, state, worker, part) DO UPDATE SET count = t.count + excluded.count
"""

_KNOWN = "SELECT key, seq, state, payload_sha256 FROM invoicing.items WHERE run = %(run)s AND key = ANY(%(keys)s)"

_HELD = """
SELECT key, seq, state, payload_sha256 FROM invoicing.items
WHERE run = %(run)s AND seq = ANY(%(seqs)s) ORDER BY seq FOR NO KEY UPDATE
"""

_CORRECT = """
UPDATE invoicing.items SET state = %(state)s, payload_sha256 = %(digest)s, error = %(error)s, code = NULL,
    updated = %(at)s
WHERE run = %(run)s AND seq = %(seq)s RETURNING attempt
"""

_REPLACE = "UPDATE invoicing.drafts SET payload = %(payload)s WHERE run = %(run)s AND seq = %(seq)s"

_COPY_ITEMS = "COPY invoicing.items (run, seq, key, state, payload_sha256, error, updated) FROM STDIN"
_COPY_DRAFTS = "COPY invoicing.drafts (run, seq, payload) FROM STDIN"
_COPY_JOURNAL = "COPY invoicing.journal (run, item, event, attempt, at, detail) FROM STDIN"


@frozen
class CountedIntake:
    """What was taken in, and the number of the command in its run, by which duplicates are listed."""

    intake: Intake
    command: int


async def add_ids(
    connection: Connection,
    run: int,
    ids: Iterable[str] | AsyncIterable[str],
    *,
    name: str,
    batch: int,
    worker: int = 0,
    now: float | None = None,
) -> CountedIntake:
    """Take in order ids, all of them or, after an error or a crash, none; the first of equal ones counts.

    `name` is the run's in errors, `worker` in whose name items are counted, `now` the time if not the
    database's. Raises `ValueError` for an id that PostgreSQL cannot keep.
    """
    values: dict[str, Any] = {"run": run, "turns": TURNS, "worker": worker, "now": now, "state": State.PLANNED.value}
    given = 0
    with database_errors(name):
        async with connection.transaction():
            await connection.execute(_STAGED)
            await connection.execute("SET LOCAL work_mem = '64MB'")
            async for chunk in chunks(ids, batch):
                await _copy(connection, "COPY staged (key) FROM STDIN", [(_whole(key),) for key in chunk])
                given += len(chunk)
            await connection.execute("ANALYZE staged")
            await connection.execute(_TURN, values)
            last, command = await _one(connection, _LAST, values)
            values |= {"last": last, "command": command + 1}
            [duplicates] = await _one(connection, _NOTE_DUPLICATES, values)
            added = (await connection.execute(_TAKE_IDS, values)).rowcount
            await _count(connection, values, {State.PLANNED.value: added})
            await connection.execute(_KEEP_LAST, values | {"last": last + added})
        await _look(connection, added)
    known = given - added - duplicates
    return CountedIntake(Intake(given=given, added=added, known=known, duplicates=duplicates), command + 1)


async def add_drafts(
    connection: Connection,
    run: int,
    drafts: Sequence[NewDraft],
    *,
    name: str,
    worker: int = 0,
    now: float | None = None,
) -> Intake:
    """Take in the drafts of one command, all of them or none. Raises `DraftConflictError`; see `add_ids`."""
    values: dict[str, Any] = {"run": run, "turns": TURNS, "worker": worker, "now": now}
    with database_errors(name):
        async with connection.transaction():
            await connection.execute(_TURN, values)
            last, command = await _one(connection, _LAST, values)
            [at] = await _one(connection, f"SELECT {NOW}", values)
            judge, import_ = DraftJudge(last), _DraftImport(connection, run, at)
            for begin in range(0, len(drafts), TOGETHER):
                part = drafts[begin : begin + TOGETHER]
                await import_.write(judge.judge(part, await import_.known(part)))
            if judge.conflicts:
                raise DraftConflictError(tuple(judge.conflicts))
            await _count(connection, values, import_.counts)
            await connection.execute(_KEEP_LAST, values | {"last": judge.last, "command": command + 1})
        await _look(connection, judge.last - last)
    return Intake(given=len(drafts), **judge.counted)


class _DraftImport:
    """Writes drafts as they were judged; `counts` is by how much the number of items in each state changes."""

    def __init__(self, connection: Connection, run: int, at: datetime) -> None:
        self._connection = connection
        self._run = run
        self._at = at
        self.counts = Counter[str]()

    async def known(self, drafts: Sequence[NewDraft]) -> dict[str, KnownDraft]:
        """Return what the run has under the keys of drafts; what may be corrected is held, and read once it is."""
        keys = {"run": self._run, "keys": [_whole(draft.key) for draft in drafts]}
        rows = await (await self._connection.execute(_KNOWN, keys)).fetchall()
        if invalid := [seq for _, seq, state, _ in rows if state == State.INVALID]:
            rows += await (await self._connection.execute(_HELD, {"run": self._run, "seqs": invalid})).fetchall()
        return {key: KnownDraft(seq, state, digest) for key, seq, state, digest in rows}

    async def write(self, judged: JudgedDrafts) -> None:
        """Write what is new and what is corrected, and say so in the journal."""
        run, at = self._run, self._at
        new = [
            (run, seq, _whole(draft.key), _state(draft), draft.payload_sha256, _line(draft), at)
            for seq, draft in judged.new
        ]
        await _copy(self._connection, _COPY_ITEMS, new)
        await _copy(self._connection, _COPY_DRAFTS, [(run, seq, _whole(draft.payload)) for seq, draft in judged.new])
        attempts = {seq: await self._correct(seq, draft) for seq, draft in judged.corrected}
        entries: list[tuple[int, int, str, int, datetime, str | None]] = [
            (run, seq, Event.CORRECTED.value, attempt, at, None) for seq, attempt in attempts.items()
        ]
        entries += [
            (run, seq, Event.FOUND_INVALID.value, attempts.get(seq, 0), at, json_text({"error": _line(draft)}))
            for seq, draft in judged.new + judged.corrected
            if draft.error is not None
        ]
        await _copy(self._connection, _COPY_JOURNAL, entries)
        self.counts.update(_state(draft) for _, draft in judged.new + judged.corrected)
        self.counts[State.INVALID.value] -= len(attempts)

    async def _correct(self, seq: int, draft: NewDraft) -> int:
        """Put a draft into the place of an invalid one; return the attempt of the item."""
        values = {"run": self._run, "seq": seq, "state": _state(draft), "error": _line(draft), "at": self._at}
        await self._connection.execute(_REPLACE, {**values, "payload": _whole(draft.payload)})
        [attempt] = await _one(self._connection, _CORRECT, {**values, "digest": draft.payload_sha256})
        return int(attempt)


def _whole(text: str) -> str:
    """Return what must be kept as it is. Raises `ValueError` for what PostgreSQL cannot keep."""
    if storable(text) != text:
        start = text if len(text) < SHOWN else text[:SHOWN] + "…"
        raise ValueError(f"a run on a server keeps no text with a NUL or half of a surrogate pair in it: {start!r}")
    return text


def _line(draft: NewDraft) -> str | None:
    return None if draft.error is None else one_line(storable(draft.error))


def _state(draft: NewDraft) -> str:
    return State.PLANNED.value if draft.error is None else State.INVALID.value


async def _copy(connection: Connection, sql: str, rows: Sequence[Sequence[object]]) -> None:
    if not rows:
        return
    async with connection.cursor() as cursor, cursor.copy(sql.encode()) as copy:
        for row in rows:
            await copy.write_row(row)


async def _count(connection: Connection, values: Mapping[str, Any], counts: Mapping[str, int]) -> None:
    for state, change in counts.items():
        if change:
            await connection.execute(_COUNT, {**values, "state": state, "change": change})


async def _look(connection: Connection, added: int) -> None:
    """Let the database look at what many new items are like; it does so by itself only in a while."""
    if added >= MANY:
        await connection.execute("ANALYZE invoicing.items")


async def _one(connection: Connection, sql: str, values: Mapping[str, Any]) -> tuple[Any, ...]:
    row = await (await connection.execute(sql.encode(), values)).fetchone()
    assert row is not None  # noqa: S101 - it always has one; for the type checker
    return row
