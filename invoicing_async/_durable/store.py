"""The door to the run database: a small `Ledger` protocol and its SQLite form.

One thread owns the one connection. It takes whatever was queued while its last commit ran, does all of it in one
transaction and answers every waiter with one call into the loop (natural group commit: DESIGN.md, "Facts
measured"). Nothing is answered before it is on disk. An operation that fails undoes itself and nothing else; a file
that fails (a full disk) fails the whole group, and then nothing of the group is recorded.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import sqlite3
import sys
import threading
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, suppress
from enum import StrEnum
from functools import cache, partial
from glob import escape as glob_escape
from itertools import chain, groupby, islice
from operator import attrgetter
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Protocol, Self, TypeAlias, TypeVar

from attrs import evolve, field, frozen

from .._core.clock import Clock, RealClock, token
from ..errors import InvoicingError
from .integrity import Log, close_beside, expects_log, fault, has_log
from .lock import Holder, held, holder_of, using
from .states import (
    FINAL,
    NEEDS_REQUEST_ID,
    ON_DISK,
    RESOLUTIONS,
    SENDABLE,
    TABLE,
    TO_FETCH,
    DocumentState,
    Event,
    RunKind,
    State,
    next_state,
)
from .wal import log_fault, log_of

__all__ = [
    "Change",
    "DamagedRunError",
    "DraftConflictError",
    "Intake",
    "Item",
    "JournalEntry",
    "Ledger",
    "NewDraft",
    "RequestIdTakenError",
    "RunChangedError",
    "RunFileError",
    "RunLockedError",
    "SqliteLedger",
    "SqliteReader",
]

T = TypeVar("T")

APPLICATION_ID = 0x496E7641
"""What a run file carries in its header, so that another program's database is never taken for one: "InvA"."""

VERSION = 1
"""The version of the file format; a file of another one is refused."""

GROUP = 4096
"""The most operations of one commit."""

ID_BATCH = 10_000
"""Ids taken from the input at a time: what `add_ids` keeps in memory."""

TOGETHER = 256
"""Rows of one statement."""

ABANDONED = 3600.0
"""Seconds after which a new file that was not finished is nobody's."""

SHOWN = 10
"""Keys that the text of an error names."""

_ITEMS = """
CREATE TABLE {name} (
    seq INTEGER PRIMARY KEY,
    key TEXT NOT NULL,
    state TEXT NOT NULL,
    attempt INTEGER NOT NULL DEFAULT 0,
    request_id TEXT,
    invoice_id TEXT,
    path TEXT,
    size INTEGER,
    sha256 TEXT,
    code TEXT,
    error TEXT,
    result TEXT,
    payload_sha256 TEXT,
    sent_at REAL,
    updated REAL NOT NULL
);
"""

_SCHEMA = f"""
BEGIN;
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
{_ITEMS.format(name="items")}
{_ITEMS.format(name="staged")}
CREATE TABLE drafts (seq INTEGER PRIMARY KEY, payload TEXT NOT NULL);
CREATE TABLE journal (
    seq INTEGER PRIMARY KEY,
    item INTEGER NOT NULL,
    event TEXT NOT NULL,
    at REAL NOT NULL,
    detail TEXT
);
CREATE TRIGGER journal_kept BEFORE DELETE ON journal BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;
CREATE TRIGGER journal_fixed BEFORE UPDATE ON journal BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;
CREATE TABLE tally (state TEXT PRIMARY KEY, count INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE duplicates (key TEXT PRIMARY KEY, times INTEGER NOT NULL) WITHOUT ROWID;
"""

_UNIQUE = "CREATE UNIQUE INDEX items_key ON items (key)"
_BY_STATE = "CREATE INDEX items_state ON items (state, seq)"

_COLUMNS = (
    "i.seq, i.key, i.state, i.attempt, i.request_id, i.invoice_id, i.path, i.size, i.sha256, "
    "i.code, i.error, i.result, i.payload_sha256, i.sent_at, i.updated"
)
_BARE = f"SELECT {_COLUMNS} FROM items AS i"  # noqa: S608 - made of constants
_WITH_PAYLOAD = f"SELECT {_COLUMNS}, d.payload FROM items AS i LEFT JOIN drafts AS d ON d.seq = i.seq"  # noqa: S608 - made of constants

_RECORD = (
    "UPDATE items SET state = ?, attempt = ?, request_id = ?, path = ?, size = ?, sha256 = ?, code = ?, error = ?, "
    "updated = ? WHERE seq = ?"
)
_LATE = "late"
"""The row of `meta` that says how long after its intent a submission may arrive."""

_LOCAL = "a run file needs a local disk: its write-ahead log does not work on a network file system"


# -- what goes in and what comes out -----------------------------------------------------------------------------


class RunFileError(InvoicingError):
    """A run file cannot be used: not ours, of another kind or version, or closed. It was not changed."""

    hint: str = "Name the run's own file: with another one every draft of the run would be sent again."


class DamagedRunError(RunFileError):
    """A run file is damaged, or its write-ahead log is gone. Nothing was sent and nothing was changed."""

    hint: str = (
        "Put the file and its log (FILE-wal) back as they were, from a copy if need be. A new run file would send "
        "again all that this one has sent; what it sent must be looked up at the service first."
    )


class RunChangedError(RunFileError):
    """Somebody else changed the run file while it was held: nothing more is done with it."""

    hint: str = "Find out what else works on the file; then go on with `runs resume`, which reads it anew."


class RequestIdTakenError(InvoicingError, ValueError):
    """A request id that another item of the run has: one request makes one invoice. `key` is the other item's."""

    hint: str = "Look both up at the service; each invoice has a request id of its own."

    def __init__(self, message: str = "", *, key: str = "") -> None:
        super().__init__(message)
        self.key = key


class RunLockedError(RunFileError):
    """Another process holds the run file. `pid`, `host` and `since` name it; None or empty if it has not said."""

    hint: str = "Wait until that process ends, or stop it; a run file has one writer at a time."

    def __init__(self, message: str = "", *, pid: int | None = None, host: str = "", since: str = "") -> None:
        super().__init__(message)
        self.pid = pid
        self.host = host
        self.since = since


class DraftConflictError(InvoicingError):
    """Drafts bear keys that this run knows with other content; nothing of the command was taken in.

    `keys` are all of them, in the order of the input. A key is submitted once per run file, ever.
    """

    hint: str = "Give a changed invoice a new key, or submit it to another run file."

    def __init__(self, keys: tuple[str, ...] = ()) -> None:
        named = ", ".join(repr(key) for key in keys[:SHOWN])
        more = f" and {len(keys) - SHOWN:,} more" if len(keys) > SHOWN else ""
        super().__init__(f"known in this run with other content: {named}{more}")
        self.keys = keys


@frozen
class Item:
    """One item of a run as last recorded.

    `seq` counts from 1 in the order of the input and pages through a run; `key` is the order id or the draft's key;
    `state` a value of `State` or `DocumentState`. `attempt` counts intents, or the tries of a download. `path`, `size`
    in bytes and `sha256` are of the file on disk (an invoice's: the exported one). `error` is one line, `code` the
    service's. `result` is the last answer as JSON text. `sent_at` is when the last intent was recorded (after a
    lost log: when that was found), `updated` the last change, in epoch seconds. `payload`, the draft's JSON text, is
    there only when it was asked for.
    """

    seq: int
    key: str
    state: str
    attempt: int = 0
    request_id: str | None = None
    invoice_id: str | None = None
    path: str | None = None
    size: int | None = None
    sha256: str | None = None
    code: str | None = None
    error: str | None = None
    result: str | None = None
    payload_sha256: str | None = None
    sent_at: float | None = None
    updated: float = 0.0
    payload: str | None = field(default=None, repr=False)


@frozen(kw_only=True)
class NewDraft:
    """A draft to be taken in: its JSON text and the digest of it. With `error` it is taken in as invalid."""

    key: str
    payload: str = field(repr=False)
    payload_sha256: str
    error: str | None = None


@frozen(kw_only=True)
class Intake:
    """What became of the input of one command: `given` = `added` + `known` + `duplicates`.

    `known` were in the run before; `duplicates` stood in this input more than once, the first not counted.
    """

    given: int
    added: int
    known: int
    duplicates: int


@frozen(kw_only=True)
class Change:
    """An event of one invoice item, with what is learned from it.

    `ref` is the item's `seq` or its key. `error` and `code` replace what stood there, None included; the others
    are kept when None. `path`, `size` and `sha256` come with `Event.EXPORTED`.
    """

    ref: int | str
    event: Event
    request_id: str | None = None
    invoice_id: str | None = None
    result: str | None = None
    code: str | None = None
    error: str | None = None
    path: str | None = None
    size: int | None = None
    sha256: str | None = None


@frozen
class JournalEntry:
    """One line of the journal: the event of an item (by its `seq`), when in epoch seconds, and what was learned."""

    seq: int
    item: int
    event: Event
    at: float
    detail: Mapping[str, Any]


class Ledger(Protocol):
    """Where a run is recorded. Every method returns when what it did is durable."""

    @property
    def kind(self) -> RunKind: ...
    @property
    def settings(self) -> Mapping[str, Any]: ...
    @property
    def recovered(self) -> int: ...

    async def add_ids(self, ids: Iterable[str] | AsyncIterable[str], *, batch: int = ID_BATCH) -> Intake: ...
    async def add_drafts(self, drafts: Iterable[NewDraft]) -> Intake: ...
    async def pending(self, *, after: int = 0, limit: int = 1000, verify: bool = False) -> list[Item]: ...
    async def rows(
        self, states: Iterable[str] | None = None, *, after: int = 0, limit: int = 1000, payload: bool = False
    ) -> list[Item]: ...
    async def get(self, ref: int | str) -> Item | None: ...
    async def counts(self) -> dict[str, int]: ...
    async def duplicates(self, *, after: str = "", limit: int = 1000) -> list[tuple[str, int]]: ...
    async def history(self, ref: int | str) -> list[JournalEntry]: ...
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
    ) -> None: ...
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
    ) -> State: ...
    async def transition_many(self, changes: Iterable[Change]) -> list[State]: ...
    async def update_settings(self, settings: Mapping[str, Any]) -> None: ...
    async def close(self) -> None: ...


# -- the file ----------------------------------------------------------------------------------------------------

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
_CHANGED = "an item does not stand where this process left it"
WAIT = 60.0
"""Seconds for which a write waits for somebody who looks at the file with a program of theirs."""


def _translated(error: Exception, path: Path) -> Exception:
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
    elif _CHANGED in str(error):
        ours = RunChangedError(f"{path}: {_CHANGED}")
    else:
        ours = RunFileError(f"{path}: {error}")
    ours.__cause__ = error
    return ours


def _connect(path: Path, query: str) -> sqlite3.Connection:
    connection = sqlite3.connect(f"{path.as_uri()}?{query}", uri=True, isolation_level=None, timeout=WAIT)
    connection.text_factory = _text
    return connection


def _text(raw: bytes) -> str:
    """Read text, also where it is damaged: one bad letter must not hide every other item.

    What a run goes by is judged apart: drafts by their digest, keys and request ids by their indexes, states by name.
    """
    return raw.decode(errors="replace")


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
    if version != VERSION:
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


def _create(path: Path, kind: RunKind | None, settings: Mapping[str, Any] | None, created: float) -> None:
    """Make a whole new file under another name and publish it: a file with the final name always has its header.

    Another process may do the same at this moment: the first one's is the file.
    """
    if kind is None:
        raise ValueError("kind must be given for a new run file")
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "no such folder", str(path.parent))
    _sweep_new(path)
    new = path.with_name(f"{path.name}.{token()}.new")
    try:
        _fill(new, kind, {"kind": kind.value, "settings": _json(settings or {}), "created": repr(created)})
        with suppress(FileExistsError):
            _publish(new, path)
    finally:
        _remove(new)
    _sync_folder(path.parent)


def _publish(new: Path, path: Path) -> None:
    """Give a new file its name, which it must not take from another. Raises `FileExistsError`."""
    try:
        os.link(new, path)
    except FileExistsError:
        raise
    except OSError:  # no hard links there
        if path.exists():
            raise FileExistsError(errno.EEXIST, "there is one by now", str(path)) from None
        new.replace(path)


def _sweep_new(path: Path) -> None:
    """Remove what processes left that died while making this file; a living one's is younger than that."""
    for left in path.parent.glob(f"{glob_escape(path.name)}.*new*"):
        with suppress(OSError):
            if left.stat().st_mtime < RealClock.now() - ABANDONED:
                left.unlink()


def _fill(path: Path, kind: RunKind, meta: Mapping[str, str]) -> None:
    connection = _connect(path, "mode=rwc")
    try:
        connection.executescript(_SCHEMA)
        connection.execute(_UNIQUE)
        connection.execute(_BY_STATE)
        connection.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())
        connection.executemany("INSERT INTO tally VALUES (?, 0)", [(state.value,) for state in _states(kind)])
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
        _write_ahead(connection, path)
    finally:
        connection.close()


def _remove(path: Path) -> None:
    for suffix in ("", "-journal", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _states(kind: RunKind) -> tuple[State, ...] | tuple[DocumentState, ...]:
    return tuple(State) if kind is RunKind.INVOICES else tuple(DocumentState)


@contextmanager
def _writing(
    path: Path,
    kind: RunKind | None,
    settings: Mapping[str, Any] | None,
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


def _expects_log(path: Path) -> bool:
    try:
        return expects_log(path)
    except sqlite3.Error as error:
        raise DamagedRunError(f"{path} is damaged ({error})") from error


def _may_expect_log(path: Path) -> bool:
    """Tell whether the file itself says so, or cannot say: killed in the middle of a checkpoint it looks damaged."""
    try:
        return expects_log(path)
    except sqlite3.Error:
        return True


def _lost(path: Path) -> str | None:
    """Say what a file that was in use has forgotten of what happened last, and the way out; None if nothing."""
    log = log_of(path).name
    if has_log(path):
        wrong = log_fault(path, expected=_may_expect_log(path))
        what = wrong and f"the write-ahead log {log} of {path} is damaged: {wrong}; what can be read"
        ask = "Is there a copy of it?"
    else:
        ended = f"{path} was in use when its process ended, and its write-ahead log {log} is not there"
        what = f"{ended}: what the file says" if _expects_log(path) else None
        ask = "Was it moved or copied without its log?"
    return what and (
        f"{what} of its items is older than what was sent. {ask} Only if that is gone for good: "
        f"`invoicing-async runs accept-lost-log {path}` puts all that may have been sent in doubt"
    )


def _must_have_its_log(path: Path) -> None:
    """Refuse to show a file that has forgotten what happened last. While it is written its log is only growing."""
    if holder_of(path) is not None and has_log(path):
        return
    lost = _lost(path)
    if lost is not None and (holder_of(path) is None or not has_log(path)):
        raise DamagedRunError(lost)


def _locked(path: Path, holder: Holder) -> RunLockedError:
    return RunLockedError(f"{path} is held by {holder}", pid=holder.pid, host=holder.host, since=holder.since)


def _sync_folder(folder: Path) -> None:
    if sys.platform == "win32":  # pragma: no cover - which has no way to ask for it
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    """Open the run file beside its writer, if there is one. No lock: the write-ahead log gives a steady picture."""
    _must_be_a_file(path)
    _identify(path)
    _must_have_its_log(path)
    writable = os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)
    with using(path):
        connection = _connect(path, _reading_mode(writable=writable, log=has_log(path)))
        try:
            connection.execute("PRAGMA query_only = ON")
            yield connection
        finally:
            close_beside(connection, path)


def _reading_mode(*, writable: bool, log: bool) -> str:
    """A reader leaves a log as it is, which a killed writer's file needs; where there is none it tidies up."""
    if log:
        return "mode=ro"
    return "mode=rw" if writable else "immutable=1"


def _resolved(path: str | os.PathLike[str]) -> Path:
    """The one name of a file: two links to it must not mean two locks."""
    return Path(path).resolve()


def _must_be_a_file(path: Path) -> None:
    if not path.exists():
        raise FileNotFoundError(errno.ENOENT, "no such run file", str(path))
    if not path.is_file():
        raise RunFileError(f"{path} is not a run file")


# -- the thread --------------------------------------------------------------------------------------------------


class _Desk:
    """What an operation works with, inside the thread: the connection, the time, the counts not yet written."""

    def __init__(self, connection: sqlite3.Connection, clock: Clock, log: Log) -> None:
        self.log = log
        self.connection = connection
        self.execute = connection.execute
        self.now = clock.now
        self.tally: dict[str, int] = {}
        self.standing: dict[int, tuple[str, int]] = {}
        """The state and attempt, as committed, of items that are about to be sent or are being sent: what is most
        often looked for."""
        self.moved: dict[int, int | None] = {}
        """The attempt of each item that this transaction makes one that is being sent, None for any other it moves."""

    def one(self, sql: str, *values: object) -> Any:
        row = self.execute(sql, values).fetchone()
        return row[0] if row else None

    def count(self, state: str, change: int) -> None:
        self.tally[state] = self.tally.get(state, 0) + change

    def move(self, before: str, after: str) -> None:
        if before != after:
            self.count(before, -1)
            self.count(after, 1)

    def begin(self) -> None:
        self.tally, self.moved = {}, {}

    def committed(self) -> None:
        for seq, attempt in self.moved.items():
            if attempt is None:
                self.standing.pop(seq, None)
            else:
                self.standing[seq] = _SENDING, attempt

    def counted(self) -> list[tuple[Any, ...]]:
        """Give the counts not yet written as rows of `moves`."""
        tally, self.tally = self.tally, {}
        return [_counted(state, change) for state, change in tally.items() if change]

    def flush(self) -> None:
        moved = [(change, state) for state, change in self.tally.items() if change]
        if moved:
            self.connection.executemany("UPDATE tally SET count = count + ? WHERE state = ?", moved)
        self.tally = {}


Operation: TypeAlias = Callable[[_Desk], Any]
Job: TypeAlias = tuple["asyncio.Future[Any]", Operation]
Answer: TypeAlias = tuple["asyncio.Future[Any]", Any, Exception | None]


class _Worker:
    """The thread. `enter` gives the connection and takes it back; both happen in the thread.

    If `enter` fails, every operation raises its error. An operation that was queued is done, whether its caller
    still waits or not: an answer of the service must not be lost because somebody lost patience.
    """

    def __init__(
        self,
        path: Path,
        enter: Callable[[], AbstractContextManager[sqlite3.Connection]],
        begin: str,
        clock: Clock,
        log: Log | None = None,
    ) -> None:
        self._path = path
        self._log = log or Log()
        self._enter = enter
        self._begin = begin
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._jobs: SimpleQueue[list[Job] | None] = SimpleQueue()
        self._waiting: list[Job] = []
        self._stopped: asyncio.Future[None] = self._loop.create_future()
        self._stopping = False
        # A daemon: a program that never closes its run must still be able to end.
        self._thread = threading.Thread(target=self._main, name="invoicing-run-file", daemon=True)
        self._thread.start()

    async def run(self, operation: Callable[[_Desk], T]) -> T:
        """Do it in the thread; return when it is on disk."""
        if self._stopping:
            raise RunFileError(f"{self._path} is closed")
        if asyncio.get_running_loop() is not self._loop:
            raise RunFileError(f"{self._path} belongs to another event loop")
        future: asyncio.Future[T] = self._loop.create_future()
        # One hand-over for all that this turn of the loop asks for: waking the thread costs more than a row.
        if not self._waiting:
            self._loop.call_soon(self._hand_over)
        self._waiting.append((future, operation))
        return await future

    def _hand_over(self) -> None:
        if self._waiting:
            jobs, self._waiting = self._waiting, []
            for at in range(0, len(jobs), GROUP):
                self._jobs.put(jobs[at : at + GROUP])

    async def stop(self) -> None:
        """Do what is queued and leave. A cancellation is raised after that: leaving takes no longer than the disk."""
        if not self._stopping:
            self._stopping = True
            self._hand_over()
            self._jobs.put(None)
        cancelled: asyncio.CancelledError | None = None
        while not self._stopped.done():
            try:
                await asyncio.shield(self._stopped)
            except asyncio.CancelledError as error:
                cancelled = error
        self._thread.join()
        if cancelled is not None:
            raise cancelled

    def _main(self) -> None:
        more = True
        try:
            with self._enter() as connection:
                desk = _Desk(connection, self._clock, self._log)
                while more:
                    jobs, more = self._take()
                    self._answer(self._commit(desk, jobs))
        except Exception as error:  # noqa: BLE001 - it is raised by every operation that waits
            while more:
                jobs, more = self._take()
                self._answer(self._all_failed(jobs, error))
        self._tell(self._stopped.set_result, None)

    def _take(self) -> tuple[list[Job], bool]:
        """Everything that is queued, at least one thing; and whether more may follow."""
        jobs: list[Job] = []
        entry = self._jobs.get()
        with suppress(Empty):
            while entry is not None:
                jobs += entry
                if len(jobs) >= GROUP:
                    break
                entry = self._jobs.get_nowait()
        return jobs, entry is not None

    def _commit(self, desk: _Desk, jobs: list[Job]) -> list[Answer]:
        """Do a group in one transaction. Only if something in it fails is it done again, each on its own footing."""
        if any(map(_intends, jobs)):
            try:
                self._log.expect(desk.connection)
            except sqlite3.Error as error:
                return self._all_failed(jobs, error)
        with suppress(Exception):  # the second round finds out whose error it is
            return _moved_at_once(desk, jobs) or self._transact(desk, jobs, self._do_together)
        try:
            return self._transact(desk, jobs, self._do_each_apart)
        except Exception as error:  # noqa: BLE001 - it is raised by every operation of the group
            return self._all_failed(jobs, error)

    def _transact(self, desk: _Desk, jobs: list[Job], do: Callable[[_Desk, list[Job]], list[Answer]]) -> list[Answer]:
        desk.begin()
        try:
            desk.execute(self._begin)
            answers = do(desk, jobs)
            desk.flush()
            desk.execute("COMMIT")
            desk.committed()
        except BaseException:
            if desk.connection.in_transaction:
                desk.execute("ROLLBACK")
            raise
        return answers

    def _do_together(self, desk: _Desk, jobs: list[Job]) -> list[Answer]:
        answers: list[Answer] = []
        for are_moves, part in groupby(jobs, _is_moves):
            alike = list(part)
            answers += _move_together(desk, alike) if are_moves else [self._do(desk, job) for job in alike]
        return answers

    def _do(self, desk: _Desk, job: Job) -> Answer:
        future, operation = job
        return future, operation(desk), None

    def _do_each_apart(self, desk: _Desk, jobs: list[Job]) -> list[Answer]:
        return [self._do_apart(desk, job) for job in jobs]

    def _do_apart(self, desk: _Desk, job: Job) -> Answer:
        """Do one operation whole or not at all. Raises only if the database gave the whole transaction up."""
        before = dict(desk.tally), dict(desk.moved)
        desk.execute("SAVEPOINT apart")
        try:
            answer = self._do(desk, job)
        except Exception as error:
            if not desk.connection.in_transaction:
                raise
            desk.execute("ROLLBACK TO apart")
            desk.tally, desk.moved = before
            desk.standing.clear()  # what it believed may be what was wrong
            answer = job[0], None, _translated(error, self._path)
        desk.execute("RELEASE apart")
        return answer

    def _all_failed(self, jobs: list[Job], error: Exception) -> list[Answer]:
        return [(future, None, _translated(error, self._path)) for future, _ in jobs]

    def _answer(self, answers: list[Answer]) -> None:
        self._tell(_settle, answers)

    def _tell(self, call: Callable[[T], object], value: T) -> None:
        with suppress(RuntimeError):  # the loop is closed, so nobody waits
            self._loop.call_soon_threadsafe(call, value)


def _settle(answers: list[Answer]) -> None:
    for future, result, error in answers:
        if future.done():
            continue
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)


# -- what the thread does ----------------------------------------------------------------------------------------


@frozen
class _Opened:
    kind: RunKind
    settings: Mapping[str, Any]
    created: float
    recovered: int
    late: float


def _describe(desk: _Desk, path: Path) -> _Opened:
    _must_be_sound(desk, path)
    meta = dict(desk.execute("SELECT name, value FROM meta").fetchall())
    late = float(meta.get(_LATE, 0.0))
    return _Opened(RunKind(meta["kind"]), json.loads(meta["settings"]), float(meta["created"]), 0, late)


def _must_be_sound(desk: _Desk, path: Path) -> None:
    states = [state.value for kind in RunKind for state in _states(kind)]
    try:
        wrong = fault(desk.connection, path, states)
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise DamagedRunError(f"{path} is damaged ({error})") from error
    if wrong is not None:
        raise DamagedRunError(f"{path} is damaged: {wrong}")


def _begin(desk: _Desk, path: Path, kind: RunKind | None) -> _Opened:
    opened = _describe(desk, path)
    if kind not in {None, opened.kind}:
        raise RunFileError(f"{path} is a run of {opened.kind.value}, not of {kind}")
    if opened.kind is RunKind.INVOICES:
        for statement in (_MOVES, _MOVE, _COUNT):
            desk.execute(statement)
        _index_requests(desk)
    desk.execute("DELETE FROM staged")  # of a command that was cut off: nothing of it was taken in
    if desk.log.is_lost and opened.kind is RunKind.INVOICES:
        _forget(desk)
    recovered = _recover(desk)
    desk.log.sound = True
    return evolve(opened, recovered=recovered)


def _index_requests(desk: _Desk) -> None:
    """See to it that no two items have one request id; a file of before, in which two have, keeps them."""
    if desk.one("SELECT 1 FROM sqlite_master WHERE name = 'items_request'") is None:
        unique = "UNIQUE "
        twice = (
            "SELECT 1 FROM items WHERE request_id IS NOT NULL "
            "GROUP BY request_id COLLATE NOCASE HAVING count(*) > 1 LIMIT 1"
        )
        if desk.one(twice):
            unique = ""
        desk.execute(
            f"CREATE {unique}INDEX items_request ON items (request_id COLLATE NOCASE) WHERE request_id IS NOT NULL"
        )


def _forget(desk: _Desk) -> None:
    """Put in doubt whatever may have been sent while the lost log was written: all that is not final or accepted.

    As far as is known each left at this moment: none of them is settled before nothing can arrive any more.
    """
    text = "the run's log was lost, and with it whether this was sent"
    open_states = [state.value for state in State if state not in {*FINAL, State.SUBMITTED, State.IN_DOUBT}]
    for state in open_states:
        while seqs := [seq for (seq,) in desk.execute(_SOME, (state,)).fetchall()]:
            _move(desk, [Change(ref=seq, event=Event.LOG_LOST, error=text) for seq in seqs])
    now = desk.now()
    desk.execute("UPDATE items SET sent_at = ?, updated = ? WHERE state = ?", (now, now, State.IN_DOUBT.value))


_SOME = "SELECT seq FROM items WHERE state = ? ORDER BY seq LIMIT 10000"


def _recover(desk: _Desk) -> int:
    sending = desk.execute("SELECT seq FROM items WHERE state = ?", (State.SENDING.value,)).fetchall()
    _move(
        desk,
        [
            Change(ref=seq, event=Event.CRASHED, error="the process ended while this was being sent")
            for (seq,) in sending
        ],
    )
    return len(sending)


def _find(desk: _Desk, ref: int | str) -> Item | None:
    row = desk.execute(f"{_WITH_PAYLOAD} WHERE i.{_column(ref)} = ?", (ref,)).fetchone()
    return Item(*row) if row else None


def _column(ref: int | str) -> str:
    return "seq" if isinstance(ref, int) else "key"


def _standing(desk: _Desk, ref: int | str) -> tuple[int, str, int]:
    """The seq, state and attempt of an item: reading and writing whole rows costs twice the time."""
    sql = f"SELECT seq, state, attempt FROM items WHERE {_column(ref)} = ?"  # noqa: S608 - one of two constants
    row: tuple[int, str, int] | None = desk.execute(sql, (ref,)).fetchone()
    if row is None:
        raise ValueError(f"this run has no item {ref!r}")
    return row


def _follow(before: str, change: Change) -> State:
    if not change.request_id and change.event in NEEDS_REQUEST_ID:
        raise ValueError(f"request_id must be given with {change.event.value!r}")
    found = TABLE.get((before, change.event))  # type: ignore[arg-type] # a state is its text
    return found if isinstance(found, State) else next_state(State(before), change.event)


def _learned(change: Change, error: str | None) -> dict[str, str]:
    said = (("request_id", change.request_id), ("code", change.code), ("error", error), ("path", change.path))
    return {name: value for name, value in said if value is not None}


@frozen
class _Moves:
    """The transitions of one operation."""

    changes: tuple[Change, ...]

    def __call__(self, desk: _Desk) -> list[State]:
        return _move(desk, self.changes)


def _is_moves(job: Job) -> bool:
    return isinstance(job[1], _Moves)


def _intends(job: Job) -> bool:
    """Tell whether an operation records an intent, after which a byte may leave."""
    return isinstance(job[1], _Moves) and any(change.event is Event.INTENT for change in job[1].changes)


def _move(desk: _Desk, changes: Sequence[Change]) -> list[State]:
    """Do transitions in turn, within a transaction."""
    [states] = _move_groups(desk, [changes])
    return states


def _move_together(desk: _Desk, jobs: list[Job], *, counts: bool = False) -> list[Answer]:
    """Do the transitions of many operations together, within a transaction, or with `counts` as one."""
    told = _move_groups(desk, [_changes(operation) for _, operation in jobs], counts=counts)
    return [(future, states, None) for (future, _), states in zip(jobs, told, strict=True)]


def _move_groups(desk: _Desk, groups: list[Sequence[Change]], *, counts: bool = False) -> list[list[State]]:
    moving = _Moving(desk)
    moving.look([change.ref for group in groups for change in group])
    moving.look_up([change.request_id for group in groups for change in group if change.request_id])
    states = [[moving.make(change) for change in group] for group in groups]
    moving.write(counts=counts)
    return states


def _moved_at_once(desk: _Desk, jobs: list[Job]) -> list[Answer] | None:
    """Do the transitions of many operations as one statement that is its own transaction; None if it takes more.

    Every statement lets go of the interpreter's lock and has to win it back from a loop that is busy: BEGIN, three
    statements and COMMIT take five times as long as the disk.
    """
    if not all(map(_is_moves, jobs)):
        return None
    refs = _refs(jobs)
    if len(refs) + len(State) > TOGETHER or not all(ref in desk.standing for ref in refs):
        return None
    desk.begin()
    answers = _move_together(desk, jobs, counts=True)
    desk.committed()
    return answers


def _refs(jobs: list[Job]) -> list[int | str]:
    return [change.ref for _, operation in jobs for change in _changes(operation)]


def _changes(operation: Operation) -> Sequence[Change]:
    return operation.changes  # type: ignore[attr-defined, no-any-return] # by `_is_moves`


_TEXT: dict[StrEnum, str] = {member: member.value for kind in (State, Event) for member in kind}
_SENDING = _TEXT[State.SENDING]


_MOVES = """
CREATE TEMP VIEW moves AS SELECT
    0 AS seq, '' AS state, 0 AS attempt, 0.0 AS at, '' AS before, '' AS code, '' AS error,
    '' AS request_id, '' AS invoice_id,
    '' AS result, '' AS path, 0 AS size, '' AS sha256, '' AS event, '' AS detail
"""
_MOVE = f"""
CREATE TEMP TRIGGER move INSTEAD OF INSERT ON moves WHEN NEW.seq > 0 BEGIN
    UPDATE items SET
        state = NEW.state, attempt = NEW.attempt, updated = NEW.at, code = NEW.code, error = NEW.error,
        sent_at = CASE NEW.event WHEN '{Event.INTENT.value}' THEN NEW.at ELSE sent_at END,
        request_id = coalesce(NEW.request_id, request_id), invoice_id = coalesce(NEW.invoice_id, invoice_id),
        result = coalesce(NEW.result, result), path = coalesce(NEW.path, path), size = coalesce(NEW.size, size),
        sha256 = coalesce(NEW.sha256, sha256)
    WHERE seq = NEW.seq AND state = NEW.before AND attempt = NEW.attempt - (NEW.event = '{Event.INTENT.value}');
    SELECT RAISE(ABORT, '{_CHANGED}') WHERE changes() <> 1;
    INSERT INTO journal (item, event, at, detail) VALUES (NEW.seq, NEW.event, NEW.at, NEW.detail);
END
"""  # noqa: S608 - made of constants
_COUNT = """
CREATE TEMP TRIGGER counted INSTEAD OF INSERT ON moves WHEN NEW.seq = 0 BEGIN
    UPDATE tally SET count = count + NEW.attempt WHERE state = NEW.state;
END
"""
"""What transitions write, as a view of the connection's own that is inserted into: nothing of it is in the file. A row
for item 0 is a change of the counts."""


class _Moving:
    """Transitions made in memory, to be written together."""

    def __init__(self, desk: _Desk) -> None:
        self._desk = desk
        self._now = desk.now()
        self._standing: dict[int, tuple[str, int]] = {}
        self._rows: list[tuple[Any, ...]] = []
        self._owners: dict[str, int] = {}

    def look(self, refs: list[int | str]) -> None:
        """Read where the items stand."""
        known, moved = self._desk.standing, self._desk.moved  # what this transaction moved stands elsewhere by now
        self._standing = {ref: known[ref] for ref in refs if ref in known and ref not in moved}
        seqs = list({ref for ref in refs if isinstance(ref, int) and ref not in self._standing})
        for part in _parts(seqs):
            for seq, state, attempt in _split(self._desk.one(_look_sql(len(part)), *part)):
                self._standing[int(seq)] = state, int(attempt)

    def look_up(self, request_ids: list[str]) -> None:
        """Read whose the request ids are; all of them at once, for the lock's sake."""
        for part in _parts(request_ids):
            for seq, request_id in _split(self._desk.one(_owners_sql(len(part)), *part)):
                self._owners[bytes.fromhex(request_id).decode().lower()] = int(seq)

    def make(self, change: Change) -> State:
        """Make one transition; the table may refuse it."""
        seq = change.ref
        if not isinstance(seq, int) or seq not in self._standing:
            seq, before, attempt = _standing(self._desk, change.ref)
            self._standing.setdefault(seq, (before, attempt))
        before, attempt = self._standing[seq]
        if change.request_id is not None:
            self._must_be_its_own(seq, change.request_id)
        state = _follow(before, change)
        after = _TEXT[state]
        attempt += change.event is Event.INTENT
        self._standing[seq] = after, attempt
        self._rows.append(self._row(seq, before, after, attempt, change))
        self._desk.move(before, after)
        return state

    def _must_be_its_own(self, seq: int, request_id: str) -> None:
        """Refuse a request id that another item has, or has just been given."""
        other = self._owners.setdefault(request_id.lower(), seq)
        if other != seq:
            key = self._desk.one("SELECT key FROM items WHERE seq = ?", other) or ""
            raise RequestIdTakenError(f"request {request_id} is another item's of this run: {key or other!r}", key=key)

    def _row(self, seq: int, before: str, after: str, attempt: int, change: Change) -> tuple[Any, ...]:
        where = (seq, after, attempt, self._now, before)
        if change.event is Event.INTENT:
            return (*where, *_NOTHING_LEARNED, _TEXT[change.event], f'{{"attempt":{attempt}}}')
        error = _line(change.error)
        kept = (change.request_id, change.invoice_id, change.result, change.path, change.size, change.sha256)
        # Spelled out, as an encoder is made anew for every text.
        said = [f'"{name}":{_quote(text)}' for name, text in _learned(change, error).items()]
        detail = f"{{{','.join(said)}}}" if said else None
        return (*where, change.code, error, *kept, _TEXT[change.event], detail)

    def write(self, *, counts: bool = False) -> None:
        """Write all of it, in one statement if it is not too much; with `counts`, the counts as well."""
        desk = self._desk
        for seq, state, attempt, *_ in self._rows:
            desk.moved[seq] = attempt if state is _SENDING else None
        _insert(desk, "moves", self._rows + desk.counted() if counts else self._rows)


_NOTHING_LEARNED = (None,) * 8


def _counted(state: str, change: int) -> tuple[Any, ...]:
    return (0, state, change, None, None, *_NOTHING_LEARNED, None, None)


def _insert(desk: _Desk, into: str, rows: list[tuple[Any, ...]], more: str = "") -> None:
    """Insert rows, many in one statement; `more` is what each has beside."""
    # Filled up with rows that mean nothing, so that there are few different statements.
    for part in _parts(rows, filler=(None,) * len(rows[0]) if rows else None):
        desk.execute(_insert_sql(into, len(part[0]), len(part), more), tuple(chain.from_iterable(part)))


def _parts(rows: list[T], filler: T | None = None) -> Iterator[list[T]]:
    """Cut rows into parts, the last filled up with `filler`, or its own last row, to one of a few dozen sizes."""
    for at in range(0, len(rows), TOGETHER):
        part = rows[at : at + TOGETHER]
        step = 1 << max(0, len(part).bit_length() - 4)
        yield part + [part[-1] if filler is None else filler] * (-len(part) % step)


@cache
def _look_sql(count: int) -> str:
    marks = ",".join("?" * count)
    return f"SELECT group_concat(seq || ' ' || state || ' ' || attempt) FROM items WHERE seq IN ({marks})"  # noqa: S608 - made of constants


@cache
def _owners_sql(count: int) -> str:
    marks = ",".join("?" * count)
    return (
        "SELECT group_concat(seq || ' ' || hex(request_id)) FROM items "  # noqa: S608 - made of constants
        f"WHERE request_id COLLATE NOCASE IN ({marks})"
    )


@cache
def _known_sql(count: int) -> str:
    asked = ",".join(f"({place},?)" for place in range(count))
    return (
        f"WITH asked (place, key) AS (VALUES {asked}) "  # noqa: S608 - made of constants
        "SELECT group_concat(place || ' ' || seq || ' ' || state || ' ' || hex(payload_sha256)) "
        "FROM asked CROSS JOIN items USING (key)"
    )


def _split(found: str | None) -> Iterator[list[str]]:
    return (entry.split(" ") for entry in found.split(",")) if found else iter(())


@cache
def _insert_sql(into: str, width: int, count: int, more: str) -> str:
    values = ",".join(["(" + ",".join("?" * width) + ")"] * count)
    return f"INSERT INTO {into} SELECT *{more} FROM (VALUES {values}) WHERE column1 IS NOT NULL"  # noqa: S608 - made of constants


def _record_document(desk: _Desk, ref: int | str, state: str, values: tuple[Any, ...]) -> None:
    seq, before, _ = _standing(desk, ref)
    desk.execute(_RECORD, (state, *values, desk.now(), seq))
    desk.move(before, state)


def _undo(desk: _Desk, ref: int | str) -> None:
    """Take back how a doubt was settled, if nothing has followed from it."""
    seq = _standing(desk, ref)[0]
    sql = "SELECT event FROM journal WHERE item = ? AND event <> ? ORDER BY seq DESC LIMIT 1"
    last = desk.one(sql, seq, Event.POLL_NEW.value)
    if last not in {event.value for event in RESOLUTIONS}:
        raise ValueError(f"{ref!r} was not settled by hand, or has been sent or answered since")
    _move(desk, [Change(ref=seq, event=Event.RESOLUTION_UNDONE, error="how it was settled was taken back")])
    desk.execute("UPDATE items SET request_id = NULL WHERE seq = ?", (seq,))


def _keep_late(desk: _Desk, late: float) -> None:
    known = float(desk.one("SELECT value FROM meta WHERE name = ?", _LATE) or 0.0)
    desk.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (_LATE, repr(max(known, late))))


def _add_drafts(desk: _Desk, drafts: Sequence[NewDraft]) -> Intake:
    desk.log.renew()
    taking = _Taking(desk)
    for at in range(0, len(drafts), TOGETHER):
        taking.take(drafts[at : at + TOGETHER])
    if taking.conflicts:
        raise DraftConflictError(tuple(taking.conflicts))
    return Intake(given=len(drafts), **taking.tallied)


@frozen
class _Known:
    """A draft that the run has."""

    seq: int
    state: str
    payload_sha256: str

    def takes(self, draft: NewDraft) -> bool:
        """An invalid draft was never sent, so new content, or rules that now allow the old, may take its place."""
        return self.state == State.INVALID and (draft.error is None or self.payload_sha256 != draft.payload_sha256)


class _Taking:
    """Drafts on their way in, many to a statement: each statement must win the interpreter's lock from a busy loop."""

    def __init__(self, desk: _Desk) -> None:
        self._desk = desk
        self._last: int = desk.one("SELECT coalesce(max(seq), 0) FROM items")
        self._met: set[str] = set()
        self._known: dict[str, _Known] = {}
        self._new: list[tuple[int, NewDraft]] = []
        self._corrected: list[tuple[int, NewDraft]] = []
        self.tallied = {"added": 0, "known": 0, "duplicates": 0}
        self.conflicts: dict[str, None] = {}

    def take(self, drafts: Sequence[NewDraft]) -> None:
        """Take in what is new, correct what was invalid, note what is known or in conflict."""
        self._known = _known(self._desk, [draft.key for draft in drafts])
        self._new, self._corrected = [], []
        for draft in drafts:
            self._judge(draft)
            self._met.add(draft.key)
        _insert_drafts(self._desk, self._new)
        _correct_drafts(self._desk, self._corrected)
        _mark_invalid(self._desk, self._new + self._corrected)

    def _judge(self, draft: NewDraft) -> None:
        there, met = self._known.get(draft.key), draft.key in self._met
        if there is None:
            self._last += 1
            self._put(self._new, self._last, draft)
            self.tallied["added"] += 1
        elif not met and there.takes(draft):
            self._put(self._corrected, there.seq, draft)
            self.tallied["known"] += 1
        elif there.payload_sha256 != draft.payload_sha256:
            self.conflicts[draft.key] = None
        else:
            self.tallied["duplicates" if met else "known"] += 1

    def _put(self, among: list[tuple[int, NewDraft]], seq: int, draft: NewDraft) -> None:
        among.append((seq, draft))
        self._known[draft.key] = _Known(seq, State.PLANNED.value, draft.payload_sha256)


def _known(desk: _Desk, keys: list[str]) -> dict[str, _Known]:
    """What the run has under these keys; all of it as one row, for the lock's sake."""
    found: dict[str, _Known] = {}
    for part in _parts(keys):
        for place, seq, state, digest in _split(desk.one(_known_sql(len(part)), *part)):
            found[part[int(place)]] = _Known(int(seq), state, bytes.fromhex(digest).decode())
    return found


def _insert_drafts(desk: _Desk, drafts: list[tuple[int, NewDraft]]) -> None:
    now = desk.now()
    rows = [(seq, draft.key, draft.payload_sha256, now) for seq, draft in drafts]
    _insert(desk, "items (seq, key, payload_sha256, updated, state)", rows, f", '{State.PLANNED.value}'")
    _insert(desk, "drafts (seq, payload)", [(seq, draft.payload) for seq, draft in drafts])
    desk.count(State.PLANNED.value, len(drafts))


def _correct_drafts(desk: _Desk, drafts: list[tuple[int, NewDraft]]) -> None:
    _move(desk, [Change(ref=seq, event=Event.CORRECTED) for seq, _ in drafts])
    for seq, draft in drafts:
        desk.execute("UPDATE items SET payload_sha256 = ? WHERE seq = ?", (draft.payload_sha256, seq))
        desk.execute("UPDATE drafts SET payload = ? WHERE seq = ?", (draft.payload, seq))


def _mark_invalid(desk: _Desk, drafts: list[tuple[int, NewDraft]]) -> None:
    _move(
        desk,
        [
            Change(ref=seq, event=Event.FOUND_INVALID, error=draft.error)
            for seq, draft in drafts
            if draft.error is not None
        ],
    )


def _unstage(desk: _Desk) -> None:
    desk.execute("DELETE FROM staged")


def _stage(desk: _Desk, ids: list[str]) -> None:
    state, now = DocumentState.PLANNED.value, desk.now()
    _insert(desk, "staged (key, state, updated)", [(key, state, now) for key in ids])


def _take_ids(desk: _Desk) -> Intake:
    desk.execute("DELETE FROM duplicates")
    given = desk.one("SELECT coalesce(max(seq), 0) FROM staged")
    added = _take_more(desk) if desk.one("SELECT 1 FROM items LIMIT 1") else _take_first(desk)
    duplicates = desk.one("SELECT coalesce(sum(times), 0) FROM duplicates")
    _unstage(desk)
    desk.count(DocumentState.PLANNED.value, added)
    return Intake(given=given, added=added, known=given - added - duplicates, duplicates=duplicates)


def _take_first(desk: _Desk) -> int:
    """Make the staged ids the items, then index: an index kept up in random order takes ten times as long."""
    desk.execute("DROP TABLE items")
    desk.execute("ALTER TABLE staged RENAME TO items")
    desk.execute(_ITEMS.format(name="staged"))
    if not _indexed(desk):
        _note_duplicates(desk, "items")
        desk.execute(_DELETE_LATER)
        desk.execute(_UNIQUE)
    desk.execute(_BY_STATE)
    return int(desk.one("SELECT count(*) FROM items"))


_DELETE_LATER = (
    "DELETE FROM items WHERE seq IN (SELECT seq FROM "
    "(SELECT seq, row_number() OVER (PARTITION BY key ORDER BY seq) AS place FROM items) WHERE place > 1)"
)


def _indexed(desk: _Desk) -> bool:
    try:
        desk.execute(_UNIQUE)
    except sqlite3.IntegrityError:  # there are duplicates
        return False
    return True


def _take_more(desk: _Desk) -> int:
    _note_duplicates(desk, "staged")
    return desk.execute(
        "INSERT INTO items (key, state, updated) SELECT key, state, updated FROM staged "
        "WHERE NOT EXISTS (SELECT 1 FROM items WHERE items.key = staged.key) GROUP BY key ORDER BY min(seq)"
    ).rowcount


def _note_duplicates(desk: _Desk, table: str) -> None:
    desk.execute(f"INSERT INTO duplicates SELECT key, count(*) - 1 FROM {table} GROUP BY key HAVING count(*) > 1")  # noqa: S608 - one of two names


def _counts(desk: _Desk, kind: RunKind) -> dict[str, int]:
    desk.flush()
    counted = dict(desk.execute("SELECT state, count FROM tally").fetchall())
    return {state.value: counted[state.value] for state in _states(kind)}


def _rows(desk: _Desk, states: tuple[str, ...] | None, after: int, limit: int, *, payload: bool) -> list[Item]:
    """Page by `seq`. One query a state, each along the index, then merged: a sort over all would not end."""
    select = _WITH_PAYLOAD if payload else _BARE
    if states is None:
        page = desk.execute(f"{select} WHERE i.seq > ? ORDER BY i.seq LIMIT ?", (after, limit))
        return [Item(*row) for row in page]
    sql = f"{select} WHERE i.state = ? AND i.seq > ? ORDER BY i.seq LIMIT ?"
    items = [Item(*row) for state in states for row in desk.execute(sql, (state, after, limit))]
    return sorted(items, key=attrgetter("seq"))[:limit]


def _to_send(desk: _Desk, after: int, limit: int) -> list[Item]:
    """Give what may be sent, and keep at hand where it stands: it will be sent next."""
    items = _rows(desk, tuple(SENDABLE), after, limit, payload=True)
    desk.standing.update((item.seq, (item.state, item.attempt)) for item in items if item.seq not in desk.moved)
    return items


def _duplicates(desk: _Desk, after: str, limit: int) -> list[tuple[str, int]]:
    sql = "SELECT key, times FROM duplicates WHERE key > ? ORDER BY key LIMIT ?"
    return desk.execute(sql, (after, limit)).fetchall()


def _history(desk: _Desk, ref: int | str) -> list[JournalEntry]:
    sql = "SELECT seq, item, event, at, detail FROM journal WHERE item = ? ORDER BY seq"
    return [_entry(row) for row in desk.execute(sql, (_standing(desk, ref)[0],))]


def _entries(desk: _Desk, after: int, limit: int) -> list[JournalEntry]:
    sql = "SELECT seq, item, event, at, detail FROM journal WHERE seq > ? ORDER BY seq LIMIT ?"
    return [_entry(row) for row in desk.execute(sql, (after, limit))]


def _entry(row: tuple[int, int, str, float, str | None]) -> JournalEntry:
    seq, item, event, at, detail = row
    try:
        return JournalEntry(seq, item, Event(event), at, json.loads(detail) if detail else {})
    except ValueError as error:
        raise DamagedRunError(f"entry {seq} of the journal of item {item} is damaged ({error})") from error


def _store_settings(desk: _Desk, text: str) -> None:
    desk.execute("UPDATE meta SET value = ? WHERE name = 'settings'", (text,))


_quote = json.encoder.encode_basestring
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def _json(value: Mapping[str, Any]) -> str:
    return _encode(dict(value))


def _line(text: str | None) -> str | None:
    return None if text is None else " ".join(text.split())[:1000]


def _at_least_one(name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value!r}")


# -- the ledger --------------------------------------------------------------------------------------------------


class SqliteReader:
    """A run file open for reading, also while another process writes it.

    `kind`, `settings` and `created` (epoch seconds) are those of the file; `late` is how many seconds after its intent
    a submission may still arrive at the service, 0 before the first.
    """

    def __init__(self, path: Path, worker: _Worker, opened: _Opened) -> None:
        self.path = path
        self.kind = opened.kind
        self.created = opened.created
        self.late = opened.late
        self._settings = opened.settings
        self._worker = worker

    @classmethod
    @asynccontextmanager
    async def read(cls, path: str | os.PathLike[str], *, clock: Clock | None = None) -> AsyncIterator[SqliteReader]:
        """Open for reading. Raises `FileNotFoundError`, and `RunFileError` for a file that is not a run file."""
        resolved = _resolved(path)
        worker = _Worker(resolved, partial(_reading, resolved), "BEGIN", clock or RealClock())
        try:
            yield SqliteReader(resolved, worker, await worker.run(partial(_describe, path=resolved)))
        finally:
            await worker.stop()

    @property
    def settings(self) -> Mapping[str, Any]:
        """What the run was begun with, as the caller gave it; it must hold no secret."""
        return self._settings

    async def close(self) -> None:
        """Do what is queued, then leave the file as one file. Closing twice does nothing."""
        await self._worker.stop()

    async def get(self, ref: int | str) -> Item | None:
        """The item with this `seq` or key, its payload included; None if there is none."""
        return await self._worker.run(partial(_find, ref=ref))

    async def rows(
        self, states: Iterable[str] | None = None, *, after: int = 0, limit: int = 1000, payload: bool = False
    ) -> list[Item]:
        """Up to `limit` items in the order of the input, those behind `seq` `after`; None for every state."""
        _at_least_one("limit", limit)
        wanted = None if states is None else tuple(dict.fromkeys(str(state) for state in states))
        return await self._worker.run(partial(_rows, states=wanted, after=after, limit=limit, payload=payload))

    async def pending(self, *, after: int = 0, limit: int = 1000, verify: bool = False) -> list[Item]:
        """Up to `limit` items that are still to be done, behind `seq` `after`.

        Documents: planned, deferred and failed, with `verify` also those whose file is to be checked. Invoices:
        planned and not sent, with their payload.
        """
        if self.kind is RunKind.INVOICES:
            return await self._worker.run(partial(_to_send, after=after, limit=limit))
        return await self.rows((*TO_FETCH, *ON_DISK) if verify else TO_FETCH, after=after, limit=limit)

    async def counts(self) -> dict[str, int]:
        """How many items stand in each state, zeros included. Kept up with every change, so it costs nothing."""
        return await self._worker.run(partial(_counts, kind=self.kind))

    async def duplicates(self, *, after: str = "", limit: int = 1000) -> list[tuple[str, int]]:
        """Ids that the last `add_ids` met more than once, in their own order, and how often beyond the first."""
        _at_least_one("limit", limit)
        return await self._worker.run(partial(_duplicates, after=after, limit=limit))

    async def history(self, ref: int | str) -> list[JournalEntry]:
        """Everything that ever happened to an invoice item, oldest first.

        Reads the whole journal: an index for this would cost every submission what it saves here.
        """
        return await self._worker.run(partial(_history, ref=ref))

    async def journal(self, *, after: int = 0, limit: int = 1000) -> list[JournalEntry]:
        """Up to `limit` entries of the whole run's journal, behind entry `after`."""
        _at_least_one("limit", limit)
        return await self._worker.run(partial(_entries, after=after, limit=limit))


class SqliteLedger(SqliteReader):
    """A run file open for writing: a `Ledger`. `recovered` counts the items a crash left in doubt at this opening."""

    def __init__(self, path: Path, worker: _Worker, opened: _Opened, clock: Clock) -> None:
        super().__init__(path, worker, opened)
        self.now = clock.now
        self.recovered = opened.recovered
        self._taking = asyncio.Lock()

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        path: str | os.PathLike[str],
        *,
        kind: RunKind | None = None,
        settings: Mapping[str, Any] | None = None,
        create: bool = True,
        accept_lost_log: bool = False,
        clock: Clock | None = None,
    ) -> AsyncIterator[Self]:
        """Open a run file for writing and hold it; with `create`, make it if it is not there.

        A file that was in use and has lost its write-ahead log is refused (`DamagedRunError`); with `accept_lost_log`
        it is taken as it is, and all that may have been sent meanwhile is in doubt.

        `kind` may be None to take an existing file as it is; `settings` (JSON, no secrets) are kept when the file is
        made, an existing one keeps its own. Raises `RunLockedError` if another process holds it, `RunFileError` if it
        is not a run file of this kind and version or lies on a network file system, `FileNotFoundError`.
        """
        resolved, ticks = _resolved(path), clock or RealClock()
        kind = None if kind is None else RunKind(kind)
        log = Log()
        enter = partial(
            _writing, resolved, kind, settings, create=create, accept_lost_log=accept_lost_log, log=log, clock=ticks
        )
        worker = _Worker(resolved, enter, "BEGIN IMMEDIATE", ticks, log)
        try:
            begun = await worker.run(partial(_begin, path=resolved, kind=kind))
            yield cls(resolved, worker, begun, ticks)
        finally:
            await worker.stop()

    async def update_settings(self, settings: Mapping[str, Any]) -> None:
        """Replace the settings of the run."""
        text = _json(settings)
        await self._worker.run(partial(_store_settings, text=text))
        self._settings = json.loads(text)

    async def keep_late(self, late: float) -> None:
        """Keep how many seconds after its intent a submission may arrive; the longest counts."""
        if late > self.late:
            await self._worker.run(partial(_keep_late, late=late))
            self.late = late

    async def undo(self, ref: int | str) -> None:
        """Put an item in doubt again whose doubt was settled by hand. Raises `ValueError` otherwise."""
        self._only(RunKind.INVOICES, "undo")
        await self._worker.run(partial(_undo, ref=ref))

    async def add_ids(self, ids: Iterable[str] | AsyncIterable[str], *, batch: int = ID_BATCH) -> Intake:
        """Take in order ids, all of them or, after an error or a crash, none; the first of equal ones counts.

        The input is read `batch` at a time, the next only when the last is on disk.
        """
        self._only(RunKind.DOCUMENTS, "add_ids")
        _at_least_one("batch", batch)
        async with self._taking:
            await self._worker.run(_unstage)
            async for chunk in _chunks(ids, batch):
                await self._worker.run(partial(_stage, ids=chunk))
            return await self._worker.run(_take_ids)

    async def add_drafts(self, drafts: Iterable[NewDraft]) -> Intake:
        """Take in the drafts of one command in one transaction: all of them or none.

        A key with the same content is known and changes nothing. Raises `DraftConflictError` for keys with other
        content; only a draft that is invalid, so never sent, may be replaced by another.
        """
        self._only(RunKind.INVOICES, "add_drafts")
        return await self._worker.run(partial(_add_drafts, drafts=tuple(drafts)))

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
    ) -> None:
        """Record the outcome of an id, by its `seq` (cheaper) or itself; it replaces what stood there."""
        self._only(RunKind.DOCUMENTS, "record_document")
        values = (attempt, request_id, path, size, sha256, code, _line(error))
        await self._worker.run(partial(_record_document, ref=ref, state=DocumentState(state).value, values=values))

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
        """Let an event happen to an invoice item, journal it and give the state that follows. `Change` has the fields.

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
        self._only(RunKind.INVOICES, "transition")
        [state] = await self._worker.run(_Moves((change,)))
        return state

    async def transition_many(self, changes: Iterable[Change]) -> list[State]:
        """Let events happen in turn, all of them or none."""
        self._only(RunKind.INVOICES, "transition_many")
        return await self._worker.run(_Moves(tuple(changes)))

    def _only(self, kind: RunKind, name: str) -> None:
        if self.kind is not kind:
            raise ValueError(f"{name} is for a run of {kind.value}; {self.path} is one of {self.kind.value}")


async def _chunks(ids: Iterable[str] | AsyncIterable[str], batch: int) -> AsyncIterator[list[str]]:
    if isinstance(ids, AsyncIterable):
        chunk: list[str] = []
        async for key in ids:
            chunk.append(key)
            if len(chunk) == batch:
                yield chunk
                chunk = []
        if chunk:
            yield chunk
        return
    source = iter(ids)
    while chunk := list(islice(source, batch)):
        yield chunk
