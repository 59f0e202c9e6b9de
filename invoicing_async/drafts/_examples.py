"""Example drafts, to begin a file with."""

from __future__ import annotations

import csv
from decimal import Decimal
from io import StringIO
from typing import Any

from attrs import evolve, fields_dict

from ..models import Consumer, InvoiceDraft, InvoiceLine, PaymentMethod, SubmitToTax, VatRate
from ._csv_cells import COLUMNS

__all__ = ["example_csv", "example_draft"]


def example_draft(number: int = 1) -> InvoiceDraft:
    """Return a made-up draft that uses most fields; its key ends in `number`."""
    line = InvoiceLine(
        name="Rattan desk lamp",
        unit="piece",
        code=f"LAMP-{number:02}",
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


def example_csv(count: int) -> str:
    """Return `count` example drafts as the text of a CSV file, with every column; each has two lines."""
    drafts = [example_draft(number) for number in range(1, count + 1)]
    delivery = InvoiceLine(name="Delivery", unit="trip", price=30_000, quantity=1, vat_rate=VatRate.TEN, amount=30_000)
    parts = {"consumer": Consumer, "submit_to_tax": SubmitToTax}
    text = StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for draft in drafts:
        about = ("key", "invoice_template_id", "payment_method", "has_tax_authority_code")
        row = {name: getattr(draft, name) for name in about}
        for part, of in parts.items():
            row |= {f"{part}_{name}": getattr(getattr(draft, part), name, None) for name in fields_dict(of)}
        for line in (*draft.lines, delivery):
            row |= {name: getattr(line, name) for name in fields_dict(InvoiceLine)}
            writer.writerow({name: _cell(value) for name, value in row.items()})
    return text.getvalue()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return " ".join(value) if isinstance(value, tuple) else f"{value:f}" if isinstance(value, Decimal) else str(value)
