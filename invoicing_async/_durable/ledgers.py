"""Where a run is kept, as a ledger: the one place that knows which kinds of ledgers there are."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from .._core.clock import Clock
from .address import FileAddress, run_address, server_address
from .importing import ImportedRun, carry_over
from .ledger import SqliteLedger, SqliteReader
from .protocol import Ledger, LedgerReader
from .records import RunFileError
from .states import RunKind

if TYPE_CHECKING:
    from .postgres.connection import SchemaState

__all__ = ["import_run", "migrate_tables", "open_ledger", "read_run", "run_file", "tables_state"]


def run_file(where: str | PathLike[str]) -> Path:
    """Return the file that a run is kept in, by what `open` of a run and `--run` take.

    Raises `ValueError` for text that names no file, as the address of a database server; what it says holds nothing
    of such an address, in which a password may stand.
    """
    address = run_address(where)
    if isinstance(address, FileAddress):
        return address.path
    raise ValueError("a run on a PostgreSQL server cannot be had: this version keeps runs in files")


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
    opening = SqliteLedger.open(
        run_file(where), kind=kind, settings=settings, create=create, accept_lost_log=accept_lost_log, clock=clock
    )
    async with opening as ledger:
        yield ledger


@asynccontextmanager
async def read_run(where: str | PathLike[str], *, clock: Clock | None = None) -> AsyncIterator[LedgerReader]:
    """Open a run to look at it, also while another process works on it; nothing is changed.

    Raises `FileNotFoundError`, `RunFileError` for a file that is not a run file, and `ValueError` for text that names
    no file.
    """
    async with SqliteReader.read(run_file(where), clock=clock) as ledger:
        yield ledger


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


async def migrate_tables(where: str) -> tuple[int, ...]:
    """Bring the tables of runs on a server up to this version, and return the numbers of the migrations that were done.

    The address may name a run or none. Raises `LedgerServerError`, `ValueError` for an address that is of no server.
    """
    with _of_servers():
        from .postgres.migrations import migrate
    return await migrate(server_address(where))


async def tables_state(where: str) -> SchemaState:
    """Return how the tables of runs on a server stand; nothing is changed. Raises as `migrate_tables` does."""
    with _of_servers():
        from .postgres.migrations import check
    return await check(server_address(where))


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
