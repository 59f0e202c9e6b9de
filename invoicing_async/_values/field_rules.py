"""What a field of a draft may hold: one rule in the field's metadata, from which the limits, types and names follow.

The limits of `_einvoices.limits`, the names on the wire, the columns of a CSV file and how a cell of each is read are
all made of these rules, so a new field of a draft is one line of its model.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from enum import Enum, StrEnum
from functools import cache
from types import MappingProxyType, NoneType
from typing import Any

from attrs import NOTHING, AttrsInstance, evolve, fields, frozen

__all__ = ["FLAG", "NUMBER", "FieldRule", "Kind", "choice", "field_rules", "field_types", "other", "text"]

_RULE = "rule"


class Kind(Enum):
    """How the values of a field are checked, and how a cell of a CSV file is read as one."""

    TEXT = "text"
    NUMBER = "number"
    FLAG = "flag"
    CHOICE = "choice"
    OTHER = "other"
    """Checked by itself: an id, a list, or a part that has fields of its own."""


@frozen(kw_only=True)
class FieldRule:
    """What one field may hold. `limit` is in characters, `wire` its name in the service's object, None if not there.

    A `code` is compared by machines, so what a spreadsheet makes of it is a fault.
    """

    kind: Kind
    types: tuple[type, ...]
    name: str = ""
    required: bool = False
    limit: int = 0
    members: type[StrEnum] | None = None
    code: bool = False
    wire: str | None = ""
    column: bool = True
    """False for what a CSV file spreads over several columns."""


def text(limit: int, *, code: bool = False, wire: str | None = "") -> Mapping[str, FieldRule]:
    """Return the metadata of a text of at most `limit` characters; `wire` is the field's own name if it is empty."""
    return {_RULE: FieldRule(kind=Kind.TEXT, types=(str,), limit=limit, code=code, wire=wire)}


def choice(members: type[StrEnum]) -> Mapping[str, FieldRule]:
    """Return the metadata of a member of an enumeration, or its name."""
    return {_RULE: FieldRule(kind=Kind.CHOICE, types=(str,), members=members)}


def other(*types: type, wire: str | None = "", column: bool = False) -> Mapping[str, FieldRule]:
    """Return the metadata of a value that has a check of its own."""
    return {_RULE: FieldRule(kind=Kind.OTHER, types=types, wire=wire, column=column)}


NUMBER: Mapping[str, FieldRule] = {_RULE: FieldRule(kind=Kind.NUMBER, types=(Decimal, str))}
"""The metadata of an exact number; a text that is none stays, for the rules to name."""

FLAG: Mapping[str, FieldRule] = {_RULE: FieldRule(kind=Kind.FLAG, types=(bool,))}


@cache
def field_rules(model: type[AttrsInstance]) -> Mapping[str, FieldRule]:
    """Return the rules of a model's fields by their names, in their order; a field without metadata has none."""
    found: dict[str, FieldRule] = {}
    for attribute in fields(model):
        rule = attribute.metadata.get(_RULE)
        if rule is not None:
            wire = attribute.name if rule.wire == "" else rule.wire
            required = attribute.default is NOTHING
            found[attribute.name] = evolve(rule, name=attribute.name, required=required, wire=wire)
    return MappingProxyType(found)


def field_types(model: type[AttrsInstance]) -> Mapping[str, tuple[type, ...]]:
    """Return the types that a field of a model may be given, the one that names its kind first."""
    rules: Mapping[str, Any] = field_rules(model)
    return {name: rule.types if rule.required else (*rule.types, NoneType) for name, rule in rules.items()}
