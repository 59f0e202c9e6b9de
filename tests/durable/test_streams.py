"""Streams of a run that are merged lose nothing, and give the first error."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest
from run_services import (
    listed,
    until_error,
)

from invoicing_async._durable.streams import merge_sources


async def numbers(count: int, error: Exception | None = None) -> AsyncGenerator[int]:
    for number in range(count):
        await asyncio.sleep(0)
        yield number
    if error is not None:
        raise error


@pytest.mark.asyncio
async def test_merging_gives_all_and_then_the_first_error() -> None:
    """One source's error does not cut the other short."""
    assert sorted(await listed(merge_sources(numbers(3), numbers(200)))) == sorted([*range(3), *range(200)])
    given, error = await until_error(merge_sources(numbers(2, KeyError("first")), numbers(150)))
    assert len(given) == 152
    assert isinstance(error, KeyError)
