"""The service's own JSON as a draft, amounts rounded to the currency, and what one e-mail address is."""

from __future__ import annotations

import json
from decimal import ROUND_DOWN, ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal
from typing import Any
from uuid import uuid4

import pytest
from attrs import evolve
from examples import examples
from fakes import FakeResponse, FakeTransport
from hypothesis import given
from hypothesis import strategies as st

from invoicing_async import AsyncInvoices, Invalid, Session, StaticToken, WireNames
from invoicing_async._core.http import Request
from invoicing_async._einvoices.draft_json import load_draft
from invoicing_async._einvoices.encode import dump_draft, encode_draft
from invoicing_async._einvoices.rules import JUDGED, faults, rounding_unit, rounds_to
from invoicing_async.drafts import DraftsFileError, read_csv, read_jsonl
from invoicing_async.errors import DraftError
from invoicing_async.models import Consumer, InvoiceDraft, InvoiceLine, PaymentMethod, SubmitToTax, VatRate
from invoicing_async.runs import InvoiceRun, State

TEMPLATE = "3fa85f64-5717-4562-b3fc-2c963f66afa6"
QUICK = examples(200)
LINE = InvoiceLine(name="Lamp", unit="piece", price="12345.67", quantity=3)
DRAFT = InvoiceDraft(key="A-1", invoice_template_id=TEMPLATE, lines=[LINE])
OTHER = WireNames(
    is_promotion="promo", payment_method="payment", emails="to", send_mail="mail", automatic="auto",
    has_tax_authority_code="coded",
)  # fmt: skip
NAMES = [WireNames(), OTHER, evolve(OTHER, nested_submit_to_tax=True), WireNames(nested_submit_to_tax=True)]

TEXT = st.text(st.characters(categories=["L", "N", "P"], codec="utf-8"), min_size=1, max_size=8)
MONEY = st.decimals(0, 10**6, places=2)
FREE = st.recursive(st.none() | st.booleans() | TEXT | MONEY, lambda inner: st.lists(inner, max_size=2), max_leaves=3)
DRAFTS = st.builds(
    InvoiceDraft,
    key=st.from_regex(r"[A-Z]-[0-9]{1,4}", fullmatch=True),
    invoice_template_id=st.uuids().map(str),
    lines=st.lists(
        st.builds(
            InvoiceLine, name=TEXT, unit=TEXT, price=MONEY, quantity=MONEY,
            vat_rate=st.none() | st.sampled_from(VatRate), is_promotion=st.none() | st.booleans(),
            discount_amount=st.none() | MONEY,
        ),
        min_size=1, max_size=2,
    ),
    consumer=st.none() | st.builds(Consumer, name=TEXT),
    payment_method=st.none() | st.sampled_from(PaymentMethod),
    has_tax_authority_code=st.none() | st.booleans(),
    submit_to_tax=st.none() | st.builds(SubmitToTax, emails=st.just(["a@b.vn"]), send_mail=st.none() | st.booleans()),
    extra=st.dictionaries(st.from_regex(r"x[a-z_]{1,5}", fullmatch=True), FREE, max_size=2),
)  # fmt: skip


@QUICK
@given(DRAFTS, st.sampled_from(NAMES))
def test_what_the_service_takes_is_read_as_the_draft_that_it_is(draft: InvoiceDraft, names: WireNames) -> None:
    """A body with a key in it is the draft again, and gives the same body to the last byte."""
    body = encode_draft(draft, names=names)
    found = load_draft(b'{"key":"' + draft.key.encode() + b'",' + body[1:], names=names)
    assert found == draft
    assert encode_draft(found, names=names) == body


def wire(invoice: dict[str, Any] | None = None, **beside: Any) -> str:
    line = {"name": "Lamp", "unit": "piece", "price": 1, "quantity": 2}
    base = {"invoice_template_id": TEMPLATE, "invoice_lines": [line]}
    return json.dumps({"key": "A-1", "invoice_data": base | (invoice or {}), **beside})


def test_fields_of_the_invoice_that_are_not_known_go_along() -> None:
    """Each at its place, nulls and nested ones included."""
    draft = load_draft(wire({"currency": "VND", "note": None, "deep": {"a": [1.50]}, "key": "theirs"}))
    sent = json.loads(encode_draft(draft), parse_float=Decimal)["invoice_data"]
    assert (sent["currency"], sent["note"], sent["deep"], sent["key"]) == (
        "VND",
        None,
        {"a": [Decimal("1.5")]},
        "theirs",
    )
    assert draft.key == "A-1"


FIRST = "invoice_data.invoice_lines[0]"
BAD_LINE = {"name": "x", "unit": "u", "price": "dear", "quantity": 1, "colour": "red"}


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        (wire({"invoice_lines": [BAD_LINE]}), [f"{FIRST}.colour", f"{FIRST}.price"]),
        (wire({"consumer": {"tax_code": "1" * 15}}), ["invoice_data.consumer.tax_code"]),
        (wire({"consumer": {"shoe": 44}}), ["invoice_data.consumer.shoe"]),
        (wire({"payment_method": "GOLD"}), ["invoice_data.payment_method"]),
        (wire({"invoice_template_id": "x"}), ["invoice_data.invoice_template_id"]),
        (wire(submit_to_tax_request={"emails": ["a@b.vn", "x"]}), ["submit_to_tax_request.emails[1]"]),
        (wire(submit_to_tax_request={"is_send_mail": "no"}), ["submit_to_tax_request.is_send_mail"]),
        (wire(submit_to_tax_request={"cc": []}), ["submit_to_tax_request.cc"]),
        (wire(submit_to_tax_request=[]), ["submit_to_tax_request"]),
        (wire(lines=[], extra={}), ["extra", "lines"]),
        (json.dumps({"key": "A", "invoice_data": []}), ["invoice_data"]),
        (json.dumps({"key": "A", "invoice_data": None}), ["invoice_data"]),
        (json.dumps({"invoice_data": {}}), ["invoice_data.invoice_lines", "invoice_data.invoice_template_id", "key"]),
    ],
)  # fmt: skip
def test_what_cannot_be_a_draft_is_a_fault_at_its_place_in_the_service_s_object(text: str, paths: list[str]) -> None:
    """Nothing is left out in silence, and the paths are those of the text."""
    with pytest.raises(DraftError) as caught:
        load_draft(text)
    assert sorted({fault.path for fault in caught.value.faults}) == paths


def test_the_wire_s_names_decide() -> None:
    """A default name under other settings is unknown: a fault in a line, one of the caller's fields in the invoice."""
    found = load_draft(wire({"payment": "CASH", "payment_method": "kept"}), names=OTHER)
    assert (found.payment_method, dict(found.extra)) == (PaymentMethod.CASH, {"payment_method": "kept"})
    line = {"name": "n", "unit": "u", "price": 1, "quantity": 1}
    assert load_draft(wire({"invoice_lines": [line | {"promo": True}]}), names=OTHER).lines[0].is_promotion is True
    with pytest.raises(DraftError, match=r"^invoice_data\.invoice_lines\[0\]\.is_promotion: is not a field"):
        load_draft(wire({"invoice_lines": [line | {"is_promotion": True}]}), names=OTHER)
    with pytest.raises(DraftError, match=r"^invoice_data\.invoice_lines\[0\]\.promo: must be true or false"):
        load_draft(wire({"invoice_lines": [line | {"promo": 1}]}), names=OTHER)
    with pytest.raises(DraftError, match=r"^submit_to_tax_request\.automatic: is not a field"):
        load_draft(wire(submit_to_tax_request={"automatic": True}))
    nested = WireNames(nested_submit_to_tax=True)
    with pytest.raises(DraftError, match="submit_to_tax_request: must stand in invoice_data"):
        load_draft(wire(submit_to_tax_request={"emails": []}), names=nested)
    with pytest.raises(DraftError, match=r"invoice_data\.submit_to_tax_request\.emails\[0\]"):
        load_draft(wire({"submit_to_tax_request": {"emails": ["x"]}}), names=nested)


def test_a_file_may_hold_either_shape() -> None:
    own = dump_draft(evolve(DRAFT, key="A-2"))
    assert [at.draft.key for at in read_jsonl([wire(), own])] == ["A-1", "A-2"]
    with pytest.raises(DraftsFileError, match=r"line 2, invoice_data\.invoice_template_id"):
        list(read_jsonl([own, wire({"invoice_template_id": 5})]))


UNITS = [Decimal("0.01"), Decimal("0.1"), Decimal(1), Decimal(10), Decimal(1000), Decimal("0.05"), Decimal(5)]


@QUICK
@given(
    st.decimals(-(10**9), 10**9, places=6), st.sampled_from(UNITS),
    st.sampled_from([ROUND_HALF_UP, ROUND_HALF_EVEN]), st.integers(-3, 3),
)  # fmt: skip
def test_an_amount_rounded_to_the_unit_is_taken_and_its_neighbours_are_not(
    exact: Decimal, unit: Decimal, how: str, off: int
) -> None:
    """Up or to the even one, at the unit; one unit further is a fault, and so is half of nothing."""
    rounded = (exact / unit).quantize(Decimal(1), rounding=how) * unit
    amount = rounded + off * unit
    near = abs(amount - exact) * 2 <= unit
    assert rounds_to(exact, amount, unit) is near
    assert rounds_to(exact, rounded, unit)
    assert off == 0 or not near or abs(rounded - exact) * 2 == unit


@QUICK
@given(st.decimals(0, 10**6, places=6), st.integers(0, 5))
def test_an_amount_with_more_digits_than_the_unit_is_held_to_its_own(exact: Decimal, places: int) -> None:
    """With whole dong allowed, 72.98 may stand for 72.975 and 72.60 may not."""
    quantum = Decimal(1).scaleb(-places)
    assert rounds_to(exact, exact.quantize(quantum, rounding=ROUND_HALF_UP), Decimal(1))
    wrong = exact.quantize(quantum, rounding=ROUND_DOWN) + 2 * quantum
    assert not rounds_to(exact, wrong, min(quantum, Decimal(1)))


def line(price: str, quantity: str, discount: str | None, amount: str) -> InvoiceDraft:
    return evolve(
        DRAFT,
        lines=[
            InvoiceLine(name="n", unit="u", price=price, quantity=quantity, discount_amount=discount, amount=amount)
        ],
    )


@pytest.mark.parametrize(
    ("price", "quantity", "discount", "amount", "needed"),
    [
        ("12345.67", "3", None, "37037", "1"), ("12345.67", "3", None, "37037.00", "1"),
        ("48.65", "1.5", None, "72.98", "0.01"),
        ("33.3333", "3", None, "100.00", "1"), ("909090.909", "11", None, "10000000", "1"),
        ("814.65", "1.300", None, "1059.05", "0.01"), ("33333.3333", "3", None, "100000", "1"),
        ("48.65", "1", "16.25883", "32.39", "0.01"), ("22633", "0.030987", None, "701.33", "0.01"),
        ("-12345.67", "3", None, "-37037", "1"),
    ],
)  # fmt: skip
def test_a_rounded_amount_names_the_setting_it_needs(
    price: str, quantity: str, discount: str | None, amount: str, needed: str
) -> None:
    draft = line(price, quantity, discount, amount)
    [fault] = faults(draft)
    assert fault.message.endswith(f"; rounded amounts are taken with the setting rounding={needed}")
    assert faults(draft, rounding=Decimal(needed)) == faults(draft, rounding=Decimal(1)) == ()
    assert encode_draft(draft, rounding=Decimal(1)).count(amount.encode()) == 1


@pytest.mark.parametrize("amount", ["40000", "37038", "37036", "37037.5", "370370", "0", "-37037"])
def test_a_wrong_amount_stays_a_fault(amount: str) -> None:
    draft = line("12345.67", "3", None, amount)
    [exact] = faults(draft)
    assert "rounding" not in exact.message
    [fault] = faults(draft, rounding=Decimal(1))
    assert fault.message.endswith("(more than rounding=1 allows)")
    assert faults(draft, rounding=JUDGED) == ()


@pytest.mark.parametrize("wrong", [0, -1, Decimal("NaN"), Decimal("Infinity"), Decimal("1E-40"), 0.01, True, "1", [1]])
def test_the_unit_is_a_positive_amount(wrong: Any) -> None:
    """Refused wherever the setting is given."""
    for make in (
        lambda: rounding_unit(wrong),
        lambda: read_csv([], rounding=wrong),
        lambda: read_jsonl([], rounding=wrong),
    ):
        with pytest.raises(ValueError, match="rounding must be a"):
            make()
    assert rounding_unit(None) is None
    assert rounding_unit(1) == 1


async def taken(request: Request) -> FakeResponse:
    body = json.dumps({"request_id": str(uuid4()), "status": "NEW"}).encode()
    return FakeResponse(200, {"Content-Type": "application/json"}, (body,))


@pytest.mark.asyncio
async def test_one_setting_reaches_every_way_in(tmp_path: Any) -> None:
    """Submitted directly, from a file, and through a run, which sends what it took in; without it, nothing leaves."""
    rounded = line("12345.67", "3", None, "37037")
    service = FakeTransport([taken])
    extra = evolve(rounded, key="A-2", extra={"po": "7"})
    row = f"key,invoice_template_id,name,unit,price,quantity,amount\nA-1,{TEMPLATE},n,u,12345.67,3,37037\n"
    for reader, text in ((read_jsonl, dump_draft(rounded)), (read_csv, row)):
        assert [at.draft for at in reader([text], rounding=Decimal(1))] == [rounded]
        with pytest.raises(DraftsFileError, match="rounding=1"):
            list(reader([text]))
    async with Session("https://service/api", auth=StaticToken("t"), transport=service) as session:
        exact, whole = AsyncInvoices(session), AsyncInvoices(session, rounding=Decimal(1))
        assert [type(outcome) async for outcome in exact.submit_many([rounded])] == [Invalid]
        assert whole.encode(rounded) == encode_draft(rounded, rounding=Decimal(1))
        with pytest.raises(DraftError, match="rounding=1"):
            exact.encode(rounded)
        async with InvoiceRun.open(tmp_path / "run.db") as run:
            with pytest.raises(DraftError, match=r"\[0\]\.lines\[0\]\.amount.*rounding=1"):
                await run.add([rounded, extra])
            assert (await run.add([rounded, extra], rounding=Decimal(1))).added == 2
            assert [item.state async for item in run.submit(exact)] == [State.SUBMITTED] * 2
    bodies = sorted(request.body for request in service.sent)
    assert bodies == sorted(encode_draft(draft, rounding=Decimal(1)) for draft in (rounded, extra))


def test_a_stored_draft_is_encoded_as_it_was_judged() -> None:
    """What was dumped after its amounts were judged is not judged again by a caller who knows of no rounding."""
    rounded = line("12345.67", "3", None, "37037")
    assert load_draft(dump_draft(rounded), rounding=JUDGED) == rounded


def emailed(*emails: str) -> list[str]:
    return [fault.message for fault in faults(evolve(DRAFT, submit_to_tax=SubmitToTax(emails=emails)))]


@pytest.mark.parametrize(
    "email",
    [
        "a@x.vn", "ke.toan+hd@cong-ty.com.vn", "o'brien@x.ie", "a_b-c=d!#$%&*/?^`{|}~@x.co", "a@sub.sub.x.vn", "A@X.VN",
        "kếtoán@côngty.vn", "用户@例え.jp", "a@xn--cngty-jua.vn", "1@1.vn", "a@localhost", "user.@docomo.ne.jp",
    ],
)  # fmt: skip
def test_an_address_as_people_have_them_is_one(email: str) -> None:
    assert emailed(email) == []


@pytest.mark.parametrize(
    "email",
    [
        "a@x.vn,", "a@x.vn;", "a@x.vn.", "<a@x.vn>", "An <a@x.vn>", "a@x.vn, b@x.vn", "a@x.vn;b@x.vn", "a@x.vn b@x.vn",
        "mailto:a@x.vn", "a@x..vn", "a@.vn", "@x.vn", "a@", "a", "", " a@x.vn", "a@x.vn ", "a@x.vn\n", '"a"@x.vn',
        "a@x.vn\u200b", "\ufeffa@x.vn", "a\xad@x.vn", "a@x\u2060.vn", "a\x00@x.vn", "a@[1.2.3.4]", "(a)@x.vn",
        "a\\@x.vn", "a@b@x.vn", "a\xa0@x.vn",
    ],
)  # fmt: skip
def test_what_is_around_or_between_addresses_is_never_sent_as_one(email: str) -> None:
    """From objects and from JSONL, each at its place."""
    [message] = emailed(email)
    assert message.startswith("must be an e-mail address")
    with pytest.raises(DraftError, match=r"submit_to_tax_request\.emails\[1\]"):
        load_draft(wire(submit_to_tax_request={"emails": ["ok@x.vn", email]}))
