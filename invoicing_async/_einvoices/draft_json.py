"""Drafts from JSON, strictly: every fault with its path; the only user of cattrs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from enum import StrEnum
from types import NoneType
from typing import Any, TypeAlias

from attrs import NOTHING, fields_dict
from attrs import has as is_attrs
from cattrs import (
    ClassValidationError,
    Converter,
    ForbiddenExtraKeysError,
    IterableValidationError,
    IterableValidationNote,
)
from cattrs.gen import make_dict_structure_fn

from .._core.exact_json import JSON_NUMBER, json_reader, parse_json
from .._values.field_rules import field_rules
from ..errors import DraftError, Fault
from ..models import InvoiceDraft, InvoiceLine, unchecked
from . import rules
from .checks import step
from .encode import SERVICE_NAMES
from .shape import INVOICE_DATA, PARTS, SUBMIT_TO_TAX, WireNames, modelled, wire_path

__all__ = ["load_draft"]

_Hook: TypeAlias = Callable[[Any, Any], Any]


_KINDS: Mapping[type, str] = {
    NoneType: "null",
    bool: "true or false",
    str: "text",
    Decimal: "a number",
    list: "a list",
    dict: "an object",
}
"""Every type that `parse_json` returns, in the words of JSON."""


def _wrong(needed: str, value: object) -> TypeError:
    return TypeError(f"must be {needed}, not {_KINDS[type(value)]}")


def _exactly(kind: type) -> _Hook:
    """Make a hook that takes one JSON type and converts nothing: cattrs of itself would make text of null."""

    def hook(value: Any, _: Any) -> Any:
        if type(value) is not kind:
            raise _wrong(_KINDS[kind], value)
        return value

    return hook


def _exact_number(value: Any, _: Any) -> Decimal:
    if isinstance(value, str) and JSON_NUMBER.fullmatch(value):
        return Decimal(value)
    if not isinstance(value, Decimal):
        raise _wrong("a number, or one written as text", value)
    return value


def _one_of(kind: type[StrEnum]) -> _Hook:
    def hook(value: Any, _: Any) -> StrEnum:
        if not isinstance(value, str) or value not in kind.__members__:
            shown = repr(value[:40]) if isinstance(value, str) else _KINDS[type(value)]
            raise TypeError(f"must be one of {', '.join(kind)}, not {shown}")
        return kind[value]

    return hook


def _list_of(items: Any, converter: Converter) -> _Hook:
    def hook(value: Any, _: Any) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise _wrong("a list", value)
        return tuple(converter.structure(value, items))

    return hook


def _model(kind: Any, converter: Converter) -> _Hook:
    structure: _Hook = make_dict_structure_fn(
        kind, converter, _cattrs_forbid_extra_keys=True, _cattrs_detailed_validation=True
    )

    def hook(value: Any, expected: Any) -> Any:
        if not isinstance(value, dict):
            raise _wrong("an object", value)
        return structure(value, expected)

    return hook


def _strict_converter() -> Converter:
    """Return a converter that takes exactly the types of the models' fields, each from one JSON type."""
    converter = Converter(detailed_validation=True, forbid_extra_keys=True)
    hooks: dict[type, _Hook] = {str: _exactly(str), bool: _exactly(bool), Decimal: _exact_number}
    for model in (InvoiceDraft, *PARTS.values()):
        hooks |= {rule.members: _one_of(rule.members) for rule in field_rules(model).values() if rule.members}
    for kind, hook in hooks.items():
        converter.register_structure_hook(kind, hook)
    generics: dict[Any, _Hook] = {
        tuple[str, ...]: _list_of(list[str], converter),
        tuple[InvoiceLine, ...]: _list_of(list[InvoiceLine], converter),
        Mapping[str, Any]: _exactly(dict),
    }
    converter.register_structure_hook_factory(lambda kind: kind in generics, lambda kind: generics[kind])
    converter.register_structure_hook_factory(is_attrs, lambda kind: _model(kind, converter))
    return converter


_STRICT = _strict_converter()


def load_draft(
    data: bytes | str, *, path: str = "", names: WireNames = SERVICE_NAMES, rounding: Decimal | None = None
) -> InvoiceDraft:
    """Read a draft from JSON: one object under the model's field names; `invoice_lines` may stand for `lines`.

    An object with `invoice_data` is read as the service's own (README B.1), with `key` and `submit_to_tax_request`
    beside it, under the wire's `names`; fields of `invoice_data` that the library does not know go to `extra`.
    Numbers are exact and may be written as text. An unknown or repeated field, a wrong type and a broken limit
    are faults; they are reported together, each with its path below `path`, such as `[12].lines[0].price`.
    `rounding` is the unit to which amounts may have been rounded. Raises `DraftError`.
    """
    try:
        document = parse_json(data, _read_once)
    except ValueError as error:
        raise DraftError((Fault(path or "draft", f"is not JSON: {error}"),)) from None
    if not isinstance(document, dict):
        raise DraftError((Fault(path or "draft", str(_wrong("an object", document))),))
    if INVOICE_DATA in document:
        return _load_wire(document, path, names, rounding)
    if "invoice_lines" in document and "lines" not in document:
        document["lines"] = document.pop("invoice_lines")
    draft, found = _structured(document, path, names, rounding)
    if draft is None or found:
        raise _draft_error(document, found)
    return draft


def _structured(
    document: dict[str, Any], path: str, names: WireNames, rounding: Decimal | None
) -> tuple[InvoiceDraft | None, tuple[Fault, ...]]:
    """Return the draft, unless a type is wrong, and every fault."""
    try:
        draft: InvoiceDraft = _STRICT.structure(document, InvoiceDraft)
    except ClassValidationError as error:
        types = tuple(_type_faults(error, path))
        limits = rules.faults(_loose_draft(document), prefix=path, reserved=names.reserved, rounding=rounding)
        # A type fault explains what the limits say of the same path, or of one inside it.
        inside = tuple(f"{fault.path}{end}" for fault in types for end in (".", "["))
        told = {fault.path for fault in types}
        others = (fault for fault in limits if fault.path not in told and not fault.path.startswith(inside))
        return None, (*types, *others)
    return draft, rules.faults(draft, prefix=path, reserved=names.reserved, rounding=rounding)


def _draft_error(document: dict[str, Any], faults: tuple[Fault, ...]) -> DraftError:
    key = document.get("key")
    return DraftError(faults, key=key if isinstance(key, str) else "")


def _load_wire(document: dict[str, Any], path: str, names: WireNames, rounding: Decimal | None) -> InvoiceDraft:
    """Read the service's own object with a key beside it. Raises `DraftError` with the paths of that object."""
    where = f"{path}." if path else ""
    strange = sorted({*document} - {"key", INVOICE_DATA, SUBMIT_TO_TAX})
    found = [Fault(step(where, name), "is not a field that is known here") for name in strange]
    if not isinstance(document[INVOICE_DATA], dict):
        found.append(Fault(where + INVOICE_DATA, str(_wrong("an object", document[INVOICE_DATA]))))
        raise _draft_error(document, tuple(found))
    if names.nested_submit_to_tax and SUBMIT_TO_TAX in document:
        found.append(Fault(where + SUBMIT_TO_TAX, "must stand in invoice_data (nested_submit_to_tax)"))
    draft, faults = _structured(modelled(document, names), "", names, rounding)
    found += [Fault(where + wire_path(fault.path, names), fault.message) for fault in faults]
    if draft is None or found:
        raise _draft_error(document, tuple(found))
    return draft


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse an object that has one name twice: parsers disagree about which of the two counts."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the field {step('', twice)} stands twice in one object")
    return found


_read_once = json_reader(object_pairs_hook=_once)


def _type_faults(error: ClassValidationError | IterableValidationError, path: str) -> Iterator[Fault]:
    """Walk cattrs' tree of errors and yield each leaf with its path."""
    noted, others = error.group_exceptions()
    for inner, note in noted:
        if isinstance(note, IterableValidationNote):
            below = f"{path}[{note.index}]"
        else:
            below = f"{path}.{note.name}" if path else str(note.name)
        if isinstance(inner, (ClassValidationError, IterableValidationError)):
            yield from _type_faults(inner, below)
        else:
            yield Fault(below, "is required" if isinstance(inner, KeyError) else str(inner))
    unknown = {name for inner in others if isinstance(inner, ForbiddenExtraKeysError) for name in inner.extra_fields}
    for name in sorted(unknown):
        yield Fault(step(f"{path}." if path else "", name), "is not a field that is known here")


def _loose_draft(document: dict[str, Any]) -> InvoiceDraft:
    """Build a draft from what is there, wrong types included, so that the limits of the rest can be checked."""
    known: dict[str, Any] = _known(InvoiceDraft, document)
    for name, model in PARTS.items():
        value = known.get(name)
        known[name] = [_loose(model, item) for item in value] if isinstance(value, list) else _loose(model, value)
    return unchecked(InvoiceDraft, **known)


def _loose(kind: type[Any], value: Any) -> Any:
    return unchecked(kind, **_known(kind, value)) if isinstance(value, dict) else value


def _known(kind: type, value: dict[str, Any]) -> dict[str, Any]:
    """The fields of a model that an object has, with None for a required one that it lacks."""
    names = fields_dict(kind)
    required = {name: None for name, attribute in names.items() if attribute.default is NOTHING}
    return required | {name: value[name] for name in names if name in value}
