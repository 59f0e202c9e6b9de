"""Ids and drafts that a command is given: read as they were written, not far ahead, and until it is stopped."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from invoicing_async._einvoices.spreadsheet import code_fault
from invoicing_async.cli import stop
from invoicing_async.cli.exits import CommandError
from invoicing_async.cli.input import ids
from invoicing_async.cli.input.options import IdSource

pytestmark = pytest.mark.usefixtures("no_settings")


def from_bytes(data: bytes, **picking: str) -> list[str]:
    return list(ids.picked(io.BytesIO(data), "in", IdSource(**picking)))


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
        (b"a\n" + b"x" * (ids.LINE_LIMIT + 1), {}, "in line 2: longer than"),
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
    with pytest.raises(CommandError, match=said):
        from_bytes(data, **picking)


def test_a_file_is_counted_for_the_bar_and_read_as_it_is_taken(tmp_path: Path) -> None:
    """The number of lines is known beforehand; a header is not one of the ids."""
    quiet = stop.Stop(lambda: None)
    file = tmp_path / "ids.csv"
    file.write_text("id\na\nb\n")
    with ids.open_ids(str(file), IdSource(column="id"), quiet) as found:
        assert isinstance(found.items, Iterator)
        assert (found.about, list(found.items)) == (2, ["a", "b"])
    with ids.open_ids(str(file.rename(tmp_path / "ids.txt")), IdSource(), quiet) as found:
        assert found.about == 3
    with (
        pytest.raises(CommandError, match="exclude each other"),
        ids.open_ids(str(file), IdSource(column="id", field="id"), quiet),
    ):
        pass


@pytest.mark.asyncio
async def test_a_stream_is_read_in_a_thread_and_not_far_ahead() -> None:
    """A slow or endless producer never holds the loop, and a slow consumer holds the producer."""
    read = Counter[str]()

    def endless() -> Iterator[int]:
        for number in range(100_000):
            read["items"] = number + 1
            yield number

    asked = stop.Stop(lambda: None)
    feed = ids.Feed(endless(), asked, room=10)
    assert [await anext(feed) for _ in range(50)] == list(range(50))
    await asyncio.sleep(0.05)
    assert read["items"] <= 61
    asked.ask()
    with pytest.raises(StopAsyncIteration):
        await anext(feed)


@pytest.mark.asyncio
async def test_a_stream_gives_its_items_then_its_error() -> None:
    """An error of the input comes after every item before it."""

    def failing() -> Iterator[int]:
        yield 1
        yield 2
        raise CommandError("line 3")

    feed = ids.Feed(failing(), stop.Stop(lambda: None))
    assert [await anext(feed), await anext(feed)] == [1, 2]
    with pytest.raises(CommandError, match="line 3"):
        await anext(feed)
    whole = ids.Feed(iter("abc"), stop.Stop(lambda: None))
    assert [item async for item in whole] == ["a", "b", "c"]


@pytest.mark.asyncio
async def test_a_stop_wakes_who_waits_for_a_stream() -> None:
    """A stream that never says more does not keep a command from stopping."""
    gate = threading.Event()

    def silent() -> Iterator[int]:
        gate.wait(10)
        yield 1

    asked = stop.Stop(lambda: None)
    source = stop.CountedInput(asked)

    async def take() -> list[int]:
        items = source.items(ids.Feed(silent(), asked))
        assert isinstance(items, AsyncIterator)
        return [item async for item in items]

    taken = asyncio.create_task(take())
    await asyncio.sleep(0.01)
    asked.ask()
    assert await taken == []
    assert source.cut
    gate.set()
