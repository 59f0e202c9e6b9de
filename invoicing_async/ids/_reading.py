"""Ids from lines, from a CSV column or a JSONL field: one after the other, in bounded memory."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import chain
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO

from ..drafts import Head, Numbered, code_fault, head_of
from ._forms import Form, looked_at
from ._lines import InputError, lines

__all__ = ["read_ids"]


def read_ids(
    source: str | PathLike[str] | BinaryIO,
    *,
    name: str | None = None,
    column: str | None = None,
    field: str | None = None,
) -> Iterator[str]:
    """Yield the ids of a file, one after the other: lines as they stand, a CSV column, or a field of JSONL records.

    `source` is a path, or a file that is open for reading in binary; it is closed at the end. `name` is what errors
    call it, and its ending says what it is (see `invoicing_async.ids`); by default the file's own. With `column` it
    is CSV with a header, the case of the column's name aside; with `field`, JSONL. A blank line is no id, and every
    other must hold one.

    Raises `ValueError` for both a column and a field; then, as far as it is read, `OSError` for a file that cannot be
    read, and `InputError` for one that is no list of ids, or for a line that holds no id, after the ids before it.
    Count a file with `sum(1 for _ in read_ids(path))` to know before the first call that each of its lines has one.
    """
    if column is not None and field is not None:
        raise ValueError("column and field exclude each other: a file is CSV or JSONL")
    path = None if isinstance(source, (str, PathLike)) else getattr(source, "name", None)
    shown = name or (str(source) if isinstance(source, (str, PathLike)) else path if isinstance(path, str) else "input")
    return _read(source, shown, column, field)


def _read(source: str | PathLike[str] | BinaryIO, name: str, column: str | None, field: str | None) -> Iterator[str]:
    with Path(source).open("rb") if isinstance(source, (str, PathLike)) else source as file:
        if column is not None:
            yield from _from_csv(file, name, column)
        elif field is not None:
            yield from _from_lines(lines(file, name), partial(_in_json, field=field), name)
        else:
            numbered = lines(file, name)
            form, read = looked_at(numbered, name)
            yield from _from_lines(chain(read, numbered), _PICKS[form], name)


def _from_lines(numbered: Iterable[tuple[int, str]], pick: Callable[[str, str], str], name: str) -> Iterator[str]:
    for number, line in numbered:
        text = line.strip()
        if text:
            where = f"{name} line {number}"
            yield _checked(pick(text, where), where)


def _checked(text: str, where: str) -> str:
    """Return the id. Raises `InputError` for what nobody can see in it, or what a spreadsheet made of it."""
    if fault := code_fault(text):
        raise InputError(f"{where}: the id {fault}")
    return text


def _unquoted(text: str, where: str) -> str:
    """Take the quotes off a whole line, as CSV writes them. Raises `InputError` for one that has no partner."""
    if not text.startswith('"'):
        return text
    inner = text[1:-1].replace('""', "")
    if len(text) < 3 or not text.endswith('"') or '"' in inner or not text[1:-1].strip():  # noqa: PLR2004 - two quotes, and one character
        raise InputError(f"{where}: a quote at the beginning must have one at the end, with an id between them")
    return text[1:-1].replace('""', '"').strip()


def _in_json(text: str, where: str, *, field: str | None = None) -> str:
    """Return the id that a line of JSON is, or that is in a field of it."""
    try:
        value: Any = json.loads(text)
    except (ValueError, RecursionError):
        raise InputError(f"{where}: not JSON") from None
    if field is not None:
        value = value.get(field) if isinstance(value, dict) else None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not value:
        what = "an id" if field is None else f"the field {field}"
        raise InputError(f"{where}: {what} must be there, as text that is not empty")
    return value


_PICKS: Mapping[Form, Callable[[str, str], str]] = {Form.PLAIN: _unquoted, Form.JSON: _in_json}


def _from_csv(file: BinaryIO, name: str, column: str) -> Iterator[str]:
    source = Numbered(text for _, text in lines(file, name))
    head = head_of(source)
    if not isinstance(head, Head):
        raise InputError(f"{name} line {head.line}: the header has no column {column}: {head.message}")
    index = _column(head, column, f"{name} line {head.line}")
    reader = csv.reader(source, delimiter=head.delimiter, strict=True)
    while True:
        where = f"{name} line {source.number + 1}"
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise InputError(f"{where}: {error}; is a quote not closed or not doubled?") from None
        if any(cell.strip() for cell in row):
            if not (value := row[index].strip() if index < len(row) else ""):
                raise InputError(f"{where}: the column {column} is empty")
            yield _checked(value, where)


def _column(head: Head, column: str, where: str) -> int:
    """Find the column by its name, written as it is or in another case."""
    for names, wanted in ((head.names, column), ([name.lower() for name in head.names], column.lower())):
        if wanted in names:
            return names.index(wanted)
    raise InputError(f"{where}: the header has no column {column}")
