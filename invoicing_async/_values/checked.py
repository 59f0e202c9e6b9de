"""Frozen values whose fields are converted and checked where they are made: each wrong type is a fault by its name.

A converter takes what the type checker lets a caller give and passes on what it does not know: the constructor then
refuses a wrong type by the field's name, and the rules name the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from types import MappingProxyType
from typing import Any, TypeVar

from attrs import NOTHING, AttrsInstance, Factory, fields

from ..errors import DraftError, Fault

__all__ = [
    "as_member",
    "as_tuple",
    "exact",
    "exact_or_none",
    "frozen_mapping",
    "mistyped",
    "plain_state",
    "refuse_types",
    "restore",
    "unchecked",
]

Member = TypeVar("Member", bound=StrEnum)
Model = TypeVar("Model", bound=AttrsInstance)

_FACTORY: Any = Factory


def exact_or_none(value: Decimal | int | str | None) -> Decimal | None:
    """Turn whole numbers and digits in text into Decimal; other text stays, for the rules to name."""
    given: Any = value
    if isinstance(given, str) or (isinstance(given, int) and not isinstance(given, bool)):
        try:
            return Decimal(given)
        except InvalidOperation:
            pass
    return given  # type: ignore[no-any-return] # what it is not is refused by the field's name


def exact(value: Decimal | int | str) -> Decimal:
    """Do as `exact_or_none` for a number that must be there."""
    return exact_or_none(value)  # type: ignore[return-value] # None is refused by the field's name


def as_member(kind: type[Member], value: Member | str | None) -> Member | None:
    """Return the member of that name; None, other text and everything else as it is, for the rules to name."""
    given: Any = value
    if isinstance(given, str):
        given = kind.__members__.get(given, given)
    return given  # type: ignore[no-any-return] # what it is not is refused by the field's name


def as_tuple(value: Any) -> Any:
    """Return what can be listed as a tuple; text, a mapping and everything else as it is."""
    return tuple(value) if isinstance(value, Iterable) and not isinstance(value, (str, bytes, Mapping)) else value


def frozen_mapping(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a read-only copy of a mapping, and everything else as it is."""
    # `dict` first: the check for an abstract class costs as much as the copy.
    given: Any = value
    return MappingProxyType(dict(given)) if isinstance(given, (dict, Mapping)) else given


def unchecked(kind: type[Model], **given: Any) -> Model:
    """Build a value whatever the types of its fields, for a reader that names each wrong one as a fault.

    A field that is not given has its default, or None.
    """
    made = object.__new__(kind)
    for attribute in fields(kind):
        default: Any = None if attribute.default is NOTHING else attribute.default
        if attribute.name in given:
            value = given[attribute.name]
        else:
            value = default.factory() if isinstance(default, _FACTORY) else default
        convert: Any = attribute.converter
        object.__setattr__(made, attribute.name, value if convert is None else convert(value))
    return made


def refuse_types(owner: AttrsInstance, kinds: Mapping[str, tuple[type, ...]]) -> None:
    """Refuse fields of a wrong type. Raises `DraftError` naming each."""
    wrong = [name for name, allowed in kinds.items() if not isinstance(getattr(owner, name), allowed)]
    if wrong:
        raise DraftError(tuple(Fault(name, mistyped(getattr(owner, name), kinds[name])) for name in wrong))


def mistyped(value: object, allowed: tuple[type, ...]) -> str:
    """Say what is wrong with a value that is of none of the allowed types; the first of them names the field's kind."""
    if value is None:
        return "is required"
    got = type(value).__name__
    if Decimal in allowed:
        why = ": floats are not exact" if isinstance(value, float) else ""
        return f"must be a Decimal, an int or digits in text, not {got}{why}"
    return f"must be {_WORDS.get(allowed[0].__name__, allowed[0].__name__)}, not {got}"


_WORDS = {
    "str": "text",
    "bool": "True, False or None",
    "tuple": "a list of InvoiceLine",
    "InvoiceLine": "an InvoiceLine",
    "Consumer": "a Consumer",
    "SubmitToTax": "a SubmitToTax",
}


def plain_state(self: AttrsInstance) -> dict[str, Any]:
    """Return the fields for pickle and copy, which take no read-only mapping: it goes as the dict it was made of."""
    given = {attribute.name: getattr(self, attribute.name) for attribute in fields(type(self))}
    return {name: dict(value) if isinstance(value, MappingProxyType) else value for name, value in given.items()}


def restore(self: AttrsInstance, state: dict[str, Any]) -> None:
    """Set the fields from what `plain_state` returned, mappings read-only again."""
    for attribute in fields(type(self)):
        value = state[attribute.name]
        mapping = attribute.converter is frozen_mapping
        object.__setattr__(self, attribute.name, frozen_mapping(value) if mapping else value)
