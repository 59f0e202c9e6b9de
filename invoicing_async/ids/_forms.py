"""Whether a file is a list of ids as it stands, or a table or records; `invoicing_async.ids` has the table."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from enum import Enum
from pathlib import PurePath
from typing import Any

from ..drafts import Head, Numbered, head_of
from ._lines import InputError

__all__ = ["Form", "form_of", "looked_at"]

TABLES = {".csv", ".tsv", ".tab"}
RECORDS = {".jsonl", ".ndjson", ".json"}
NAMES, WIDTH = 12, 40
"""Columns or fields that are named at most, and the characters of each."""

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_DIGITS = re.compile(r"[0-9]+")


class Form(Enum):
    """How each line of a list holds its id."""

    PLAIN = "as it stands, or in quotes"
    JSON = "as JSON"


def looked_at(numbered: Iterator[tuple[int, str]], name: str) -> tuple[Form, list[tuple[int, str]]]:
    """Read as many lines of a file as it takes to know what it is; return its form and these lines.

    Raises `InputError` as `form_of` does.
    """
    read: list[tuple[int, str]] = []
    # A stream may be slow: only for a table is the second line waited for.
    enough = 2 if _ending(name) in TABLES else 1
    for number, line in numbered:
        if line.strip():
            read.append((number, line))
        if len(read) == enough:
            break
    return form_of(name, [line for _, line in read]), read


def form_of(name: str, lines: Sequence[str]) -> Form:
    """Return how a file of this name holds its ids that begins with these lines, none of them blank.

    Raises `InputError` for one that is no list of ids: it names the columns or fields and says what to write.
    """
    if not lines:
        return Form.PLAIN
    ending = _ending(name)
    if ending in TABLES:
        _refuse_table(name, lines)
    elif ending in RECORDS:
        found = _json(lines[0])
        if isinstance(found, dict):
            raise _has_fields(name, found)
        if isinstance(found, str) or type(found) is int:
            return Form.JSON
        if lines[0].lstrip()[0] in "[{":
            hint = "Write one record a line, or one id a line, as `jq -c '.[]'` does."
            raise InputError(f"{name} line 1: a list or record that is not in one line", hint=hint)
        raise InputError(f"{name} line 1: neither a record nor an id in JSON", may_be_list=True)
    elif isinstance(found := _json(lines[0]), dict) and found:
        raise _has_fields(name, found)
    return Form.PLAIN


def _ending(name: str) -> str:
    return PurePath(name).suffix.lower()


def _refuse_table(name: str, lines: Sequence[str]) -> None:
    head = head_of(Numbered(lines))
    if not isinstance(head, Head):
        raise InputError(f"{name}: {head.message}", may_be_list=True)
    names = [cell for cell in head.names if cell]
    if len(head.names) > 1 or not names:
        picks = names[0] if names else None
        raise InputError(f"{name} is a table; its columns: {_listed(names)}", column=picks, may_be_list=not names)
    # An id cannot be the column's name: a UUID, or digits where the next line has digits and all else alike.
    first, second = names[0], lines[1].strip().strip('"') if len(lines) > 1 else ""
    alike = _DIGITS.search(first) is not None and _DIGITS.sub("0", first) == _DIGITS.sub("0", second)
    if head.line > 1 or not (_UUID.fullmatch(first) or alike):
        raise InputError(f"{name} is a table; its column: {_listed(names)}", column=first, may_be_list=True)


def _json(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _has_fields(name: str, record: dict[str, Any]) -> InputError:
    fields = list(record)
    return InputError(f"{name} has records; their fields: {_listed(fields)}", field=next(iter(fields), None))


def _listed(names: Iterable[str]) -> str:
    shown = [name if len(name) <= WIDTH else f"{name[:WIDTH]}…" for name in names]
    more = f" and {len(shown) - NAMES:,} more" if len(shown) > NAMES else ""
    return ", ".join(shown[:NAMES]) + more or "none has a name"
