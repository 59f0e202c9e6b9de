"""The items of a run as its parts use them: read page by page, their files, one line for an error."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from os import PathLike
from pathlib import Path

from .._files.addresses import ObjectAddress, where_of
from .._files.names import parsed
from ..models import SavedDocument
from .protocol import Ledger
from .records import Item
from .stop import StopToken

__all__ = [
    "PAGE",
    "absolute_place",
    "current_item",
    "filter_by_file",
    "is_below",
    "page_items",
    "recorded_path",
    "recorded_store",
    "saved_document",
]

PAGE = 500
"""Rows read from the run file at a time."""


async def page_items(read: Callable[..., Awaitable[list[Item]]], stop: StopToken) -> AsyncGenerator[Item]:
    """Yield a query's rows page by page; rows that change meanwhile are neither missed nor yielded twice."""
    after = 0
    while page := await read(after=after, limit=PAGE):
        for item in page:
            if stop.asked:
                return
            yield item
        after = page[-1].seq


def absolute_place(where: str | PathLike[str] | ObjectAddress) -> str:
    """Return where documents are saved as a run keeps it: an absolute path, or the address of a store."""
    found = where if isinstance(where, ObjectAddress) else where_of(where)
    return str(found) if isinstance(found, ObjectAddress) else str(found.absolute())


def is_below(path: str, place: str) -> bool:
    """Tell whether a whole path is one of this place, by its text alone."""
    return Path(path).is_relative_to(place) if "://" not in place else path.startswith(f"{place}/")


def recorded_path(item: Item) -> Path:
    """Return where the file of an item is; of an object its name below the bucket (`recorded_store`)."""
    text = item.path or ""
    return Path(ObjectAddress.split(text)[1]) if "://" in text else parsed(text)


def recorded_store(item: Item) -> str:
    text = item.path or ""
    return str(ObjectAddress.split(text)[0]) if "://" in text else ""


def saved_document(item: Item) -> SavedDocument:
    return SavedDocument(
        order_id=item.key,
        path=recorded_path(item),
        size=item.size or 0,
        sha256=item.sha256 or "",
        attempts=0,
        request_id=item.request_id,
        store=recorded_store(item),
    )


async def current_item(ledger: Ledger, ref: int | str) -> Item:
    item = await ledger.get(ref)
    assert item is not None  # noqa: S101 - it was changed just before; for the type checker
    return item


async def filter_by_file(items: AsyncGenerator[Item], *, has: bool) -> AsyncGenerator[Item]:
    async with aclosing(items):
        async for item in items:
            if has is (item.path is not None):
                yield item
