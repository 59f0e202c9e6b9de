"""Drafts as the service takes them: exact digits, every field in its place, no name twice."""

from __future__ import annotations

import json
from decimal import Decimal
from types import MappingProxyType
from typing import Any

import pytest
from attrs import evolve
from wire_drafts import DRAFT, FULL, ID

from invoicing_async._einvoices.draft_json import load_draft
from invoicing_async._einvoices.encode import dump_draft, encode_draft, encode_dumped
from invoicing_async._einvoices.shape import WireNames
from invoicing_async.errors import (
    DraftError,
)
from invoicing_async.models import (
    SubmitToTax,
)


def parsed(text: bytes | str) -> Any:
    return json.loads(text, parse_float=Decimal, parse_int=Decimal)


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


def test_what_says_how_to_submit_to_tax_is_never_left_out_of_a_dumped_draft() -> None:
    """Its text is not put together unread: what stands beside the invoice would be lost."""
    assert encode_dumped(dump_draft(DRAFT)) == encode_draft(DRAFT)
    assert encode_dumped(dump_draft(evolve(DRAFT, submit_to_tax=SubmitToTax(emails=["a@b.vn"])))) is None


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
