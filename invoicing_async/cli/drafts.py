"""Drafts from a JSONL file: every fault of every line at once, before anything is sent."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

from attrs import evolve, field, frozen

from .._wire import WireNames, load_draft
from ..errors import DraftError, Fault
from ..models import Consumer, InvoiceDraft, InvoiceLine, PaymentMethod, VatRate
from .ids import lines, opened
from .rows import Row
from .screen import plain

__all__ = ["BadDraft", "Drafts", "example", "read_drafts"]


@frozen
class BadDraft:
    """A line that is no draft that can be sent."""

    line: int
    key: str
    faults: tuple[Fault, ...]

    def texts(self) -> Iterable[str]:
        """Give each fault as `line 12: lines[0].price: …`."""
        return (f"line {self.line}: {plain(fault)}" for fault in self.faults)

    def row(self) -> Row:
        """Give it as an outcome."""
        faults = [{"path": fault.path, "message": fault.message} for fault in self.faults]
        error = "; ".join(str(fault) for fault in self.faults)
        return {"key": self.key, "line": self.line, "outcome": "invalid", "error": error, "faults": faults}


@frozen
class Drafts:
    """What a file holds: the drafts that can be sent, with their lines by key, and the rest."""

    good: list[InvoiceDraft] = field(factory=list)
    lines: dict[str, int] = field(factory=dict)
    bad: list[BadDraft] = field(factory=list)


def read_drafts(where: str, names: WireNames) -> Drafts:
    """Read all drafts of a JSONL file, or of stdin for `-`; a key may stand in it once.

    Raises `CommandError` for a file that cannot be read.
    """
    drafts = Drafts()
    for number, line in lines(opened(where), where):
        if line.strip():
            _enter(drafts, number, line, names)
    return drafts


def _enter(drafts: Drafts, number: int, line: str, names: WireNames) -> None:
    try:
        draft = load_draft(line, names=names)
    except DraftError as error:
        drafts.bad.append(BadDraft(number, error.key, error.faults))
        return
    first = drafts.lines.setdefault(draft.key, number)
    if first == number:
        drafts.good.append(draft)
    else:
        fault = Fault("key", f"{draft.key!r} stands in line {first} already; each invoice has a key of its own")
        drafts.bad.append(BadDraft(number, draft.key, (fault,)))


def example(number: int = 1) -> InvoiceDraft:
    """Make up a draft that uses most fields."""
    line = InvoiceLine(
        name="Rattan desk lamp",
        unit="piece",
        code="LAMP-01",
        price=Decimal("240000.50"),
        quantity=Decimal(2),
        discount_amount=Decimal(10_000),
        vat_rate=VatRate.TEN,
        tax_amount=Decimal("47000.10"),
    )
    return InvoiceDraft(
        key=f"ORDER-{number:04}",
        invoice_template_id="3fa85f64-5717-4562-b3fc-2c963f66afa6",
        lines=(evolve(line, amount=line.price * line.quantity - (line.discount_amount or 0)),),
        consumer=Consumer(name="Nguyen Van An", tax_code="0101243150", address="1 Trang Tien, Ha Noi"),
        payment_method=PaymentMethod.BANK_TRANSFER,
    )
