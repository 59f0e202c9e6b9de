"""Whether the files that a run recorded are still there and whole."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from functools import partial
from pathlib import Path

from attrs import frozen

from .._files.existing import difference
from .._files.writer import DiskWriter
from .items import filter_by_file, page_items, recorded_path
from .protocol import LedgerReader
from .records import Item
from .states import ON_DISK, RunKind, State
from .stop import StopToken

__all__ = ["Checked", "check_files", "compare_files"]


@frozen
class Checked:
    """A recorded file after a look at it: `fault` says what is wrong, None if size and hash are as recorded."""

    key: str
    path: Path
    fault: str | None


async def check_files(ledger: LedgerReader, disk: DiskWriter | None = None) -> AsyncGenerator[Checked]:
    """Read and hash every file that a run recorded, on threads of `disk` or of its own."""
    async with AsyncExitStack() as stack:
        if disk is None:
            disk = DiskWriter()
            stack.push_async_callback(disk.close)
        compared = await stack.enter_async_context(aclosing(compare_files(ledger, disk, StopToken())))
        async for item, fault in compared:
            yield Checked(item.key, recorded_path(item), fault)


async def compare_files(
    ledger: LedgerReader, disk: DiskWriter, stop: StopToken
) -> AsyncGenerator[tuple[Item, str | None]]:
    """Yield every item that has a file, with what is wrong with it."""
    states = ON_DISK if ledger.kind is RunKind.DOCUMENTS else (State.SUCCESS,)
    async with aclosing(filter_by_file(page_items(partial(ledger.rows, states), stop), has=True)) as items:
        async for item in items:
            yield item, await disk.run(partial(difference, recorded_path(item), size=item.size, digest=item.sha256))
