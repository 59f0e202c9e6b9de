"""The limits of API.md B.1, as a table and pure functions: every fault of a draft at once, each with its path.

Models hold anything (they do not validate), so a wrong type here is a fault like any other and never an
exception. The check runs once for each draft of a batch and is written to be quick when there is no fault.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from decimal import Context, Decimal, Inexact, InvalidOperation
from enum import StrEnum
from reprlib import repr as short_repr
from typing import Any

from attrs import frozen

from .errors import DraftError, Fault
from .models import Consumer, InvoiceDraft, InvoiceLine, PaymentMethod, SubmitToTax, VatRate

__all__ = ["DEPTH", "KEY_LENGTH", "MONEY_DIGITS", "RESERVED", "UUID", "canonical_key", "check", "faults", "step"]

KEY_LENGTH = 255
"""Characters of a draft's own key. The key is not sent; the limit keeps it a name."""

MONEY_DIGITS = 30
"""Digits a number may have when it is written out. Undocumented; far above any amount of money."""

DEPTH = 16
"""Levels of nesting in `extra`."""

RESERVED = frozenset(
    {"consumer", "has_tax_authority_code", "invoice_lines", "invoice_template_id", "payment_method"},
)
"""The names in `invoice_data` that the library writes itself, so `extra` may not."""

UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
"""The form of every id of the service."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_EMAIL = re.compile(r"[^\s@]+@[^\s@]+")
_SHOWN = 80
_SURROGATE = "holds a lone surrogate, which UTF-8 cannot carry"


@frozen
class _Limits:
    """The rows of one object of API.md B.1: texts with their limit, numbers, flags and choices."""

    texts: tuple[tuple[str, int, bool], ...] = ()
    numbers: tuple[tuple[str, bool], ...] = ()
    flags: tuple[str, ...] = ()
    choices: tuple[tuple[str, type[StrEnum]], ...] = ()


_CONSUMER = _Limits(
    texts=(
        ("code", 255, False),
        ("name", 255, False),
        ("tax_code", 14, False),
        ("address", 255, False),
        ("citizen_identification", 12, False),
        ("phone", 20, False),
        ("buyer_name", 255, False),
        ("bank_account", 255, False),
    )
)
_LINE = _Limits(
    texts=(("name", 500, True), ("unit", 255, True), ("code", 255, False)),
    numbers=(
        ("price", True),
        ("quantity", True),
        ("tax_amount", False),
        ("discount_amount", False),
        ("amount", False),
    ),
    flags=("is_promotion",),
    choices=(("vat_rate", VatRate),),
)
_DRAFT = _Limits(
    texts=(("key", KEY_LENGTH, True),),
    flags=("has_tax_authority_code",),
    choices=(("payment_method", PaymentMethod),),
)
_SUBMIT = _Limits(flags=("send_mail", "automatic"))
_EXACT = Context(prec=8 * MONEY_DIGITS, traps=[Inexact, InvalidOperation])
"""Wide enough for any product and difference of allowed numbers; a rounded result would raise."""


def canonical_key(text: str) -> str:
    """Give the form in which keys are compared: NFC. Keys that a person cannot tell apart are one key."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def check(draft: InvoiceDraft, *, reserved: frozenset[str] = RESERVED) -> None:
    """Refuse a draft that breaks any limit. Raises `DraftError` with every fault and the draft's key."""
    found = faults(draft, reserved=reserved)
    if found:
        key = getattr(draft, "key", "")
        raise DraftError(found, key=key if isinstance(key, str) else "")


def faults(draft: InvoiceDraft, *, prefix: str = "", reserved: frozenset[str] = RESERVED) -> tuple[Fault, ...]:
    """List every fault of a draft; empty if it may be sent.

    `prefix` is the path of the draft itself: with `[12]` a fault stands at `[12].lines[0].price`. `reserved`
    are the names that `extra` may not use. Never raises, whatever the fields hold.
    """
    found: list[Fault] = []
    if _is_a(found, prefix or "draft", draft, InvoiceDraft):
        _draft(found, f"{prefix}." if prefix else "", draft, reserved)
    return tuple(found)


def step(where: str, name: str) -> str:
    """Give the path of field `name` below `where`, which is empty or ends in a dot; a foreign name is tamed."""
    return where + (name if name.isprintable() and 0 < len(name) <= _SHOWN else _shown(name))


def _draft(found: list[Fault], where: str, draft: InvoiceDraft, reserved: frozenset[str]) -> None:
    _fields(found, where, draft, _DRAFT)
    _control(found, f"{where}key", draft.key)
    _template(found, f"{where}invoice_template_id", draft.invoice_template_id)
    _lines(found, f"{where}lines", draft.lines)
    if draft.consumer is not None and _is_a(found, f"{where}consumer", draft.consumer, Consumer):
        _fields(found, f"{where}consumer.", draft.consumer, _CONSUMER)
    if draft.submit_to_tax is not None and _is_a(found, f"{where}submit_to_tax", draft.submit_to_tax, SubmitToTax):
        _fields(found, f"{where}submit_to_tax.", draft.submit_to_tax, _SUBMIT)
        _emails(found, f"{where}submit_to_tax.emails", draft.submit_to_tax.emails)
    _extra(found, f"{where}extra", draft.extra, reserved)


def _is_a(found: list[Fault], where: str, value: object, model: type) -> bool:
    """Tell whether a part is the model it should be; record the fault if it is something else."""
    if isinstance(value, model):
        return True
    article = "an" if model.__name__.startswith("I") else "a"
    found.append(Fault(where, f"must be {article} {model.__name__}, not {_kind(value)}"))
    return False


def _fields(found: list[Fault], where: str, owner: object, limits: _Limits) -> None:
    """Check the texts, flags and choices of one object's table."""
    for name, limit, required in limits.texts:
        value = getattr(owner, name)
        if value is not None or required:
            found += [Fault(where + name, message) for message in _text_faults(value, limit, required=required)]
    for name in limits.flags:
        value = getattr(owner, name)
        if value is not None and not isinstance(value, bool):
            found.append(Fault(where + name, f"must be True, False or None, not {_kind(value)}"))
    for name, choice in limits.choices:
        value = getattr(owner, name)
        if value is not None and not (isinstance(value, str) and value in choice.__members__):
            found.append(Fault(where + name, f"must be one of {', '.join(choice)}, not {_shown(value)}"))


def _text_faults(value: object, limit: int, *, required: bool) -> Iterable[str]:
    if not isinstance(value, str):
        return (_not_text(value),)
    if len(value) <= limit and value.isascii() and (value.strip() or not required):
        return ()
    return _bad_text(value, limit, required=required)


def _not_text(value: object) -> str:
    return "is required" if value is None else f"must be text, not {_kind(value)}"


def _bad_text(value: str, limit: int, *, required: bool) -> Iterable[str]:
    if len(value) > limit:
        yield f"has {len(value)} characters, at most {limit} are allowed"
    if required and not value.strip():
        yield "must not be empty or blank"
    if not _encodable(value):
        yield _SURROGATE


def _encodable(value: str) -> bool:
    try:
        return value.isascii() or bool(value.encode())
    except UnicodeEncodeError:
        return False


def _numbers(found: list[Fault], where: str, owner: object, limits: _Limits) -> bool:
    """Check the numbers of one object's table; true if all are sound."""
    before = len(found)
    for name, required in limits.numbers:
        value = getattr(owner, name)
        if value is None:
            if required:
                found.append(Fault(where + name, "is required"))
        elif message := _number_fault(value):
            found.append(Fault(where + name, message))
    return len(found) == before


def _number_fault(value: object) -> str:
    """Say what is wrong with a number; empty if nothing is."""
    if not isinstance(value, Decimal):
        return _not_a_number(value)
    _, digits, exponent = value.as_tuple()
    if isinstance(exponent, str):
        return "must be finite, not an infinity or NaN"
    written = len(digits) + exponent if exponent > 0 else max(len(digits), 1 - exponent)
    return f"has {written} digits, at most {MONEY_DIGITS} are allowed" if written > MONEY_DIGITS else ""


def _not_a_number(value: object) -> str:
    got = _shown(value) if isinstance(value, str) else _kind(value)
    why = ": floats are not exact" if isinstance(value, float) else ""
    return f"must be a Decimal, an int or digits in text, not {got}{why}"


def _control(found: list[Fault], where: str, key: object) -> None:
    if isinstance(key, str) and _CONTROL.search(key):
        found.append(Fault(where, "must not contain control characters"))


def _template(found: list[Fault], where: str, value: object) -> None:
    if not isinstance(value, str):
        found.append(Fault(where, _not_text(value)))
    elif not UUID.fullmatch(value):
        found.append(Fault(where, "must be a UUID (8-4-4-4-12 hex digits)"))


def _lines(found: list[Fault], where: str, lines: object) -> None:
    if not isinstance(lines, tuple):
        found.append(Fault(where, f"must be a list of InvoiceLine, not {_kind(lines)}"))
    elif not lines:
        found.append(Fault(where, "at least one line is needed"))
    else:
        for index, line in enumerate(lines):
            _line(found, f"{where}[{index}]", line)


def _line(found: list[Fault], where: str, line: InvoiceLine) -> None:
    if _is_a(found, where, line, InvoiceLine):
        _fields(found, f"{where}.", line, _LINE)
        if _numbers(found, f"{where}.", line, _LINE) and line.amount is not None:
            _amount(found, f"{where}.amount", line, line.amount)


def _amount(found: list[Fault], where: str, line: InvoiceLine, amount: Decimal) -> None:
    """Check amount = price * quantity - discount_amount to the last digit."""
    discount = Decimal(0) if line.discount_amount is None else line.discount_amount
    expected = _EXACT.subtract(_EXACT.multiply(line.price, line.quantity), discount)
    if expected != amount:
        found.append(Fault(where, f"must be price * quantity - discount_amount = {expected:f}, got {amount:f}"))


def _emails(found: list[Fault], where: str, emails: object) -> None:
    if not isinstance(emails, tuple):
        found.append(Fault(where, f"must be a list of text, not {_kind(emails)}"))
        return
    for index, email in enumerate(emails):
        if not isinstance(email, str):
            found.append(Fault(f"{where}[{index}]", _not_text(email)))
        elif not _EMAIL.fullmatch(email) or not _encodable(email):
            found.append(Fault(f"{where}[{index}]", "must be an e-mail address"))


def _extra(found: list[Fault], where: str, extra: object, reserved: frozenset[str]) -> None:
    if not isinstance(extra, Mapping):
        found.append(Fault(where, f"must be a mapping, not {_kind(extra)}"))
        return
    clashes = sorted(reserved.intersection(key for key in extra if isinstance(key, str)))
    found += [Fault(f"{where}.{name}", "is a name that the library writes itself") for name in clashes]
    found += _mapping_faults(where, extra, ())


def _json_faults(where: str, value: object, above: tuple[int, ...]) -> Iterable[Fault]:
    """Yield what keeps a value from being JSON; `above` are the identities of the containers that hold it."""
    if value is None or isinstance(value, (str, int, float, Decimal)):
        if message := _scalar_fault(value):
            yield Fault(where, message)
    elif id(value) in above:
        yield Fault(where, "holds itself")
    elif len(above) >= DEPTH:
        yield Fault(where, f"is nested deeper than the {DEPTH} levels that are allowed")
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _json_faults(f"{where}[{index}]", item, (*above, id(value)))
    elif isinstance(value, Mapping):
        yield from _mapping_faults(where, value, (*above, id(value)))
    else:
        yield Fault(where, f"must be something JSON can say, not {_kind(value)}")


def _mapping_faults(where: str, value: Mapping[Any, Any], above: tuple[int, ...]) -> Iterable[Fault]:
    for key, item in value.items():
        if isinstance(key, str) and _encodable(key):
            yield from _json_faults(step(f"{where}.", key), item, above)
        else:
            yield Fault(where, f"has the key {_shown(key)}; keys must be text that UTF-8 can carry")


def _scalar_fault(value: object) -> str:
    if isinstance(value, str):
        return "" if _encodable(value) else _SURROGATE
    if value is None or isinstance(value, bool):
        return ""
    if isinstance(value, int):
        return "" if abs(value) < 10**MONEY_DIGITS else f"has more than the {MONEY_DIGITS} digits that are allowed"
    return _number_fault(value)


def _shown(value: object) -> str:
    """A short repr; the type's name where there is none, as for an int of thousands of digits."""
    try:
        return short_repr(value)
    except Exception:  # noqa: BLE001 - a foreign repr may raise anything, and a fault must not
        return _kind(value)


def _kind(value: object) -> str:
    return type(value).__name__
