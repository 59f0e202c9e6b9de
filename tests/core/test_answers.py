"""What answers say becomes valid text in one place, and the service's own words are found wherever they stand."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from invoicing_async._core.answers import canonical_id, code_of, named_ids, read_answer, says_submitted, words_of
from invoicing_async._core.envelope import error_from
from invoicing_async._einvoices.decode import decode_request
from invoicing_async._values.text import harmless, harmless_tree, one_line
from invoicing_async.errors import ApiError, InvoicingError, ProtocolError

ID = "0f0e0d0c-0b0a-4908-8706-050403020100"
ANY = st.text(st.characters(exclude_categories=()), max_size=60)
ODD = st.text(st.sampled_from("a\x00\x1b[]31mJ;\x07\x9b\x9c\x9d\u202e\ud83d\udc4d\u2028é\n\t"), max_size=40)


def safe(text: str) -> bool:
    """Every file, database and terminal takes it as it is."""
    text.encode()
    with sqlite3.connect(":memory:") as database:
        assert database.execute("select ?", (text,)).fetchone() == (text,)
    database.close()
    return not any(char in text for char in "\x00\x1b\x9b\x9d\x07\x7f\u202e")


@given(ANY | ODD)
def test_any_text_becomes_valid_and_harmless(text: str) -> None:
    """It can be written and shown, doing it twice changes nothing, and a line is printable and bounded."""
    assert safe(harmless(text))
    assert harmless(harmless(text)) == harmless(text)
    line = one_line(text)
    assert line.isprintable()
    assert safe(line)
    assert len(one_line(text * 100)) <= 300
    assert safe(InvoicingError(text).message)


@given(st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Zs"))))
def test_what_is_right_stays_as_it_is(text: str) -> None:
    """The counterweight: letters of any script, digits, signs and blanks are not touched."""
    assert harmless(text) == text
    assert harmless("Hóa đơn 👍\r\n\tdòng hai") == "Hóa đơn 👍\r\n\tdòng hai"


def test_escape_sequences_go_whole() -> None:
    """Colours, titles and cursor movements leave nothing behind."""
    assert harmless("\x1b[31mred\x1b[0m \x1b]0;title\x07x\x9b2Jy") == "red xy"
    assert one_line("a\x1b[2K\r\nb\u200b\ud83d") == "a b\ufffd"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | ANY | ODD,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY | ODD, inner, max_size=3),
    max_leaves=8,
)


@given(JSON, st.sampled_from(["utf-8", "utf-16", "utf-8-sig", "utf-32"]))
def test_every_text_in_a_json_answer_comes_through_the_door(value: Any, encoding: str) -> None:
    """Whatever stands in an answer, in any encoding: nothing in it can fail later, and its words are one line."""
    found = read_answer(json.dumps(value).encode(encoding))
    assert safe(json.dumps(found, default=str, ensure_ascii=False).replace("\\u", ""))
    assert harmless_tree(found) == found
    assert words_of(found).isprintable()
    assert len(words_of(found)) <= 300


@given(JSON, st.integers(200, 599))
def test_an_error_made_of_any_answer_can_be_written_and_shown(value: Any, status: int) -> None:
    """Message, code, hint and ids are printable lines."""
    for body in (json.dumps(value), json.dumps({"success": False, "error": value, "requestId": value})):
        error = error_from(status, lambda _: None, body.encode(), now=0)
        if error is not None:
            for text in (error.message, error.code, error.request_id, error.hint, *error.request_ids):
                assert text is None or (text.isprintable() and safe(text))


WORDS: dict[str, tuple[object, str]] = {
    "message": ({"message": "tax_code is invalid"}, "tax_code is invalid"),
    "list": (
        {"statusCode": 400, "message": ["a is wrong", "b is missing"], "error": "Bad Request"},
        "a is wrong; b is missing",
    ),
    "errors": ({"errors": [{"field": "tax_code", "message": "10 or 13 digits"}]}, "tax_code: 10 or 13 digits"),
    "errors by name": (
        {"title": "Invalid", "status": 400, "errors": {"Price": ["too low", "no number"]}},
        "Price: too low; Price: no number",
    ),
    "nested": ({"error": {"code": "E01", "message": "wrong"}}, "wrong"),
    "detail": ({"detail": [{"loc": ["body", "price"], "msg": "too low"}]}, "body.price: too low"),
    "problem": ({"title": "Invalid", "detail": "price is too low"}, "price is too low"),
    "violations": (
        {"error": "Bad Request", "message": "", "violations": [{"field": "tax_code", "msg": "wrong"}]},
        "tax_code: wrong",
    ),
    "failed_reason": ({"status": "FAILED", "failed_reason": "MST không tồn tại"}, "MST không tồn tại"),
    "reason in data": ({"status": "FAILED", "data": {"reason": "no such buyer"}}, "no such buyer"),
    "only the status in words": ({"status": 400, "error": "Bad Request"}, "Bad Request"),
    "said twice": ({"message": "wrong", "errors": ["wrong", "again"]}, "wrong; again"),
    "a list of faults": ([{"field": "a", "message": "b"}], "a: b"),
    "nothing": ({"status": "NEW", "id": 7}, ""),
    "null": ({"message": None, "errors": None}, ""),
}


@pytest.mark.parametrize(("answer", "words"), WORDS.values(), ids=WORDS)
def test_the_services_own_words_are_found(answer: object, words: str) -> None:
    """Messages, lists, nested and named faults and reasons become one line."""
    assert words_of(read_answer(json.dumps(answer).encode())) == words


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"tax_code must be\r\n10 digits", "tax_code must be 10 digits"),
        ("Mã số thuế sai".encode(), "Mã số thuế sai"),
        (b"<html><head><title>502 Bad\nGateway</title></head>", "502 Bad Gateway"),
        (b"<p>x", ""),
        (b"\x1f\x8b\x08\x00\xff\xfe\xfd", ""),
        (b'{"message": "broken', ""),
        (b"", ""),
    ],
)
def test_plain_text_and_pages_say_something_too(body: bytes, words: str) -> None:
    """Text is its own words, a page has a title; bytes and broken JSON say nothing."""
    assert words_of(None, body) == words


def refused(status: int, value: object) -> ApiError:
    error = error_from(status, lambda _: None, json.dumps(value).encode(), now=0)
    assert error is not None
    return error


def test_a_code_is_taken_from_where_it_stands_but_declared_only_by_the_envelope() -> None:
    """A documented code outside the envelope is words, not a code."""
    assert refused(400, {"error": {"code": "E01", "message": "m"}}).code == "E01"
    assert refused(400, {"errorCode": 17}).code == "17"
    assert refused(200, {"success": False, "error": {"code": "E1"}}).code == "E1"
    for loose in ({"error": {"code": "SYS_DEP_503"}}, {"success": False, "error_code": "SYS_DEP_503"}):
        error = refused(503, loose)
        assert (error.code, error.declared) == (None, False)
        assert error.message.startswith("SYS_DEP_503")
    assert code_of([1]) is None


@pytest.mark.parametrize("asked", [None, ID])
def test_a_failed_request_says_why(asked: str | None) -> None:
    """`reason` and `code` are the service's, and only a failure has them."""
    told = {"request_id": ID, "message": "MST 0101 khong ton tai", "error_code": "ERR_TAX_CODE"}
    failed = decode_request(json.dumps({**told, "status": "FAILED"}).encode(), request_id=asked)
    assert (failed.reason, failed.code) == ("MST 0101 khong ton tai", "ERR_TAX_CODE")
    new = decode_request(json.dumps({**told, "status": "NEW"}).encode(), request_id=asked)
    assert (new.reason, new.code) == (None, None)
    silent = decode_request(json.dumps({"request_id": ID, "status": "FAILED"}).encode(), request_id=asked)
    assert (silent.reason, silent.code) == (None, None)


@pytest.mark.parametrize("text", [ID, ID.upper(), f"\t{ID} ", ID.replace("-", ""), ID.replace("-", "").upper()])
def test_one_id_has_one_spelling(text: str) -> None:
    """Upper case, blanks and missing dashes are the same id."""
    assert canonical_id(text) == ID


@pytest.mark.parametrize("text", [None, 7, "", ID[:-1], ID + "0", ID.replace("-", " "), "g" * 32, "-" + ID[1:]])
def test_what_is_no_uuid_is_not_made_one(text: object) -> None:
    """Nothing is guessed."""
    assert canonical_id(text) is None


def test_ids_are_named_in_order_and_bounded() -> None:
    """The field comes first, then what stands in the words; at most ten."""
    other = "11111111-" + ID[9:]
    answer = {"message": f"see {other}", "data": {"requestId": ID}, "invoice_template_id": "2" + ID[1:]}
    assert named_ids(b"", read_answer(json.dumps(answer).encode())) == (ID, other)
    many = " ".join(f"{number:08d}{ID[8:]}" for number in range(30)).encode()
    assert len(named_ids(many)) == 10


@pytest.mark.parametrize(
    "words", ["invoice already exists", "Duplicate invoice", "request was already submitted", "Hóa đơn đã tồn tại"]
)
def test_words_for_submitted_before_are_heard(words: str) -> None:
    """English and Vietnamese."""
    assert says_submitted({}, words, None)


@pytest.mark.parametrize("words", ["tax_code is invalid", "duplicate line code", "the template does not exist", ""])
def test_plain_refusals_are_not_taken_for_submitted_before(words: str) -> None:
    """The counterweight: a refusal of the draft stays one."""
    assert not says_submitted({}, words, "VALIDATION_001")


def test_an_answer_that_is_not_as_documented_is_quoted_in_one_bounded_line() -> None:
    """What it said is in the message of its `ProtocolError` too."""
    with pytest.raises(ProtocolError, match=r"must be a UUID.*: queue is full") as caught:
        decode_request(json.dumps({"status": "NEW", "message": "queue is full\n" + "x" * 999}).encode())
    assert caught.value.message.isprintable()
    assert len(caught.value.message) <= 300
