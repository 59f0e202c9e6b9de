"""Where a run is kept, as a ledger: the one place that knows which kinds of ledgers there are."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from attrs import asdict, frozen

from .._core.clock import Clock
from .address import FileAddress, ServerAddress, run_address, server_address
from .importing import ImportedRun, carry_over
from .ledger import SqliteLedger, SqliteReader
from .protocol import Ledger, LedgerReader
from .records import Item, LedgerServerError, RunFileError
from .standing import Standing
from .states import RunKind

if TYPE_CHECKING:
    from .postgres.ledger import PostgresLedger

__all__ = [
    "LedgerTables",
    "import_run",
    "ledger_tables",
    "migrate_ledger",
    "open_ledger",
    "pause_run",
    "read_run",
    "run_file",
    "server_error",
    "server_parameters",
    "standing_of",
    "unhalt_run",
    "unpause_run",
]


@frozen(kw_only=True)
class LedgerTables:
    """The tables for runs in a database: their version, 0 if there are none, and the one that this program needs.

    `fault` says why no run can be kept in them, None if one can; `is_too_new` that only a newer program can.
    """

    version: int
    needed: int
    fault: str | None
    is_too_new: bool

    def json(self) -> dict[str, object]:
        """Return it as one flat object."""
        return asdict(self)


def run_file(where: str | PathLike[str]) -> Path:
    """Return the file that a run is kept in, by what `open` of a run and `--run` take.

    Raises `ValueError` for text that names no file, as the address of a database server; what it says holds nothing
    of such an address, in which a password may stand.
    """
    address = run_address(where)
    if isinstance(address, FileAddress):
        return address.path
    raise ValueError("a run file must be named, got the address of a run on a server")


@asynccontextmanager
async def open_ledger(
    where: str | PathLike[str],
    *,
    kind: RunKind,
    settings: Mapping[str, object],
    create: bool,
    accept_lost_log: bool = False,
    clock: Clock | None = None,
) -> AsyncIterator[Ledger]:
    """Open a run to work on it; with `create`, make it if it is not there. Raises as `InvoiceRun.open` does."""
    address = run_address(where)
    if isinstance(address, ServerAddress):
        if accept_lost_log:
            raise ValueError("a run on a server has no log beside it that could be lost")
        with _of_servers():
            from .postgres.ledger import PostgresLedger
        kept = PostgresLedger.open(address, kind=kind, settings=settings, create=create, clock=clock)
        async with kept as run:
            yield run
        return
    opening = SqliteLedger.open(
        address.path, kind=kind, settings=settings, create=create, accept_lost_log=accept_lost_log, clock=clock
    )
    async with opening as ledger:
        yield ledger


@asynccontextmanager
async def read_run(where: str | PathLike[str], *, clock: Clock | None = None) -> AsyncIterator[LedgerReader]:
    """Open a run to look at it, also while another process works on it; nothing is changed.

    Raises `FileNotFoundError`, `RunFileError` for a file that is not a run file, `LedgerServerError` for a database
    that cannot be used, and `ValueError` for text that names no run.
    """
    address = run_address(where)
    if isinstance(address, ServerAddress):
        with _of_servers():
            from .postgres.reader import PostgresReader
        async with PostgresReader.read(address, clock=clock) as kept:
            yield kept
        return
    async with SqliteReader.read(address.path, clock=clock) as ledger:
        yield ledger


@runtime_checkable
class _Watched(Protocol):
    """A ledger that knows how its run stands for who watches over it."""

    async def standing(self) -> Standing: ...

    async def twice(self, *, limit: int = 1000) -> list[Item]: ...


async def standing_of(ledger: LedgerReader) -> Standing | None:
    """Return how a run on a server stands: its workers, what is stuck, what it shares. None for a run in a file."""
    return await ledger.standing() if isinstance(ledger, _Watched) else None


async def import_run(file: str | PathLike[str], where: str, *, clock: Clock | None = None) -> ImportedRun:
    """Carry the run of a file over to a server, with all that ever happened to it: all of it or, after an error, none.

    Afterwards the file can only be read. Cut off, by whatever, it is finished by giving it again. Raises
    `RunLockedError` if a process holds the file, `RunMovedError` if its run is elsewhere, `RunFileError` if the server
    has another run of this name, `ValueError` for an address that is not of a run on a server.
    """
    to = run_address(where)
    if isinstance(to, FileAddress):
        raise ValueError("a run is carried over from a file to a server: postgresql://HOST/DATABASE?run=NAME")
    with _of_servers():
        from .postgres.importing import open_taker
    source = SqliteLedger.open(run_file(file), create=False, to_move=True, clock=clock)
    return await carry_over(source, open_taker(to))


async def pause_run(where: str) -> None:
    """Let no worker of a run on a server begin to send anything; what is under way is recorded.

    Raises `FileNotFoundError`, `LedgerServerError`, `ValueError` for an address that is not of a run on a server.
    """
    async with _shared(where) as ledger:
        await ledger.pause()


async def unpause_run(where: str) -> None:
    """Let a paused run go on. Raises as `pause_run` does."""
    async with _shared(where) as ledger:
        await ledger.unpause()


async def unhalt_run(where: str, *, doubt_since: float, restored: bool = False) -> int:
    """Let a halted run go on, when all of it that may have been sent unrecorded is in doubt; return how many that were.

    `doubt_since` is since when records are missing, in epoch seconds. `restored` is for a run whose database came back
    older while nobody was at work on it, so that nobody could find out and halt it. Raises `ValueError` for a time that
    is to come or before the run was made, and for a run that is not halted; and as `pause_run` does.
    """
    async with _shared(where) as ledger:
        if (await ledger.standing()).halted is None and not restored:
            raise ValueError(f"{ledger.name} is not halted: nothing was changed; of a restored database say --restored")
        if doubt_since > ledger.now():
            raise ValueError("the time since when records are missing must not be in the future")
        if doubt_since < ledger.created:
            raise ValueError("the time since when records are missing must not be before the run was made")
        return await ledger.unhalt(doubt_since, restored=restored)


@asynccontextmanager
async def _shared(where: str) -> AsyncIterator[PostgresLedger]:
    address = run_address(where)
    if isinstance(address, FileAddress):
        raise ValueError("that is for a run on a server: postgresql://HOST/DATABASE?run=NAME")
    with _of_servers():
        from .postgres.ledger import PostgresLedger
    async with PostgresLedger.open(address, create=False) as ledger:
        yield ledger


async def migrate_ledger(where: str) -> tuple[int, ...]:
    """Bring the tables for runs in a database up to this version, and return the numbers of the steps that were done.

    The address may name a run or none. Raises `LedgerServerError`, `ValueError` for an address that is of no server.
    """
    with _of_servers():
        from .postgres.migrations import migrate
    return await migrate(server_address(where))


async def ledger_tables(where: str) -> LedgerTables:
    """Return how the tables for runs in a database stand; nothing is changed. Raises as `migrate_ledger` does."""
    with _of_servers():
        from .postgres.migrations import check
    state = await check(server_address(where))
    fault = state.fault(to_write=True)
    is_too_new = fault is not None and state.version >= state.known
    return LedgerTables(version=state.version, needed=state.known, fault=fault, is_too_new=is_too_new)


def server_parameters(where: str) -> Mapping[str, str]:
    """Return what to connect to a server with, by libpq's names. A password may be among it: it is to be shown nowhere.

    The address may name a run or none. Raises as `migrate_ledger` does.
    """
    with _of_servers():
        from .postgres.conninfo import connection_parameters
    return connection_parameters(server_address(where), os.environ)


def server_error(error: BaseException, where: str) -> LedgerServerError | None:
    """Return what an error of the database's driver, or one that it caused, says of the server; None for any other."""
    with _of_servers():
        from .postgres.errors import error_below
    return error_below(error, where)


@contextmanager
def _of_servers() -> Iterator[None]:
    """Name the extra that is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "psycopg":
            raise
        text = "a run on a server needs the package psycopg: install invoicing-async[postgres]"
        raise RunFileError(text) from error
