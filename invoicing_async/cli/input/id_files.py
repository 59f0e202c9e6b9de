"""Whether a file is a list of ids as it stands, or a table or records in which `--column` or `--field` finds them.

| the name ends in | the first line | what it is |
|---|---|---|
| .csv, .tsv, .tab | several columns | a table |
| | one cell that must be an id: a UUID, or digits where the next line has digits and all else alike | ids |
| | any other cell | a table of one column |
| .jsonl, .ndjson, .json | an object | records |
| | a text or a whole number | ids in JSON |
| | anything else | neither |
| anything else, and stdin | an object that has fields | records |
| | anything else | ids |

A header that passes for an id is asked for like one. So what may be a header is none, and who means it as an id says so
by giving the file on stdin, which has no ending.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from enum import Enum
from pathlib import PurePath
from shlex import quote
from typing import Any

from ...drafts import Head, Numbered, head_of
from ..exits import CommandError

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

    Raises `CommandError` as `form_of` does.
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

    Raises `CommandError` for one that is no list of ids: it names the columns or fields and says what to write.
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
            raise CommandError(f"{name} line 1: a list or record that is not in one line", hint=hint)
        raise CommandError(f"{name} line 1: neither a record nor an id in JSON", hint=_as_list(name))
    elif isinstance(found := _json(lines[0]), dict) and found:
        raise _has_fields(name, found)
    return Form.PLAIN


def _ending(name: str) -> str:
    return PurePath(name).suffix.lower()


def _refuse_table(name: str, lines: Sequence[str]) -> None:
    head = head_of(Numbered(lines))
    if not isinstance(head, Head):
        raise CommandError(f"{name}: {head.message}", hint=_as_list(name))
    names = [cell for cell in head.names if cell]
    if len(head.names) > 1 or not names:
        hint = f"Say which one has the ids: --column {quote(names[0])}" if names else _as_list(name)
        raise CommandError(f"{name} is a table; its columns: {_listed(names)}", hint=hint)
    # An id cannot be the column's name: a UUID, or digits where the next line has digits and all else alike.
    first, second = names[0], lines[1].strip().strip('"') if len(lines) > 1 else ""
    alike = _DIGITS.search(first) is not None and _DIGITS.sub("0", first) == _DIGITS.sub("0", second)
    if head.line > 1 or not (_UUID.fullmatch(first) or alike):
        hint = f"Write --column {quote(names[0])}. If that is an id and not the column's name: {_as_list(name)}"
        raise CommandError(f"{name} is a table; its column: {_listed(names)}", hint=hint)


def _json(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _has_fields(name: str, record: dict[str, Any]) -> CommandError:
    fields = list(record)
    hint = f"Say which one has the ids: --field {quote(fields[0])}" if fields else ""
    return CommandError(f"{name} has records; their fields: {_listed(fields)}", hint=hint)


def _as_list(name: str) -> str:
    return f"For ids alone, one a line, end its name in .txt, or give - < {quote(name)}"


def _listed(names: Iterable[str]) -> str:
    shown = [name if len(name) <= WIDTH else f"{name[:WIDTH]}…" for name in names]
    more = f" and {len(shown) - NAMES:,} more" if len(shown) > NAMES else ""
    return ", ".join(shown[:NAMES]) + more or "none has a name"
