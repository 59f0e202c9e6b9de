"""The rules in the metadata of a draft's fields, and that everything about a field follows from them."""

from __future__ import annotations

import json
from csv import DictWriter
from decimal import Decimal
from io import StringIO
from typing import Any, TypeVar, cast, get_args

import pytest
from attrs import AttrsInstance, evolve, fields_dict
from wire_drafts import FULL

from invoicing_async._einvoices.draft_json import load_draft
from invoicing_async._einvoices.encode import dump_draft, encode_draft
from invoicing_async._einvoices.shape import SUBMIT_TO_TAX, WireNames, wire_names
from invoicing_async._values.field_rules import Kind, field_rules, field_types
from invoicing_async.drafts import COLUMNS, read_csv
from invoicing_async.invoices import ExportFormat
from invoicing_async.invoices._exports import KINDS
from invoicing_async.models import Consumer, InvoiceDraft, InvoiceLine, SubmitToTax
from invoicing_async.sandbox._schema import Shape

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


Model = TypeVar("Model", bound=AttrsInstance)
SAMPLES = {Kind.TEXT: "1", Kind.NUMBER: Decimal(1), Kind.FLAG: True}


def complete(owner: Model) -> Model:
    """Return a value with something in every field that has none yet."""
    rules = field_rules(type(owner)).items()
    lacking = {name: rule for name, rule in rules if getattr(owner, name) is None}
    changes = {name: next(iter(rule.members or [SAMPLES[rule.kind]])) for name, rule in lacking.items()}
    return cast("Model", evolve(cast("Any", owner), **changes))


EVERYTHING = evolve(
    complete(FULL),
    lines=[complete(line) for line in FULL.lines],
    consumer=complete(FULL.consumer or Consumer()),
    submit_to_tax=complete(FULL.submit_to_tax or SubmitToTax()),
    extra={},
)
"""A draft with every field, those that are new included."""


def test_what_is_sent_are_the_wire_names_of_the_fields() -> None:
    """A draft with every field has every name in its object, and no other."""
    names = WireNames()
    body: dict[str, Any] = json.loads(encode_draft(EVERYTHING))
    invoice = body["invoice_data"]
    assert {*invoice} == {*wire_names(InvoiceDraft, names).values()}
    assert {*invoice["consumer"]} == {*wire_names(Consumer, names).values()}
    assert {*invoice["invoice_lines"][0]} == {*wire_names(InvoiceLine, names).values()}
    assert {*body[SUBMIT_TO_TAX]} == {*wire_names(SubmitToTax, names).values()}


@pytest.mark.parametrize(
    "names", [WireNames(), WireNames(nested_submit_to_tax=True, is_promotion="promo", emails="to")]
)
def test_every_field_comes_back_from_its_wire_name_and_from_its_own(names: WireNames) -> None:
    """Neither the service's object nor the stored form loses or changes a field."""
    sent = encode_draft(EVERYTHING, names=names).decode()
    assert load_draft(f'{{"key":"{EVERYTHING.key}",{sent[1:]}', names=names) == EVERYTHING
    assert load_draft(dump_draft(EVERYTHING)) == EVERYTHING


def test_every_field_has_a_column_from_which_it_is_read() -> None:
    """A row with every column is the draft with every field."""
    line = EVERYTHING.lines[0]
    owners = {"consumer_": EVERYTHING.consumer, "submit_to_tax_": EVERYTHING.submit_to_tax}
    cells = {}
    for column in COLUMNS:
        prefix = next((prefix for prefix in owners if column.startswith(prefix)), "")
        owner = owners.get(prefix) or (EVERYTHING if hasattr(EVERYTHING, column) else line)
        value = getattr(owner, column.removeprefix(prefix))
        cells[column] = " ".join(value) if isinstance(value, tuple) else str(value)
    out = StringIO()
    writer = DictWriter(out, COLUMNS)
    writer.writeheader()
    writer.writerow(cells)
    [found] = read_csv(out.getvalue().splitlines(keepends=True), decimal_mark=".")
    assert found.draft == evolve(EVERYTHING, lines=[line])


def test_the_sandbox_knows_every_field() -> None:
    """Its own reading of the document, written apart, takes a draft with every field."""
    assert Shape().faults(encode_draft(EVERYTHING)) == ()


def test_every_export_format_has_a_check_of_its_documents() -> None:
    """The formats that may be asked for are those whose documents can be checked."""
    assert {*KINDS} == {*get_args(ExportFormat)}
