"""What a file of ids is: a list, a table or records; a header or a whole record is never asked for as an id."""

from __future__ import annotations

import io
import json
from itertools import product

import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from invoicing_async._values.table import BOM
from invoicing_async.ids import InputError, read_ids
from invoicing_async.ids._forms import NAMES, form_of

FIRST, SECOND = "d0e11047-acaf-468f-a325-3d2f5964f5ff", "0197F3A1-7e1c-7cc3-98a5-7e4b9d6c1a20"
ANY = ["ids", "ids.txt", "ids.list", "-", "/dev/fd/63", ".csv", "orders.csv.txt"]
TABLES = ["ids.csv", "IDS.CSV", "a b/ids.tsv", "ids.tab"]
RECORDS = ["ids.jsonl", "ids.ndjson", "ids.JSON"]
DRESSES = [*product(["", BOM], ["\n", "\r\n", "\r", "\n\n"], ["", '"'])]
"""Marks, line ends and quotes in which the same table comes."""


def read(name: str, text: str) -> list[str]:
    return list(read_ids(io.BytesIO(text.encode()), name=name))


def refused(name: str, text: str) -> tuple[str, str]:
    with pytest.raises(InputError) as caught:
        read(name, text)
    return str(caught.value), caught.value.hint


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_refused_with_its_columns(name: str, delimiter: str) -> None:
    """Whatever separates them, quoted or not, with a mark or none, with padding above; and the columns then work."""
    for (mark, end, quote), padding in product(DRESSES, ["", "\n", delimiter * 2 + "\n", f"sep={delimiter}\n"]):
        above = padding.replace("\n", end)
        head = delimiter.join(f"{quote}{column}{quote}" for column in ("order_id", "total", "Người mua"))
        row = delimiter.join((f"{quote}{FIRST}{quote}", "5", "An"))
        text = mark + above + head + end + row + end
        said, hint = refused(name, text)
        assert said == f"{name} is a table; its columns: order_id, total, Người mua"
        assert hint == "Give column='order_id'."
        assert list(read_ids(io.BytesIO(text.encode()), name=name, column="order_id")) == [FIRST]


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("head", ["order_id", "id", "Order No", "col1", "2024", "Mã đơn hàng", "order_id_2"])
def test_a_column_with_a_name_is_refused_with_it(head: str, name: str) -> None:
    """Its name is no id, whatever the ids look like; the hint says what to write in either case."""
    for (mark, end, quote), rows in product(DRESSES, ([], [FIRST, SECOND], ["INV-7", "INV-8"], ["ab", "cd"])):
        text = mark + "".join(f"{quote}{cell}{quote}{end}" for cell in (head, *rows))
        said, hint = refused(name, text)
        assert said == f"{name} is a table; its column: {head}"
        assert hint == f"Give column={head!r}, or a name that ends in .txt, for ids alone, one a line."
        assert list(read_ids(io.BytesIO(text.encode()), name=name, column=head)) == rows


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize(
    "rows",
    [
        [FIRST],
        [FIRST, SECOND],
        [FIRST, "INV-7"],
        ["INV-2024/0001", "INV-2024/2"],
        ["577", "12"],
        ["Đơn-1", "Đơn-2", "x"],
    ],
    ids=" ".join,
)
def test_a_column_without_a_name_is_ids(rows: list[str], name: str) -> None:
    """Excel writes a list so: its first line is a UUID, or differs from the next in its digits alone."""
    for mark, end, quote in DRESSES:
        assert read(name, mark + "".join(f"{quote}{cell}{quote}{end}" for cell in rows)) == rows


@pytest.mark.parametrize(
    "rows", [[FIRST + ",", SECOND + ","], ["INV-7", "OTHER-8"], ["a8f3k2", "9zk2m1"], ["INV-7"], ["sep=,", FIRST]]
)
def test_what_may_be_a_table_is_refused_and_taken_as_ids_under_another_name(rows: list[str]) -> None:
    """Where nobody can tell, the hint says how to have it taken as it stands; done so, it is."""
    text = "".join(f"{row}\n" for row in rows)
    said, hint = refused("ids.csv", text)
    assert "is a table" in said
    assert hint.startswith("Give column=")
    assert read("-", text) == rows


@pytest.mark.parametrize("name", [*RECORDS, *ANY])
def test_records_are_refused_with_their_fields(name: str) -> None:
    """Whatever the file is called: a JSON object is no id."""
    one_line = '{"order_id": "A", "total": [{"x": 1}]}'
    for text in (f"{one_line}\n{{}}\n", f"{BOM}  {one_line}", f"\n\n{one_line}\n"):
        said, hint = refused(name, text)
        assert said == f"{name} has records; their fields: order_id, total"
        assert hint == "Give field='order_id'."


@pytest.mark.parametrize("name", RECORDS)
def test_ids_in_json_are_ids(name: str) -> None:
    """Texts and whole numbers, one a line, read as JSON is."""
    given_ = [FIRST, 'A"1', "Đơn-1", "12"]
    text = "".join(json.dumps(text) + "\n" for text in given_[:-1]) + "12\n"
    assert read(name, text) == given_
    for bad in ("{}", "null", "true", "1.5", '""', "x"):
        with pytest.raises(InputError, match="line 5: "):
            read(name, text + bad)


@pytest.mark.parametrize("name", RECORDS)
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[\n  {"id": "A"}\n]', "line 1: a list or record that is not in one line"),
        ('{\n  "id": "A"\n}', "line 1: a list or record that is not in one line"),
        ('["A", "B"]', "line 1: a list or record that is not in one line"),
        ("A-1\nA-2\n", "line 1: neither a record nor an id in JSON"),
        (f"{FIRST}\n", "line 1: neither a record nor an id in JSON"),
        ("null\n", "line 1: neither a record nor an id in JSON"),
        ("{}\n", "has records; their fields: none has a name"),
    ],
)
def test_other_json_is_refused_by_its_line(name: str, text: str, said: str) -> None:
    assert refused(name, text)[0] == f"{name} {said}"


@pytest.mark.parametrize("name", [*ANY, *TABLES, *RECORDS])
@pytest.mark.parametrize("text", ["", "\n", BOM, " \r\n\r\n"])
def test_an_empty_file_has_no_ids(name: str, text: str) -> None:
    assert read(name, text) == []


@given(st.sampled_from(ANY), st.lists(st.sampled_from(["order_id", "a,b", "a;b", "[1]", "{A-1}", "{}", "x|y", FIRST])))
@examples(200)
def test_any_other_file_and_stdin_are_taken_as_they_stand(name: str, rows: list[str]) -> None:
    """An id may hold a comma, stand in braces, or look like a word."""
    assert read(name, "".join(f"{row}\n" for row in rows)) == rows


@pytest.mark.parametrize("name", ["ids.csv", "ids.jsonl", "ids"])
def test_many_and_long_names_are_cut(name: str) -> None:
    """The error stays short, however wide the table."""
    columns = [f"column {number} {'x' * 100}" for number in range(50)]
    text = ",".join(columns) if name == "ids.csv" else json.dumps(dict.fromkeys(columns, "A"))
    said, _ = refused(name, text)
    assert said.endswith(f" and {50 - NAMES} more")
    assert len(said) < 700


@pytest.mark.parametrize("line", ["x" * 100_000, "[" * 100_000, '{"a":' * 50_000, "," * 5_000, '"' * 99])
def test_a_line_of_any_kind_is_judged(line: str) -> None:
    """Deep nesting, no end, quotes alone: an error for the user or a list, and never another."""
    for name in ("ids.csv", "ids.jsonl", "ids"):
        try:
            form_of(name, [line, line])
        except InputError:
            continue


def test_a_stream_waits_for_no_more_than_it_needs() -> None:
    """The first id of a slow producer is there before the second was written."""
    taken: list[str] = []

    class Slow(io.BytesIO):
        def readline(self, size: int | None = -1, /) -> bytes:
            line = super().readline(-1 if size is None else size)
            taken.append(line.decode())
            return line

    numbered = read_ids(Slow(b"A-1\nA-2\nA-3\n"), name="-")
    assert (next(numbered), taken) == ("A-1", ["A-1\n"])
