"""Ids of every kind of file, read as they were written; and a stream of them, read not far ahead."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from invoicing_async._einvoices.spreadsheet import code_fault
from invoicing_async.ids import Feed, InputError, read_ids
from invoicing_async.ids._lines import LINE_LIMIT


def from_bytes(data: bytes, **picking: str) -> list[str]:
    return list(read_ids(io.BytesIO(data), name="in", **picking))


TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=30).filter(
    lambda text: not code_fault(text) and not text.startswith('"')  # what a spreadsheet made of an id is refused
)


@given(st.lists(TEXTS, max_size=20), st.sampled_from(["\n", "\r\n", "\n\n"]))
@settings(max_examples=50)
def test_ids_come_out_of_every_kind_of_file_as_they_went_in(texts: list[str], end: str) -> None:
    """Lines, a CSV column and a JSONL field give the same ids, blank lines aside."""
    assert from_bytes("".join(text + end for text in texts).encode("utf-8-sig")) == texts
    table = io.StringIO()
    writer = csv.writer(table, delimiter=";")
    writer.writerows([["name", "order_id"], *(["x\ny", text] for text in texts)])
    assert from_bytes(table.getvalue().encode(), column="order_id") == texts
    records = "".join(json.dumps({"id": text}) + end for text in texts)
    assert from_bytes(records.encode(), field="id") == texts


def test_numbers_in_jsonl_are_ids_too() -> None:
    """A field with a whole number is taken by its digits."""
    assert from_bytes(b'{"id": 12}\n', field="id") == ["12"]


@pytest.mark.parametrize(
    ("data", "picking", "said"),
    [
        (b"a\n\xff\n", {}, r"in line 2: not UTF-8 text \(byte 1\)"),
        (b"a\n" + b"x" * (LINE_LIMIT + 1), {}, "in line 2: longer than"),
        (b"{}\nnope\n", {"field": "id"}, "in line 1: the field id must be there"),
        (b'{"id": "a"}\nnope\n', {"field": "id"}, "in line 2: not JSON"),
        (b'{"id": true}\n', {"field": "id"}, "in line 1: the field id"),
        (b"[1]\n", {"field": "id"}, "in line 1: the field id"),
        (b"a,b\n1,2\n", {"column": "c"}, "in line 1: the header has no column c"),
        (b"", {"column": "c"}, "in line 1: the header has no column c"),
        (b"a,b\n1,2\n\n3\n", {"column": "b"}, "in line 4: the column b is empty"),
        (b"a,b\n1," + b"x" * 140_000 + b"\n", {"column": "b"}, "in line 2: field larger than"),
    ],
)
def test_a_bad_line_is_named_by_its_number(data: bytes, picking: dict[str, str], said: str) -> None:
    """What cannot be read as an id is an error with its line, after the ids before it."""
    with pytest.raises(InputError, match=said):
        from_bytes(data, **picking)


@pytest.mark.asyncio
async def test_a_stream_is_read_in_a_thread_and_not_far_ahead() -> None:
    """A slow or endless producer never holds the loop, and a slow consumer holds the producer."""
    read = Counter[str]()

    def endless() -> Iterator[int]:
        for number in range(100_000):
            read["items"] = number + 1
            yield number

    feed = Feed(endless(), room=10)
    assert [await anext(feed) for _ in range(50)] == list(range(50))
    await asyncio.sleep(0.05)
    assert read["items"] <= 61
    feed.end()
    with pytest.raises(StopAsyncIteration):
        await anext(feed)


@pytest.mark.asyncio
async def test_a_stream_gives_its_items_then_its_error() -> None:
    """An error of the input comes after every item before it."""

    def failing() -> Iterator[int]:
        yield 1
        yield 2
        raise InputError("line 3")

    feed = Feed(failing())
    assert [await anext(feed), await anext(feed)] == [1, 2]
    with pytest.raises(InputError, match="line 3"):
        await anext(feed)
    whole = Feed(iter("abc"))
    assert [item async for item in whole] == ["a", "b", "c"]
