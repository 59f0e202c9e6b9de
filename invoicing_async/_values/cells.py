"""Text in the cells of a CSV file that a spreadsheet opens: no cell is run as a formula, and each reads back as it was.

A spreadsheet takes a cell for a formula if it begins with one of a few characters, whoever wrote it: a key, a buyer, a
service's message. An apostrophe in front makes it text. It is taken away again when the file comes back, and so that
this is exact, a text that begins with apostrophes and then such a character gets one more.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from decimal import Decimal
from io import StringIO

__all__ = ["BOM", "csv_line", "inert", "original"]

BOM = "\N{ZERO WIDTH NO-BREAK SPACE}"
"""The byte order mark by which a spreadsheet recognises UTF-8, at the very beginning of a file."""

_RUNS = re.compile(r"'*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
"""The beginnings of a formula, full-width ones included, and of a text that would read back as one."""

_MADE_INERT = re.compile(r"'+[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")


def inert(text: str) -> str:
    """Return the text as a cell that no spreadsheet runs."""
    return f"'{text}" if _RUNS.match(text) else text


def original(cell: str) -> str:
    """Return the text of a cell that `inert` made; every other cell is its own text."""
    return cell[1:] if _MADE_INERT.match(cell) else cell


def csv_line(cells: Iterable[object]) -> str:
    """Return one line of CSV with its end: None is an empty cell, text is inert, numbers have all their digits."""
    text = StringIO()
    csv.writer(text).writerow(map(_cell, cells))
    return text.getvalue()


def _cell(value: object) -> object:
    match value:
        case None:
            return ""
        case str():
            return inert(value)
        case Decimal():
            return f"{value:f}"
        case _:
            return value
