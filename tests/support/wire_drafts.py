"""Drafts with the least and with every field, and bodies and headers of answers."""

from __future__ import annotations

import json
from decimal import Decimal

from attrs import evolve
from examples import examples
from hypothesis import strategies as st

from invoicing_async.models import (
    Consumer,
    InvoiceDraft,
    InvoiceLine,
    PaymentMethod,
    SubmitToTax,
    VatRate,
)

QUICK = examples(100, derandomize=True)
ID = "3fa85f64-5717-4562-b3fc-2c963f66afa6"

LINE = InvoiceLine(name="Cà phê", unit="ly", price=Decimal("50000.00"), quantity=Decimal("1E+2"))
DRAFT = InvoiceDraft(key="A-1", invoice_template_id=ID, lines=(LINE,))
FULL = InvoiceDraft(
    key="A-1",
    invoice_template_id=ID,
    lines=(
        InvoiceLine(
            name="Cà phê sữa đá",
            unit="ly",
            price=Decimal(50000),
            quantity=Decimal(3),
            code="CF",
            tax_amount=Decimal("12000.10"),
            discount_amount=Decimal("0.5"),
            vat_rate=VatRate.EIGHT,
            amount=Decimal("149999.5"),
            is_promotion=False,
        ),
    ),
    consumer=Consumer(
        code="C1",
        name="Công ty",
        tax_code="0101243150",
        address="Hà Nội",
        citizen_identification="001234567890",
        phone="024 1234",
        buyer_name="Bà Lan",
        bank_account="123",
    ),
    payment_method=PaymentMethod.BANK_TRANSFER,
    has_tax_authority_code=True,
    submit_to_tax=SubmitToTax(emails=("a@b.vn", "c@d.vn"), send_mail=True, automatic=False),
    extra={"z": None, "currency": "VND", "rate": Decimal("1.10"), "tags": [{"b": 1, "a": True}]},
)


def body(value: object) -> bytes:
    return json.dumps(value).encode()


TEXT = st.text(min_size=1, max_size=12).filter(str.strip)
NUMBER = st.builds(
    lambda digits, exponent: Decimal(digits).scaleb(exponent), st.integers(-(10**9), 10**9), st.integers(-6, 3)
)
OPTIONAL = st.none() | NUMBER


@st.composite
def lines(draw: st.DrawFn) -> InvoiceLine:
    line = InvoiceLine(
        name=draw(TEXT),
        unit=draw(TEXT),
        price=draw(NUMBER),
        quantity=draw(NUMBER),
        code=draw(st.none() | TEXT),
        tax_amount=draw(OPTIONAL),
        discount_amount=draw(OPTIONAL),
        vat_rate=draw(st.none() | st.sampled_from(VatRate)),
        is_promotion=draw(st.none() | st.booleans()),
    )
    exact = line.price * line.quantity - (line.discount_amount or 0)
    return evolve(line, amount=draw(st.sampled_from([None, exact])))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["key", "lines", "name", "price", "consumer", "emails", "submit_to_tax", "extra", "x"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)
