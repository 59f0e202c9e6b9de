"""Where a run is kept, as a ledger: the one place that knows which kinds of ledgers there are."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from os import PathLike
from pathlib import Path

from .._core.clock import Clock
from .address import FileAddress, run_address
from .ledger import SqliteLedger, SqliteReader
from .protocol import Ledger, LedgerReader
from .states import RunKind

__all__ = ["open_ledger", "read_run", "run_file"]


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
