"""Lines and rows of a file as people's programs write them: line ends, marks of the encoding, padding, delimiters.

A line ends in LF, CR LF or, as on old Macintoshes and in one of Excel's formats, CR alone. Spreadsheets write a first
line `sep=;`, rows of bare delimiters and columns without a name around a table; none of that is data.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from typing import TypeVar

from attrs import frozen

from ..errors import Fault

__all__ = ["BOM", "DELIMITERS", "UTF_16", "Head", "LineFault", "Numbered", "decoded", "ended", "head_of", "is_padding"]

Line = TypeVar("Line", str, bytes)
BOM = "\ufeff"
UTF_16 = (b"\xff\xfe", b"\xfe\xff")
DELIMITERS = ",;\t|"
_LINES = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
_SEP = re.compile(r'"?sep=([,;\t|])"?[\s,;|]*', re.IGNORECASE)
_PADDING = ' \t,;|"\r\n\ufeff'


@frozen
class LineFault(Fault):
    """A fault at its place in a file: `line` counts from 1, `column` is the CSV column, None where none is at fault."""

    line: int = 0
    column: str | None = None

    def __str__(self) -> str:
        if self.column is not None:
            return f"line {self.line}, column {self.column}: {self.message}"
        return f"line {self.line}, {self.path}: {self.message}" if self.path else f"line {self.line}: {self.message}"


def ended(lines: Iterable[Line]) -> Iterator[Line]:
    """Yield each line apart, its end included, however many were given in one piece."""
    for line in lines:
        if isinstance(line, bytes):
            yield from line.splitlines(keepends=True) if b"\r" in line or b"\n" in line[:-1] else (line,)
        else:
            yield from _LINES.findall(line) if "\r" in line or "\n" in line[:-1] else (line,)


def decoded(number: int, line: str | bytes) -> tuple[str, LineFault | None]:
    """Return a line as text. What is not UTF-8 stays in it as lone surrogates, so that a reader can go on."""
    if isinstance(line, str):
        return line, None
    try:
        return line.decode(), None
    except UnicodeDecodeError as error:
        text = line.decode(errors="surrogateescape")
        said = f"is not UTF-8: byte 0x{line[error.start]:02x} at position {error.start + 1}"
        if number == 1 and line.startswith(UTF_16):
            said = "is UTF-16; save the file as UTF-8"
        return text, LineFault("", said, number)


class Numbered:
    """The lines of a file as text, for `csv`; it keeps what was not UTF-8 until the row that holds it is known."""

    def __init__(self, lines: Iterable[str | bytes]) -> None:
        self._lines = ended(lines)  # type: ignore[type-var] # each line is one or the other
        self.number: int = 0
        self.faults: list[LineFault] = []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self.number += 1
        text, fault = decoded(self.number, line)
        if fault is not None:
            self.faults.append(fault)
        return text.removeprefix(BOM) if self.number == 1 else text

    def taken(self) -> list[LineFault]:
        """Return what was not UTF-8 since this was last asked."""
        faults, self.faults = self.faults, []
        return faults


@frozen
class Head:
    """The row of column names: the line it stands on, what separates the columns, and the names without blanks."""

    line: int
    delimiter: str
    names: tuple[str, ...]


def is_padding(line: str) -> bool:
    """Tell whether a line has nothing but delimiters, quotes and blanks."""
    return not line.strip(_PADDING)


def head_of(source: Numbered) -> Head | LineFault:
    """Read up to the row of column names, past padding and a line `sep=;`, which names the delimiter."""
    delimiter = None
    for line in source:
        said = _SEP.fullmatch(line.strip("\r\n"))
        if said is not None:
            delimiter = said[1]
        elif not is_padding(line):
            return _head(source.number, line.removeprefix(BOM), delimiter or max(DELIMITERS, key=line.count))
    return LineFault("", "there is no row of column names", 1)


def _head(number: int, line: str, delimiter: str) -> Head | LineFault:
    try:
        cells = next(csv.reader([line], delimiter=delimiter, strict=True))
    except csv.Error as error:
        said = f"the row of column names cannot be read as CSV: {error}; is a quote not closed or not doubled?"
        return LineFault("", said, number)
    return Head(number, delimiter, tuple(cell.strip() for cell in cells))
