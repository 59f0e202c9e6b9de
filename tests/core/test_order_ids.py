"""What an order id may be given as, and how what is none is told: once, and before anything is sent if possible."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from invoicing_async._core.order_ids import as_text, texts

NUMBER = UUID("D0E11047-ACAF-468F-A325-3D2F5964F5FF")


class Word(StrEnum):
    A = "a-1"


class Old(str, Enum):  # noqa: UP042 - whose text is its value, whatever `str()` says
    A = "a-2"


class Number(IntEnum):
    SEVEN = 7


class Text(str):
    """A text of another kind, as numpy has one."""

    __slots__ = ()


IDS: list[tuple[Any, str]] = [
    ("a", "a"),
    ("", ""),
    (" a/b ", " a/b "),
    (NUMBER, "d0e11047-acaf-468f-a325-3d2f5964f5ff"),
    (0, "0"),
    (-5, "-5"),
    (10**30, "1" + "0" * 30),
    (Word.A, "a-1"),
    (Old.A, "a-2"),
    (Number.SEVEN, "7"),
    (Text("x"), "x"),
]
NONE: list[Any] = [
    None,
    True,
    False,
    1.5,
    7.0,
    float("nan"),
    b"a",
    bytearray(b"a"),
    Decimal(7),
    [],
    ["a"],
    ("a",),
    {},
    object,
    1j,
]


@pytest.mark.parametrize(("given_", "text"), IDS)
def test_an_id_is_given_as_its_text(given_: Any, text: str) -> None:
    assert as_text(given_) == text
    assert type(as_text(given_)) is str


@pytest.mark.parametrize("given_", NONE)
def test_anything_else_is_refused_by_its_kind(given_: Any) -> None:
    """And is not shown: it may be anything."""
    with pytest.raises(ValueError, match=f"^order_id must be text, a UUID or an int, got {type(given_).__name__}$"):
        as_text(given_)


async def source(ids: Iterable[Any]) -> AsyncIterator[Any]:
    for order_id in ids:
        await asyncio.sleep(0)
        yield order_id


async def taken(ids: Any) -> tuple[list[str], ValueError | None]:
    """Give the texts that a source gives, and the error that ends it."""
    given_: list[str] = []
    try:
        found = texts(ids)
        if isinstance(found, AsyncIterable):
            async for text in found:
                given_.append(text)  # noqa: PERF401 - what came before an error is kept
        else:
            given_.extend(found)
    except ValueError as error:
        return given_, error
    return given_, None


@given(ids=st.lists(st.one_of(st.text(), st.integers(), st.uuids())))
def test_every_kind_of_source_gives_the_same_texts(ids: list[Any]) -> None:
    expected = [str(order_id) for order_id in ids]
    for made in (list, tuple, iter, source, lambda many: dict(enumerate(many)).values()):
        assert asyncio.run(taken(made(ids))) == (expected, None)


def test_a_list_of_texts_is_read_as_it_is() -> None:
    """Nearly every batch: nothing is done for each id."""
    ids = ["a", "b"]
    assert texts(ids) is ids


@pytest.mark.parametrize("bad", NONE)
@pytest.mark.parametrize(
    "made", [list, tuple, lambda ids: dict(enumerate(ids)).values(), lambda ids: [*ids, 1, NUMBER]]
)
def test_a_collection_is_looked_through_first(made: Any, bad: Any) -> None:
    """One error names the first that is none, before any is given."""
    with pytest.raises(ValueError, match=r"^order_ids\[2\] must be text, a UUID or an int"):
        texts(made(["a", 7, bad, bad]))


@pytest.mark.parametrize("bad", NONE)
@pytest.mark.parametrize("made", [iter, source])
def test_a_stream_is_refused_where_it_stands(made: Any, bad: Any) -> None:
    """What came before is given."""
    given_, error = asyncio.run(taken(made(["a", 7, bad, "b"])))
    assert given_ == ["a", "7"]
    assert str(error).startswith("order_ids[2] must be text, a UUID or an int")


def test_an_asynchronous_source_hears_of_its_end_and_of_what_is_thrown_into_it() -> None:
    heard: list[str] = []

    async def ids() -> AsyncIterator[Any]:
        try:
            yield "a"
        except LookupError:
            heard.append("thrown")
            yield 7
        try:
            yield None
        finally:
            heard.append("closed")

    async def read() -> None:
        found: Any = texts(ids())
        assert await anext(found) == "a"
        assert await found.athrow(LookupError()) == "7"
        with pytest.raises(ValueError, match=r"order_ids\[2\]"):
            await anext(found)
        assert heard == ["thrown", "closed"]
        await found.aclose()

    asyncio.run(read())


class Cursor:
    """An asynchronous source that is no generator: nothing can be thrown into it, and it has nothing to close."""

    def __aiter__(self) -> Cursor:
        return self

    async def __anext__(self) -> Any:
        return 7


def test_a_source_that_cannot_be_closed_is_left() -> None:
    async def read() -> None:
        found: Any = texts(Cursor())
        assert await anext(found) == "7"
        with pytest.raises(LookupError):
            await found.athrow(LookupError())
        await found.aclose()

    asyncio.run(read())


@pytest.mark.parametrize("one", ["abc", b"abc", bytearray(b"abc"), NUMBER, 7, None, 1.5])
def test_one_id_is_not_several(one: Any) -> None:
    with pytest.raises(ValueError, match=f"order_ids must be several ids, not one {type(one).__name__}"):
        texts(one)
