"""What a setting may be, said in one form: `Class.field must be …, got …`.

Each validator is for `attrs.field(validator=…)` and raises `ValueError` with the limit. A bool is no number here, and
neither is what only looks like one (`Decimal`, `Fraction`): settings are reckoned with as floats. What is refused of a
secret is never shown.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import Any, TypeAlias

from attrs import Attribute

from .characters import stuck

__all__ = [
    "HEADER_TEXT",
    "Validator",
    "at_least_one",
    "count",
    "factor",
    "finite",
    "flag",
    "header_text",
    "not_negative",
    "optional",
    "positive",
    "printable",
    "secret",
    "share",
    "whole",
]

Validator: TypeAlias = Callable[[Any, "Attribute[Any]", Any], None]

HEADER_TEXT = re.compile(r"[\x21-\x7e]+")
"""What can stand in a header whole: printable ASCII without blanks."""

_LARGEST = sys.float_info.max


def _field(instance: object, attribute: Attribute[Any]) -> str:
    return f"{type(instance).__name__}.{attribute.name}"


def _must_be(said: str, holds: Callable[[Any], bool]) -> Validator:
    def check(instance: object, attribute: Attribute[Any], value: object) -> None:
        if not holds(value):
            raise ValueError(f"{_field(instance, attribute)} must be {said}, got {value!r}")

    return check


def _is_finite(value: Any) -> bool:
    # A whole number beyond all floats is as useless as infinity.
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -_LARGEST <= value <= _LARGEST


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


finite = _must_be("a finite number", _is_finite)
positive = _must_be("a finite number above 0", lambda value: _is_finite(value) and value > 0)
not_negative = _must_be("a finite number of 0 or more", lambda value: _is_finite(value) and value >= 0)
factor = _must_be("a finite number of 1 or more", lambda value: _is_finite(value) and value >= 1)
share = _must_be("a finite number from 0 to 1", lambda value: _is_finite(value) and 0 <= value <= 1)
count = _must_be("a whole number of 1 or more", lambda value: _is_whole(value) and value >= 1)
whole = _must_be("a whole number of 0 or more", lambda value: _is_whole(value) and value >= 0)
flag = _must_be("True or False", lambda value: isinstance(value, bool))
printable = _must_be(
    "printable text that is not empty", lambda value: isinstance(value, str) and value != "" and value.isprintable()
)


def optional(validator: Validator) -> Validator:
    """Let None through, and anything that the validator takes."""

    def check(instance: object, attribute: Attribute[Any], value: object) -> None:
        if value is not None:
            validator(instance, attribute, value)

    return check


def header_text(instance: object, attribute: Attribute[Any], value: object) -> None:
    """Refuse what cannot stand in a header whole, without showing it: it may be a secret."""
    if not isinstance(value, str) or not HEADER_TEXT.fullmatch(value):
        fault = stuck(value) if isinstance(value, str) else ""
        said = f"{_field(instance, attribute)} must be text of printable ASCII characters without spaces"
        raise ValueError(f"{said}; it {fault}" if fault else said)


def secret(instance: object, attribute: Attribute[Any], value: object) -> None:
    """Refuse what is no text, or has a blank or something invisible stuck to it, without showing it."""
    name = _field(instance, attribute)
    if not isinstance(value, str) or not value:
        raise ValueError(f"{name} must be text that is not empty")
    if fault := stuck(value):
        raise ValueError(f"{name} {fault}")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise ValueError(f"{name} must be text; it holds bytes that are not UTF-8")


def at_least_one(name: str, value: float) -> None:
    """Refuse an argument below 1 by its name."""
    if value < 1:
        raise ValueError(f"{name} must be 1 or more, got {value!r}")
