"""Carrying a run from its file to a server: keys, states, attempts and journal, all of it or nothing.

The order of what is written is what makes it safe to be cut off: the file is marked before the server commits, so that
at no moment both can be worked on. A file with the mark of an import that was cut off is only finished, never used.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Protocol

from attrs import frozen

from .protocol import LedgerReader
from .records import Moved, RunMovedError
from .states import RunKind

__all__ = ["ImportedRun", "MovableLedger", "RunTaker", "carry_over", "moved_to"]


@frozen(kw_only=True)
class ImportedRun:
    """What was carried over `to` an address: how many items and entries of the journal; `known` if it was before."""

    to: str
    kind: RunKind
    items: int
    entries: int
    known: bool = False


class MovableLedger(LedgerReader, Protocol):
    """Where a run is now: held, so that nobody works on it meanwhile."""

    @property
    def moved(self) -> Moved | None:
        """Where the run was carried over to; None if it is here."""

    async def keep_moved(self, moved: Moved | None) -> None:
        """Keep where the run is carried over to, durably; None takes that back."""


class RunTaker(Protocol):
    """Where a run is to be."""

    @property
    def address(self) -> str:
        """What commands name it by there."""

    @property
    def may_be_there(self) -> bool:
        """Whether it may have been taken in: from the moment on at which that is committed, however that ends."""

    async def has(self, source: LedgerReader) -> ImportedRun | None:
        """Return what is there of this very run, None if nothing is. Raises `RunFileError` for another of its name."""

    async def take(self, source: LedgerReader, *, sealed: Callable[[], Awaitable[None]]) -> ImportedRun:
        """Take in all of a run in one transaction, and wait for `sealed` before it is committed."""


def moved_to(ledger: LedgerReader) -> Moved | None:
    """Return where the run of a file was carried over to; None if it goes on where it is."""
    found: Moved | None = getattr(ledger, "moved", None)
    return found


async def carry_over(
    source: AbstractAsyncContextManager[MovableLedger], target: AbstractAsyncContextManager[RunTaker]
) -> ImportedRun:
    """Carry a run over. Raises `RunMovedError` if it is elsewhere, `RunFileError` if another has its name there."""
    async with source as here, target as there:
        moved = here.moved
        if moved is not None and moved.to != there.address:
            raise RunMovedError(f"the run of {here.name} was carried over to {moved.to} before", to=moved.to)
        if moved is not None and (known := await there.has(here)) is not None:
            await here.keep_moved(Moved(there.address, is_done=True))
            return known
        if moved is not None and moved.is_done:
            # What was sent from there is in no file: to bring back how it stood before would send it twice.
            text = f"the run of {here.name} was carried over to {moved.to}, and is not there any more"
            raise RunMovedError(text, to=moved.to)
        try:
            taken = await there.take(here, sealed=partial(here.keep_moved, Moved(there.address, is_done=False)))
        except BaseException:
            if not there.may_be_there:
                await here.keep_moved(None)
            raise
        await here.keep_moved(Moved(there.address, is_done=True))
        return taken
