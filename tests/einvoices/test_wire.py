"""JSON in and out: exact digits, exact types, every fault with its path, and an answer for whatever bytes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from decimal import Decimal
from email.utils import formatdate
from types import MappingProxyType
from typing import Any

import pytest
from attrs import evolve
from hypothesis import example, given, settings
from hypothesis import strategies as st

from invoicing_async._core.envelope import error_from, retry_after
from invoicing_async._einvoices.decode import Export, Token, decode_export, decode_request, decode_token
from invoicing_async._einvoices.draft_json import load_draft
from invoicing_async._einvoices.encode import dump_draft, encode_draft, encode_dumped
from invoicing_async._einvoices.shape import WireNames
from invoicing_async.errors import (
    ApiError,
    AuthenticationError,
    DraftError,
    OrderStatusError,
    PermissionDeniedError,
    ProtocolError,
    RateLimitError,
    ServiceUnavailableError,
)
from invoicing_async.models import (
    AuthorityStatus,
    Consumer,
    InvoiceDraft,
    InvoiceLine,
    PaymentMethod,
    RequestStatus,
    SubmitToTax,
    VatRate,
)

QUICK = settings(max_examples=100, deadline=None, derandomize=True)
ID = "3fa85f64-5717-4562-b3fc-2c963f66afa6"
OTHER = "d0e11047-acaf-468f-a325-3d2f5964f5ff"
NOW = 1_758_112_944.0

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


def parsed(text: bytes | str) -> Any:
    return json.loads(text, parse_float=Decimal, parse_int=Decimal)


def body(value: object) -> bytes:
    return json.dumps(value).encode()


def headers(values: Mapping[str, str] | None = None) -> Callable[[str], str | None]:
    lowered = {name.lower(): value for name, value in (values or {}).items()}
    return lambda name: lowered.get(name.lower())


# --- encode -------------------------------------------------------------------------------------------------------


def test_the_smallest_body_has_only_what_is_given() -> None:
    assert (
        encode_draft(DRAFT)
        == (
            '{"invoice_data":{"invoice_lines":[{"name":"Cà phê","price":50000.00,"quantity":100,"unit":"ly"}],'
            f'"invoice_template_id":"{ID}"}}}}'
        ).encode()
    )


def test_the_fullest_body_has_every_field_where_the_document_puts_it() -> None:
    assert parsed(encode_draft(FULL)) == {
        "invoice_data": {
            "consumer": {
                "code": "C1",
                "name": "Công ty",
                "tax_code": "0101243150",
                "address": "Hà Nội",
                "citizen_identification": "001234567890",
                "phone": "024 1234",
                "buyer_name": "Bà Lan",
                "bank_account": "123",
            },
            "invoice_template_id": ID,
            "invoice_lines": [
                {
                    "code": "CF",
                    "name": "Cà phê sữa đá",
                    "unit": "ly",
                    "price": 50000,
                    "quantity": 3,
                    "tax_amount": Decimal("12000.10"),
                    "discount_amount": Decimal("0.5"),
                    "vat_rate": "EIGHT",
                    "amount": Decimal("149999.5"),
                    "is_promotion": False,
                }
            ],
            "has_tax_authority_code": True,
            "payment_method": "BANK_TRANSFER",
            "z": None,
            "currency": "VND",
            "rate": Decimal("1.10"),
            "tags": [{"a": True, "b": 1}],
        },
        "submit_to_tax_request": {"emails": ["a@b.vn", "c@d.vn"], "is_send_mail": True, "auto_submit_to_tax": False},
    }


def test_digits_are_written_as_they_are_and_the_key_is_not_sent() -> None:
    text = encode_draft(evolve(FULL, key="ORDER-KEY")).decode()
    assert '"rate":1.10' in text
    assert '"tax_amount":12000.10' in text
    assert "ORDER-KEY" not in text


def test_the_order_of_extra_does_not_change_the_bytes() -> None:
    turned = evolve(FULL, extra=dict(reversed(list(FULL.extra.items()))))
    assert encode_draft(turned) == encode_draft(FULL)
    assert dump_draft(turned) == dump_draft(FULL)


def test_nested_extra_of_any_mapping_and_sequence_is_written() -> None:
    draft = evolve(DRAFT, extra={"x": MappingProxyType({"b": (1, None), "a": {}})})
    assert b'"x":{"a":{},"b":[1,null]}' in encode_draft(draft)


def test_a_draft_with_faults_is_never_encoded() -> None:
    with pytest.raises(DraftError, match="at least one line is needed"):
        encode_draft(evolve(DRAFT, lines=()))


def test_an_empty_submit_to_tax_is_an_empty_object() -> None:
    assert encode_draft(evolve(DRAFT, submit_to_tax=SubmitToTax())).endswith(b'},"submit_to_tax_request":{}}')


def test_all_open_names_come_from_the_table() -> None:
    names = WireNames(
        is_promotion="gift",
        has_tax_authority_code="with_code",
        payment_method="pay_by",
        emails="recipients",
        send_mail="mail",
        automatic="auto",
        nested_submit_to_tax=True,
    )
    sent = parsed(encode_draft(FULL, names=names))
    assert list(sent) == ["invoice_data"]
    assert sent["invoice_data"]["with_code"] is True
    assert sent["invoice_data"]["pay_by"] == "BANK_TRANSFER"
    assert sent["invoice_data"]["invoice_lines"][0]["gift"] is False
    assert sent["invoice_data"]["submit_to_tax_request"] == {
        "recipients": ["a@b.vn", "c@d.vn"],
        "mail": True,
        "auto": False,
    }


def test_extra_may_use_a_default_name_once_the_table_has_another() -> None:
    draft = evolve(DRAFT, extra={"payment_method": "CARD"})
    with pytest.raises(DraftError, match=r"extra\.payment_method"):
        encode_draft(draft)
    names = WireNames(payment_method="pay_by")
    assert parsed(encode_draft(draft, names=names))["invoice_data"]["payment_method"] == "CARD"
    assert load_draft(dump_draft(draft), names=names) == draft
    with pytest.raises(DraftError, match=r"extra\.pay_by"):
        encode_draft(evolve(DRAFT, extra={"pay_by": 1}), names=names)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"emails": ""}, r"WireNames\.emails must be printable text that is not empty"),
        ({"send_mail": None}, r"WireNames\.send_mail must be"),
        ({"automatic": "a\n"}, r"WireNames\.automatic must be"),
        ({"is_promotion": "payment_method"}, r"must be distinct"),
        ({"is_promotion": "price"}, r"must not use price"),
        ({"payment_method": "consumer"}, r"must not use consumer"),
        ({"payment_method": "submit_to_tax_request", "nested_submit_to_tax": True}, r"must not use submit_to_tax_req"),
    ],
)
def test_a_name_that_cannot_work_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WireNames(**changes)


# --- drafts as JSON -------------------------------------------------------------------------------------------------

TEXT = st.text(min_size=1, max_size=12).filter(str.strip)
NUMBER = st.builds(
    lambda digits, exponent: Decimal(digits).scaleb(exponent), st.integers(-(10**9), 10**9), st.integers(-6, 3)
)
OPTIONAL = st.none() | NUMBER
EXTRA = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | NUMBER | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


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


WRONG = [
    pytest.param(path, value, message, id=f"{path} is {value!r}")
    for path, right, message in FIELDS
    for kind, values in KINDS.items()
    if kind not in right
    for value in values
]


@pytest.mark.parametrize(("path", "value", "message"), WRONG)
def test_nothing_is_converted_from_another_type(path: str, value: object, message: str) -> None:
    """A null is no 'None', a 1 no '1' and no true, a text no list of letters."""
    assert loaded_faults(placed(path, value))[path].startswith(message)


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


@QUICK
@given(value=JSON, place=st.sampled_from([row[0] for row in FIELDS]))
def test_whatever_json_says_it_is_a_draft_or_a_draft_error(value: Any, place: str) -> None:
    for document in (value, placed(place, value)):
        try:
            draft = load_draft(body(document))
        except DraftError:
            continue
        assert load_draft(dump_draft(draft)) == draft


# --- answers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", list(RequestStatus))
def test_the_answer_of_a_submission_is_its_id_and_status(status: RequestStatus) -> None:
    request = decode_request(body({"request_id": ID, "status": status.value, "n": 1.50}))
    assert (request.request_id, request.status, request.data) == (ID, status, None)
    assert isinstance(request.status, RequestStatus)
    assert request.terminal is (status != "NEW")
    assert request.raw["n"] == Decimal("1.5")
    assert isinstance(request.raw["n"], Decimal)


def test_an_unknown_status_stays_text_and_is_not_terminal() -> None:
    request = decode_request(body({"request_id": ID, "status": "QUEUED"}))
    assert type(request.status) is str
    assert not request.terminal


@pytest.mark.parametrize("asked", [None, ID])
def test_an_answer_may_be_wrapped_in_a_success_envelope(asked: str | None) -> None:
    answer = {"success": True, "message": "ok", "data": {"request_id": ID, "status": "NEW"}}
    request = decode_request(body(answer), request_id=asked)
    assert (request.request_id, request.status) == (ID, RequestStatus.NEW)
    assert request.raw["message"] == "ok"


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"status": "NEW"},
        {"request_id": ID, "status": ""},
        {"request_id": ID, "status": 200},
        {"request_id": None, "status": "NEW"},
        {"request_id": "5", "status": "NEW"},
        {"request_id": 5, "status": "NEW"},
        {"success": False, "request_id": ID, "status": "NEW"},
        {"success": True, "data": [ID, "NEW"]},
        {"success": True, "data": {"status": "NEW"}},
        {"success": "false", "data": {"request_id": ID, "status": "NEW"}},
        {"data": {"request_id": "5", "status": "NEW"}},
    ],
)
def test_a_submission_without_a_sound_id_and_status_is_no_answer(answer: object) -> None:
    with pytest.raises(ProtocolError) as caught:
        decode_request(body(answer), status=202)
    assert caught.value.head == body(answer)
    assert caught.value.status == 202


@pytest.mark.parametrize(
    "text", [b"", b"null", b"[]", b'"x"', b"<html>", b"\xff\xfe", b"{", b"Infinity", b"[" * 99_999]
)
def test_what_is_no_object_is_no_answer(text: bytes) -> None:
    for decode in (decode_request, decode_export):
        with pytest.raises(ProtocolError, match="not a JSON object") as caught:
            decode(text)
        assert caught.value.head == text[:200]
    with pytest.raises(ProtocolError):
        decode_request(text, request_id=ID)


DATA = {
    "id": OTHER,
    "authority_status": "ACCEPTED",
    "code": "LOOKUP",
    "created_date": "2025-09-17",
    "date_of_issue": "17/09/2025",
    "serial_number": "1C25TAA",
    "invoice_amount": {"total": 1.10},
}


@pytest.mark.parametrize("outer", [{}, {"status": "SUCCESS"}, {"status": None, "success": True}, {"request_id": ID}])
def test_a_status_answer_with_data_is_success(outer: dict[str, Any]) -> None:
    request = decode_request(body({**outer, "data": DATA}), request_id=ID)
    assert request.request_id == ID
    assert request.status is RequestStatus.SUCCESS
    data = request.data
    assert data is not None
    assert (data.id, data.code, data.serial_number) == (OTHER, "LOOKUP", "1C25TAA")
    assert (data.created_date, data.date_of_issue) == ("2025-09-17", "17/09/2025")
    assert data.authority_status is AuthorityStatus.ACCEPTED
    assert data.raw["invoice_amount"]["total"] == Decimal("1.10")


@pytest.mark.parametrize("answer", [{}, {"data": None}, {"status": "NEW"}, {"request_id": ID.upper(), "message": "x"}])
def test_a_status_answer_without_data_is_new(answer: object) -> None:
    request = decode_request(body(answer), request_id=ID)
    assert (request.request_id, request.status, request.data) == (ID, RequestStatus.NEW, None)


def test_an_unknown_authority_status_stays_text_and_a_mistyped_field_counts_as_absent() -> None:
    odd = {"id": OTHER, "authority_status": "QUEUED", "code": 5, "created_date": 1758112944}
    data = decode_request(body({"data": odd}), request_id=ID).data
    assert data is not None
    assert (type(data.authority_status), data.authority_status) == (str, "QUEUED")
    assert (data.code, data.created_date, data.raw["code"]) == (None, None, 5)
    assert decode_request(body({"data": {"id": OTHER}}), request_id=ID).data is not None


@pytest.mark.parametrize("data", [{}, {"id": None}, {"id": 5}, {"id": "x"}, [], "x", 0, False])
def test_a_success_whose_invoice_has_no_id_is_no_status_answer(data: object) -> None:
    for answer in ({"data": data}, {"status": "SUCCESS", "data": data}):
        with pytest.raises(ProtocolError, match="data must be an object whose id is a UUID"):
            decode_request(body(answer), request_id=ID)


@pytest.mark.parametrize("data", [{}, {"reason": "x"}, "x"])
def test_odd_data_does_not_hide_a_submission_or_a_failure(data: object) -> None:
    """A request id that came back must not be lost over a field that nobody asked for."""
    created = decode_request(body({"request_id": ID, "status": "SUCCESS", "data": data}))
    failed = decode_request(body({"status": "FAILED", "data": data}), request_id=ID)
    assert (created.request_id, created.data, failed.status, failed.data) == (ID, None, RequestStatus.FAILED, None)
    assert failed.raw["data"] == data


@pytest.mark.parametrize("answer", [{"request_id": OTHER}, {"request_id": 5}, {"request_id": ""}, {"status": 5}])
def test_a_status_answer_with_odd_outer_fields_is_refused(answer: object) -> None:
    with pytest.raises(ProtocolError):
        decode_request(body(answer), request_id=ID)


@QUICK
@given(text=st.binary(max_size=60) | JSON.map(body), asked=st.sampled_from([None, ID]))
def test_whatever_an_answer_holds_it_decodes_or_is_a_protocol_error(text: bytes, asked: str | None) -> None:
    decoders: list[Callable[[], object]] = [
        lambda: decode_request(text, request_id=asked),
        lambda: decode_export(text),
        lambda: decode_token(text),
    ]
    for decode in decoders:
        with suppress(ProtocolError):
            decode()


@pytest.mark.parametrize(
    ("answer", "export"),
    [
        ({"status": "NEW", "download_url": None}, Export(download_url=None, status="NEW")),
        ({"status": "BUILDING"}, Export(download_url=None, status="BUILDING")),
        ({"status": "FAIL", "download_url": 5}, Export(download_url=None, status="FAIL")),
        ({"status": "PAUSED", "download_url": "soon"}, Export(download_url="soon", status="PAUSED")),
        (
            {"status": "DONE", "download_url": "https://cdn.example.vn:8443/a%20b.pdf?x=1"},
            Export(download_url="https://cdn.example.vn:8443/a%20b.pdf?x=1", status="DONE"),
        ),
        (
            {"status": "DONE", "download_url": "http://127.0.0.1/a"},
            Export(download_url="http://127.0.0.1/a", status="DONE"),
        ),
    ],
)
def test_an_export_has_a_status_and_when_done_a_link(answer: object, export: Export) -> None:
    assert decode_export(body(answer)) == export


@pytest.mark.parametrize("url", [None, 5, "", " \n", ["https://h/a"]])
def test_a_done_export_may_lack_its_link_for_a_moment(url: object) -> None:
    """What a link must be is told where it is followed."""
    assert decode_export(body({"status": "DONE", "download_url": url})) == Export(download_url=None, status="DONE")


@pytest.mark.parametrize("status", [None, 5, "", ["DONE"]])
def test_an_export_needs_a_status(status: object) -> None:
    with pytest.raises(ProtocolError, match="status must be text"):
        decode_export(body({"status": status, "download_url": "https://h/a"}))


@pytest.mark.parametrize(
    ("given_lifetime", "lifetime"),
    [(3600, 3600.0), (0.5, 0.5), (0, 0.0), ("3600", 3600.0), (-1, None), ("-1", None), ("soon", None), (None, None),
     (True, None), ([1], None), ("9" * 400, None), ("", None)],
)  # fmt: skip
def test_a_token_has_a_lifetime_if_one_can_be_read(given_lifetime: object, lifetime: float | None) -> None:
    token = decode_token(body({"access_token": "s3cret", "token_type": "x", "expires_in": given_lifetime}))
    assert token == Token(access_token="s3cret", expires_in=lifetime)
    assert "s3cret" not in repr(token)


@pytest.mark.parametrize(
    "text",
    [
        b'{"access_token": "s3cret with spaces"}',
        b'{"access_token": "s3cret\\n"}',
        b'{"access_token": "s3cret\\u0111"}',
        b'{"access_token": ["s3cret"]}',
        b'{"access_token": null, "refresh": "s3cret"}',
        b'{"token": "s3cret"}',
        b'{"access_token": ""}',
        b'["s3cret"]',
        b"s3cret",
        b"{}",
    ],
)
def test_a_token_answer_without_a_token_shows_nothing_of_itself(text: bytes) -> None:
    with pytest.raises(ProtocolError) as caught:
        decode_token(text)
    error = caught.value
    assert (error.head, error.__cause__, error.__context__) == (b"", None, None)
    assert "s3cret" not in f"{error!r} {error.__dict__}"


# --- errors ---------------------------------------------------------------------------------------------------------

ORDER_021 = b"""{
"success": false,
"error": {
"code": "ORDER_021",
"message": "Order status does not allow this operation",
"details": {
"timestamp": "2025-09-17T11:37:17.275Z",
"hint": "Order is not eligible for invoice generation. Order substatus must be confirmed, waiting_pickup, waiting_drop_off, in_transit, delivered, or order_completed.",
"context": {
"orderId": "bce41d32-94f6-4250-8d69-caa3e3d10b79",
"allowedSubstatuses": [
"confirmed",
"waiting_pickup",
"waiting_drop_off",
"in_transit",
"delivered",
"order_completed"
]
}
}
},
"requestId": "ae06ba6f-e8b1-4cb5-b6c9-5f02cf6f4712"
}"""  # noqa: E501 - as the service's document prints it
SYS_DEP_503 = b"""{
"success": false,
"error": {
"code": "SYS_DEP_503",
"message": "Service temporarily unavailable",
"details": {
"timestamp": "2025-09-17T12:22:54.052Z",
"hint": "Service temporarily unavailable",
"context": {
"orderId": "d0e11047-acaf-468f-a325-3d2f5964f5ff",
"operation": "invoice_generation",
"errorCode": "ECONNREFUSED",
"category": "connection_refused",
"details": "External dependency refused the connection. The external service may be starting up, experiencing issues, or is temporarily unavailable."
}
}
},
"requestId": "a5646038-751d-4555-8a76-d96b7a97a0d1"
}"""  # noqa: E501 - as the service's document prints it


def said(status: int, text: bytes, values: Mapping[str, str] | None = None) -> ApiError:
    error = error_from(status, headers(values), text, now=NOW)
    assert error is not None
    return error


@pytest.mark.parametrize("status", [200, 409, 422, 500, 503, 401])
def test_order_021_is_that_error_whatever_the_status(status: int) -> None:
    error = said(status, ORDER_021)
    assert type(error) is OrderStatusError
    assert (error.code, error.status, error.retry_after, error.declared) == ("ORDER_021", status, None, True)
    assert error.message == "Order status does not allow this operation"
    assert error.hint.startswith("Order is not eligible for invoice generation.")
    assert error.request_id == "ae06ba6f-e8b1-4cb5-b6c9-5f02cf6f4712"
    assert error.context["orderId"] == "bce41d32-94f6-4250-8d69-caa3e3d10b79"
    assert error.allowed_substatuses[0] == "confirmed"
    assert len(error.allowed_substatuses) == 6


@pytest.mark.parametrize("status", [200, 302, 400, 500, 503])
def test_sys_dep_503_is_that_error_whatever_the_status(status: int) -> None:
    error = said(status, SYS_DEP_503, {"Retry-After": "7"})
    assert type(error) is ServiceUnavailableError
    assert (error.code, error.status, error.retry_after) == ("SYS_DEP_503", status, 7.0)
    assert error.request_id == "a5646038-751d-4555-8a76-d96b7a97a0d1"
    assert error.context["errorCode"] == "ECONNREFUSED"
    assert error.hint == "Service temporarily unavailable"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, ApiError),
        (401, AuthenticationError),
        (403, PermissionDeniedError),
        (404, ApiError),
        (429, RateLimitError),
        (500, ApiError),
        (502, ServiceUnavailableError),
        (503, ServiceUnavailableError),
        (504, ServiceUnavailableError),
    ],
)
@pytest.mark.parametrize(
    "text", [b"", b"<html>", b"{}", b"[]", b'{"success": true}', b'{"success": 0}', b'{"error": {}}', b"\xff"]
)
def test_an_error_status_without_an_envelope_is_told_by_the_status(
    status: int, kind: type[ApiError], text: bytes
) -> None:
    error = said(status, text)
    assert type(error) is kind
    assert (error.status, error.code, error.declared) == (status, None, False)
    assert error.message == f"the service answered {status} without an error envelope"


def test_a_reason_in_a_foreign_error_body_is_passed_on() -> None:
    assert said(400, body({"message": "no such template"})).message == "no such template"
    assert said(400, body({"message": " ", "error": "bad"})).message == "bad"
    assert said(400, body({"error": "invalid_client", "error_description": "why"})).message == "why"


def test_an_unknown_code_is_told_by_the_status() -> None:
    envelope = body({"success": False, "error": {"code": "ORDER_999", "message": "x"}})
    assert type(said(200, envelope)) is ApiError
    assert type(said(429, envelope)) is RateLimitError
    assert said(429, envelope).code == "ORDER_999"


@pytest.mark.parametrize(
    "envelope",
    [
        {"success": False},
        {"success": False, "error": None},
        {"success": False, "error": [1]},
        {"success": False, "error": {"code": [5], "message": {}, "details": {}}, "requestId": {}},
        {"success": False, "error": {"code": " ", "details": {"hint": [], "context": [1]}}, "requestId": None},
    ],
)
def test_missing_and_mistyped_parts_of_an_envelope_are_left_out(envelope: object) -> None:
    error = said(200, body(envelope))
    assert (type(error), error.message, error.code, error.request_id) == (ApiError, "", None, None)
    assert error.context == {}
    assert error.hint == ApiError.hint


def test_the_message_of_an_envelope_may_stand_outside_its_error() -> None:
    assert said(200, body({"success": False, "message": "outside"})).message == "outside"
    assert said(200, body({"success": False, "error": "plain"})).message == "plain"


def test_a_foreign_message_becomes_one_bounded_printable_line() -> None:
    error = said(200, body({"success": False, "error": {"message": "\x1b[31mbad\r\nline\ud800" + "x" * 9999}}))
    assert error.message.startswith("bad line\ufffdx")
    assert error.message.isprintable()
    assert len(error.message) <= 300


@pytest.mark.parametrize("status", [200, 204, 301, 302, 304, 399])
@pytest.mark.parametrize(
    "text", [b"", b"%PDF-1.7\xff", b'{"success": true}', b'{"success": null}', b'[{"success": false}]']
)
def test_an_answer_that_declares_no_error_is_none(status: int, text: bytes) -> None:
    assert error_from(status, headers(), text, now=NOW) is None


@QUICK
@given(
    status=st.integers(100, 599),
    text=st.binary(max_size=80)
    | JSON.map(lambda value: body({"success": False, "error": value, "requestId": value}))
    | st.tuples(JSON, JSON).map(
        lambda pair: body({"success": False, "error": {"code": pair[0], "message": pair[1], "details": pair[0]}})
    ),
    wait=st.none() | st.text(max_size=30) | st.from_regex(r"\A[A-Z][a-z]{2}, \d+ [A-Z][a-z]{2} \d+ [\d:]+ [-+\d]+\Z"),
    date=st.none() | st.text(max_size=30),
)
@example(status=200, text=b"[" * 99_999, wait=None, date=None)
@example(status=500, text=b'{"success": false, "error": {"code": 1e99999999999999999999}}', wait="1", date="x")
@example(status=500, text=b'{"success": false, "x": ' + b"9" * 5000 + b"}", wait="9" * 999, date=None)
def test_error_from_never_raises(status: int, text: bytes, wait: str | None, date: str | None) -> None:
    values = {name: value for name, value in (("Retry-After", wait), ("Date", date)) if value is not None}
    error = error_from(status, headers(values), text, now=NOW)
    if status >= 400:
        assert error is not None
    if error is not None:
        assert str(error)
        assert error.retry_after is None or 0 <= error.retry_after < float("inf")


AT = "Sun, 06 Nov 1994 08:49:37 GMT"
AT_EPOCH = 784_111_777.0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120.0),
        (" 0 ", 0.0),
        ("1.5", 1.5),
        ("-5", 0.0),
        ("+5", 5.0),
        (AT, 60.0),
        ("Sunday, 06-Nov-94 08:49:37 GMT", 60.0),
        ("Sun Nov  6 08:49:37 1994", 60.0),
        ("Sun, 06 Nov 1994 08:49:37 -0000", 60.0),
        ("Sun, 06 Nov 1994 09:49:37 +0100", 60.0),
        ("Sun, 06 Nov 1990 08:49:37 GMT", 0.0),
        ("soon", None),
        ("", None),
        ("1e3", None),
        ("inf", None),
        ("nan", None),
        ("9" * 400, None),
        ("\u0665", None),
        ("Sun, 99 Nov 1994 08:49:37 GMT", None),
        ("Sun, 06 Nov 1994 08:49:37 +9999", None),
        ("Sun, 06 Nov 99999999999999999999 08:49:37 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str, seconds: float | None) -> None:
    assert retry_after(headers({"Retry-After": value}), now=AT_EPOCH - 60) == seconds


def test_a_date_counts_from_the_answers_own_clock_if_it_has_one() -> None:
    date = formatdate(AT_EPOCH - 10, usegmt=True)
    assert retry_after(headers({"Retry-After": AT, "Date": date}), now=NOW) == 10.0
    assert retry_after(headers({"Retry-After": AT, "Date": "junk"}), now=AT_EPOCH - 3) == 3.0


def test_no_retry_after_is_none() -> None:
    assert retry_after(headers(), now=NOW) is None


@pytest.mark.parametrize(
    ("date", "ahead"),
    [
        ("Wed, 21 Oct 2015 07:28:00 GMT", 99.5),
        ("Wednesday, 21-Oct-15 07:28:00 GMT", 99.5),
        ("Wed Oct 21 07:28:00 2015", 99.5),
        ("Wed, 21 Oct 2015 09:28:00 +0200", 99.5),
        ("soon", None),
        ("", None),
        (None, None),
        ("Wed, 21 Oct 99999999 07:28:00 GMT", None),
    ],
)
def test_an_error_answer_says_how_far_this_machines_clock_is_ahead(date: str | None, ahead: float | None) -> None:
    """A Date is cut to whole seconds, so the middle of its second is meant."""
    now = 1_445_412_480.0 + 100
    error = error_from(401, lambda name: date if name == "Date" else None, b"", now=now)
    assert error is not None
    assert error.clock_ahead == ahead
