"""The JSON lines of every command as a JSON Schema (draft 2020-12), made of what makes the lines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import get_args

from attrs import fields_dict

from ..settings import Finding, Grade
from ._columns import Schema
from ._row_types import (
    CHECKS,
    DOCUMENT_ITEMS,
    DOWNLOADS,
    INVOICE_ITEMS,
    REFRESHES,
    SHEETS,
    SUBMISSIONS,
    WAITS,
)

__all__ = ["JSON_LINES", "json_schema"]

_TEXT: Schema = {"type": "string"}
_TEXT_OR_NULL: Schema = {"type": ["string", "null"]}
_COUNTS: Schema = {"type": "object", "additionalProperties": {"type": "integer"}}
_TEXTS: Schema = {"type": "object", "additionalProperties": {"type": "string"}}


def _object(title: str, **properties: Schema) -> Schema:
    return {
        "title": title,
        "type": "object",
        "properties": properties,
        "required": [*properties],
        "additionalProperties": False,
    }


_HOLDER = _object("The process that works on it", pid={"type": ["integer", "null"]}, host=_TEXT, since=_TEXT)

_KINDS: Mapping[str, Schema] = {
    "download": DOWNLOADS.schema(),
    "submission": SUBMISSIONS.schema(),
    "request": WAITS.schema(),
    "document_item": DOCUMENT_ITEMS.schema(),
    "invoice_item": INVOICE_ITEMS.schema(),
    "sheet": SHEETS.schema(),
    "check": CHECKS.schema(),
    "refresh": REFRESHES.schema(),
    "run": _object(
        "A run file",
        file=_TEXT,
        kind={"enum": ["documents", "invoices"]},
        begun=_TEXT,
        held_by={"anyOf": [_HOLDER, {"type": "null"}]},
        total={"type": "integer"},
        counts=_COUNTS,
        without_file={"type": "integer"},
        authority=_COUNTS,
        settings={"type": "object"},
        next={"type": "array", "items": _TEXT},
    ),
    "counts": _object("How many items stand in each state", file=_TEXT, counts=_COUNTS),
    "ledger": _object(
        "The tables for runs in a database",
        server=_TEXT,
        version={"type": "integer"},
        needed={"type": "integer"},
        fault=_TEXT_OR_NULL,
        is_too_new={"type": "boolean"},
        done={"type": "array", "items": _TEXT},
    ),
    "import": _object(
        "A run that was carried over to a server",
        file=_TEXT,
        run=_TEXT,
        kind={"enum": ["documents", "invoices"]},
        items={"type": "integer"},
        entries={"type": "integer"},
    ),
    "page": _object("A page that was written, and its size in bytes", file=_TEXT, page=_TEXT, size={"type": "integer"}),
    "finding": _object(
        "One thing that was looked at",
        **{name: {"enum": [*get_args(Grade)]} if name == "grade" else _TEXT for name in fields_dict(Finding)},
    ),
    "signature": _object(
        "A signature, secrets masked",
        method=_TEXT,
        path=_TEXT,
        timestamp_ms={"type": "integer"},
        body_sha256=_TEXT,
        base_string=_TEXT,
        hmac_sha256=_TEXT,
        headers=_TEXTS,
    ),
}

JSON_LINES: Mapping[str, tuple[str, ...]] = {
    "doctor": ("finding",),
    "documents download": ("download",),
    "invoices status": ("request",),
    "invoices submit": ("submission",),
    "invoices wait": ("request",),
    "ledger check": ("ledger",),
    "ledger migrate": ("ledger",),
    "runs accept-lost-log": ("counts",),
    "runs export": ("sheet",),
    "runs import": ("import",),
    "runs refresh": ("refresh",),
    "runs report": ("page",),
    "runs resolve": ("invoice_item",),
    "runs resume": ("download", "submission"),
    "runs retry": ("invoice_item",),
    "runs show": ("run", "document_item", "invoice_item"),
    "runs verify": ("check",),
    "sign": ("signature",),
}
"""The kinds of lines, by name in `$defs`, that each command prints with `--json`."""


def json_schema(command: str | None = None) -> Schema:
    """Return the JSON Schema (draft 2020-12) of a line that a command prints with `--json`; of all commands without.

    A line is one of `$defs` and has all of its members, null where there is nothing, and no others. New versions
    may add members and kinds; they take none away but in a major version. Raises `ValueError` for a command that prints
    no such lines.
    """
    if command is not None and command not in JSON_LINES:
        raise ValueError(f"the command must be one of {', '.join(JSON_LINES)}, got {command!r}")
    kinds = [*_KINDS] if command is None else JSON_LINES[command]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"A JSON line of invoicing-async{f' {command}' if command else ''}",
        "anyOf": [{"$ref": f"#/$defs/{kind}"} for kind in kinds],
        "$defs": {kind: _KINDS[kind] for kind in kinds},
    }
