"""The rules in the metadata of a draft's fields, and that everything about a field follows from them."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest
from attrs import AttrsInstance, fields_dict
from wire_drafts import FULL

from invoicing_async._einvoices.encode import encode_draft
from invoicing_async._einvoices.shape import SUBMIT_TO_TAX, WireNames, wire_names
from invoicing_async._values.field_rules import Kind, field_rules, field_types
from invoicing_async.drafts import COLUMNS
from invoicing_async.invoices import ExportFormat
from invoicing_async.invoices._exports import KINDS
from invoicing_async.models import Consumer, InvoiceDraft, InvoiceLine, SubmitToTax

MODELS = [InvoiceDraft, InvoiceLine, Consumer, SubmitToTax]


@pytest.mark.parametrize("model", MODELS)
def test_every_field_but_extra_has_a_rule(model: type[AttrsInstance]) -> None:
    """A field without one would be checked by nobody and sent under no name."""
    assert {*fields_dict(model)} - {*field_rules(model)} <= {"extra"}


@pytest.mark.parametrize("model", MODELS)
def test_a_text_has_a_limit_and_a_choice_has_members(model: type[AttrsInstance]) -> None:
    """The limit of a text is above 0, and only a choice has members."""
    for rule in field_rules(model).values():
        assert (rule.limit > 0) is (rule.kind is Kind.TEXT)
        assert (rule.members is not None) is (rule.kind is Kind.CHOICE)


def test_no_two_fields_have_one_column() -> None:
    """Columns are the fields of four models, and no name stands twice among them."""
    rules = [rule for model in MODELS for rule in field_rules(model).values()]
    assert len(COLUMNS) == sum(rule.column for rule in rules)


def test_a_required_field_takes_no_none() -> None:
    """A field without a default must be given, and every other may be None."""
    types = field_types(InvoiceLine)
    assert type(None) not in types["price"]
    assert type(None) in types["amount"]


def test_what_is_sent_are_the_wire_names_of_the_fields() -> None:
    """A draft with every field has every name in its object, and no other but those of `extra`."""
    names = WireNames()
    body: dict[str, Any] = json.loads(encode_draft(FULL))
    invoice = body["invoice_data"]
    assert {*invoice} - {*FULL.extra} == {*wire_names(InvoiceDraft, names).values()}
    assert {*invoice["consumer"]} == {*wire_names(Consumer, names).values()}
    assert {*invoice["invoice_lines"][0]} == {*wire_names(InvoiceLine, names).values()}
    assert {*body[SUBMIT_TO_TAX]} == {*wire_names(SubmitToTax, names).values()}


def test_every_export_format_has_a_check_of_its_documents() -> None:
    """The formats that may be asked for are those whose documents can be checked."""
    assert {*KINDS} == {*get_args(ExportFormat)}
