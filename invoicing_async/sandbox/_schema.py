"""Exact JSON, and a strict check of the shape of a submission by README B.1.

Written apart from `_einvoices` and `_einvoices.rules`, so that the client and the sandbox cannot be wrong together.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from decimal import Context, Decimal
from functools import reduce
from types import MappingProxyType
from typing import Any, NoReturn, TypeAlias

from attrs import field, frozen

from ..models import PaymentMethod, VatRate

__all__ = ["OPEN_NAMES", "Shape", "encode", "line_amount", "parse", "total"]

UUID = re.compile(r"[a-fA-F0-9]{8}(-[a-fA-F0-9]{4}){3}-[a-fA-F0-9]{12}")

OPEN_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "is_promotion": "is_promotion",
        "has_tax_authority_code": "has_tax_authority_code",
        "payment_method": "payment_method",
        "emails": "emails",
        "send_mail": "is_send_mail",
        "automatic": "auto_submit_to_tax",
    }
)
"""What the document leaves unnamed (README B.1), by this project's field name, and its name on the wire."""

MAGNITUDE = 100
"""The largest power of ten of a number. Undocumented; it keeps nonsense from filling the memory."""

_EXACT = Context(prec=1000)

Found: TypeAlias = Iterator[str]
Check: TypeAlias = Callable[[str, Any], Found]


def parse(body: bytes) -> Any:
    """Read JSON with exact numbers. Raises `ValueError` for anything that is not strict JSON, in UTF-8."""
    return json.loads(
        body.decode(), parse_float=Decimal, parse_int=Decimal, parse_constant=_no_constant, object_pairs_hook=_unique
    )


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an object names a field twice")
    return found


def encode(value: Any) -> str:
    """Write JSON with every `Decimal` as a number of the same digits."""
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(key)}: {encode(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(encode(item) for item in value) + "]"
    return json.dumps(value)


def _text(limit: int) -> Check:
    def check(path: str, value: Any) -> Found:
        if not isinstance(value, str):
            yield f"{path}: must be a string"
        elif len(value) > limit:
            yield f"{path}: must have at most {limit} characters, has {len(value)}"

    return check


def _choice(names: frozenset[str]) -> Check:
    def check(path: str, value: Any) -> Found:
        if not isinstance(value, str) or value not in names:
            yield f"{path}: must be one of {', '.join(sorted(names))}"

    return check


def _number(path: str, value: Any) -> Found:
    if not isinstance(value, Decimal):
        yield f"{path}: must be a number"
    elif abs(value.adjusted()) > MAGNITUDE:
        yield f"{path}: is out of range"


def _flag(path: str, value: Any) -> Found:
    if not isinstance(value, bool):
        yield f"{path}: must be a boolean"


def _uuid(path: str, value: Any) -> Found:
    if not isinstance(value, str) or not UUID.fullmatch(value):
        yield f"{path}: must be a UUID"


def _list(item: Check, *, least: int = 0) -> Check:
    def check(path: str, value: Any) -> Found:
        if not isinstance(value, list):
            yield f"{path}: must be an array"
            return
        if len(value) < least:
            yield f"{path}: must have at least {least} element"
        for index, element in enumerate(value):
            yield from item(f"{path}[{index}]", element)

    return check


def _object(
    fields: Mapping[str, Check], *, required: frozenset[str] = frozenset(), unchecked: frozenset[str] = frozenset()
) -> Check:
    def check(path: str, value: Any) -> Found:
        if not isinstance(value, dict):
            yield f"{path or 'body'}: must be an object"
            return
        where = f"{path}." if path else ""
        yield from (f"{where}{name}: is required" for name in sorted(required - value.keys()))
        for name, item in value.items():
            if name in fields:
                yield from fields[name](where + name, item)
            elif name not in unchecked:
                yield f"{where}{name}: is not a known field"

    return check


_LONG = _text(255)
_CONSUMER = _object(
    {
        **dict.fromkeys(("code", "name", "address", "buyer_name", "bank_account"), _LONG),
        "tax_code": _text(14),
        "citizen_identification": _text(12),
        "phone": _text(20),
    }
)


def _line(promotion: str) -> Check:
    shape = _object(
        {
            **dict.fromkeys(("price", "quantity", "tax_amount", "discount_amount", "amount"), _number),
            "code": _LONG,
            "unit": _LONG,
            "name": _text(500),
            "vat_rate": _choice(frozenset(VatRate)),
            promotion: _flag,
        },
        required=frozenset({"name", "unit", "price", "quantity"}),
    )

    def check(path: str, value: Any) -> Found:
        faults = list(shape(path, value))
        yield from faults
        if not faults and "amount" in value and value["amount"] != line_amount(value):
            yield f"{path}.amount: must be (price * quantity) - discount_amount"

    return check


def line_amount(line: Mapping[str, Any]) -> Decimal:
    """Return (price * quantity) - discount_amount of a line that was checked."""
    product = _EXACT.multiply(line["price"], line["quantity"])
    return _EXACT.subtract(product, line.get("discount_amount", Decimal(0)))


def total(values: Iterable[Decimal]) -> Decimal:
    """Add without rounding."""
    return reduce(_EXACT.add, values, Decimal(0))


@frozen(kw_only=True)
class Shape:
    """The shape of a submission under a table of open names.

    `extra` are further names in `invoice_data`; `nested` puts `submit_to_tax_request` in it and not beside it.
    """

    names: Mapping[str, str] = OPEN_NAMES
    nested: bool = False
    extra: frozenset[str] = frozenset()
    _check: Check = field(init=False, repr=False, eq=False)

    @_check.default
    def _build(self) -> Check:
        names = {**OPEN_NAMES, **self.names}
        tax = _object({names["emails"]: _list(_LONG), names["send_mail"]: _flag, names["automatic"]: _flag})
        submit = {"submit_to_tax_request": tax}
        fields = {
            "consumer": _CONSUMER,
            "invoice_template_id": _uuid,
            "invoice_lines": _list(_line(names["is_promotion"]), least=1),
            names["has_tax_authority_code"]: _flag,
            names["payment_method"]: _choice(frozenset(PaymentMethod)),
        }
        data = _object(
            {**fields, **submit} if self.nested else fields,
            required=frozenset({"invoice_template_id", "invoice_lines"}),
            unchecked=self.extra,
        )
        body = {"invoice_data": data}
        return _object(body if self.nested else {**body, **submit}, required=frozenset({"invoice_data"}))

    def faults(self, body: bytes) -> tuple[str, ...]:
        """List everything wrong with a body, each with its path; empty if it is a submission."""
        try:
            content = parse(body)
        except (ValueError, ArithmeticError, RecursionError) as exc:
            return (f"body: not JSON: {exc}",)
        return tuple(self._check("", content))
