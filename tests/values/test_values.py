"""Values are what their types say: wrong types are refused where they are made, and each travels whole."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import attrs
import pytest

import invoicing_async as ia
from invoicing_async._einvoices.decode import decode_request
from invoicing_async.auth import OAuthClientCredentials
from invoicing_async.errors import DraftError
from invoicing_async.models import unchecked

TEMPLATE = "3fa85f64-5717-4562-b3fc-2c963f66afa6"
ID = "11111111-2222-4333-8444-000000000001"
LINE = ia.InvoiceLine(name="Lamp", unit="piece", price="12.50", quantity=2)
DRAFT = ia.InvoiceDraft(
    key="A-1",
    invoice_template_id=TEMPLATE,
    lines=[LINE],
    consumer=ia.Consumer(name="An"),
    extra={"po": [1, {"a": None}]},
)
ANSWER = f'{{"request_id": "{ID}", "status": "SUCCESS", "data": {{"id": "{ID}", "amount": {{"total": 1.50}}}}}}'
REQUEST = decode_request(ANSWER.encode())
DOCUMENT = ia.SavedDocument(order_id="a", path=Path("a.pdf"), size=1, sha256="x")
NOT_YET = ia.OrderStatusError("m", status=409, code="ORDER_021", context={"a": 1})
REFUSED = ia.ApiError("m", status=409, code="C", context={"a": 1})
PARTNER = ia.HmacAuth(partner_client_id="p", secret_key="sk-3141", store_client_id="s", store_token="t")
CLIENT = OAuthClientCredentials(client_id="c", client_secret="sk-3141", tenant_connection_code="t")

VALUES: list[Any] = [
    LINE, DRAFT, DRAFT.consumer, ia.SubmitToTax(emails=["a@b.vn"]), REQUEST, REQUEST.data, DOCUMENT, PARTNER,
    ia.Submitted(DRAFT, REQUEST), ia.Saved("a", DOCUMENT), ia.Skipped("a", DOCUMENT), ia.Duplicate("a"),
    ia.StaticToken("t"), ia.Poller(), ia.RetryPolicy(), ia.Timeouts(), ia.Limits(), ia.Layout(), ia.WireNames(),
]  # fmt: skip
CARRIERS: list[Any] = [
    ia.Rejected(DRAFT, REFUSED), ia.InDoubt(DRAFT, ia.SubmissionInDoubtError("m", key="k")), ia.Failed("a", REFUSED),
    ia.Deferred("a", NOT_YET), ia.NotSent(DRAFT, REFUSED), ia.Invalid(DRAFT, DraftError((), key="k")),
]  # fmt: skip
ERRORS: list[BaseException] = [
    REFUSED, DraftError((), key="k"), ia.PollTimeoutError("m", request_id=ID, last=REQUEST),
    ia.SubmissionInDoubtError("m", key="k"), ia.TransportError("m", sent="no"), ia.ProtocolError("m", head=b"x"),
]  # fmt: skip
WAYS: list[Callable[[Any], Any]] = [lambda value: pickle.loads(pickle.dumps(value)), copy.deepcopy, copy.copy]


def name_of(value: object) -> str:
    return type(value).__name__


@pytest.mark.parametrize("way", WAYS, ids=["pickle", "deepcopy", "copy"])
@pytest.mark.parametrize("value", VALUES, ids=name_of)
def test_a_value_travels_whole(value: Any, way: Callable[[Any], Any]) -> None:
    """It is equal afterwards, hashes alike, and its mappings are as read-only as before."""
    found = way(value)
    assert found == value
    assert hash(found) == hash(value)
    for attribute in attrs.fields(type(value)):
        assert type(getattr(found, attribute.name)) is type(getattr(value, attribute.name))
    attrs.asdict(value)


@pytest.mark.parametrize("way", WAYS[:2], ids=["pickle", "deepcopy"])
@pytest.mark.parametrize("value", [*CARRIERS, *ERRORS], ids=name_of)
def test_an_error_and_an_outcome_that_carries_one_travel(value: Any, way: Callable[[Any], Any]) -> None:
    found = way(value)
    error, other = (value, found) if isinstance(value, BaseException) else (value.error, found.error)
    assert (type(other), str(other)) == (type(error), str(error))
    assert {name: str(item) for name, item in vars(other).items()}.keys() == vars(error).keys()


@pytest.mark.parametrize("way", WAYS, ids=["pickle", "deepcopy", "copy"])
def test_credentials_travel_and_are_still_not_shown(way: Callable[[Any], Any]) -> None:
    """A copy of the client's credentials holds no token of its own."""
    assert "3141" not in repr(way(PARTNER))
    found = way(CLIENT)
    assert found.client_secret == CLIENT.client_secret
    assert found._held.token is None
    assert found._held is not CLIENT._held
    assert "3141" not in repr(found)


NUMBERS = ("price", "quantity", "tax_amount", "discount_amount", "amount")


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("wrong", [1.5, float("nan"), True, object(), b"1", [1], 1j, {"a": 1}], ids=name_of)
def test_a_number_of_another_type_is_refused_where_the_line_is_made(name: str, wrong: Any) -> None:
    with pytest.raises(ValueError, match=rf"^{name}: must be a Decimal, an int or digits in text, not ") as caught:
        attrs.evolve(LINE, **{name: wrong})
    assert isinstance(caught.value, DraftError)
    assert caught.value.faults[0].path == name


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("right", [Decimal("1.50"), 3, "12.50", "-1", 10**20], ids=str)
def test_a_number_is_decimal_once_it_is_taken(name: str, right: Any) -> None:
    found = getattr(attrs.evolve(LINE, **{name: right}), name)
    assert type(found) is Decimal
    assert found == Decimal(right)


@pytest.mark.parametrize(
    ("name", "wrong", "said"),
    [
        ("name", 5, "must be text, not int"),
        ("unit", None, "is required"),
        ("price", None, "is required"),
        ("code", 7, "must be text, not int"),
        ("vat_rate", 10, "must be text, not int"),
        ("is_promotion", "yes", "must be True, False or None, not str"),
    ],
)
def test_a_line_refuses_every_wrong_type_by_its_field(name: str, wrong: Any, said: str) -> None:
    with pytest.raises(DraftError) as caught:
        attrs.evolve(LINE, **{name: wrong})
    assert str(caught.value) == f"{name}: {said}"


@pytest.mark.parametrize(
    ("name", "wrong", "said"),
    [
        ("lines", 5, "lines: must be a list of InvoiceLine, not int"),
        ("lines", "abc", "lines: must be a list of InvoiceLine, not str"),
        ("lines", {"name": "x"}, "lines: must be a list of InvoiceLine, not dict"),
        ("lines", [LINE, {"name": "x"}], "lines[1]: must be an InvoiceLine, not dict"),
        ("key", 5, "key: must be text, not int"),
        ("key", None, "key: is required"),
        ("invoice_template_id", object(), "invoice_template_id: must be text, not object"),
        ("consumer", {"name": "x"}, "consumer: must be a Consumer, not dict"),
        ("submit_to_tax", ["a@b.vn"], "submit_to_tax: must be a SubmitToTax, not list"),
        ("has_tax_authority_code", 1, "has_tax_authority_code: must be True, False or None, not int"),
        ("payment_method", 1.5, "payment_method: must be text, not float"),
    ],
)
def test_a_draft_refuses_every_wrong_type_by_its_field(name: str, wrong: Any, said: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        attrs.evolve(DRAFT, **{name: wrong})
    assert str(caught.value) == said


def test_all_wrong_types_are_named_at_once() -> None:
    wrong: dict[str, Any] = {"price": 1.5, "quantity": object(), "name": None}
    with pytest.raises(DraftError) as caught:
        attrs.evolve(LINE, **wrong)
    assert [fault.path for fault in caught.value.faults] == ["name", "price", "quantity"]


def test_lines_may_be_any_iterable_of_lines() -> None:
    for given in ((LINE,), [LINE], iter([LINE]), (line for line in [LINE])):
        assert attrs.evolve(DRAFT, lines=given).lines == (LINE,)


def test_a_reader_may_build_what_it_will_report() -> None:
    """Whatever the types; what is not given has its default, or None."""
    found: Any = unchecked(ia.InvoiceDraft, lines=[unchecked(ia.InvoiceLine, price=1.5)], key=5)
    assert (found.key, found.invoice_template_id, found.lines[0].price, found.lines[0].code) == (5, None, 1.5, None)
    assert dict(found.extra) == {}
    assert unchecked(ia.SubmitToTax).emails == ()


def test_constructors_say_what_they_take() -> None:
    """The annotations a type checker reads: what converts, not what is kept."""
    taken = ia.InvoiceLine.__init__.__annotations__
    assert taken["price"] == taken["quantity"] == "Decimal | int | str"
    assert {taken[name] for name in NUMBERS[2:]} == {"Decimal | int | str | None"}
    assert ia.InvoiceDraft.__init__.__annotations__["lines"] == "Iterable[InvoiceLine]"
    assert ia.SubmitToTax.__init__.__annotations__["emails"] == "Iterable[str]"
