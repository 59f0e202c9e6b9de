"""The run file itself: made, identified, locked, opened for writing or reading; SQLite's errors become ours here."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from glob import escape as glob_escape
from operator import methodcaller
from pathlib import Path
from typing import Any

from .._core.clock import Clock, RealClock, token
from .._files.folders import sync_folder
from .integrity import Log, close_beside, expects_log, has_log
from .lock import held, holder_of, using
from .records import DamagedRunError, Holder, RunChangedError, RunFileError, RunLockedError, json_text, states_of
from .schema import APPLICATION_ID, BY_STATE, CHANGED, MOVED_VERSION, OTHERS, SCHEMA, UNIQUE, VERSION
from .states import RunKind
from .wal import log_fault, log_of

__all__ = ["open_to_read", "open_to_write", "resolve_path", "translate_error"]

ABANDONED = 3600.0
"""Seconds after which a new file that was not finished is nobody's."""


_LOCAL = "a run file needs a local disk: its write-ahead log does not work on a network file system"


_NETWORK = frozenset(
    {
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_IOERR_SHMOPEN,
        sqlite3.SQLITE_IOERR_SHMSIZE,
        sqlite3.SQLITE_IOERR_SHMLOCK,
        sqlite3.SQLITE_IOERR_SHMMAP,
    }
)


_SYSTEM = {
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_IOERR: errno.EIO,
    sqlite3.SQLITE_READONLY: errno.EROFS,
    sqlite3.SQLITE_CANTOPEN: errno.EACCES,
}


_DAMAGED = frozenset({sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT})


WAIT = 60.0
"""Seconds for which a write waits for somebody who looks at the file with a program of theirs."""


def translate_error(error: Exception, path: Path) -> Exception:
    """Say an error of the database in our words: the file system's stay `OSError`."""
    if isinstance(error, UnicodeDecodeError):
        # What a damaged database says of itself need not be text.
        said = DamagedRunError(f"{path} is damaged: what should be text in it is none")
        said.__cause__ = error
        return said
    if not isinstance(error, sqlite3.Error):
        return error
    extended = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    code = extended & 0xFF
    ours: Exception
    if extended in _NETWORK:
        ours = RunFileError(f"{path}: {_LOCAL} ({error})")
    elif code in _SYSTEM:
        ours = OSError(_SYSTEM[code], f"{os.strerror(_SYSTEM[code])} ({error})", str(path))
    elif code in _DAMAGED:
        ours = DamagedRunError(f"{path} is damaged or not a run file ({error})")
    elif CHANGED in str(error):
        ours = RunChangedError(f"{path}: {CHANGED}")
    else:
        ours = RunFileError(f"{path}: {error}")
    ours.__cause__ = error
    return ours


DECODE = methodcaller("decode", "utf-8", "replace")
"""Reads text, also where it is damaged: one bad letter must not hide every other item.

What a run goes by is judged apart: drafts by their digest, keys and request ids by their indexes, states by name.
"""


def _connect(path: Path, query: str) -> sqlite3.Connection:
    connection = sqlite3.connect(f"{path.as_uri()}?{query}", uri=True, isolation_level=None, timeout=WAIT)
    connection.text_factory = DECODE
    return connection


def _identify(path: Path) -> None:
    """Refuse a file that is not a run file of this version, without a byte changed or a file left beside it.

    `immutable` reads the header alone. A run killed in the middle of a checkpoint looks damaged that way and is
    looked at again through its write-ahead log.
    """
    try:
        application, version = _header(path, "immutable=1")
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_NOTADB:
            raise RunFileError(f"{path} is not a run file") from error
        application, version = _header(path, "mode=ro")
    if application != APPLICATION_ID:
        raise RunFileError(f"{path} is not a run file")
    if version not in {VERSION, MOVED_VERSION}:
        raise RunFileError(f"{path} has format version {version}; this library knows version {VERSION}")


def _header(path: Path, query: str) -> tuple[int, int]:
    connection = _connect(path, query)
    try:
        return _one(connection, "PRAGMA application_id"), _one(connection, "PRAGMA user_version")
    finally:
        connection.close()


def _one(connection: sqlite3.Connection, sql: str) -> Any:
    row = connection.execute(sql).fetchone()
    return row[0] if row else None


def _write_ahead(connection: sqlite3.Connection, path: Path) -> None:
    mode = _one(connection, "PRAGMA journal_mode = WAL")
    if mode != "wal":
        raise RunFileError(f"{path}: {_LOCAL} (journal mode {mode!r})")


def _create(path: Path, kind: RunKind | None, settings: Mapping[str, object] | None, created: float) -> None:
    """Make a whole new file under another name and publish it: a file with the final name always has its header.

    Another process may do the same at this moment: the first one's is the file.
    """
    if kind is None:
        raise ValueError("kind must be given for a new run file")
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "no such folder", str(path.parent))
    for left in path.parent.glob(f"{glob_escape(path.name)}.*new*"):
        # What a process left that died while making this file; a living one's is younger than that.
        with suppress(OSError):
            if left.stat().st_mtime < RealClock().now() - ABANDONED:
                left.unlink()
    new = path.with_name(f"{path.name}.{token()}.new")
    try:
        _fill(new, kind, {"kind": kind.value, "settings": json_text(settings or {}), "created": repr(created)})
        try:
            os.link(new, path)
        except FileExistsError:
            pass  # the other process was first
        except OSError:  # no hard links there
            if not path.exists():
                new.replace(path)
    finally:
        for suffix in ("", "-journal", "-wal", "-shm"):
            new.with_name(new.name + suffix).unlink(missing_ok=True)
    sync_folder(path.parent)


def _fill(path: Path, kind: RunKind, meta: Mapping[str, str]) -> None:
    connection = _connect(path, "mode=rwc")
    try:
        connection.executescript(SCHEMA)
        connection.execute(UNIQUE)
        connection.execute(BY_STATE)
        connection.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())
        connection.executemany("INSERT INTO tally VALUES (?, 0)", [(state.value,) for state in states_of(kind)])
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
        _write_ahead(connection, path)
    finally:
        connection.close()


@contextmanager
def open_to_write(
    path: Path,
    kind: RunKind | None,
    settings: Mapping[str, object] | None,
    *,
    create: bool,
    clock: Clock,
    accept_lost_log: bool = False,
    log: Log | None = None,
) -> Iterator[sqlite3.Connection]:
    """Hold the run file for writing; leaving writes all back into the one file."""
    if create and not path.exists():
        _create(path, kind, settings, clock.now())
    _must_be_a_file(path)
    with _local(path), held(path, now=clock.now(), refuse=partial(_locked, path)) as is_there:
        _identify(path)
        lost = _lost(path)
        if lost is not None and not accept_lost_log:
            raise DamagedRunError(lost)
        if log is not None:
            log.is_lost = lost is not None
        connection = _connect(path, "mode=rw")
        try:
            _write_ahead(connection, path)
            if not is_there():
                raise RunFileError(f"{path} was moved or replaced while it was opened")
            for pragma in ("synchronous = FULL", "cache_size = -2000", "journal_size_limit = 67108864"):
                connection.execute(f"PRAGMA {pragma}")
            yield connection
        finally:
            (log or Log()).end(connection, path)


@contextmanager
def _local(path: Path) -> Iterator[None]:
    """Say of a file system that knows no locks what that means for a run."""
    try:
        yield
    except OSError as error:
        if error.errno not in {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP}:
            raise
        raise RunFileError(f"{path}: {_LOCAL} ({error})") from error


def _lost(path: Path) -> str | None:
    """Say what a file that was in use has forgotten of what happened last, and the way out; None if nothing."""
    log, is_there = log_of(path).name, has_log(path)  # in this order: at a clean end the mark goes before the log
    try:
        is_expected = expects_log(path)
    except sqlite3.Error as error:
        if not is_there:
            raise DamagedRunError(f"{path} is damaged ({error})") from error
        is_expected = True  # killed in the middle of a checkpoint it looks damaged
    if is_there:
        wrong = log_fault(path, expected=is_expected)
        what = wrong and f"the write-ahead log {log} of {path} is damaged: {wrong}; what can be read"
        ask = "Is there a copy of it?"
    else:
        ended = f"{path} was in use when its process ended, and its write-ahead log {log} is not there"
        what = f"{ended}: what the file says" if is_expected else None
        ask = "Was it moved or copied without its log?"
    return what and (
        f"{what} of its items is older than what was sent. {ask} Only if that is gone for good: "
        f"`invoicing-async runs accept-lost-log {path}` puts all that may have been sent in doubt"
    )


def _locked(path: Path, holder: Holder) -> RunLockedError:
    return RunLockedError(f"{path} is held by {holder}", pid=holder.pid, host=holder.host, since=holder.since)


@contextmanager
def open_to_read(path: Path) -> Iterator[sqlite3.Connection]:
    """Open the run file beside its writer, if there is one. No lock: the write-ahead log shows one state."""
    _must_be_a_file(path)
    _identify(path)
    # While it is written its log is only growing; one that has forgotten what happened last is not shown.
    if holder_of(path) is None or not has_log(path):
        lost = _lost(path)
        if lost is not None and (holder_of(path) is None or not has_log(path)):
            raise DamagedRunError(lost)
    writable = os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)
    with using(path):
        connection = _connect(path, _reading_mode(writable=writable, log=has_log(path)))
        try:
            if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'other_requests'").fetchone() is None:
                connection.execute(OTHERS.format(temporary="TEMP"))
            connection.execute("PRAGMA query_only = ON")
            yield connection
        finally:
            close_beside(connection, path)


def _reading_mode(*, writable: bool, log: bool) -> str:
    """Return how a reader opens a file.

    It leaves a log as it is, which a killed writer's file needs; where there is none it tidies up.
    """
    if log:
        return "mode=ro"
    return "mode=rw" if writable else "immutable=1"


def resolve_path(path: str | os.PathLike[str]) -> Path:
    """Return the one name of a file: two links to it must not mean two locks."""
    return Path(path).resolve()


def _must_be_a_file(path: Path) -> None:
    if not path.exists():
        raise FileNotFoundError(errno.ENOENT, "no such run file", str(path))
    if not path.is_file():
        raise RunFileError(f"{path} is not a run file")
