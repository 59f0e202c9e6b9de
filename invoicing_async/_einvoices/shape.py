"""The service's own shape of a draft: the names its document leaves open, and an object of it in the model's names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from attrs import field, fields_dict, frozen

from .._values.validators import printable
from ..models import InvoiceLine

__all__ = ["INVOICE_DATA", "SUBMIT_TO_TAX", "WireNames", "modelled", "wire_path"]

INVOICE_DATA = "invoice_data"
SUBMIT_TO_TAX = "submit_to_tax_request"
_LINE_NAMES = frozenset(fields_dict(InvoiceLine)) - {"is_promotion"}
_DOCUMENTED = frozenset({"consumer", "invoice_lines", "invoice_template_id"})
_HEAD = re.compile(r"(\w+)(.*)", re.DOTALL)
_PART = re.compile(r"\A\.(\w+)(?! )")
_PROMOTION = re.compile(r"(\[[0-9]+\]\.)is_promotion\Z")
_STRANGER = " (not by this name)"
"""Behind a field of the service's object that has a model's name and is not what the model means by it."""


@frozen(kw_only=True)
class WireNames:
    """The JSON names that the service's document leaves open (README B.1), with this project's choice of each.

    `is_promotion` stands in a line, `has_tax_authority_code` and `payment_method` in `invoice_data`, `emails`,
    `send_mail` and `automatic` in `submit_to_tax_request`. That object stands beside `invoice_data`, or in it with
    `nested_submit_to_tax`. Raises `ValueError` for a name that is empty, used twice, or taken in its object.
    """

    is_promotion: str = field(default="is_promotion", validator=printable)
    has_tax_authority_code: str = field(default="has_tax_authority_code", validator=printable)
    payment_method: str = field(default="payment_method", validator=printable)
    emails: str = field(default="emails", validator=printable)
    send_mail: str = field(default="is_send_mail", validator=printable)
    automatic: str = field(default="auto_submit_to_tax", validator=printable)
    nested_submit_to_tax: bool = False

    def __attrs_post_init__(self) -> None:
        invoice = (self.has_tax_authority_code, self.payment_method)
        names = (self.is_promotion, *invoice, self.emails, self.send_mail, self.automatic)
        if len(set(names)) < len(names):
            raise ValueError(f"WireNames must be distinct, got {', '.join(names)}")
        taken = self._documented.intersection(invoice) | (_LINE_NAMES & {self.is_promotion})
        if taken:
            raise ValueError(f"WireNames must not use {', '.join(sorted(taken))}: the service's document does")

    @property
    def reserved(self) -> frozenset[str]:
        """The names in `invoice_data` that the library writes itself, so a draft's `extra` may not."""
        return self._documented | {self.has_tax_authority_code, self.payment_method}

    @property
    def _documented(self) -> frozenset[str]:
        return _DOCUMENTED | {SUBMIT_TO_TAX} if self.nested_submit_to_tax else _DOCUMENTED


def modelled(document: Mapping[str, Any], names: WireNames) -> dict[str, Any]:
    """Put the service's object, with a key beside it, under the model's names; nothing of it is left out.

    Its `invoice_data` must be an object. What is unknown in that goes to `extra`.
    """
    invoice = document[INVOICE_DATA]
    renamed = _invoice_names(names)
    model: dict[str, Any] = {renamed[name]: value for name, value in invoice.items() if name in renamed}
    known = {*renamed, SUBMIT_TO_TAX} if names.nested_submit_to_tax else {*renamed}
    model["extra"] = {name: value for name, value in invoice.items() if name not in known}
    if "key" in document:
        model["key"] = document["key"]
    submit = (invoice if names.nested_submit_to_tax else document).get(SUBMIT_TO_TAX)
    if submit is not None:
        model["submit_to_tax"] = _renamed(submit, _submit_names(names))
    if isinstance(lines := model.get("lines"), list):
        model["lines"] = [_renamed(line, {names.is_promotion: "is_promotion"}) for line in lines]
    return model


def _invoice_names(names: WireNames) -> dict[str, str]:
    return {
        "consumer": "consumer",
        "invoice_lines": "lines",
        "invoice_template_id": "invoice_template_id",
        names.has_tax_authority_code: "has_tax_authority_code",
        names.payment_method: "payment_method",
    }


def _submit_names(names: WireNames) -> dict[str, str]:
    return {names.emails: "emails", names.send_mail: "send_mail", names.automatic: "automatic"}


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
    """Put an object's fields under the model's names. What has a model's name without being it stays unknown."""
    if not isinstance(value, dict):
        return value
    taken = {*names.values()} - {*names}
    found = {name: name + _STRANGER if name in taken else name for name in value}
    return {names.get(name, found[name]): item for name, item in value.items()}


def wire_path(path: str, names: WireNames) -> str:
    """Return the path in the service's object of a fault's path in the model."""
    if path in {"key", "draft"}:
        return path
    head, rest = _HEAD.fullmatch(path).groups()  # type: ignore[union-attr] # every path begins with a field
    if head == "submit_to_tax":
        inner = {model: wire for wire, model in _submit_names(names).items()}
        place = f"{INVOICE_DATA}.{SUBMIT_TO_TAX}" if names.nested_submit_to_tax else SUBMIT_TO_TAX
        found = place + _PART.sub(lambda part: "." + inner.get(part[1], part[1]), rest, count=1)
    elif head == "extra":
        found = INVOICE_DATA + rest
    else:
        outer = {model: wire for wire, model in _invoice_names(names).items()}
        found = f"{INVOICE_DATA}.{outer.get(head, head)}"
        found += _PROMOTION.sub(rf"\g<1>{names.is_promotion}", rest) if head == "lines" else rest
    return found.removesuffix(_STRANGER)
