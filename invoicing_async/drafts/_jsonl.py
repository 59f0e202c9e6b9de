"""One draft a line, as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from decimal import Decimal

from .._einvoices.draft_json import load_draft
from .._einvoices.shape import WireNames
from .._einvoices.spreadsheet import code_fault
from .._values.table import BOM, LineFault, decoded, ended
from ..errors import DraftError
from ..models import InvoiceDraft
from ._csv_cells import CONSUMER_CODES
from ._records import NUL, Record, canonical

__all__ = ["jsonl_records"]


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
    odd = tuple(LineFault(path, message, at) for path, message in _code_faults(draft))
    return Record(at, canonical(draft), odd)


def _code_faults(draft: InvoiceDraft) -> Iterator[tuple[str, str]]:
    """Return what a spreadsheet did to the codes of a draft, each with its path."""
    codes = [("key", draft.key)]
    codes += [(f"consumer.{name}", getattr(draft.consumer, name, None) or "") for name in CONSUMER_CODES]
    codes += [(f"lines[{index}].code", line.code or "") for index, line in enumerate(draft.lines)]
    return ((path, message) for path, code in codes if (message := code_fault(code)))
