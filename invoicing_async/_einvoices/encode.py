"""A draft as the JSON that the service takes, and as the JSON that a run file keeps."""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from functools import lru_cache
from typing import Any

from attrs import AttrsInstance, fields_dict

from .._core.exact_json import json_text, quote
from ..models import Consumer, InvoiceDraft, InvoiceLine, SubmitToTax
from . import rules
from .shape import INVOICE_DATA, PARTS, SUBMIT_TO_TAX, WireNames, wire_names

__all__ = ["SERVICE_NAMES", "dump_draft", "encode_draft", "encode_dumped"]

_LINE_ENDS = {0x85: "\\u0085", 0x2028: "\\u2028", 0x2029: "\\u2029"}


SERVICE_NAMES = WireNames()


_MODELS: tuple[type[AttrsInstance], ...] = (InvoiceDraft, InvoiceLine, Consumer, SubmitToTax)


_OWN_NAMES = {model: {name: name for name in fields_dict(model)} for model in _MODELS}
"""The names of a draft that is dumped: the model's own."""


def encode_draft(draft: InvoiceDraft, *, names: WireNames = SERVICE_NAMES, rounding: Decimal | None = None) -> bytes:
    """Return the body of `POST /v2/ob/invoices` (README B.1): compact UTF-8 JSON with sorted names.

    What is None is left out, `key` is not sent, `extra` stands in `invoice_data`, and every number has exactly
    the digits of its `Decimal`. `rounding` is the unit to which amounts may have been rounded. Raises `DraftError`
    with every fault of the draft.
    """
    rules.check(draft, reserved=names.reserved, rounding=rounding)
    written = {model: wire_names(model, names) for model in _MODELS}
    invoice = _object(draft, written)
    submit = {} if draft.submit_to_tax is None else {SUBMIT_TO_TAX: _fields(draft.submit_to_tax, written[SubmitToTax])}
    inside, beside = (submit, {}) if names.nested_submit_to_tax else ({}, submit)
    return json_text({INVOICE_DATA: {**draft.extra, **invoice, **inside}, **beside}).encode()


def _object(draft: InvoiceDraft, names: dict[type[AttrsInstance], Any]) -> dict[str, Any]:
    """Return a draft and its parts under these names."""
    found = _fields(draft, names[InvoiceDraft])
    for part, model in PARTS.items():
        name = names[InvoiceDraft].get(part)
        if name in found:
            value, inner = found[name], names[model]
            found[name] = [_fields(item, inner) for item in value] if part == "lines" else _fields(value, inner)
    return found


def _fields(owner: AttrsInstance, names: Mapping[str, str]) -> dict[str, Any]:
    """Return the fields of one object under these names; what is None or empty is left out."""
    given = ((written, getattr(owner, name)) for name, written in names.items())
    return {written: value for written, value in given if value is not None and value != ()}


def dump_draft(draft: InvoiceDraft) -> str:
    """Return a draft as one line of JSON under the model's own field names, `key` included; `load_draft` reads it.

    Equal digits and equal keys (`rules.canonical_key`) give equal text (names are sorted, what is None or empty is
    left out), so a digest of it identifies the content.
    The draft must be without faults (`rules.check`); `TypeError` for what JSON cannot say.
    """
    found = _object(draft, _OWN_NAMES) | {"key": rules.canonical_key(draft.key)}
    if not draft.extra:
        del found["extra"]
    return json_text(found).translate(_LINE_ENDS)


def encode_dumped(dump: str, *, names: WireNames = SERVICE_NAMES) -> bytes | None:
    """Return the body of a draft without faults from the text that `dump_draft` wrote of it, in a tenth of the time.

    The members' texts are put under the wire's names unread, so every digit stays. None for a draft whose members
    would have to be changed for that.
    """
    members, written = _members(dump), _names_outside(names)
    if written is None or "extra" in members or "submit_to_tax" in members:
        return None
    named = sorted([(written[name], text) for name, text in members.items() if name in written])
    return f'{{"{INVOICE_DATA}":{{{",".join([f"{quote(name)}:{text}" for name, text in named])}}}}}'.encode()


@lru_cache(maxsize=16)
def _names_outside(names: WireNames) -> Mapping[str, str] | None:
    """Return the wire's names of a draft's own fields; None if a field in a part of it has another name there."""
    inner = [item for model in (InvoiceLine, Consumer) for item in wire_names(model, names).items()]
    return None if any(name != wire for name, wire in inner) else wire_names(InvoiceDraft, names)


_read_at = json.JSONDecoder().raw_decode


def _members(dump: str) -> dict[str, str]:
    """Cut a draft's text into the texts of its members, whose names are all plain."""
    found: dict[str, str] = {}
    at = 0
    while dump[at] != "}":
        colon = dump.index(":", at)
        _, end = _read_at(dump, colon + 1)
        found[dump[at + 2 : colon - 1]] = dump[colon + 1 : end]
        at = end
    return found
