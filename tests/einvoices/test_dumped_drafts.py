"""Drafts as JSON: each is read back as it was, with exact types and every fault with its path."""

from __future__ import annotations

import json
from decimal import Decimal
from itertools import chain
from typing import Any

import pytest
from attrs import evolve
from hypothesis import example, given
from hypothesis import strategies as st
from wire_drafts import DRAFT, FULL, ID, JSON, NUMBER, QUICK, TEXT, body, lines

from invoicing_async._einvoices.draft_json import load_draft
from invoicing_async._einvoices.encode import dump_draft, encode_draft, encode_dumped
from invoicing_async._einvoices.shape import WireNames
from invoicing_async.errors import (
    DraftError,
)
from invoicing_async.models import (
    Consumer,
    InvoiceDraft,
    PaymentMethod,
    SubmitToTax,
)

EXTRA = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | NUMBER | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


DRAFTS = st.builds(
    InvoiceDraft,
    key=st.from_regex(r"[A-Z]{2}-[0-9]{1,5}", fullmatch=True),
    invoice_template_id=st.uuids().map(str),
    lines=st.lists(lines(), min_size=1, max_size=3),
    consumer=st.none() | st.builds(Consumer, name=st.none() | TEXT, tax_code=st.none() | TEXT),
    payment_method=st.none() | st.sampled_from(PaymentMethod),
    has_tax_authority_code=st.none() | st.booleans(),
    submit_to_tax=st.none() | st.builds(SubmitToTax, emails=st.lists(st.just("a@b.vn"), max_size=2)),
    extra=st.dictionaries(st.text(max_size=4), EXTRA, max_size=3),
)


@QUICK
@given(draft=DRAFTS)
@example(draft=FULL)
def test_a_dumped_draft_is_one_line_and_loads_as_it_was(draft: InvoiceDraft) -> None:
    text = dump_draft(draft)
    assert len(text.splitlines()) == 1
    assert load_draft(text) == draft
    assert load_draft(text.encode()) == draft
    assert dump_draft(load_draft(text)) == text


@QUICK
@given(draft=DRAFTS)
def test_every_digit_reaches_the_wire(draft: InvoiceDraft) -> None:
    """Read back with Decimal, each number has the very digits of the draft."""
    sent = json.loads(encode_draft(draft), parse_float=str, parse_int=str)["invoice_data"]["invoice_lines"]
    for line, written in zip(draft.lines, sent, strict=True):
        for name in ("price", "quantity", "tax_amount", "discount_amount", "amount"):
            value = getattr(line, name)
            assert written.get(name) == (None if value is None else format(value, "f"))


@QUICK
@given(draft=DRAFTS)
@example(draft=FULL)
@example(draft=evolve(DRAFT, key='a":{b', consumer=Consumer(name='"lines":[', address="1,\u2028")))
def test_what_was_dumped_gives_the_body_that_the_draft_gives(draft: InvoiceDraft) -> None:
    """Unread, with every digit; a draft whose members would change says so."""
    for names in (WireNames(), WireNames(payment_method="pay", has_tax_authority_code="code")):
        body = encode_dumped(dump_draft(draft), names=names)
        assert (body is None) == bool(draft.extra or draft.submit_to_tax)
        if body is not None:
            exact = json.JSONDecoder(parse_float=str, parse_int=str)
            assert exact.decode(body.decode()) == exact.decode(encode_draft(draft, names=names).decode())
    assert encode_dumped(dump_draft(draft), names=WireNames(is_promotion="promo")) is None


def test_other_line_ends_in_a_text_do_not_break_the_line() -> None:
    draft = evolve(DRAFT, extra={"note": "a\nb\x85c\u2028d\u2029e"})
    assert dump_draft(draft).splitlines() == [dump_draft(draft)]
    assert load_draft(dump_draft(draft)) == draft


@pytest.mark.parametrize("value", [1.5, b"x", {1}])
def test_dump_refuses_what_json_cannot_say_exactly(value: object) -> None:
    with pytest.raises(TypeError, match="has no exact form in JSON"):
        dump_draft(evolve(DRAFT, extra={"x": value}))


LINE_JSON: dict[str, Any] = {"name": "Cà phê", "unit": "ly", "price": 50000, "quantity": 3}
DRAFT_JSON: dict[str, Any] = {"key": "A-1", "invoice_template_id": ID, "lines": [LINE_JSON]}


def loaded_faults(value: Any, **options: Any) -> dict[str, str]:
    with pytest.raises(DraftError) as caught:
        load_draft(value if isinstance(value, (str, bytes)) else body(value), **options)
    by_path = {fault.path: fault.message for fault in caught.value.faults}
    assert len(by_path) == len(caught.value.faults)
    return by_path


def test_invoice_lines_may_stand_for_lines_but_not_beside_it() -> None:
    wire = {"key": "A-1", "invoice_template_id": ID, "invoice_lines": [LINE_JSON]}
    assert load_draft(body(wire)) == load_draft(body(DRAFT_JSON))
    assert loaded_faults(DRAFT_JSON | wire) == {"invoice_lines": "is not a field that is known here"}


@pytest.mark.parametrize("text", ["0.10", "-5", "1e2", "1E-2", "0", "12345678901234567890.123456789"])
def test_a_number_is_exact_and_may_be_text(text: str) -> None:
    for written in (text, f'"{text}"'):
        draft = load_draft(dump_draft(DRAFT).replace("50000.00", written))
        assert draft.lines[0].price == Decimal(text)


def test_null_is_the_same_as_absent_for_an_optional_field() -> None:
    nothing = dict.fromkeys(("consumer", "payment_method", "has_tax_authority_code", "submit_to_tax"))
    assert load_draft(body({**DRAFT_JSON, **nothing})) == load_draft(body(DRAFT_JSON))


KINDS: dict[str, tuple[Any, ...]] = {
    "null": (None,),
    "true or false": (True, False),
    "text": ("x", "", "1,5", "NaN", "+1", "\u0661", "1_0", "1e9999999", " 1"),
    "a number": (1, 0, 1.0, -5),
    "a list": ([], ["x"], [1]),
    "an object": ({}, {"x": 1}),
}
FIELDS: list[tuple[str, set[str], str]] = [
    ("key", {"text"}, "must be text, not"),
    ("invoice_template_id", {"text"}, "must be text, not"),
    ("lines", {"a list"}, "must be a list, not"),
    ("lines[0]", {"an object"}, "must be an object, not"),
    ("lines[0].name", {"text"}, "must be text, not"),
    ("lines[0].unit", {"text"}, "must be text, not"),
    ("lines[0].code", {"text", "null"}, "must be text, not"),
    ("lines[0].price", {"a number"}, "must be a number, or one written as text, not"),
    ("lines[0].quantity", {"a number"}, "must be a number, or one written as text, not"),
    ("lines[0].amount", {"a number", "null"}, "must be a number, or one written as text, not"),
    ("lines[0].vat_rate", {"null"}, "must be one of UNDECLARED, NONE, ZERO, FIVE, EIGHT, TEN, not"),
    ("lines[0].is_promotion", {"true or false", "null"}, "must be true or false, not"),
    ("consumer", {"an object", "null"}, "must be an object, not"),
    ("consumer.tax_code", {"text", "null"}, "must be text, not"),
    ("payment_method", {"null"}, "must be one of CASH, BANK_TRANSFER, UNKNOWN, not"),
    ("has_tax_authority_code", {"true or false", "null"}, "must be true or false, not"),
    ("submit_to_tax", {"an object", "null"}, "must be an object, not"),
    ("submit_to_tax.emails", {"a list"}, "must be a list, not"),
    ("submit_to_tax.emails[0]", {"text"}, "must be text, not"),
    ("submit_to_tax.send_mail", {"true or false", "null"}, "must be true or false, not"),
    ("extra", {"an object"}, "must be an object, not"),
]


def placed(path: str, value: Any) -> dict[str, Any]:
    """A draft as JSON with one value at a path."""
    document: Any = json.loads(json.dumps({**DRAFT_JSON, "consumer": {}, "submit_to_tax": {"emails": ["a@b.vn"]}}))
    steps: list[Any] = [
        int(step) if step.isdigit() else step for step in path.replace("[", ".").replace("]", "").split(".")
    ]
    owner = document
    for step in steps[:-1]:
        owner = owner[step]
    owner[steps[-1]] = value
    return dict(document)


@pytest.mark.parametrize(("path", "right", "message"), FIELDS)
def test_nothing_is_converted_from_another_type(path: str, right: set[str], message: str) -> None:
    """A null is no 'None', a 1 no '1' and no true, a text no list of letters."""
    for value in chain.from_iterable(values for kind, values in KINDS.items() if kind not in right):
        assert loaded_faults(placed(path, value))[path].startswith(message), value


@pytest.mark.parametrize("path", ["key", "invoice_template_id", "lines", "lines[0].name", "lines[0].price"])
def test_a_required_field_that_is_missing_is_named(path: str) -> None:
    document = placed(path, None)
    owner = document["lines"][0] if "." in path else document
    del owner[path.rpartition(".")[2]]
    assert loaded_faults(document) == {path: "is required"}


def test_types_limits_and_unknown_fields_are_reported_together_below_the_path() -> None:
    document = {
        "key": None,
        "lines": [
            {"name": "x" * 501, "unit": "", "price": True, "quantity": "2", "prise": 1, "is_promotion": 1},
            5,
            {"name": "x", "unit": "y", "price": 2, "quantity": "2", "amount": 5},
        ],
        "consumer": [],
        "submit_to_tax": {"emails": ["a@b.vn", "nobody", 7], "b\n": 1},
        "extra": {"consumer": 1},
        "total": 1,
    }
    assert loaded_faults(document, path="[12]") == {
        "[12].key": "must be text, not null",
        "[12].invoice_template_id": "is required",
        "[12].lines[0].price": "must be a number, or one written as text, not true or false",
        "[12].lines[0].is_promotion": "must be true or false, not a number",
        "[12].lines[0].prise": "is not a field that is known here",
        "[12].lines[0].name": "has 501 characters, at most 500 are allowed",
        "[12].lines[0].unit": "must not be empty or blank",
        "[12].lines[1]": "must be an object, not a number",
        "[12].lines[2].amount": "must be price * quantity - discount_amount = 4, got 5",
        "[12].consumer": "must be an object, not a list",
        "[12].submit_to_tax.emails[1]": "must be an e-mail address",
        "[12].submit_to_tax.emails[2]": "must be text, not a number",
        "[12].submit_to_tax.'b\\n'": "is not a field that is known here",
        "[12].total": "is not a field that is known here",
        "[12].extra.consumer": "is a name that the library writes itself",
    }


def test_limits_alone_are_faults_of_a_draft_with_the_right_types() -> None:
    with pytest.raises(DraftError) as caught:
        load_draft(body({**DRAFT_JSON, "lines": []}), path="[3]")
    assert [str(fault) for fault in caught.value.faults] == ["[3].lines: at least one line is needed"]
    assert caught.value.key == "A-1"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not JSON: Expecting value"),
        ("{", "is not JSON: Expecting property name"),
        (b"\xff", "is not JSON: 'utf-8' codec"),
        ('{"a": NaN}', "is not JSON: NaN is not JSON"),
        ("[" * 200_000, "is not JSON: holds a number or a nesting out of all bounds (RecursionError)"),
        ("1e99999999999999999999", "is not JSON: holds a number or a nesting out of all bounds (InvalidOperation)"),
        ('{"key": "a", "key": "b"}', "is not JSON: the field key stands twice in one object"),
        ("[]", "must be an object, not a list"),
        ('"x"', "must be an object, not text"),
        ("null", "must be an object, not null"),
        ("5", "must be an object, not a number"),
    ],
    ids=range(11),
)
def test_what_is_no_json_object_is_one_fault(text: str | bytes, message: str) -> None:
    assert loaded_faults(text)["draft"].startswith(message)
    assert list(loaded_faults(text, path="[7]")) == ["[7]"]


@QUICK
@given(value=JSON, place=st.sampled_from([row[0] for row in FIELDS]))
def test_whatever_json_says_it_is_a_draft_or_a_draft_error(value: Any, place: str) -> None:
    for document in (value, placed(place, value)):
        try:
            draft = load_draft(body(document))
        except DraftError:
            continue
        assert load_draft(dump_draft(draft)) == draft
