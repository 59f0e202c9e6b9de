"""The limits of one model's fields (README B.1), made of the rules in its metadata, and their faults."""

from __future__ import annotations

from enum import StrEnum

from attrs import AttrsInstance, frozen

from .._values.field_rules import Kind, field_rules
from ..errors import Fault
from .checks import kind, number_fault, shown, text_faults

__all__ = ["Limits", "field_faults", "limits_of"]


@frozen
class Limits:
    """What is checked of one model: texts with their limit, numbers, flags and choices."""

    texts: tuple[tuple[str, int, bool], ...]
    numbers: tuple[tuple[str, bool], ...]
    flags: tuple[str, ...]
    choices: tuple[tuple[str, type[StrEnum]], ...]


def limits_of(model: type[AttrsInstance]) -> Limits:
    """Return the limits of a model, sorted by kind so that a check of it asks for none."""
    rules = field_rules(model).values()
    return Limits(
        texts=tuple((rule.name, rule.limit, rule.required) for rule in rules if rule.kind is Kind.TEXT),
        numbers=tuple((rule.name, rule.required) for rule in rules if rule.kind is Kind.NUMBER),
        flags=tuple(rule.name for rule in rules if rule.kind is Kind.FLAG),
        choices=tuple((rule.name, rule.members) for rule in rules if rule.members is not None),
    )


def field_faults(found: list[Fault], where: str, owner: object, limits: Limits) -> bool:
    """Check the fields of one object; true if all its numbers are sound."""
    for name, limit, required in limits.texts:
        value = getattr(owner, name)
        if value is not None or required:
            found += [Fault(where + name, message) for message in text_faults(value, limit, required=required)]
    for name in limits.flags:
        value = getattr(owner, name)
        if value is not None and not isinstance(value, bool):
            found.append(Fault(where + name, f"must be True, False or None, not {kind(value)}"))
    for name, choice in limits.choices:
        value = getattr(owner, name)
        if value is not None and not (isinstance(value, str) and value in choice.__members__):
            found.append(Fault(where + name, f"must be one of {', '.join(choice)}, not {shown(value)}"))
    before = len(found)
    for name, required in limits.numbers:
        value = getattr(owner, name)
        missing = "is required" if required else ""
        if message := missing if value is None else number_fault(value):
            found.append(Fault(where + name, message))
    return len(found) == before
