"""Whether the files that a run recorded are still there and whole."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable
from contextlib import AsyncExitStack, aclosing
from functools import partial
from pathlib import Path

from attrs import frozen

from .._files.addresses import ObjectAddress
from .._files.existing import difference
from .._files.places import Stores
from .._files.writer import DiskWriter
from .items import filter_by_file, page_items, recorded_path, recorded_store
from .protocol import LedgerReader
from .records import Item
from .states import ON_DISK, RunKind, State
from .stop import StopToken

__all__ = ["Checked", "Comparing", "check_files", "compare_files"]

AT_ONCE = 32
"""Objects that a store is asked for side by side."""


@frozen
class Checked:
    """A recorded file after a look at it: `fault` says what is wrong, None if size and hash are as recorded.

    Of an object `path` is its name below `store`, the address of its bucket; `address` names it wholly.
    """

    key: str
    path: Path
    fault: str | None
    store: str = ""

    @property
    def address(self) -> str:
        """Where it is: of a file its path, of an object `s3://bucket/prefix/name`."""
        return f"{self.store}/{self.path.as_posix()}" if self.store else str(self.path)

    @classmethod
    def of(cls, item: Item, fault: str | None) -> Checked:
        """Return what was found of an item."""
        return cls(item.key, recorded_path(item), fault, recorded_store(item))


@frozen
class Comparing:
    """What reads the files of a run: a disk's writer, and the stores where objects are."""

    disk: DiskWriter
    stores: Stores

    def difference(self, item: Item) -> Awaitable[str | None]:
        """Say how the file of an item differs from what was recorded; None if it does not."""
        if "://" not in (item.path or ""):
            return self.disk.run(partial(difference, recorded_path(item), size=item.size, digest=item.sha256))
        bucket, name = ObjectAddress.split(item.path or "")
        return self.stores.of(bucket).compare(name, size=item.size, sha256=item.sha256)


async def check_files(ledger: LedgerReader, disk: DiskWriter | None = None) -> AsyncGenerator[Checked]:
    """Read and hash every file that a run recorded, on threads of `disk` or of its own.

    An object is asked for by its head and judged by size and the hash that it bears; one that bears none is read.
    """
    async with AsyncExitStack() as stack:
        if disk is None:
            disk = DiskWriter()
            stack.push_async_callback(disk.close)
        stores = Stores()
        stack.push_async_callback(stores.close)
        comparing = Comparing(disk, stores)
        compared = await stack.enter_async_context(aclosing(compare_files(ledger, comparing, StopToken())))
        async for item, fault in compared:
            yield Checked.of(item, fault)


async def compare_files(
    ledger: LedgerReader, comparing: Comparing, stop: StopToken
) -> AsyncGenerator[tuple[Item, str | None]]:
    """Yield every item that has a file, with what is wrong with it."""
    states = ON_DISK if ledger.kind is RunKind.DOCUMENTS else (State.SUCCESS,)
    items = filter_by_file(page_items(partial(ledger.rows, states), stop), has=True)
    async with aclosing(_side_by_side(items)) as chunks:
        async for chunk in chunks:
            faults = await asyncio.gather(*map(comparing.difference, chunk))
            for compared in zip(chunk, faults, strict=True):
                yield compared


async def _side_by_side(items: AsyncGenerator[Item]) -> AsyncGenerator[list[Item]]:
    """Yield objects that follow each other together, files one by one: there is one thread that reads them."""
    objects: list[Item] = []
    async with aclosing(items):
        async for item in items:
            is_object = "://" in (item.path or "")
            objects += [item] if is_object else []
            if objects and (not is_object or len(objects) == AT_ONCE):
                yield objects
                objects = []
            if not is_object:
                yield [item]
    if objects:
        yield objects
