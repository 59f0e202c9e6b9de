"""One draft a line, as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from decimal import Decimal

from .._einvoices.draft_json import load_draft
from .._einvoices.shape import WireNames
from .._einvoices.spreadsheet import code_fault
from .._values.field_rules import field_rules
from .._values.table import BOM, LineFault, decoded, ended
from ..errors import DraftError
from ..models import Consumer, InvoiceDraft, InvoiceLine, SubmitToTax
from ._records import NUL, Record, canonical

__all__ = ["jsonl_records"]

_CODES: dict[type, tuple[str, ...]] = {type(None): ()} | {
    model: tuple(name for name, rule in field_rules(model).items() if rule.code)
    for model in (InvoiceDraft, Consumer, SubmitToTax, InvoiceLine)
}
"""What a spreadsheet spoils unseen, by model."""


def jsonl_records(lines: Iterable[str | bytes], names: WireNames, rounding: Decimal | None) -> Iterator[Record]:
    for at, line in enumerate(_json_lines(lines), 1):
        text, fault = decoded(at, line)
        if at == 1:
            text = text.removeprefix(BOM)
        if fault is not None:
            yield Record(at, faults=(fault,))
            if fault.message.startswith("is UTF-16"):
                return
        elif text.strip():
            yield _json_record(at, text, names, rounding)


def _json_lines(lines: Iterable[str | bytes]) -> Iterator[str | bytes]:
    """Part lines that end in CR alone. A draft that was given whole, with line feeds in it, stays whole."""
    for line in lines:
        whole = (b"\n" in line.rstrip(b"\r\n")) if isinstance(line, bytes) else ("\n" in line.rstrip("\r\n"))
        if whole:
            yield line
        else:
            yield from ended((line,))  # type: ignore[type-var] # it is one or the other


def _json_record(at: int, text: str, names: WireNames, rounding: Decimal | None) -> Record:
    if NUL in text:
        return Record(at, faults=(LineFault("", "holds a NUL byte", at),))
    try:
        draft = load_draft(text, names=names, rounding=rounding)
    except DraftError as error:
        faults = (LineFault("" if fault.path == "draft" else fault.path, fault.message, at) for fault in error.faults)
        return Record(at, faults=tuple(faults))
    parts: list[tuple[str, object]] = [
        ("", draft),
        ("consumer.", draft.consumer),
        ("submit_to_tax.", draft.submit_to_tax),
    ]
    parts += [(f"lines[{index}].", line) for index, line in enumerate(draft.lines)]
    codes = ((where + name, getattr(part, name)) for where, part in parts for name in _CODES[type(part)])
    odd = (LineFault(path, message, at) for path, code in codes if code and (message := code_fault(code)))
    return Record(at, canonical(draft), tuple(odd))
