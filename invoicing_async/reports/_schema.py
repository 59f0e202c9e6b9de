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
_NUMBER: Schema = {"type": "integer"}
_REAL_OR_NULL: Schema = {"type": ["number", "null"]}
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

_TWICE = _object("An invoice that may be there twice", key=_TEXT, request_id=_TEXT_OR_NULL, other_request_id=_TEXT)

_STANDING = _object(
    "A run on a server, for whoever watches over it",
    at=_TEXT,
    open=_NUMBER,
    in_flight=_NUMBER,
    in_doubt=_NUMBER,
    oldest={
        "anyOf": [
            _object("What is being sent for the longest time", key=_TEXT, sent_at=_TEXT_OR_NULL, seconds=_REAL_OR_NULL),
            {"type": "null"},
        ]
    },
    stuck=_NUMBER,
    halted=_TEXT_OR_NULL,
    halted_why=_TEXT_OR_NULL,
    paused=_TEXT_OR_NULL,
    per_second={"type": "number"},
    seconds_to_go=_REAL_OR_NULL,
    pieces={
        "anyOf": [
            _object(
                "Pieces of the work", todo=_NUMBER, doing=_NUMBER, silent=_NUMBER, is_forgotten={"type": "boolean"}
            ),
            {"type": "null"},
        ]
    },
    workers={
        "type": "array",
        "items": _object(
            "A worker",
            worker=_NUMBER,
            host=_TEXT,
            pid=_NUMBER,
            version=_TEXT,
            started=_TEXT,
            silent={"type": "number"},
            done=_NUMBER,
            rate={"type": "number"},
            slots=_NUMBER,
            doing=_TEXT_OR_NULL,
            alive={"type": "boolean"},
        ),
    },
    lanes={
        "type": "array",
        "items": _object(
            "What the workers share of the service",
            lane=_TEXT,
            per_second=_REAL_OR_NULL,
            free_at=_TEXT_OR_NULL,
            paused_since=_TEXT_OR_NULL,
            paused_until=_TEXT_OR_NULL,
            probe_by={"type": ["integer", "null"]},
            probe_until=_TEXT_OR_NULL,
        ),
    },
    tables={
        "type": "array",
        "items": _object("How a table is kept", table=_TEXT, rows=_NUMBER, dead=_NUMBER, vacuumed=_TEXT_OR_NULL),
    },
)

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
        twice={"type": "array", "items": _TWICE},
        wrong={"type": "array", "items": _object("What is wrong, and the command for it", what=_TEXT, command=_TEXT)},
        standing={"anyOf": [_STANDING, {"type": "null"}]},
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
    "order": _object(
        "What a run on a server was told",
        run=_TEXT,
        state={"enum": ["paused", "going on"]},
        in_doubt={"type": ["integer", "null"]},
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
    "runs pause": ("order",),
    "runs refresh": ("refresh",),
    "runs report": ("page",),
    "runs resolve": ("invoice_item",),
    "runs resume": ("download", "submission"),
    "runs retry": ("invoice_item",),
    "runs show": ("run", "document_item", "invoice_item"),
    "runs unhalt": ("order",),
    "runs unpause": ("order",),
    "runs verify": ("check",),
    "sign": ("signature",),
    "worker": ("download", "submission"),
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
