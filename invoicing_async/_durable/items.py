"""The items of a run as its parts use them: read page by page, their files, one line for an error."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from os import PathLike
from pathlib import Path

from .._files.names import parsed
from ..models import SavedDocument
from .protocol import Ledger
from .records import Item
from .stop import StopToken

__all__ = [
    "PAGE",
    "absolute_path",
    "current_item",
    "filter_by_file",
    "page_items",
    "recorded_path",
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


def absolute_path(path: str | PathLike[str]) -> Path:
    return Path(path).absolute()


def recorded_path(item: Item) -> Path:
    return parsed(item.path or "")


def saved_document(item: Item) -> SavedDocument:
    return SavedDocument(
        order_id=item.key,
        path=recorded_path(item),
        size=item.size or 0,
        sha256=item.sha256 or "",
        attempts=0,
        request_id=item.request_id,
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
