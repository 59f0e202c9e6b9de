"""Order ids as they are pasted and exported: read as they were meant, or refused by line before anything is asked."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from invoicing_async._einvoices.spreadsheet import code_fault
from invoicing_async.ids import InputError, read_ids
from invoicing_async.ids._lines import LINE_LIMIT


def read(data: str | bytes, column: str | None = None, field: str | None = None) -> list[str]:
    raw = data.encode() if isinstance(data, str) else data
    return list(read_ids(io.BytesIO(raw), name="in", column=column, field=field))


ID = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=12).filter(
    lambda text: not code_fault(text)
)


@given(
    st.lists(ID.filter(lambda text: not text.startswith('"')), min_size=1, max_size=5),
    st.sampled_from(["\n", "\r\n", "\r", "\r\r\n", "\n\n"]),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["", " ", "\t", "\xa0"]),
)
@examples(300)
def test_a_list_is_read_whatever_ends_its_lines(
    given_: list[str],
    end: str,
    bom: bool,  # noqa: FBT001 - drawn
    quoted: bool,  # noqa: FBT001 - drawn
    blank: str,
) -> None:
    """With and without a mark, quotes around a whole line, blanks around it."""
    written = ['"' + text.replace('"', '""') + '"' if quoted else text for text in given_]
    assert read(("\ufeff" if bom else "") + "".join(blank + text + blank + end for text in written)) == given_


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("a\nb\u200b\n", "line 2: the id must not hold a character that nobody sees: U+200B"),
        ("a\r\n\ufeffb\r\n", "line 2: the id must not hold a character that nobody sees: U+FEFF"),
        ("a\rb\x00c\r", "line 2: the id must not hold a character that nobody sees: U+0000"),
        ("a\xadb\n", "line 1: the id must not hold a character that nobody sees: U+00AD"),
        ("\u202ea\n", "line 1: the id must not hold a character that nobody sees: U+202E"),
        ('a\n"b\n', "line 2: a quote at the beginning must have one at the end"),
        ('""\n', "line 1: a quote at the beginning"),
        ('"\n', "line 1: a quote at the beginning"),
        ('"a"b"\n', "line 1: a quote at the beginning"),
        ('="A-1"\n', "line 1: the id is a formula"),
        ("5.77E+17\n", "line 1: the id is '5.77E\\+17', to which a spreadsheet has shortened a number"),
        ("#N/A\n", "line 1: the id is a spreadsheet's error"),
    ],
)
def test_a_line_that_holds_no_id_is_named(data: str, said: str) -> None:
    with pytest.raises(InputError, match=said.replace("+20", r"\+20").replace("+F", r"\+F").replace("+0", r"\+0")):
        read(data)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("head", ["{}", "sep={}\n{}", "{}{}{}\n{}", "\ufeff{}"])
def test_a_column_is_read_whatever_is_around_it(delimiter: str, end: str, head: str) -> None:
    """Padding above, right and below, a line `sep=`, the name in another case, quotes."""
    table = [
        f'"Order_ID"{delimiter}total{delimiter}',
        f'"A-1"{delimiter}5{delimiter}',
        delimiter * 2,
        f"A-2{delimiter}6{delimiter}",
    ]
    first = head.replace("{}", delimiter, head.count("{}") - 1).replace("{}", table[0])
    text = end.join([*first.split("\n"), *table[1:]]) + end
    assert read(text, column="order_id") == ["A-1", "A-2"]
    with pytest.raises(InputError, match="the header has no column other"):
        read(text, column="other")


def test_the_lines_of_a_table_are_counted_as_they_stand() -> None:
    """Past what stands above the names, and past rows of bare delimiters."""
    with pytest.raises(InputError, match="in line 5: the column id is empty"):
        read("sep=;\n;;\nid;x\nA;1\n;2\n", column="id")
    with pytest.raises(InputError, match=r"in line 3: .*is a quote not closed"):
        read('id,x\nA,1\n"B,2\n', column="id")
    with pytest.raises(InputError, match="in line 2: the id is a formula"):
        read('id\n"=""A"""\n', column="id")


def test_a_line_that_never_ends_is_refused_and_many_short_ones_are_not() -> None:
    """Ends in CR alone are ends too, however much of a file they are."""
    with pytest.raises(InputError, match="line 2: longer than"):
        read(b"a\r" + b"b" * (LINE_LIMIT + 1))
    many = [f"A-{number}" for number in range(200_000)]
    assert read("\r".join(many)) == many


def test_a_file_is_read_by_its_path_and_named_by_it(tmp_path: Path) -> None:
    """As text or as a path; it is opened when the first id is asked for, and closed however the reading ends."""
    file = tmp_path / "ids.txt"
    file.write_text("A-1\nA-2\n\u200b\n")
    for path in (file, str(file)):
        ids = read_ids(path)
        assert [next(ids), next(ids)] == ["A-1", "A-2"]
        with pytest.raises(InputError, match=f"^{file} line 3: "):
            next(ids)
    absent = read_ids(tmp_path / "absent")
    with pytest.raises(FileNotFoundError):
        next(absent)


@pytest.mark.parametrize("picks", [{}, {"column": "id"}, {"field": "id"}])
def test_a_file_is_closed_however_the_reading_ends(picks: dict[str, str]) -> None:
    """At its end, at a bad line, and when who reads it leaves."""
    data = {"": b"A\nB\n", "column": b"id\nA\nB\n", "field": b'{"id": "A"}\n{"id": "B"}\n'}["".join(picks)]
    whole, left, bad = io.BytesIO(data), io.BytesIO(data), io.BytesIO(data + b'"')
    assert list(read_ids(whole, **picks)) == ["A", "B"]
    ids = read_ids(left, **picks)
    assert next(ids) == "A"
    del ids
    with pytest.raises(InputError, match=r"^input line "):
        list(read_ids(bad, **picks))
    assert (whole.closed, left.closed, bad.closed) == (True, True, True)


def test_an_open_file_has_its_own_name(tmp_path: Path) -> None:
    """And so its ending says what it is, unless another name is given."""
    (tmp_path / "ids.csv").write_text("id\nA\n")
    with pytest.raises(InputError, match=r"ids\.csv is a table"):
        list(read_ids((tmp_path / "ids.csv").open("rb")))
    assert list(read_ids((tmp_path / "ids.csv").open("rb"), name="ids.txt")) == ["id", "A"]


def test_a_file_is_csv_or_jsonl_and_not_both() -> None:
    with pytest.raises(ValueError, match="column and field exclude each other"):
        read_ids("ids", column="id", field="id")
