"""What a cell of a spreadsheet means: numbers, tax rates, addresses, and what a spreadsheet does to a code.

Pure functions of the cell's text. A cell that can be read in two ways is a `Fault` that says what to write instead: an
invoice with a thousandth of its amount, or with another's tax code, is a legal document too.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Literal, TypeAlias

from .._values.characters import unseen
from ..errors import Fault
from ..models import VatRate

__all__ = ["DecimalMark", "addresses", "code_fault", "formula_fault", "is_grouped", "number", "vat_rate"]

DecimalMark: TypeAlias = Literal[".", ","]
"""What stands before the decimal places; the other of the two may group thousands."""

SHOWN = 40
"""Characters of a bad cell that its fault shows."""

_PLAIN = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?")
_COMMA = re.compile(r"[+-]?[0-9]+,[0-9]+")
_GROUPED = re.compile(r"[+-]?[1-9][0-9]{0,2}\.[0-9]{3}")
"""A thousand with a point for its group, or a number with three decimal places: nobody can tell."""

_BLANKS = "[ \u00a0\u2009\u202f]"
_SETTLED = {
    mark: re.compile(
        rf"[+-]?(?:[0-9]+|[1-9][0-9]{{0,2}}(?:{re.escape(group)}[0-9]{{3}})+|[1-9][0-9]{{0,2}}(?:{_BLANKS}[0-9]{{3}})+)"
        rf"(?:{re.escape(mark)}[0-9]+)?"
    )
    for mark, group in ((".", ","), (",", "."))
}
_SCIENTIFIC = re.compile(r"[+-]?[0-9]+(?:[.,][0-9]+[eE][+-]|[eE]\+)[0-9]+")


def number(text: str, decimal_mark: DecimalMark | None = None, *, points_may_group: bool = True) -> Decimal | Fault:
    """Read a number exactly, or say what to write instead.

    With a `decimal_mark` the other mark, or a blank, may group thousands, three digits each: `1.234,5` with a comma
    is 1234.5. Without one a number is digits with a decimal point, and `240.000` is a fault if in this file
    `points_may_group`: it may be 240 or 240,000.
    """
    if decimal_mark is not None:
        return _settled(text, decimal_mark)
    if not _PLAIN.fullmatch(text):
        return Fault("", _not_a_number(text))
    if not points_may_group or not is_grouped(text):
        return Decimal(text)
    short, _, decimals = text.partition(".")
    said = f"may be {short}{decimals} or {Decimal(text).normalize():f}: {text!r} has a point before three digits"
    return Fault(
        "", f"{said}; write {short}{decimals} or {short}.{decimals}0, or say the decimal mark (--decimal-mark)"
    )


def is_grouped(text: str) -> bool:
    """Tell whether a number may be a thousand with a point for its group, as `240.000`."""
    return _GROUPED.fullmatch(text) is not None


def _settled(text: str, mark: DecimalMark) -> Decimal | Fault:
    if not _SETTLED[mark].fullmatch(text):
        group = "," if mark == "." else "."
        said = f"must be digits with {mark!r} before the decimals and at most {group!r} between thousands"
        return Fault("", f"{said} (the decimal mark that was given), not {text[:SHOWN]!r}{_what_happened(text)}")
    whole, _, decimals = text.partition(mark)
    digits = re.sub(r"[^0-9+-]", "", whole)
    return Decimal(f"{digits}.{decimals}" if decimals else digits)


def _not_a_number(text: str) -> str:
    said = f"must be digits with a decimal point, not {text[:SHOWN]!r}"
    if _COMMA.fullmatch(text) or _SETTLED[","].fullmatch(text) or _SETTLED["."].fullmatch(text):
        return f"{said}: write it without marks between thousands, or say the decimal mark (--decimal-mark)"
    return said + _what_happened(text)


def _what_happened(text: str) -> str:
    return ": write all its digits; a spreadsheet has shortened it" if _SCIENTIFIC.fullmatch(text) else ""


_FORMULA = re.compile(r"=\s*\"(.*)\"", re.DOTALL)
_ERROR = re.compile(r"#(?:N/A|REF!|VALUE!|NAME\?|DIV/0!|NULL!|NUM!|SPILL!|CALC!|GETTING_DATA|#+)", re.IGNORECASE)


def formula_fault(text: str) -> str:
    """Say what a spreadsheet left in a cell instead of its text; empty if nothing."""
    if found := _FORMULA.fullmatch(text):
        return f"is a formula, {text[:SHOWN]!r}: write {found[1][:SHOWN]} alone"
    if _ERROR.fullmatch(text):
        return f"is a spreadsheet's error or a column too narrow, {text[:SHOWN]!r}: write the value itself"
    return ""


def code_fault(text: str) -> str:
    """Say what a spreadsheet did to a code (a key, a tax code, a telephone number); empty if nothing.

    A code is compared by machines: what was shortened to 3.12346E+08 is lost, and nothing in it may be invisible.
    """
    if text.isascii() and text.isalnum():
        return ""
    if fault := formula_fault(text):
        return fault
    if _SCIENTIFIC.fullmatch(text):
        return f"is {text[:SHOWN]!r}, to which a spreadsheet has shortened a number: write all its digits, as text"
    if text.startswith("'"):
        return f"begins with an apostrophe, {text[:SHOWN]!r}: write {text[1:SHOWN]} alone"
    hidden = unseen(text)
    return "" if hidden is None else f"must not hold a character that nobody sees: {hidden}"


_VAT = re.compile(r"(0|5|8|10)(?:[.,]0+)? ?(%?)")
_RATES = {"0": VatRate.ZERO, "5": VatRate.FIVE, "8": VatRate.EIGHT, "10": VatRate.TEN}


def vat_rate(text: str) -> VatRate | Fault:
    """Read a tax rate: a name in any case, or a rate in per cent as `8%` or `8`.

    A bare `0` is a fault: it is written for the rate of 0 % and for no tax at all.
    """
    if text.upper() in VatRate.__members__:
        return VatRate[text.upper()]
    rate = _VAT.fullmatch(text)
    if rate and (rate[2] or rate[1] != "0"):
        return _RATES[rate[1]]
    said = f"must be one of {', '.join(VatRate)}, not {text[:SHOWN]!r}"
    return Fault("", f"{said}: write 0% or ZERO for a rate of 0 %, else NONE or UNDECLARED" if rate else said)


def addresses(text: str) -> tuple[str, ...]:
    """Split a cell of e-mail addresses at blanks, commas and semicolons; whether each is one is for the rules."""
    return tuple(re.split(r"[\s,;]+", text.strip(" \t\r\n,;")))
