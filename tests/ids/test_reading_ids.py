"""Order ids as they are pasted and exported: read as they were meant, or refused by line before anything is asked."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from invoicing_async._einvoices.spreadsheet import code_fault
from invoicing_async.cli.exits import CommandError
from invoicing_async.cli.input.options import IdSource
from invoicing_async.cli.stop import Stop
from invoicing_async.ids import _reading as ids


def read(data: str | bytes, column: str | None = None, field: str | None = None) -> list[str]:
    raw = data.encode() if isinstance(data, str) else data
    return list(ids.picked(io.BytesIO(raw), "in", IdSource(column=column, field=field)))


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
@settings(max_examples=300, deadline=None)
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
    with pytest.raises(CommandError, match=said.replace("+20", r"\+20").replace("+F", r"\+F").replace("+0", r"\+0")):
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
    with pytest.raises(CommandError, match="the header has no column other"):
        read(text, column="other")


def test_the_lines_of_a_table_are_counted_as_they_stand() -> None:
    """Past what stands above the names, and past rows of bare delimiters."""
    with pytest.raises(CommandError, match="in line 5: the column id is empty"):
        read("sep=;\n;;\nid;x\nA;1\n;2\n", column="id")
    with pytest.raises(CommandError, match=r"in line 3: .*is a quote not closed"):
        read('id,x\nA,1\n"B,2\n', column="id")
    with pytest.raises(CommandError, match="in line 2: the id is a formula"):
        read('id\n"=""A"""\n', column="id")


def test_nothing_is_given_of_a_file_with_a_bad_line(tmp_path: Path) -> None:
    """It is read through before it is used, and its ids are counted."""
    file = tmp_path / "ids.txt"
    file.write_text("A-1\nA-2\u200b\n")
    with pytest.raises(CommandError, match="line 2"), ids.open_ids(str(file), IdSource(), Stop(lambda: None)):
        pytest.fail("nothing may be asked for")
    file.write_bytes(b"A-1\r\rA-2\r")
    with ids.open_ids(str(file), IdSource(), Stop(lambda: None)) as found:
        assert found.about == 2
        assert list(found.items) == ["A-1", "A-2"]  # type: ignore[arg-type] # a file is read as it is


def test_a_line_that_never_ends_is_refused_and_many_short_ones_are_not() -> None:
    """Ends in CR alone are ends too, however much of a file they are."""
    with pytest.raises(CommandError, match="line 2: longer than"):
        read(b"a\r" + b"b" * (ids.LINE_LIMIT + 1))
    many = [f"A-{number}" for number in range(200_000)]
    assert read("\r".join(many)) == many
