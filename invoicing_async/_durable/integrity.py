"""Whether a run file is what it was left as: its write-ahead log is there, and its content agrees with itself.

A run that sends keeps its newest transitions in the log beside the file. From before its first intent until it is
closed the file itself carries a mark that says so: a marked file without its log has forgotten what was sent, and
nothing may be sent from it. A small file is checked whole each time it is opened, a large one after an unclean end.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path

from .._core.clock import token

__all__ = ["Log", "close_beside", "expects_log", "fault", "has_log"]

SMALL = 64 * 2**20
"""Bytes up to which a file is checked whole at every opening: some tenths of a second."""

FAULTS = 3
"""Faults of a database that its error names."""

_MARK = "log"
_TABLES = {
    "meta": {"name", "value"},
    "items": {
        "seq", "key", "state", "attempt", "request_id", "invoice_id", "path", "size", "sha256", "code", "error",
        "result", "payload_sha256", "sent_at", "updated",
    },
    "drafts": {"seq", "payload"},
    "journal": {"seq", "item", "event", "at", "detail"},
    "tally": {"state", "count"},
    "duplicates": {"key", "times"},
}  # fmt: skip
_NEEDED = {"items_key", "items_state", "journal_kept", "journal_fixed"}


class Log:
    """The mark of one connection for writing: set before its first intent, taken away when all is in the file."""

    def __init__(self) -> None:
        self.sound = False
        """True once the file was found to be in order: only then may it be left as one file."""
        self.is_lost = False
        """True if the file was taken as it is though its log is gone or damaged."""
        self.is_marked: bool = False
        """True while the file itself says that there is a log, and holds all that an intent rests on."""

    def renew(self) -> None:
        """Say that the file has learned something that must be in it before the next intent."""
        self.is_marked = False

    def expect(self, connection: sqlite3.Connection) -> None:
        """Put the mark, and all that is known so far, into the file itself; outside a transaction.

        Somebody who reads an old state can keep it from getting there; it is tried again with the next intent.
        """
        connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (_MARK, token()))
        blocked, length, done = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        self.is_marked = not blocked and length == done

    def end(self, connection: sqlite3.Connection, path: Path) -> None:
        """Close the connection: with all in one file and no mark, or with the log as it is where that is not to be."""
        try:
            # All else first: a kill in the middle of it must not leave a file without its mark and without the rest.
            if self.sound:
                blocked, length, done = connection.execute("PRAGMA wal_checkpoint(FULL)").fetchone()
                if not blocked and length == done:
                    connection.execute("DELETE FROM meta WHERE name = ?", (_MARK,))
                    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                    connection.close()
                    return
        except sqlite3.Error:
            pass  # what was committed is safe in the log
        close_beside(connection, path)


def close_beside(connection: sqlite3.Connection, path: Path) -> None:
    """Close a connection and leave a log that is there: the last one to be closed removes it unless it only reads."""
    if not has_log(path):
        connection.close()
        return
    try:
        guard = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, isolation_level=None)
        guard.execute("BEGIN")
        guard.execute("SELECT 1 FROM meta").fetchone()
    except sqlite3.Error:
        connection.close()
        return
    connection.close()
    guard.close()


def has_log(path: Path) -> bool:
    """Tell whether the write-ahead log is there with anything in it."""
    try:
        return path.with_name(path.name + "-wal").stat().st_size > 0
    except FileNotFoundError:
        return False


def expects_log(path: Path) -> bool:
    """Tell whether the file itself, without its log, carries the mark."""
    connection = sqlite3.connect(f"{path.as_uri()}?immutable=1", uri=True, isolation_level=None)
    try:
        return connection.execute("SELECT 1 FROM meta WHERE name = ?", (_MARK,)).fetchone() is not None
    finally:
        connection.close()


def fault(connection: sqlite3.Connection, path: Path, states: Iterable[str]) -> str | None:
    """Say what is wrong with an open run file; None if nothing is, or it is too large to look at each time."""
    for table, columns in _TABLES.items():
        there = {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}
        for column in sorted(columns - there):
            return f"it has no column {column} in its table {table}"
    names = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
    if _NEEDED - names:
        return f"it has no {min(_NEEDED - names)}"
    if path.stat().st_size % connection.execute("PRAGMA page_size").fetchone()[0]:
        return "its last page is cut off"
    is_unclean = connection.execute("SELECT 1 FROM meta WHERE name = ?", (_MARK,)).fetchone() is not None
    is_small = path.stat().st_size <= SMALL
    if not is_small and not is_unclean:
        return None
    check = "integrity_check" if is_small else "quick_check"
    said = [row[0] for row in connection.execute(f"PRAGMA {check}({FAULTS})")]
    if said != ["ok"]:
        return "; ".join(" ".join(str(text).split()) for text in said)[:300]
    return next(_disagreements(connection, set(states)), None)


def _disagreements(connection: sqlite3.Connection, states: set[str]) -> Iterator[str]:
    """Yield what a database may hold that is sound as a database and cannot be ours."""
    meta = dict(connection.execute("SELECT name, value FROM meta"))
    for name in ("kind", "settings", "created"):
        if name not in meta:
            yield f"it does not say its {name}"
    try:
        float(meta["created"])
        sound = isinstance(json.loads(meta["settings"]), dict)
    except (ValueError, KeyError):
        sound = False
    if not sound:
        yield "its settings cannot be read"
    counted = dict(connection.execute("SELECT state, count(*) FROM items GROUP BY state"))
    unknown = sorted(set(map(str, counted)) - states)
    if unknown:
        yield f"it has items in a state {unknown[0]!r}"
    tally = dict(connection.execute("SELECT state, count FROM tally"))
    if not states >= {*tally}:
        yield f"it counts a state {min(map(str, {*tally} - states))!r}"
    counts = {state: count for state, count in tally.items() if count}
    if counts != counted:
        yield "its counts are not those of its items"
    if meta.get("kind") == "invoices":
        lacking = connection.execute(
            "SELECT count(*) FROM items WHERE NOT EXISTS (SELECT 1 FROM drafts WHERE drafts.seq = items.seq)"
        ).fetchone()[0]
        if lacking:
            yield f"{lacking:,} of its drafts are not there"
