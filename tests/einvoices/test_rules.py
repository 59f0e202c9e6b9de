"""The limits of README B.1: each at its edge, every fault at once, nothing ever raised."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal, localcontext
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest
from attrs import AttrsInstance, fields_dict
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from invoicing_async._einvoices import checks, rules
from invoicing_async.errors import DraftError
from invoicing_async.models import Consumer, InvoiceDraft, InvoiceLine, PaymentMethod, SubmitToTax, VatRate, unchecked

TEMPLATE = "3fa85f64-5717-4562-b3fc-2c963f66afa6"
T = TypeVar("T", bound=AttrsInstance)
QUICK = examples(150, derandomize=True)


def evolve(value: T, **changes: Any) -> T:
    """Change a value as a reader of files builds it: whatever the types."""
    return unchecked(type(value), **{name: getattr(value, name) for name in fields_dict(type(value))} | changes)


LINE = InvoiceLine(name="Cà phê sữa đá", unit="ly", price=Decimal(50000), quantity=Decimal(3))
DRAFT = InvoiceDraft(key="A-1", invoice_template_id=TEMPLATE, lines=(LINE,))
FULL = InvoiceDraft(
    key="A-1",
    invoice_template_id=TEMPLATE.upper(),
    lines=[
        evolve(
            LINE,
            code="CF",
            tax_amount=Decimal("12000.5"),
            discount_amount=Decimal("0.001"),
            amount=Decimal("149999.999"),
            vat_rate=VatRate.EIGHT,
            is_promotion=False,
        )
    ],
    consumer=Consumer(code="", name="Công ty", tax_code="0" * 14, citizen_identification="1" * 12, phone="0" * 20),
    payment_method=PaymentMethod.CASH,
    has_tax_authority_code=True,
    submit_to_tax=SubmitToTax(emails=["a@b.vn"], send_mail=True, automatic=False),
    extra={"note": "é", "n": 1, "d": Decimal("1.50"), "deep": [{"x": None, "y": True}, ("a",)]},
)


def found(draft: Any, **options: Any) -> dict[str, str]:
    """The faults of a draft by path; each path has one message in these tests."""
    listed = rules.faults(draft, **options)
    by_path = {fault.path: fault.message for fault in listed}
    assert len(by_path) == len(listed)
    return by_path


def with_line(**changes: Any) -> InvoiceDraft:
    return evolve(DRAFT, lines=(evolve(LINE, **changes),))


def with_consumer(**changes: Any) -> InvoiceDraft:
    return evolve(DRAFT, consumer=Consumer(**changes))


def with_tax(**changes: Any) -> InvoiceDraft:
    return evolve(DRAFT, submit_to_tax=SubmitToTax(**changes))


def with_extra(value: Any) -> InvoiceDraft:
    return evolve(DRAFT, extra={"x": value})


TEXTS: list[tuple[str, int, Callable[[Any], InvoiceDraft]]] = [
    ("key", 255, lambda text: evolve(DRAFT, key=text)),
    ("lines[0].name", 500, lambda text: with_line(name=text)),
    ("lines[0].unit", 255, lambda text: with_line(unit=text)),
    ("lines[0].code", 255, lambda text: with_line(code=text)),
    ("consumer.code", 255, lambda text: with_consumer(code=text)),
    ("consumer.name", 255, lambda text: with_consumer(name=text)),
    ("consumer.tax_code", 14, lambda text: with_consumer(tax_code=text)),
    ("consumer.address", 255, lambda text: with_consumer(address=text)),
    ("consumer.citizen_identification", 12, lambda text: with_consumer(citizen_identification=text)),
    ("consumer.phone", 20, lambda text: with_consumer(phone=text)),
    ("consumer.buyer_name", 255, lambda text: with_consumer(buyer_name=text)),
    ("consumer.bank_account", 255, lambda text: with_consumer(bank_account=text)),
]


@pytest.mark.parametrize("draft", [DRAFT, FULL], ids=["smallest", "fullest"])
def test_a_draft_within_the_limits_has_no_fault(draft: InvoiceDraft) -> None:
    assert rules.faults(draft) == ()
    rules.check(draft)


@pytest.mark.parametrize("letter", ["x", "đ", "𝄞"])
@pytest.mark.parametrize(("path", "limit", "build"), TEXTS, ids=[row[0] for row in TEXTS])
def test_a_text_may_have_its_limit_of_characters_and_not_one_more(
    path: str, limit: int, build: Callable[[str], InvoiceDraft], letter: str
) -> None:
    assert found(build(letter * limit)) == {}
    message = f"has {limit + 1} characters, at most {limit} are allowed"
    assert found(build(letter * (limit + 1))) == {path: message}


@pytest.mark.parametrize(("path", "limit", "build"), TEXTS, ids=[row[0] for row in TEXTS])
@pytest.mark.parametrize("value", [5, 1.5, b"x", ["x"], True])
def test_a_text_of_another_type_is_a_fault(
    path: str, limit: int, build: Callable[[Any], InvoiceDraft], value: object
) -> None:
    assert found(build(value)) == {path: f"must be text, not {type(value).__name__}"}


@pytest.mark.parametrize(("path", "limit", "build"), TEXTS, ids=[row[0] for row in TEXTS])
def test_a_lone_surrogate_is_a_fault(path: str, limit: int, build: Callable[[str], InvoiceDraft]) -> None:
    assert found(build("a\ud800")) == {path: "holds a lone surrogate, which UTF-8 cannot carry"}


@pytest.mark.parametrize("value", ["", " ", "\u3000\xa0"])
@pytest.mark.parametrize(("path", "limit", "build"), TEXTS[:3], ids=[row[0] for row in TEXTS[:3]])
def test_a_required_text_must_not_be_blank(
    path: str, limit: int, build: Callable[[str], InvoiceDraft], value: str
) -> None:
    assert found(build(value)) == {path: "must not be empty or blank"}


@pytest.mark.parametrize(("path", "limit", "build"), TEXTS[:3], ids=[row[0] for row in TEXTS[:3]])
def test_a_required_text_must_be_there(path: str, limit: int, build: Callable[[Any], InvoiceDraft]) -> None:
    assert found(build(None)) == {path: "is required"}


@pytest.mark.parametrize(("key", "end"), [(" A-1", "begin"), ("A-1\xa0", "end")])
def test_a_key_has_no_blank_at_either_end(key: str, end: str) -> None:
    assert found(evolve(DRAFT, key=key))["key"].startswith(f"must not {end} with a blank: U+")


@pytest.mark.parametrize("character", ["\n", "\x00", "\x1f", "\x7f", "\x9f"])
def test_a_key_has_no_control_character(character: str) -> None:
    (message,) = found(evolve(DRAFT, key=f"A{character}1")).values()
    assert message.startswith(f"must not hold a character that nobody sees: U+{ord(character):04X}")
    assert message.endswith(" at character 2")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "is required"),
        (7, "must be text, not int"),
        ("", "must be a UUID (8-4-4-4-12 hex digits)"),
        (TEMPLATE + "\n", "must be a UUID (8-4-4-4-12 hex digits)"),
        (TEMPLATE.replace("-", ""), "must be a UUID (8-4-4-4-12 hex digits)"),
        ("g" + TEMPLATE[1:], "must be a UUID (8-4-4-4-12 hex digits)"),
        ("\uff13" + TEMPLATE[1:], "must be a UUID (8-4-4-4-12 hex digits)"),
    ],
)
def test_the_template_id_is_a_uuid(value: Any, message: str) -> None:
    assert found(evolve(DRAFT, invoice_template_id=value)) == {"invoice_template_id": message}


@pytest.mark.parametrize(
    ("lines", "faults"),
    [
        ((), {"lines": "at least one line is needed"}),
        (None, {"lines": "must be a list of InvoiceLine, not NoneType"}),
        ("abc", {"lines": "must be a list of InvoiceLine, not str"}),
        ({"name": "x"}, {"lines": "must be a list of InvoiceLine, not dict"}),
        (
            (LINE, None, "x"),
            {"lines[1]": "must be an InvoiceLine, not NoneType", "lines[2]": "must be an InvoiceLine, not str"},
        ),
    ],
)
def test_lines_are_one_or_more_lines(lines: Any, faults: dict[str, str]) -> None:
    assert found(evolve(DRAFT, lines=lines)) == faults


@pytest.mark.parametrize("name", ["price", "quantity", "tax_amount", "discount_amount", "amount"])
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (1.5, "must be a Decimal, an int or digits in text, not float: floats are not exact"),
        (True, "must be a Decimal, an int or digits in text, not bool"),
        ([1], "must be a Decimal, an int or digits in text, not list"),
        ("1,5", "must be a Decimal, an int or digits in text, not '1,5'"),
        (Decimal("NaN"), "must be finite, not an infinity or NaN"),
        (Decimal("sNaN123"), "must be finite, not an infinity or NaN"),
        (Decimal("-Infinity"), "must be finite, not an infinity or NaN"),
        (Decimal("1E+30"), "has 31 digits, at most 30 are allowed"),
        (Decimal("1E-30"), "has 31 digits, at most 30 are allowed"),
        (Decimal("0E+999999"), "has 1000000 digits, at most 30 are allowed"),
        (10**30, "has 31 digits, at most 30 are allowed"),
    ],
)
def test_a_number_is_exact_finite_and_short(name: str, value: Any, message: str) -> None:
    assert found(with_line(**{name: value})) == {f"lines[0].{name}": message}


@pytest.mark.parametrize("value", [Decimal("1E+29"), Decimal("1E-29"), 10**30 - 1, Decimal(-1), "-0.5", 0])
def test_a_number_may_have_thirty_digits_and_any_sign(value: Any) -> None:
    assert found(with_line(price=value)) == {}


@pytest.mark.parametrize("name", ["price", "quantity"])
def test_price_and_quantity_are_required(name: str) -> None:
    assert found(with_line(**{name: None})) == {f"lines[0].{name}": "is required"}


@pytest.mark.parametrize(
    ("price", "quantity", "discount", "amount", "expected"),
    [
        (50000, 3, None, 150001, "150000"),
        ("0.1", "0.2", None, "0.021", "0.02"),
        ("9" * 30, "9" * 30, "0." + "1" * 29, 1, f"{(10**30 - 1) ** 2 - 1}." + "8" * 28 + "9"),
        ("-1", "2", "3", "5", "-5"),
    ],
)
def test_amount_is_price_times_quantity_less_discount(
    price: Any, quantity: Any, discount: Any, amount: Any, expected: str
) -> None:
    draft = with_line(price=price, quantity=quantity, discount_amount=discount, amount=amount)
    message = f"must be price * quantity - discount_amount = {expected}, got {amount}"
    assert found(draft) == {"lines[0].amount": message}


@pytest.mark.parametrize(
    ("amount", "unit", "is_rounded"),
    [
        ("33", "1", True),
        ("34", "1", False),
        ("33.3", "1", True),
        ("33.33", "1", True),
        ("33.34", "1", False),
        ("33.3", "0.01", False),
        ("33.33", "0.01", True),
        ("30", "10", True),
        ("40", "10", False),
        ("35", "5", True),
        ("34", "5", False),
        ("33", "5", True),
        ("100", "500", False),
        ("0", "500", True),
    ],
)
def test_an_amount_may_be_rounded_to_the_unit_or_to_a_finer_place(amount: str, unit: str, *, is_rounded: bool) -> None:
    """Of 3 * 11.1111 + 0.0003: a multiple of the unit, or with more digits, each nearest to it."""
    exact = Decimal("33.3336")
    assert rules.rounds_to(exact, Decimal(amount), Decimal(unit)) is is_rounded
    assert rules.rounds_to(-exact, -Decimal(amount), Decimal(unit)) is is_rounded


@pytest.mark.parametrize("half", ["0.5", "1.5", "-0.5", "2.5"])
def test_a_half_is_rounded_either_way(half: str) -> None:
    """Nobody documents which; what is more than half away is wrong."""
    exact = Decimal(half)
    one = Decimal(1)
    assert [rules.rounds_to(exact, exact + away, one) for away in map(Decimal, ("-0.5", "0.5", "-1.5", "1.5"))] == [
        True,
        True,
        False,
        False,
    ]


def test_the_amount_of_a_line_is_judged_by_the_setting() -> None:
    """A rounded one is a fault without it, which says what setting would take it; a wrong one is a fault with it."""
    rounded, wrong = with_line(price="11.1112", amount=Decimal("33.3")), with_line(price="11.1112", amount=Decimal(35))
    said = "must be price * quantity - discount_amount = 33.3336, got"
    assert found(rounded) == {
        "lines[0].amount": f"{said} 33.3; rounded amounts are taken with the setting rounding=0.1"
    }
    assert found(rounded, rounding=Decimal(1)) == {}
    assert found(wrong) == {"lines[0].amount": f"{said} 35"}
    assert found(wrong, rounding=Decimal(1)) == {"lines[0].amount": f"{said} 35 (more than rounding=1 allows)"}
    assert found(wrong, rounding=rules.JUDGED) == {}
    rules.check(rounded, rounding=Decimal(1))
    with pytest.raises(DraftError):
        rules.check(rounded)


def test_a_whole_amount_asks_for_the_setting_of_one() -> None:
    """A zero at its end is no sign that it was rounded to tens."""
    draft = with_line(price="10.01", quantity=1, amount=Decimal(10))
    (message,) = found(draft).values()
    assert message.endswith("rounding=1")


@QUICK
@given(
    price=st.integers(-(10**14), 10**14),
    quantity=st.integers(-(10**14), 10**14),
    discount=st.integers(0, 10**14),
    places=st.integers(0, 7),
    precision=st.integers(1, 28),
)
def test_the_amount_is_judged_exactly_whatever_the_context(
    price: int, quantity: int, discount: int, places: int, precision: int
) -> None:
    """The caller's decimal precision does not matter, and one unit in the last place is a fault."""
    amount = price * quantity - discount * 10**places
    line = evolve(
        LINE,
        price=Decimal(price).scaleb(-places),
        quantity=Decimal(quantity).scaleb(-places),
        discount_amount=Decimal(discount).scaleb(-places),
        amount=Decimal((amount < 0, tuple(map(int, str(abs(amount)))), -2 * places)),
    )
    off = Decimal((amount + 1 < 0, tuple(map(int, str(abs(amount + 1)))), -2 * places))
    with localcontext(prec=precision):
        assert found(evolve(DRAFT, lines=(line,))) == {}
        assert list(found(evolve(DRAFT, lines=(evolve(line, amount=off),)))) == ["lines[0].amount"]


@pytest.mark.parametrize("choice", [*VatRate, "TEN"])
def test_a_vat_rate_is_a_member_or_its_name(choice: Any) -> None:
    assert found(with_line(vat_rate=choice)) == {}


@pytest.mark.parametrize("value", ["ten", "", 10, ["TEN"], PaymentMethod.CASH])
def test_any_other_vat_rate_is_a_fault_that_lists_them(value: Any) -> None:
    (message,) = found(with_line(vat_rate=value)).values()
    assert message.startswith("must be one of UNDECLARED, NONE, ZERO, FIVE, EIGHT, TEN, not ")


@pytest.mark.parametrize("value", ["cash", VatRate.NONE, 1])
def test_any_other_payment_method_is_a_fault_that_lists_them(value: Any) -> None:
    (message,) = found(evolve(DRAFT, payment_method=value)).values()
    assert message.startswith("must be one of CASH, BANK_TRANSFER, UNKNOWN, not ")


@pytest.mark.parametrize("value", [1, "true", 0.0])
def test_a_flag_is_true_false_or_none(value: Any) -> None:
    draft = evolve(
        with_line(is_promotion=value),
        has_tax_authority_code=value,
        submit_to_tax=SubmitToTax(send_mail=value, automatic=value),
    )
    message = f"must be True, False or None, not {type(value).__name__}"
    paths = ("has_tax_authority_code", "lines[0].is_promotion", "submit_to_tax.send_mail", "submit_to_tax.automatic")
    assert found(draft) == dict.fromkeys(paths, message)


def test_parts_are_the_models_they_should_be() -> None:
    wrong: dict[str, Any] = {"consumer": ["x"], "submit_to_tax": "x"}
    draft = evolve(DRAFT, **wrong)
    assert found(draft) == {
        "consumer": "must be a Consumer, not list",
        "submit_to_tax": "must be a SubmitToTax, not str",
    }


def test_each_email_is_judged_at_its_place() -> None:
    emails = ["a@b.vn", "nobody", None, "a b@c.vn", "\ud800@b.vn", "a@b@c.vn"]
    assert found(with_tax(emails=emails)) == {
        "submit_to_tax.emails[1]": "must be an e-mail address",
        "submit_to_tax.emails[2]": "is required",
        "submit_to_tax.emails[3]": "must be an e-mail address",
        "submit_to_tax.emails[4]": "must be an e-mail address",
        "submit_to_tax.emails[5]": "must be an e-mail address",
    }


@pytest.mark.parametrize("value", ["a@b.vn", None, 5])
def test_emails_are_a_list(value: Any) -> None:
    assert found(with_tax(emails=value)) == {
        "submit_to_tax.emails": f"must be a list of text, not {type(value).__name__}"
    }


LONG = "k" * 200
LOOP: list[Any] = []
LOOP.append(LOOP)


def nested(levels: int) -> Any:
    value: Any = "x"
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "faults"),
    [
        (1.5, {"extra.x": "must be a Decimal, an int or digits in text, not float: floats are not exact"}),
        ({"a": [0, {"b": {2}}]}, {"extra.x.a[1].b": "must be something JSON can say, not set"}),
        (Decimal("NaN"), {"extra.x": "must be finite, not an infinity or NaN"}),
        (10**30, {"extra.x": "has more than the 30 digits that are allowed"}),
        (-(10**400), {"extra.x": "has more than the 30 digits that are allowed"}),
        ({1}, {"extra.x": "must be something JSON can say, not set"}),
        (b"x", {"extra.x": "must be something JSON can say, not bytes"}),
        ("\udfff", {"extra.x": "holds a lone surrogate, which UTF-8 cannot carry"}),
        ({5: 1}, {"extra.x": "has the key 5; keys must be text that UTF-8 can carry"}),
        ({"\udfff": 1}, {"extra.x": "has the key '\\udfff'; keys must be text that UTF-8 can carry"}),
        ({"": 0.5}, {"extra.x.''": "must be a Decimal, an int or digits in text, not float: floats are not exact"}),
        (LOOP, {"extra.x[0]": "holds itself"}),
        (nested(17), {"extra.x" + "[0]" * 16: "is nested deeper than the 16 levels that are allowed"}),
        (nested(16), {}),
        ((10**30 - 1, True, None, {}, []), {}),
    ],
)  # fmt: skip
def test_extra_is_what_json_can_say_exactly(value: Any, faults: dict[str, str]) -> None:
    assert found(with_extra(value)) == faults


def test_a_foreign_field_name_is_tamed_in_a_path() -> None:
    (path,) = found(with_extra({LONG: {1}}))
    assert path.startswith("extra.x.'kkk")
    assert len(path) < 60
    assert checks.step("a.", "b\n") == "a.'b\\n'"


@pytest.mark.parametrize("name", sorted(rules.RESERVED))
def test_extra_may_not_use_a_name_the_library_writes(name: str) -> None:
    assert found(evolve(DRAFT, extra={name: 1})) == {f"extra.{name}": "is a name that the library writes itself"}
    assert found(evolve(DRAFT, extra={name: 1}), reserved=frozenset()) == {}


@pytest.mark.parametrize("value", [None, "x", 5, ["a"]])
def test_extra_is_a_mapping(value: Any) -> None:
    assert found(evolve(DRAFT, extra=value)) == {"extra": f"must be a mapping, not {type(value).__name__}"}


def test_extra_with_a_key_that_is_not_text_is_a_fault_at_extra() -> None:
    assert found(evolve(DRAFT, extra={1: 2})) == {"extra": "has the key 1; keys must be text that UTF-8 can carry"}


def test_every_fault_is_found_at_once_in_order_and_below_the_prefix() -> None:
    draft = InvoiceDraft(
        key="\n" * 256,
        invoice_template_id="x",
        lines=(evolve(LINE, name="", price=0.5), LINE, with_line(unit=None, quantity=None, amount=1).lines[0]),
        consumer=Consumer(tax_code="1" * 15, phone=5),  # type: ignore[arg-type]  # a wrong type on purpose
        payment_method="x",
        submit_to_tax=SubmitToTax(emails=("x",)),
        extra={"consumer": {1.5}},
    )
    assert [fault.path for fault in rules.faults(draft, prefix="[12]")] == [
        "[12].key",
        "[12].key",
        "[12].payment_method",
        "[12].key",
        "[12].invoice_template_id",
        "[12].lines[0].name",
        "[12].lines[0].price",
        "[12].lines[2].unit",
        "[12].lines[2].quantity",
        "[12].consumer.tax_code",
        "[12].consumer.phone",
        "[12].submit_to_tax.emails[0]",
        "[12].extra.consumer",
        "[12].extra.consumer",
    ]


def test_check_raises_every_fault_with_the_key() -> None:
    draft = evolve(DRAFT, lines=(evolve(LINE, name=""), evolve(LINE, unit="")))
    with pytest.raises(DraftError, match=r"lines\[0\]\.name.*lines\[1\]\.unit") as caught:
        rules.check(draft)
    assert caught.value.key == "A-1"
    assert caught.value.faults == rules.faults(draft)


@pytest.mark.parametrize(
    "value",
    [None, {}, "draft", SimpleNamespace(key=5), TEXTS[0][2](5)],
)
def test_check_refuses_what_is_no_draft_or_has_no_key(value: Any) -> None:
    with pytest.raises(DraftError) as caught:
        rules.check(value)
    assert caught.value.key == ""


def test_a_value_that_cannot_be_shown_is_named_by_its_type() -> None:
    """Python refuses to write an int of more than 4,300 digits."""
    (message,) = found(with_line(vat_rate=10**5000)).values()
    assert message.endswith(", TEN, not int")


def test_what_is_no_draft_is_a_fault_at_its_place() -> None:
    assert found({}) == {"draft": "must be an InvoiceDraft, not dict"}
    assert found(None, prefix="[3]") == {"[3]": "must be an InvoiceDraft, not NoneType"}


ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(st.characters(), max_size=5),
    st.binary(max_size=3),
    st.decimals(),
    st.builds(object),
    st.just(LINE),
    st.just(FULL),
    st.sampled_from(VatRate),
)
JUNK = st.recursive(
    ANYTHING,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.integers() | st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@QUICK
@given(data=st.data())
def test_whatever_the_fields_hold_there_is_an_answer_and_no_exception(data: st.DataObject) -> None:
    def anything(*names: str) -> dict[str, Any]:
        return {name: data.draw(JUNK) for name in names}

    names = ("name", "unit", "price", "quantity", "code", "discount_amount", "vat_rate", "amount")
    line = unchecked(InvoiceLine, **anything(*names))
    draft = unchecked(
        InvoiceDraft,
        **{
            **anything("key", "invoice_template_id", "payment_method", "extra"),
            "lines": data.draw(JUNK | st.just([line])),
            "consumer": data.draw(JUNK | st.builds(Consumer, name=JUNK)),
            "submit_to_tax": data.draw(JUNK | st.builds(SubmitToTax, emails=JUNK)),
        },
    )
    for fault in rules.faults(draft):
        assert fault.path
        assert fault.message
        assert len(fault.message) < 400


def test_the_setting_of_rounding_is_a_positive_amount() -> None:
    """None and what was judged before pass as they are; an int becomes a `Decimal`."""
    assert rules.rounding_unit(None) is None
    assert rules.rounding_unit(rules.JUDGED) is rules.JUDGED
    assert rules.rounding_unit(Decimal("0.01")) == Decimal("0.01")
    assert type(rules.rounding_unit(1)) is Decimal
    wrong_kind: list[Any] = [True, 0.5, "1"]
    for value in wrong_kind:
        with pytest.raises(ValueError, match=rf"\Aunit must be a Decimal, .* not {type(value).__name__}\Z"):
            rules.rounding_unit(value, "unit")
    for value in (0, -1, Decimal("NaN"), Decimal("-Infinity"), Decimal("1E+30")):
        with pytest.raises(ValueError, match=r"\Arounding must be a positive amount of at most 30 digits\Z"):
            rules.rounding_unit(value)


def test_a_uuid_is_taken_in_either_case_and_nothing_else_is() -> None:
    assert rules.canonical_uuid(TEMPLATE.upper(), "template") == TEMPLATE
    with pytest.raises(ValueError, match=r"\Atemplate must be a UUID \(8-4-4-4-12 hex digits\), got 'x'\Z"):
        rules.canonical_uuid("x", "template")


def test_keys_that_nobody_can_tell_apart_are_one_key() -> None:
    """A letter and its mark, or the letter that has it."""
    assert rules.canonical_key("A-1") == "A-1"
    assert rules.canonical_key("HO\u0301A") == rules.canonical_key("H\xd3A") == "H\xd3A"
