"""Cells that a spreadsheet opens: none runs, each reads back as it was."""

from __future__ import annotations

import csv
import io
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from invoicing_async._values.cells import csv_line, inert, original

RUNS = "=+-@\t\r\n\uff1d\uff0b\uff0d\uff20"
"""Characters by which a spreadsheet knows a formula, or might."""

TEXTS = st.text(st.one_of(st.sampled_from(RUNS + "'"), st.characters(codec="utf-8")))


@given(TEXTS)
def test_no_cell_begins_as_a_formula_and_each_reads_back(text: str) -> None:
    """Over every text: what is written is inert, and what is read is what was there, however often it goes round."""
    cell = inert(text)
    assert not cell.startswith(tuple(RUNS))
    assert original(cell) == text
    assert original(inert(cell)) == cell


@given(st.lists(TEXTS, min_size=1, max_size=5))
def test_a_line_of_cells_is_one_row_of_csv(texts: list[str]) -> None:
    """Quotes, commas and line ends in a text stay in its cell."""
    [row] = csv.reader(io.StringIO(csv_line(texts), newline=""))
    assert [original(cell) for cell in row] == texts


@pytest.mark.parametrize("text", ["", "ORDER-1", "Đơn-1", "a=b", "'tis", "1-2", " =1", "0101243150", "a'=b"])
def test_what_cannot_run_is_left_as_it_is(text: str) -> None:
    """Only a beginning makes a formula."""
    assert inert(text) == original(text) == text


def test_numbers_keep_their_digits_and_their_sign() -> None:
    """A number is no formula, and never gets an exponent."""
    assert csv_line([None, -5, Decimal("-1E+3"), Decimal("480000.10"), 2.5]) == ",-5,-1000,480000.10,2.5\r\n"
