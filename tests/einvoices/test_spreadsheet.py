"""Cells and tables as spreadsheets write them: read as they were meant, or refused with what to write instead."""

from __future__ import annotations

import io
from decimal import Decimal
from typing import Any

import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from invoicing_async._einvoices.spreadsheet import addresses, code_fault, formula_fault, number, vat_rate
from invoicing_async._values.table import ended
from invoicing_async.cli.input.drafts import Reading, read_drafts
from invoicing_async.drafts import COLUMNS, DraftsFileError, LineFault, example_csv, read_csv, read_jsonl
from invoicing_async.errors import Fault
from invoicing_async.models import InvoiceDraft, VatRate

TEMPLATE = "3fa85f64-5717-4562-b3fc-2c963f66afa6"
HEAD = "key,invoice_template_id,name,unit,price,quantity"
ROW = f"A-1,{TEMPLATE},Lamp,piece,12.50,2"
QUICK = examples(400)


def read(text: str | bytes, **options: Any) -> list[InvoiceDraft]:
    data = text.encode() if isinstance(text, str) else text
    return [at.draft for at in read_csv(io.BytesIO(data), **options)]


def refused(text: str | bytes, **options: Any) -> list[str]:
    with pytest.raises(DraftsFileError) as caught:
        read(text, **options)
    return [str(fault) for fault in caught.value.faults]


WHOLE = st.integers(0, 10**12)
SIGNS = st.sampled_from(["", "-", "+"])
DECIMALS = st.text("0123456789", max_size=6)


def grouped(whole: int, group: str) -> str:
    return f"{whole:,}".replace(",", group)


@QUICK
@given(
    WHOLE,
    DECIMALS,
    st.sampled_from(["", "-", "+"]),
    st.sampled_from([",", "."]),
    st.sampled_from(["", "o", " ", "\xa0"]),
)
def test_with_a_decimal_mark_every_writing_is_the_number_that_was_meant(
    whole: int, decimals: str, sign: str, mark: Any, group: str
) -> None:
    """Thousands grouped by the other mark, by blanks or not at all; any decimals."""
    other = "." if mark == "," else ","
    text = sign + grouped(whole, other if group == "o" else group) + (mark + decimals if decimals else "")
    assert number(text, mark) == Decimal(f"{sign}{whole}.{decimals or 0}")
    assert str(number(text, mark)) == str(Decimal(f"{sign}{whole}.{decimals}" if decimals else f"{sign}{whole}"))


@QUICK
@given(WHOLE, DECIMALS, SIGNS)
def test_without_one_a_number_is_what_it_is_or_may_be_a_thousand(whole: int, decimals: str, sign: str) -> None:
    """Refused exactly when a point stands before three digits and one to three stand before it, none a leading 0."""
    text = f"{sign}{whole}" + (f".{decimals}" if decimals else "")
    doubtful = len(decimals) == 3 and 0 < whole < 1000
    assert isinstance(number(text), Fault) is doubtful
    assert number(text, points_may_group=False) == Decimal(text)
    if not doubtful:
        assert number(text) == Decimal(text)


@QUICK
@given(st.text("0123456789.,-+ eE\xa0()'", max_size=12), st.sampled_from([None, ".", ","]), st.booleans())
def test_a_cell_is_a_number_or_a_fault_and_never_another_number(text: str, mark: Any, points: bool) -> None:  # noqa: FBT001 - drawn
    """Whatever is read has the digits of the cell in their order, and no reading depends on chance."""
    found = number(text, mark, points_may_group=points)
    if isinstance(found, Fault):
        assert found.message
        return
    kept = "".join(character for character in text if character.isdigit())
    assert f"{found.copy_abs():f}".replace(".", "").lstrip("0") == kept.lstrip("0")
    assert found == number(text, mark, points_may_group=False)


@pytest.mark.parametrize(
    ("text", "mark", "meant"),
    [
        ("240.000", ",", 240000), ("240.000", ".", 240), ("1.234,5", ",", "1234.5"), ("1,234.5", ".", "1234.5"),
        ("1.234.567", ",", 1234567), ("0,5", ",", "0.5"), ("-1.000", ",", -1000), ("12,50", ",", "12.50"),
        ("1 234 567,89", ",", "1234567.89"), ("240\u202f000", ",", 240000), ("240", ",", 240), ("0240", ",", 240),
    ],
)  # fmt: skip
def test_a_decimal_mark_settles_it(text: str, mark: Any, meant: Any) -> None:
    assert number(text, mark) == Decimal(meant)


@pytest.mark.parametrize(
    ("text", "mark"),
    [
        ("240.00", ","), ("1234.567", ","), ("0.125", ","), ("1.23.456", ","), ("1,2,3", ","), ("1,234,5", "."),
        ("1,23", "."), (",5", ","), ("5,", ","), ("1.234 567", ","), ("1E+3", ","), ("(240)", ","), ("\u2212240", "."),
        ("", None), ("240.", None), (".5", None), ("1_000", None), ("٣", None), ("NaN", None), ("1E+05", None),
        ("1.234.567", None), ("240,5", None), ("240,000", None), ("1 234", None), ("₫5", None), ("5đ", None),
    ],
)  # fmt: skip
def test_what_is_no_number_by_its_mark_is_refused(text: str, mark: Any) -> None:
    assert isinstance(number(text, mark), Fault)


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_a_thousand_in_a_table_of_another_delimiter_is_refused_with_what_to_write(delimiter: str) -> None:
    table = f"{HEAD}\n{ROW.replace('12.50', '240.000')}\n".replace(",", delimiter)
    [said] = refused(table)
    assert said.startswith("line 2, column price: may be 240000 or 240: '240.000'")
    assert "write 240000 or 240.0000" in said
    assert "--decimal-mark" in said
    assert read(table, decimal_mark=",")[0].lines[0].price == 240000
    assert str(read(table, decimal_mark=".")[0].lines[0].price) == "240.000"
    for written in ("240000", "240.0000"):
        assert read(table.replace("240.000", written))[0].lines[0].price == Decimal(written)


def test_a_comma_elsewhere_makes_a_point_doubtful_even_where_commas_part_the_columns() -> None:
    """After it each such number is refused; one read before is told for the whole file, so that nothing is sent."""
    dotted, comma = ROW.replace("12.50", "240.000"), ROW.replace("12.50", '"12,50"')
    assert read(f"{HEAD}\n{dotted}\n")[0].lines[0].price == 240
    after = refused(f"{HEAD}\n{comma}\n{dotted.replace('A-1', 'A-2')}\n")
    assert [said.split(":")[0] for said in after] == ["line 2, column price", "line 3, column price"]
    before = refused(f"{HEAD}\n{dotted}\n{comma.replace('A-1', 'A-2')}\n")
    assert before[0].startswith("line 1: a number on line 3 has a comma, so 240.000 on line 2 may be a thousand")


def test_the_command_line_sends_nothing_of_a_file_whose_numbers_are_doubtful(tmp_path: Any) -> None:
    """Not even with --skip-invalid: such a fault stands at the head."""
    file = tmp_path / "d.csv"
    comma = ROW.replace("12.50", '"12,50"').replace("A-1", "A-2")
    file.write_text(f"{HEAD}\n{ROW.replace('12.50', '240.000')}\n{comma}\n")
    names = Reading()
    from invoicing_async import WireNames

    assert read_drafts(str(file), WireNames(), names).head
    assert not read_drafts(str(file), WireNames(), Reading(decimal_mark=",")).head


@pytest.mark.parametrize("wrong", ["", ";", "comma", 1])
def test_a_decimal_mark_is_a_point_or_a_comma(wrong: Any) -> None:
    with pytest.raises(ValueError, match="decimal_mark must be"):
        read_csv([], decimal_mark=wrong)


@pytest.mark.parametrize(
    "code",
    [
        "0312345678", "0312345678-001", "+84 24 3825 1111", "(024) 3825-1111", "A-1", "1E5", "12E45", "2E-10", "E+5",
        "INV/2025/01", "#1", "# 12", "O'Brien-1", "=", "a=b", "1.5", "3,12", "ĐH-1", "x#N/A", "001", "A B",
    ],
)  # fmt: skip
def test_a_code_as_it_was_given_is_a_code(code: str) -> None:
    assert code_fault(code) == ""


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ('="0312345678"', "write 0312345678 alone"), ('= "031"', "write 031 alone"),
        ("'0312345678", "write 0312345678 alone"), ("'", "begins with an apostrophe"),
        ("3.12346E+08", "write all its digits"), ("3,12346E+08", "write all its digits"), ("4E+17", "write all its"),
        ("7.9e+10", "write all its digits"), ("-3.1E-05", "write all its digits"), ("3.12346E+008", "write all"),
        ("#N/A", "spreadsheet's error"), ("#REF!", "spreadsheet's error"), ("#DIV/0!", "spreadsheet's error"),
        ("#######", "column too narrow"), ("#name?", "spreadsheet's error"),
        ("0312\u200b345678", "U+200B"), ("\ufeff0312345678", "U+FEFF"), ("03\xad12", "U+00AD"), ("03\xa012", "U+00A0"),
    ],
)  # fmt: skip
def test_what_a_spreadsheet_made_of_a_code_is_refused_with_what_to_write(code: str, said: str) -> None:
    assert said in code_fault(code)


@pytest.mark.parametrize("column", ["key", "consumer_tax_code", "consumer_phone", "consumer_citizen_identification",
                                    "consumer_bank_account", "consumer_code", "code", "extra_po"])  # fmt: skip
@pytest.mark.parametrize("cell", ["3.12E+09", '="031"', "'031", "#N/A", "031\u200b"])
def test_every_column_of_codes_is_looked_at(column: str, cell: str) -> None:
    """By line and column; and the same text written plainly is taken."""
    quoted = '"' + cell.replace('"', '""') + '"'
    head, row = (HEAD, ROW.replace("A-1", quoted)) if column == "key" else (f"{HEAD},{column}", f"{ROW},{quoted}")
    faults = refused(f"{head}\n{row}\n")
    assert [said.split(":")[0] for said in faults] == [f"line 2, column {column}"]
    assert read(f"{head}\n{row.replace(quoted, '0312345678')}\n")


@pytest.mark.parametrize(
    "name", ["'90s poster", "Bàn = ghế", "1E+05 bolts", "#1 tea", "a\u200bb", "👨\u200d👩\u200d👧", "(5)"]
)
def test_a_name_may_be_any_text(name: str) -> None:
    assert formula_fault(name) == ""
    assert read(f"{HEAD}\n{ROW.replace('Lamp', name)}\n")[0].lines[0].name == name


@pytest.mark.parametrize("name", ['"=""Lamp"""', "#N/A", "La\ufeffmp"])
def test_a_name_is_no_formula_and_no_error(name: str) -> None:
    assert [said.split(":")[0] for said in refused(f"{HEAD}\n{ROW.replace('Lamp', name)}\n")] == ["line 2, column name"]


@pytest.mark.parametrize(
    ("line", "path"),
    [
        ('"consumer": {"tax_code": "3.12E+09"}', "consumer.tax_code"),
        ('"consumer": {"phone": "=\\"031\\""}', "consumer.phone"),
        ('"consumer": {"tax_code": "0312345678\u200b"}', "consumer.tax_code"),
    ],
)
def test_jsonl_made_of_a_spreadsheet_is_looked_at_too(line: str, path: str) -> None:
    lines = '"invoice_lines": [{"name": "n", "unit": "u", "price": 1, "quantity": 1}]'
    with pytest.raises(DraftsFileError) as caught:
        list(read_jsonl([f'{{"key": "A", "invoice_template_id": "{TEMPLATE}", {lines}, {line}}}']))
    assert [fault.path for fault in caught.value.faults] == [path]


@pytest.mark.parametrize(
    ("cell", "rate"),
    [
        *((name, rate) for rate in VatRate for name in (rate.value, rate.value.lower(), rate.value.title())),
        *((text, VatRate.EIGHT) for text in ("8", "8%", "8 %", "8.0%", "8,0%", "8.00")),
        ("0%", VatRate.ZERO), ("5%", VatRate.FIVE), ("5", VatRate.FIVE), ("10%", VatRate.TEN), ("10", VatRate.TEN),
    ],
)  # fmt: skip
def test_a_tax_rate_is_a_name_or_a_rate(cell: str, rate: VatRate) -> None:
    assert vat_rate(cell) is rate


@pytest.mark.parametrize(
    "cell", ["0", "0.0", "KCT", "KKKNT", "0.08", "8.5%", "18", "7%", "-8%", "8%%", "%", "1 0", "80"]
)
def test_any_other_tax_rate_is_refused(cell: str) -> None:
    found = vat_rate(cell)
    assert isinstance(found, Fault)
    assert "UNDECLARED, NONE, ZERO" in found.message


@QUICK
@given(
    st.lists(
        st.from_regex(r"[a-z0-9.+_'-]{1,8}@[a-z0-9-]{1,8}(\.[a-z]{2,4}){0,2}", fullmatch=True), min_size=1, max_size=4
    ),
    st.lists(st.sampled_from([",", ";", " ", ", ", "; ", "\n", " ; "]), min_size=4, max_size=4),
    st.sampled_from(["", ",", ";", " ", "; "]),
)
def test_addresses_in_a_cell_are_each_one_address(emails: list[str], between: list[str], end: str) -> None:
    """Whatever stands between them and behind the last."""
    cell = "".join(part for pair in zip(emails, between, strict=False) for part in pair) + end
    assert addresses(cell) == tuple(emails)
    quoted = cell.replace('"', '""')
    [draft] = read(f'{HEAD},submit_to_tax_emails\n{ROW},"{quoted}"\n')
    assert draft.submit_to_tax is not None
    assert draft.submit_to_tax.emails == tuple(emails)


def padded(lines: list[str], left: int) -> list[str]:
    return [line + "," * left for line in lines]


@QUICK
@given(
    st.sampled_from([",", ";", "\t"]),
    st.sampled_from(["\n", "\r\n", "\r", "\r\r\n"]),
    st.booleans(),
    st.integers(0, 3),
    st.lists(st.sampled_from(["", ",,,,,", " ", '"",""']), max_size=3),
    st.sampled_from([None, "plain", "quoted", "padded"]),
    st.sampled_from([str.lower, str.upper, str.title]),
    st.integers(0, 2),
)
def test_a_table_is_read_whatever_a_program_wrote_around_it(
    delimiter: str,
    end: str,
    bom: bool,  # noqa: FBT001 - drawn
    columns: int,
    above: list[str],
    sep: str | None,
    case: Any,
    again: int,
) -> None:
    """Line ends, mark, delimiter, padding on each side, a line `sep=`, names in any case, the names again."""
    rows = padded([ROW, ROW.replace("A-1", "A-2")], columns)
    head = padded([case(HEAD)], columns)
    lines = [line.replace(",", delimiter) for line in [*above, *head, *rows, *head * again, ",,,,,"]]
    said = {"plain": f"sep={delimiter}", "quoted": f'"sep={delimiter}"', "padded": f"sep={delimiter}" + delimiter * 5}
    lines = [said[sep], *lines] if sep else lines
    text = ("\ufeff" if bom else "") + end.join(lines) + end
    found = read(text)
    assert [draft.key for draft in found] == ["A-1", "A-2"]
    assert found[0].lines[0].price == Decimal("12.50")
    # In one piece or line by line, in text or bytes: the same.
    assert [at.draft for at in read_csv([text])] == found
    assert [at.draft for at in read_csv(text.encode().splitlines(keepends=True))] == found


def test_a_value_in_a_column_without_a_name_is_a_fault() -> None:
    assert read(f"{HEAD},,\n{ROW},,\n")
    assert refused(f"{HEAD},,\n{ROW},,x\n") == ["line 2, column (no name): holds 'x' in a column that has no name"]
    assert refused(f"{HEAD}\n{ROW},,x\n") == ["line 2: has 8 cells, the row of column names has 6"]


@pytest.mark.parametrize("head", [f'{HEAD},"consumer_name', f'{HEAD},"a"b'])
def test_a_row_of_names_that_is_no_csv_is_one_fault(head: str) -> None:
    [said] = refused(f"{head}\n{ROW},x\n")
    assert said.startswith("line 1: the row of column names cannot be read as CSV")


def test_a_cell_beyond_all_bounds_is_a_fault_with_its_line() -> None:
    [said] = refused(f"{HEAD}\n{ROW.replace('Lamp', 'n' * 200_000)}\n")
    assert said.startswith("line 2: cannot be read as CSV: field larger than field limit")


def test_an_inner_byte_order_mark_of_a_key_is_one_fault_of_it() -> None:
    """Two files put together without their row of names."""
    [said] = refused(f"{HEAD}\n{ROW}\n\ufeff{ROW.replace('A-1', 'A-2')}\n")
    assert said.startswith("line 3, column key: must not hold a character that nobody sees: U+FEFF")
    assert len(read(f"{HEAD}\n{ROW}\n\ufeff{HEAD}\n{ROW.replace('A-1', 'A-2')}\n")) == 2


def test_jsonl_may_end_its_lines_in_cr_alone() -> None:
    """And a draft given whole may have line ends in it."""
    lines = '[{"name": "n", "unit": "u", "price": 1, "quantity": 1}]'
    texts = [f'{{"key": "A-{number}", "invoice_template_id": "{TEMPLATE}", "lines": {lines}}}' for number in (1, 2)]
    expected = [(1, "A-1"), (2, "A-2")]
    for given_ in (["\r".join(texts)], ["\r".join(texts).encode()], [text.replace(",", ",\r\n") for text in texts]):
        assert [(at.line, at.draft.key) for at in read_jsonl(given_)] == expected


@QUICK
@given(st.lists(st.text("ab,\r\n\x85\u2028", max_size=8), max_size=5))
def test_lines_are_parted_at_line_ends_and_nowhere_else(texts: list[str]) -> None:
    """Nothing is lost or added, and text and bytes are parted alike."""
    found = list(ended(texts))
    assert "".join(found) == "".join(texts)
    assert [line.encode() for line in found] == list(ended([text.encode() for text in texts]))
    assert all(line == "" or line.replace("\r\n", "\n").find(end) in {-1, len(line.replace("\r\n", "\n")) - 1}
               for line in found for end in "\r\n")  # fmt: skip


def test_the_example_has_every_column_and_is_read_back() -> None:
    """Several drafts, each of several lines, without a fault."""
    text = example_csv(3)
    assert text.splitlines()[0].split(",") == [*COLUMNS]
    assert [(draft.key, len(draft.lines)) for draft in read(text)] == [
        (f"ORDER-000{number}", 2) for number in (1, 2, 3)
    ]


def test_a_fault_of_a_line_is_what_it_was() -> None:
    assert str(LineFault("", "m", 3, "c")) == "line 3, column c: m"
    assert str(LineFault("p", "m", 3)) == "line 3, p: m"
    assert str(LineFault("", "m", 3)) == "line 3: m"
