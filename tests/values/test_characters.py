"""What a key is: compared as it is seen, with nothing unseen in it; and secrets with nothing stuck to them."""

from __future__ import annotations

import unicodedata
from typing import Any

import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from invoicing_async import HmacAuth, OAuthClientCredentials, StaticToken
from invoicing_async._einvoices.encode import dump_draft
from invoicing_async._einvoices.rules import canonical_key, faults, key_faults
from invoicing_async._values.characters import unseen
from invoicing_async.drafts import read_jsonl
from invoicing_async.models import InvoiceDraft, InvoiceLine
from invoicing_async.runs import DraftConflictError, Intake, InvoiceRun
from invoicing_async.settings import Settings, SettingsError

TEMPLATE = "3fa85f64-5717-4562-b3fc-2c963f66afa6"
ORDER = "ĐƠN HÀNG-01"
UNSEEN = (
    "\x00\x07\t\n\r\x1b\x7f\x85\xa0\xad\u034f\u061c\u115f\u1160\u1680\u17b4\u180b\u180e\u2002\u2009\u200b\u200c\u200d"
    "\u200e\u200f\u2028\u2029\u202a\u202e\u202f\u205f\u2060\u2066\u2069\u2800\u3000\u3164\ufe00\ufe0f\ufeff\uffa0"
    "\ufff9\U000e0001\U000e0041\U000e0100"
)
SEEN = [
    "A-1", "ORDER 7/2025", ORDER, "Hóa đơn số 42", "注文-1", "訂單 \uff11", "заказ-1", "طلب-1", "คำสั่งซื้อ", "आदेश-१",
    "😀-1", "#1", "'1", "1E5", "=1", "a\u0301", "ắ" * 255, "№ 5", "INV—1", "«1»", "x²", "\U0001f1fb\U0001f1f3",
]  # fmt: skip
"""Keys as people have them: every one is right."""


def draft(key: str, price: int = 1) -> InvoiceDraft:
    line = InvoiceLine(name="Lamp", unit="piece", price=price, quantity=1)
    return InvoiceDraft(key=key, invoice_template_id=TEMPLATE, lines=[line])


@pytest.mark.parametrize("key", SEEN)
def test_a_key_that_can_be_read_is_a_key(key: str) -> None:
    assert key_faults(key) == ()
    assert faults(draft(key)) == ()


@pytest.mark.parametrize("hidden", UNSEEN, ids=lambda hidden: f"U+{ord(hidden):04X}")
def test_what_nobody_sees_is_refused_by_its_code_point_and_place(hidden: str) -> None:
    """Inside at its place; at an end too, there as a blank if it is one."""
    (inside,) = key_faults(f"A{hidden}1")
    assert inside.startswith(f"must not hold a character that nobody sees: U+{ord(hidden):04X}")
    assert inside.endswith(" at character 2")
    for key in (f"{hidden}A1", f"A1{hidden}"):
        (message,) = key_faults(key)
        assert f"U+{ord(hidden):04X}" in message
        assert message.endswith(f" at character {1 if key[0] == hidden else 3}")


@pytest.mark.parametrize("blank", [" ", "\t", "\n", "\r\n", "\xa0", "\u3000", "\u2003", "\x85"])
def test_a_blank_at_an_end_is_named_with_its_side(blank: str) -> None:
    assert key_faults(blank + "A")[0].startswith("must not begin with a blank: U+")
    assert key_faults("A" + blank)[0].startswith("must not end with a blank: U+")


LETTERS = st.text(st.characters(categories=["L", "N", "P", "S"], codec="utf-8"), min_size=1, max_size=30)


@given(LETTERS)
@examples(300)
def test_any_letters_digits_and_signs_are_a_key(text: str) -> None:
    """Whatever the script; the few letters without a glyph apart."""
    assert bool(key_faults(text)) is (unseen(text) is not None)


@given(st.text(st.characters(codec="utf-8"), max_size=20))
@examples(300)
def test_what_is_seen_does_not_depend_on_the_form(text: str) -> None:
    """Composed or decomposed, a key is one key, and its canonical form is its own canonical form."""
    forms = {canonical_key(unicodedata.normalize(form, text)) for form in ("NFC", "NFD")}
    assert forms == {canonical_key(text)}
    assert canonical_key(canonical_key(text)) == canonical_key(text)


def test_keys_that_are_seen_apart_stay_apart() -> None:
    """Letter case, width and look-alikes of another script are what a caller wrote: different keys."""
    keys = ["a-1", "A-1", "\uff21-1", "\u0410-1", "a-1.", "a1", "a-01", "á-1"]
    assert len({canonical_key(key) for key in keys}) == len(keys)


def test_a_stored_draft_is_the_same_in_either_form() -> None:
    """So the digest that tells "the same draft again" from "another draft under a known key" is one."""
    composed, decomposed = (draft(unicodedata.normalize(form, ORDER)) for form in ("NFC", "NFD"))
    assert dump_draft(composed) == dump_draft(decomposed)
    found = list(read_jsonl([dump_draft(composed), dump_draft(decomposed).replace("ĐƠN", "ĐO\u031bN")]))
    assert [at.draft.key for at in found] == [ORDER, ORDER]


@pytest.mark.asyncio
async def test_one_order_in_every_writing_is_one_invoice(tmp_path: Any) -> None:
    """Decomposed it is known already; with anything unseen it is refused; nothing is sent twice."""
    async with InvoiceRun.open(tmp_path / "run.db") as run:
        await run.add([draft(ORDER)])
        assert await run.add([draft(unicodedata.normalize("NFD", ORDER))]) == Intake(
            given=1, added=0, known=1, duplicates=0
        )
        for key in (ORDER + " ", " " + ORDER, ORDER + "\u200b", "\ufeff" + ORDER, ORDER.replace(" ", "\xa0")):
            with pytest.raises(ValueError, match=r"key: must not (begin|end|hold)"):
                await run.add([draft(key)])
        with pytest.raises(DraftConflictError):
            await run.add([draft(unicodedata.normalize("NFD", ORDER), price=2)])
        assert sum((await run.ledger.counts()).values()) == 1


SECRET = "sk-3141592653"
STUCK = [" ", "\n", "\r\n", "\t", "\xa0", "\u200b", "\ufeff", "\u2060", "\x00", "\u202e", "\xad"]
PARTNER: dict[str, Any] = {"partner_client_id": "p", "secret_key": "k", "store_client_id": "s", "store_token": "t"}
CLIENT: dict[str, Any] = {"client_id": "c", "client_secret": "k", "tenant_connection_code": "t", "scope": "all"}
GIVEN: list[tuple[type[Any], dict[str, Any], str]] = [
    *((HmacAuth, PARTNER, name) for name in PARTNER),
    *((OAuthClientCredentials, CLIENT, name) for name in CLIENT),
    (StaticToken, {}, "token"),
]


@pytest.mark.parametrize("stuck", STUCK, ids=ascii)
@pytest.mark.parametrize(("kind", "others", "name"), GIVEN, ids=lambda value: getattr(value, "__name__", None))
def test_a_secret_with_something_stuck_to_it_is_refused_where_it_is_given(
    kind: type[Any], others: dict[str, str], name: str, stuck: str
) -> None:
    """Before or behind, it is named and the secret is not shown."""
    for value, said in ((stuck + SECRET, "begins"), (SECRET + stuck, "ends")):
        with pytest.raises(ValueError, match=rf"{kind.__name__}\.{name}") as caught:
            kind(**others | {name: value})
        text = str(caught.value)
        assert said in text or "invisible" in text
        assert f"U+{ord(stuck[-1] if said == 'ends' else stuck[0]):04X}" in text
        assert SECRET not in text


@pytest.mark.parametrize("wrong", [b"bytes-3141", 3141, 3.141, ["sk-3141"], {"sk": "3141"}])
@pytest.mark.parametrize(("kind", "others", "name"), GIVEN, ids=lambda value: getattr(value, "__name__", None))
def test_a_secret_that_is_no_text_is_refused_without_being_shown(
    kind: type[Any], others: dict[str, str], name: str, wrong: object
) -> None:
    with pytest.raises(ValueError, match="must be text") as caught:
        kind(**others | {name: wrong})
    assert "3141" not in str(caught.value)


@pytest.mark.parametrize("secret", ["s", "pass phrase with blanks", "p@$$:w/o=rd+&%", "Mật khẩu", "a" * 500, "'q'"])
def test_a_secret_may_be_any_text_that_is_seen(secret: str) -> None:
    assert HmacAuth(**PARTNER | {"secret_key": secret}).secret_key == secret
    assert OAuthClientCredentials(**CLIENT | {"client_secret": secret}).client_secret == secret


@pytest.mark.parametrize("name", ["SECRET_KEY", "STORE_TOKEN", "PARTNER_CLIENT_ID"])
@pytest.mark.parametrize("stuck", ["\n", " ", "\u200b", "\ufeff"], ids=ascii)
def test_the_command_line_names_the_variable_and_never_its_value(name: str, stuck: str, tmp_path: Any) -> None:
    """From the environment, and from a file in quotes."""
    names = ("PARTNER_CLIENT_ID", "SECRET_KEY", "STORE_CLIENT_ID", "STORE_TOKEN")
    environ = {f"INVOICING_DOCUMENTS_{each}": SECRET for each in names}
    variable = f"INVOICING_DOCUMENTS_{name}"
    file = tmp_path / "env"
    file.write_text(f'{variable}="{SECRET}{stuck}"\n' if stuck != "\n" else f"{variable}='\u2060{SECRET}'\n")
    without = {each: value for each, value in environ.items() if each != variable}
    for found in (Settings.load(None, environ | {variable: SECRET + stuck}), Settings.load(file, without)):
        with pytest.raises(SettingsError, match=rf"{variable} .*U\+") as caught:
            found.partner()
        assert SECRET not in str(caught.value)
