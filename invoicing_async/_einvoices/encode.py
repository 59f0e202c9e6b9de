"""A draft as the JSON that the service takes, and as the JSON that a run file keeps."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from attrs import fields_dict

from .._core.exact_json import json_text, quote
from ..models import Consumer, InvoiceDraft, InvoiceLine, SubmitToTax
from . import rules
from .shape import SUBMIT_TO_TAX, WireNames

__all__ = ["SERVICE_NAMES", "dump_draft", "encode_draft"]

CONSUMER_FIELDS = tuple(fields_dict(Consumer))


LINE_FIELDS = tuple(fields_dict(InvoiceLine))


_LINE_ENDS = {0x85: "\\u0085", 0x2028: "\\u2028", 0x2029: "\\u2029"}


SERVICE_NAMES = WireNames()


_MODEL_NAMES = WireNames(send_mail="send_mail", automatic="automatic")


def encode_draft(draft: InvoiceDraft, *, names: WireNames = SERVICE_NAMES, rounding: Decimal | None = None) -> bytes:
    """Return the body of `POST /v2/ob/invoices` (README B.1): compact UTF-8 JSON with sorted names.

    What is None is left out, `key` is not sent, `extra` stands in `invoice_data`, and every number has exactly
    the digits of its `Decimal`. `rounding` is the unit to which amounts may have been rounded. Raises `DraftError`
    with every fault of the draft.
    """
    rules.check(draft, reserved=names.reserved, rounding=rounding)
    invoice: dict[str, Any] = {
        "consumer": None if draft.consumer is None else _present(draft.consumer, CONSUMER_FIELDS),
        "invoice_lines": [_wire_line(line, names) for line in draft.lines],
        "invoice_template_id": draft.invoice_template_id,
        names.has_tax_authority_code: draft.has_tax_authority_code,
        names.payment_method: draft.payment_method,
    }
    submit = {SUBMIT_TO_TAX: draft.submit_to_tax and _wire_submit_to_tax(draft.submit_to_tax, names)}
    inside, beside = (submit, {}) if names.nested_submit_to_tax else ({}, submit)
    body = {"invoice_data": {**draft.extra, **_given(invoice | inside)}, **_given(beside)}
    return json_text(body).encode()


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _wire_line(line: InvoiceLine, names: WireNames) -> dict[str, Any]:
    found = _present(line, LINE_FIELDS)
    if "is_promotion" in found:
        found[names.is_promotion] = found.pop("is_promotion")
    return found


def _wire_submit_to_tax(submit: SubmitToTax, names: WireNames) -> dict[str, Any]:
    return _given(
        {
            names.emails: submit.emails or None,
            names.send_mail: submit.send_mail,
            names.automatic: submit.automatic,
        }
    )


def dump_draft(draft: InvoiceDraft) -> str:
    """Return a draft as one line of JSON under the model's own field names, `key` included; `load_draft` reads it.

    Equal digits and equal keys (`rules.canonical_key`) give equal text (names are sorted, what is None or empty is
    left out), so a digest of it identifies the content.
    The draft must be without faults (`rules.check`); `TypeError` for what JSON cannot say.
    """
    parts: dict[str, Any] = {
        "key": rules.canonical_key(draft.key),
        "invoice_template_id": draft.invoice_template_id,
        "lines": [_present(line, LINE_FIELDS) for line in draft.lines],
        "consumer": None if draft.consumer is None else _present(draft.consumer, CONSUMER_FIELDS),
        "payment_method": draft.payment_method,
        "has_tax_authority_code": draft.has_tax_authority_code,
        "submit_to_tax": draft.submit_to_tax and _wire_submit_to_tax(draft.submit_to_tax, _MODEL_NAMES),
        "extra": draft.extra or None,
    }
    return json_text(_given(parts)).translate(_LINE_ENDS)


def encode_dumped(dump: str, *, names: WireNames = SERVICE_NAMES) -> bytes | None:
    """Return the body of a draft without faults from the text that `dump_draft` wrote of it, in a tenth of the time.

    The members' texts are put under the wire's names unread, so every digit stays. None for a draft whose members
    would have to be changed for that.
    """
    members = _members(dump)
    if "extra" in members or "submit_to_tax" in members or names.is_promotion != SERVICE_NAMES.is_promotion:
        return None
    wire = {
        "lines": "invoice_lines",
        "has_tax_authority_code": names.has_tax_authority_code,
        "payment_method": names.payment_method,
    }
    named = sorted([(wire.get(name, name), text) for name, text in members.items() if name != "key"])
    return f'{{"invoice_data":{{{",".join([f"{quote(name)}:{text}" for name, text in named])}}}}}'.encode()


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


def _present(owner: object, names: Iterable[str]) -> dict[str, Any]:
    return {name: value for name in names if (value := getattr(owner, name)) is not None}
