"""What is read from the file of a run is what the strict reader of drafts reads."""

from __future__ import annotations

from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from invoicing_async._durable.drafts import _restored
from invoicing_async._einvoices.draft_json import load_draft
from invoicing_async._einvoices.encode import dump_draft
from invoicing_async.models import (
    Consumer,
    InvoiceDraft,
    InvoiceLine,
    PaymentMethod,
    SubmitToTax,
    VatRate,
)

TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12).filter(str.strip)
NUMBER = st.decimals(min_value=-(10**9), max_value=10**9, places=4)
LINES = st.builds(
    InvoiceLine,
    name=TEXT,
    unit=TEXT,
    price=NUMBER,
    quantity=NUMBER,
    vat_rate=st.none() | st.sampled_from(VatRate),
    tax_amount=st.none() | NUMBER,
    is_promotion=st.none() | st.booleans(),
)
DRAFTS = st.builds(
    InvoiceDraft,
    key=st.from_regex(r"[A-Z]{2}-[0-9]{1,5}", fullmatch=True),
    invoice_template_id=st.uuids().map(str),
    lines=st.lists(LINES, min_size=1, max_size=3),
    consumer=st.none() | st.builds(Consumer, name=st.none() | TEXT),
    payment_method=st.none() | st.sampled_from(PaymentMethod),
    has_tax_authority_code=st.none() | st.booleans(),
    submit_to_tax=st.none() | st.builds(SubmitToTax, emails=st.lists(st.just("a@b.vn"), max_size=2)),
    extra=st.dictionaries(TEXT, st.none() | TEXT | NUMBER | st.lists(st.booleans(), max_size=2), max_size=2),
)


@given(DRAFTS)
@examples(100)
def test_what_is_read_from_the_file_is_what_the_strict_reader_reads(found: InvoiceDraft) -> None:
    """The quick way of `_restored` and the strict one of `load_draft` agree to the last digit and type."""
    payload = dump_draft(found)
    restored = _restored(payload)
    assert restored == load_draft(payload)
    assert dump_draft(restored) == payload
    assert all(type(line.vat_rate) in {VatRate, type(None)} for line in restored.lines)
    assert type(restored.payment_method) in {PaymentMethod, type(None)}
