"""The service's own shape of a draft: the names its document leaves open, and an object of it in the model's names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from attrs import AttrsInstance, asdict, astuple, field, frozen

from .._values.field_rules import field_rules
from .._values.validators import printable
from ..models import Consumer, InvoiceDraft, InvoiceLine, SubmitToTax

__all__ = ["INVOICE_DATA", "PARTS", "SUBMIT_TO_TAX", "WireNames", "modelled", "wire_names", "wire_path"]

INVOICE_DATA = "invoice_data"
SUBMIT_TO_TAX = "submit_to_tax_request"
PARTS: Mapping[str, type[AttrsInstance]] = {"lines": InvoiceLine, "consumer": Consumer, "submit_to_tax": SubmitToTax}
"""The fields of a draft that have fields of their own."""

_HEAD = re.compile(r"(\w+)(.*)", re.DOTALL)
_PART = re.compile(r"\A((?:\[[0-9]+\])?\.)(\w+)\b(?! )")
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
        names = [name for name in astuple(self) if isinstance(name, str)]
        if len(set(names)) < len(names):
            raise ValueError(f"WireNames must be distinct, got {', '.join(names)}")
        taken: set[str] = set()
        for model in (InvoiceDraft, InvoiceLine, SubmitToTax):
            used = [*wire_names(model, self).values()]
            if model is InvoiceDraft and self.nested_submit_to_tax:
                used.append(SUBMIT_TO_TAX)
            taken.update(name for name in used if used.count(name) > 1)
        if taken:
            raise ValueError(f"WireNames must not use {', '.join(sorted(taken))}: the service's document does")

    @property
    def reserved(self) -> frozenset[str]:
        """The names in `invoice_data` that the library writes itself, so a draft's `extra` may not."""
        written = wire_names(InvoiceDraft, self).values()
        return frozenset((*written, SUBMIT_TO_TAX) if self.nested_submit_to_tax else written)


@lru_cache(maxsize=64)
def wire_names(model: type[AttrsInstance], names: WireNames) -> Mapping[str, str]:
    """Return the names in the service's object of the fields of a model, by those; what is not in it is left out.

    A name that the service's document leaves open is a setting of the same name.
    """
    settings = asdict(names)
    return {name: settings.get(name, rule.wire) for name, rule in field_rules(model).items() if rule.wire is not None}


def modelled(document: Mapping[str, Any], names: WireNames) -> dict[str, Any]:
    """Put the service's object, with a key beside it, under the model's names; nothing of it is left out.

    Its `invoice_data` must be an object. What is unknown in that goes to `extra`.
    """
    invoice = document[INVOICE_DATA]
    renamed = {wire: name for name, wire in wire_names(InvoiceDraft, names).items()}
    model: dict[str, Any] = {renamed[name]: value for name, value in invoice.items() if name in renamed}
    model["extra"] = {name: value for name, value in invoice.items() if name not in names.reserved}
    if "key" in document:
        model["key"] = document["key"]
    submit = (invoice if names.nested_submit_to_tax else document).get(SUBMIT_TO_TAX)
    if submit is not None:
        model["submit_to_tax"] = _renamed(submit, wire_names(SubmitToTax, names))
    if "consumer" in model:
        model["consumer"] = _renamed(model["consumer"], wire_names(Consumer, names))
    if isinstance(lines := model.get("lines"), list):
        model["lines"] = [_renamed(line, wire_names(InvoiceLine, names)) for line in lines]
    return model


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
    """Put an object's fields under the model's names. What has a model's name without being it stays unknown."""
    if not isinstance(value, dict):
        return value
    model = {wire: name for name, wire in names.items()}
    return {model.get(wire, wire + _STRANGER if wire in names else wire): item for wire, item in value.items()}


def wire_path(path: str, names: WireNames) -> str:
    """Return the path in the service's object of a fault's path in the model."""
    if path in {"key", "draft"}:
        return path
    head, rest = _HEAD.fullmatch(path).groups()  # type: ignore[union-attr] # every path begins with a field
    if head in PARTS:
        inner = wire_names(PARTS[head], names)
        rest = _PART.sub(lambda part: part[1] + inner.get(part[2], part[2]), rest, count=1)
    if head == "submit_to_tax":
        where = f"{INVOICE_DATA}.{SUBMIT_TO_TAX}" if names.nested_submit_to_tax else SUBMIT_TO_TAX
    elif head == "extra":
        where = INVOICE_DATA
    else:
        where = f"{INVOICE_DATA}.{wire_names(InvoiceDraft, names).get(head, head)}"
    return (where + rest).removesuffix(_STRANGER)
