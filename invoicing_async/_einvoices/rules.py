"""The limits of README B.1, as a table and pure functions: every fault of a draft at once, each with its path.

A draft that was read from a file may hold anything, so a wrong type here is a fault like any other and never an
exception. The check runs once for each draft of a batch and is written to be quick when there is no fault.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from decimal import Context, Decimal, Inexact, InvalidOperation

from .._values.characters import blank_end, unseen
from .._values.field_rules import field_rules
from ..errors import DraftError, Fault
from ..models import Consumer, InvoiceDraft, InvoiceLine, SubmitToTax
from .checks import (
    CONTROL,
    MONEY_DIGITS,
    email_faults,
    is_a,
    kind,
    mapping_faults,
    not_text,
    number_fault,
)
from .limits import field_faults, limits_of
from .shape import WireNames

__all__ = [
    "JUDGED",
    "KEY_LENGTH",
    "NO_UUID",
    "RESERVED",
    "UUID",
    "canonical_key",
    "canonical_uuid",
    "check",
    "faults",
    "key_faults",
    "rounding_unit",
    "rounds_to",
]

KEY_LENGTH = field_rules(InvoiceDraft)["key"].limit
"""Characters of a draft's own key. The key is not sent; the limit keeps it a name."""


RESERVED = WireNames().reserved
"""The names in `invoice_data` that the library writes itself, so `extra` may not."""


UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
"""The form of every id of the service."""


NO_UUID = "must be a UUID (8-4-4-4-12 hex digits)"


JUDGED = Decimal("Infinity")
"""The `rounding` of a draft whose amounts were judged when it was taken in: any amount is right."""


_PLAIN_KEY = re.compile(r"[!-~](?:[ -~]*[!-~])?")


_CONSUMER = limits_of(Consumer)
_LINE = limits_of(InvoiceLine)
_SUBMIT = limits_of(SubmitToTax)
_DRAFT = limits_of(InvoiceDraft)


_EXACT = Context(prec=8 * MONEY_DIGITS, traps=[Inexact, InvalidOperation])
"""Wide enough for any product and difference of allowed numbers; a rounded result would raise."""


def canonical_uuid(text: str, name: str) -> str:
    """Return a UUID in lower case. Raises `ValueError`, naming it, for anything else."""
    if not UUID.fullmatch(text):
        raise ValueError(f"{name} {NO_UUID}, got {text!r}")
    return text.lower()


def canonical_key(text: str) -> str:
    """Return the form in which keys are compared: NFC. Keys that a person cannot tell apart are one key."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def key_faults(key: str) -> tuple[str, ...]:
    """Say what keeps a text from being a key, apart from its length; empty if nothing does.

    Nothing that nobody sees: no blank at either end, no control, format or other invisible character, and no blank
    but U+0020 inside. The joiners of emoji are invisible too.
    """
    if _PLAIN_KEY.fullmatch(key):
        return ()
    if key.isspace() and not CONTROL.search(key):
        return ()  # the limits call it blank
    end, hidden = blank_end(key), unseen(key)
    if end is not None and not key.isspace():
        return (f"must not {'begin' if end.position == 1 else 'end'} with a blank: {end}",)
    return () if hidden is None else (f"must not hold a character that nobody sees: {hidden}",)


def rounding_unit(value: Decimal | int | None, name: str = "rounding") -> Decimal | None:
    """Return the setting `rounding` as it is used. Raises `ValueError` for what is no positive, finite amount."""
    if value is None or value is JUDGED:
        return value
    if isinstance(value, bool) or not isinstance(value, (Decimal, int)):
        raise ValueError(f"{name} must be a Decimal, as Decimal(1) or Decimal('0.01'), not {kind(value)}")
    unit = Decimal(value)
    if number_fault(unit) or unit <= 0:
        raise ValueError(f"{name} must be a positive amount of at most {MONEY_DIGITS} digits")
    return unit


def rounds_to(expected: Decimal, amount: Decimal, unit: Decimal) -> bool:
    """Tell whether `amount` is `expected` rounded to `unit`, or to a decimal place finer than that.

    A multiple of `unit` may be half of it away, either way; an amount with more digits half of its last one.
    """
    if unit == JUDGED:
        return True
    last = Decimal((0, (1,), _last_place(amount)))
    grain = min(unit, last) if _EXACT.remainder(amount, unit) else unit
    return _EXACT.multiply(2, _EXACT.subtract(amount, expected).copy_abs()) <= grain


def _last_place(amount: Decimal) -> int:
    """The power of ten of the last digit that is not 0; of the units for a whole number."""
    _, digits, exponent = amount.as_tuple()
    assert isinstance(exponent, int)  # noqa: S101 - only finite numbers come here; for the type checker
    zeros = len(digits) - len("".join(map(str, digits)).rstrip("0"))
    return min(exponent + zeros, 0)


def check(draft: InvoiceDraft, *, reserved: frozenset[str] = RESERVED, rounding: Decimal | None = None) -> None:
    """Refuse a draft that breaks any limit. Raises `DraftError` with every fault and the draft's key."""
    found = faults(draft, reserved=reserved, rounding=rounding)
    if found:
        key = getattr(draft, "key", "")
        raise DraftError(found, key=key if isinstance(key, str) else "")


def faults(
    draft: InvoiceDraft,
    *,
    prefix: str = "",
    reserved: frozenset[str] = RESERVED,
    rounding: Decimal | None = None,
) -> tuple[Fault, ...]:
    """List every fault of a draft; empty if it may be sent.

    `prefix` is the path of the draft itself: with `[12]` a fault stands at `[12].lines[0].price`. `reserved`
    are the names that `extra` may not use. `rounding` is the unit to which line amounts may have been rounded; None:
    they are exact. Never raises, whatever the fields hold.
    """
    found: list[Fault] = []
    if is_a(found, prefix or "draft", draft, InvoiceDraft):
        _draft(found, f"{prefix}." if prefix else "", draft, reserved, rounding)
    return tuple(found)


def _draft(
    found: list[Fault], where: str, draft: InvoiceDraft, reserved: frozenset[str], rounding: Decimal | None
) -> None:
    field_faults(found, where, draft, _DRAFT)
    key: object = draft.key
    template: object = draft.invoice_template_id
    if isinstance(key, str):
        found += [Fault(f"{where}key", message) for message in key_faults(key)]
    if not isinstance(template, str):
        found.append(Fault(f"{where}invoice_template_id", not_text(template)))
    elif not UUID.fullmatch(template):
        found.append(Fault(f"{where}invoice_template_id", NO_UUID))
    _lines(found, f"{where}lines", draft.lines, rounding)
    if draft.consumer is not None and is_a(found, f"{where}consumer", draft.consumer, Consumer):
        field_faults(found, f"{where}consumer.", draft.consumer, _CONSUMER)
    if draft.submit_to_tax is not None and is_a(found, f"{where}submit_to_tax", draft.submit_to_tax, SubmitToTax):
        field_faults(found, f"{where}submit_to_tax.", draft.submit_to_tax, _SUBMIT)
        email_faults(found, f"{where}submit_to_tax.emails", draft.submit_to_tax.emails)
    extra: object = draft.extra
    if not isinstance(extra, Mapping):
        found.append(Fault(f"{where}extra", f"must be a mapping, not {kind(extra)}"))
        return
    clashes = sorted(reserved.intersection(key for key in extra if isinstance(key, str)))
    found += [Fault(f"{where}extra.{name}", "is a name that the library writes itself") for name in clashes]
    found += mapping_faults(f"{where}extra", extra, ())


def _lines(found: list[Fault], where: str, lines: object, rounding: Decimal | None) -> None:
    if not isinstance(lines, tuple):
        found.append(Fault(where, f"must be a list of InvoiceLine, not {kind(lines)}"))
    elif not lines:
        found.append(Fault(where, "at least one line is needed"))
    else:
        for index, line in enumerate(lines):
            _line(found, f"{where}[{index}]", line, rounding)


def _line(found: list[Fault], where: str, line: InvoiceLine, rounding: Decimal | None) -> None:
    if not is_a(found, where, line, InvoiceLine):
        return
    if field_faults(found, f"{where}.", line, _LINE) and line.amount is not None:
        _amount(found, f"{where}.amount", line, line.amount, rounding)


def _amount(found: list[Fault], where: str, line: InvoiceLine, amount: Decimal, rounding: Decimal | None) -> None:
    """Check amount = price * quantity - discount_amount, to the last digit or rounded as the setting allows."""
    discount = Decimal(0) if line.discount_amount is None else line.discount_amount
    expected = _EXACT.subtract(_EXACT.multiply(line.price, line.quantity), discount)
    if expected == amount or (rounding is not None and rounds_to(expected, amount, rounding)):
        return
    said = f"must be price * quantity - discount_amount = {expected:f}, got {amount:f}"
    grain = Decimal((0, (1,), _last_place(amount)))
    if rounding is not None:
        said += f" (more than rounding={rounding:f} allows)"
    elif rounds_to(expected, amount, grain):
        said += f"; rounded amounts are taken with the setting rounding={grain:f}"
    found.append(Fault(where, said))
