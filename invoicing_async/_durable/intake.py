"""Importing order ids and drafts: which are new, which are known, which contradict what is known."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from .intake_parts import DraftJudge, KnownDraft
from .records import Change, DraftConflictError, Intake, NewDraft
from .schema import BY_STATE, DELETE_LATER, ITEMS, UNIQUE
from .states import DocumentState, Event, State
from .transaction import TOGETHER, Transaction, in_parts, insert_rows
from .transitions import change_items, split_texts

__all__ = ["add_drafts", "stage", "take_ids", "unstage"]


def add_drafts(transaction: Transaction, drafts: Sequence[NewDraft]) -> Intake:
    transaction.log.renew()
    drafts_import = DraftImport(transaction)
    for at in range(0, len(drafts), TOGETHER):
        drafts_import.take(drafts[at : at + TOGETHER])
    if drafts_import.conflicts:
        raise DraftConflictError(tuple(drafts_import.conflicts))
    return Intake(given=len(drafts), **drafts_import.counted)


class DraftImport:
    """An import of drafts, many to a statement: each statement must win the interpreter's lock from a busy loop."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self._judge = DraftJudge(transaction.one("SELECT coalesce(max(seq), 0) FROM items"))
        self.counted = self._judge.counted
        self.conflicts = self._judge.conflicts

    def take(self, drafts: Sequence[NewDraft]) -> None:
        """Take in what is new, correct what was invalid, note what is known or in conflict."""
        transaction = self._transaction
        judged = self._judge.judge(drafts, _known(transaction, [draft.key for draft in drafts]))
        new, corrected = judged.new, judged.corrected
        now = transaction.now()
        rows = [(seq, draft.key, draft.payload_sha256, now) for seq, draft in new]
        insert_rows(transaction, "items (seq, key, payload_sha256, updated, state)", rows, f", '{State.PLANNED.value}'")
        insert_rows(transaction, "drafts (seq, payload)", [(seq, draft.payload) for seq, draft in new])
        transaction.counts[State.PLANNED.value] += len(new)
        change_items(transaction, [Change(ref=seq, event=Event.CORRECTED) for seq, _ in corrected])
        for seq, draft in corrected:
            transaction.execute("UPDATE items SET payload_sha256 = ? WHERE seq = ?", (draft.payload_sha256, seq))
            transaction.execute("UPDATE drafts SET payload = ? WHERE seq = ?", (draft.payload, seq))
        wrong = [(seq, draft.error) for seq, draft in new + corrected if draft.error is not None]
        change_items(transaction, [Change(ref=seq, event=Event.FOUND_INVALID, error=error) for seq, error in wrong])


def _known(transaction: Transaction, keys: list[str]) -> dict[str, KnownDraft]:
    """Return what the run has under these keys; all of it as one row, for the lock's sake."""
    found: dict[str, KnownDraft] = {}
    for part in in_parts(keys):
        asked = ",".join(f"({place},?)" for place in range(len(part)))
        sql = (
            f"WITH asked (place, key) AS (VALUES {asked}) "  # noqa: S608 - made of constants
            "SELECT group_concat(place || ' ' || seq || ' ' || state || ' ' || hex(payload_sha256)) "
            "FROM asked CROSS JOIN items USING (key)"
        )
        for place, seq, state, digest in split_texts(transaction.one(sql, *part)):
            found[part[int(place)]] = KnownDraft(int(seq), state, bytes.fromhex(digest).decode())
    return found


def unstage(transaction: Transaction) -> None:
    transaction.execute("DELETE FROM staged")


def stage(transaction: Transaction, ids: list[str]) -> None:
    state, now = DocumentState.PLANNED.value, transaction.now()
    insert_rows(transaction, "staged (key, state, updated)", [(key, state, now) for key in ids])


def take_ids(transaction: Transaction) -> Intake:
    transaction.execute("DELETE FROM duplicates")
    given = transaction.one("SELECT coalesce(max(seq), 0) FROM staged")
    if transaction.one("SELECT 1 FROM items LIMIT 1"):
        _note_duplicates(transaction, "staged")
        added = transaction.execute(
            "INSERT INTO items (key, state, updated) SELECT key, state, updated FROM staged "
            "WHERE NOT EXISTS (SELECT 1 FROM items WHERE items.key = staged.key) GROUP BY key ORDER BY min(seq)"
        ).rowcount
    else:
        # The staged ids become the items, then the index: kept up in random order it takes ten times as long.
        transaction.execute("DROP TABLE items")
        transaction.execute("ALTER TABLE staged RENAME TO items")
        transaction.execute(ITEMS.format(name="staged"))
        try:
            transaction.execute(UNIQUE)
        except sqlite3.IntegrityError:  # there are duplicates
            _note_duplicates(transaction, "items")
            transaction.execute(DELETE_LATER)
            transaction.execute(UNIQUE)
        transaction.execute(BY_STATE)
        added = int(transaction.one("SELECT count(*) FROM items"))
    duplicates = transaction.one("SELECT coalesce(sum(times), 0) FROM duplicates")
    unstage(transaction)
    transaction.counts[DocumentState.PLANNED.value] += added
    return Intake(given=given, added=added, known=given - added - duplicates, duplicates=duplicates)


def _note_duplicates(transaction: Transaction, table: str) -> None:
    counted = f"SELECT key, count(*) - 1 FROM {table} GROUP BY key HAVING count(*) > 1"  # noqa: S608 - one of two names
    transaction.execute(f"INSERT INTO duplicates {counted}")
