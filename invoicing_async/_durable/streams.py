"""Several sources of items read as one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from contextlib import aclosing
from typing import TypeVar

from attrs import frozen

from .._core.tasks import started
from .records import Item
from .states import State

__all__ = ["MERGED", "divert_submitted", "drain_queue", "each_of", "merge_sources"]

T = TypeVar("T")


MERGED = 64
"""Items that `run` keeps ready for a slow consumer."""


async def each_of(items: AsyncIterable[T]) -> AsyncGenerator[T]:
    async for item in items:
        yield item


async def drain_queue(queue: asyncio.Queue[Item | None]) -> AsyncIterator[Item]:
    while (item := await queue.get()) is not None:
        yield item


async def divert_submitted(items: AsyncGenerator[Item], to: asyncio.Queue[Item | None]) -> AsyncGenerator[Item]:
    """Put what is submitted into a queue, and None at the end; yield the rest, which has come to rest already."""
    try:
        async with aclosing(items):
            async for item in items:
                if item.state == State.SUBMITTED:
                    to.put_nowait(item)
                else:
                    yield item
    finally:
        to.put_nowait(None)


@frozen
class SourceEnded:
    """A source of `merge_sources` that has ended."""

    error: Exception | None = None


async def merge_sources(*sources: AsyncGenerator[T]) -> AsyncGenerator[T]:
    """Yield what several generators yield, as it comes; the first error is raised after the others have ended."""
    ready: asyncio.Queue[T | SourceEnded] = asyncio.Queue(MERGED)

    async def pour(source: AsyncGenerator[T]) -> None:
        try:
            async with aclosing(source):
                async for value in source:
                    await ready.put(value)
        except Exception as error:  # noqa: BLE001 - it is raised below
            await ready.put(SourceEnded(error))
        else:
            await ready.put(SourceEnded())

    pouring = [started(pour(source)) for source in sources]
    errors: list[Exception | None] = []
    try:
        while len(errors) < len(sources):
            value = await ready.get()
            if isinstance(value, SourceEnded):
                errors.append(value.error)
            else:
                yield value
    finally:
        for task in pouring:
            task.cancel()
        await asyncio.wait(pouring)
    for error in filter(None, errors):
        raise error
