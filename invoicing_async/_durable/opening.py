"""What is done when a run file is opened: look whether it is sound, and put what a crash left in doubt."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from pathlib import Path

from attrs import asdict, evolve, frozen

from .integrity import fault
from .records import Change, DamagedRunError, Moved, RunFileError, RunMovedError, json_text, states_of
from .schema import COUNT, LATE, MOVE, MOVED, MOVED_VERSION, MOVES, NOTE, OTHERS, PAUSES, SOME, VERSION
from .states import FINAL, Event, RunKind, State
from .transaction import Transaction, store_meta
from .transitions import change_items

__all__ = ["OpenedRun", "describe_run", "open_run", "store_moved"]


@frozen
class OpenedRun:
    kind: RunKind
    settings: Mapping[str, object]
    created: float
    recovered: int
    late: float
    moved: Moved | None = None


def describe_run(transaction: Transaction, path: Path) -> OpenedRun:
    states = [state.value for kind in RunKind for state in states_of(kind)]
    try:
        wrong = fault(transaction.connection, path, states)
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise DamagedRunError(f"{path} is damaged ({error})") from error
    if wrong is not None:
        raise DamagedRunError(f"{path} is damaged: {wrong}")
    meta = dict(transaction.execute("SELECT name, value FROM meta").fetchall())
    late = float(meta.get(LATE, 0.0))
    moved = Moved(**json.loads(meta[MOVED])) if MOVED in meta else None
    return OpenedRun(RunKind(meta["kind"]), json.loads(meta["settings"]), float(meta["created"]), 0, late, moved)


def open_run(transaction: Transaction, path: Path, kind: RunKind | None, *, to_move: bool = False) -> OpenedRun:
    opened = describe_run(transaction, path)
    if opened.moved is not None and not to_move:
        raise _moved(path, opened.moved)
    if kind not in {None, opened.kind}:
        raise RunFileError(f"{path} is a run of {opened.kind.value}, not of {kind}")
    if opened.kind is RunKind.INVOICES:
        for statement in (MOVES, MOVE, NOTE, COUNT):
            transaction.execute(statement)
        _index_requests(transaction)
    transaction.execute(PAUSES)
    transaction.execute(OTHERS.format(temporary=""))
    transaction.noted = {item for (item,) in transaction.execute("SELECT item FROM other_requests").fetchall()}
    transaction.execute("DELETE FROM staged")  # of a command that was cut off: nothing of it was taken in
    if transaction.log.is_lost and opened.kind is RunKind.INVOICES:
        # Whatever may have been sent while the lost log was written is in doubt: all that is not final or accepted. As
        # far as is known each left at this moment: none of them is settled before nothing can arrive any more.
        lost = "the run's log was lost, and with it whether this was sent"
        for state in (state.value for state in State if state not in {*FINAL, State.SUBMITTED, State.IN_DOUBT}):
            while seqs := [seq for (seq,) in transaction.execute(SOME, (state,)).fetchall()]:
                change_items(transaction, [Change(ref=seq, event=Event.LOG_LOST, error=lost) for seq in seqs])
        now, doubt = transaction.now(), State.IN_DOUBT.value
        transaction.execute("UPDATE items SET sent_at = ?, updated = ? WHERE state = ?", (now, now, doubt))
    sending = transaction.execute("SELECT seq FROM items WHERE state = ?", (State.SENDING.value,)).fetchall()
    text = "the process ended while this was being sent"
    change_items(transaction, [Change(ref=seq, event=Event.CRASHED, error=text) for (seq,) in sending])
    transaction.log.sound = True
    return evolve(opened, recovered=len(sending))


def _moved(path: Path, moved: Moved) -> RunMovedError:
    if moved.is_done:
        return RunMovedError(f"the run of {path} was carried over to {moved.to}, and goes on there", to=moved.to)
    said = f"the run of {path} was being carried over to {moved.to} when that was cut off, and may have come there"
    error = RunMovedError(said, to=moved.to)
    error.hint = "Give the same `runs import` again: it finishes that, or says that it was done."
    return error


def store_moved(transaction: Transaction, moved: Moved | None) -> None:
    """Mark the file as one whose run is elsewhere, also for programs that know only its version; None unmarks it."""
    if moved is None:
        transaction.execute("DELETE FROM meta WHERE name = ?", (MOVED,))
    else:
        store_meta(transaction, MOVED, json_text(asdict(moved)))
    transaction.execute(f"PRAGMA user_version = {VERSION if moved is None else MOVED_VERSION}")


def _index_requests(transaction: Transaction) -> None:
    """See to it that no two items have one request id; a file of before, in which two have, keeps them."""
    made = "SELECT sql FROM sqlite_master WHERE name = 'items_request'"
    if transaction.one(made) is None:
        twice = (
            "SELECT 1 FROM items WHERE request_id IS NOT NULL "
            "GROUP BY request_id COLLATE NOCASE HAVING count(*) > 1 LIMIT 1"
        )
        unique = "" if transaction.one(twice) else "UNIQUE "
        transaction.execute(
            f"CREATE {unique}INDEX items_request ON items (request_id COLLATE NOCASE) WHERE request_id IS NOT NULL"
        )
    transaction.unique_requests = transaction.one(made).startswith("CREATE UNIQUE")
