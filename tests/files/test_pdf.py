"""A body that is not a whole PDF is never taken for one, however it arrives."""

from __future__ import annotations

import pytest
from fpdf import FPDF
from hypothesis import given
from hypothesis import strategies as st

from invoicing_async._files.pdf import HEAD_WINDOW, TAIL_WINDOW, PdfValidator, fault_of, head_fault

WHITESPACE = b"\0\t\n\f\r "


def with_trailer(start: bytes, extra: bytes = b"") -> bytes:
    """Append a cross-reference table and a trailer to a PDF's objects."""
    return start + b"xref\n0 1\n0000000000 65535 f \ntrailer\n<<%s>>\nstartxref\n%d\n%%%%EOF\n" % (extra, len(start))


def minimal() -> bytes:
    objects = (
        b"1 0 obj\n<< /Type /Catalog /Pages 2 0 R >>\nendobj\n",
        b"2 0 obj\n<< /Type /Pages /Kids [3 0 R] /Count 1 >>\nendobj\n",
        b"3 0 obj\n<< /Type /Page /Parent 2 0 R /MediaBox [0 0 200 200] >>\nendobj\n",
    )
    return with_trailer(b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n" + b"".join(objects), b" /Size 4 /Root 1 0 R ")


WHOLE = minimal()
UPDATED = with_trailer(WHOLE + b"3 0 obj\n<< /Type /Page /Parent 2 0 R >>\nendobj\n", b" /Size 4 /Prev 9 ")
UPDATED_BY_TABLE = with_trailer(WHOLE, b" /Size 4 /Prev 9 ")


def linearised(length: int) -> bytes:
    """Give a file whose first page ends in an `%%EOF` of its own, and whose head states a length."""
    head = b"%%PDF-1.7\n9 0 obj\n<< /Linearized 1 /L %06d /H [ 1 2 ] /O 10 >>\nendobj\n" % length
    first = head + b"xref\n0 1\ntrailer\n<< /Size 12 >>\nstartxref\n0\n%%EOF\n"
    return with_trailer(first + b"1 0 obj\n<< /Type /Catalog >>\nendobj\n", b" /Size 4 ")


LINEARISED = linearised(len(linearised(0)))


def in_pieces(body: bytes, *sizes: int) -> PdfValidator:
    """Feed a body in pieces of these sizes, the last of them again and again."""
    checker, rest, steps = PdfValidator(), body, list(sizes)
    while rest:
        step = steps.pop(0) if len(steps) > 1 else steps[0]
        checker.feed(rest[:step])
        rest = rest[step:]
    return checker


@pytest.mark.parametrize("body", [WHOLE, UPDATED, UPDATED_BY_TABLE, LINEARISED])
def test_whole_documents_have_no_fault(body: bytes) -> None:
    assert fault_of(body) is None
    assert fault_of(body, content_length=len(body)) is None
    assert in_pieces(body, 7).fault(content_length=len(body)) is None


def test_a_document_from_a_real_writer_is_whole() -> None:
    document = FPDF()
    document.add_page()
    document.set_font("helvetica", size=12)
    document.cell(text="Invoice 1")
    body = bytes(document.output())
    assert fault_of(body) is None
    assert all(fault_of(body[:end]) for end in range(len(body.rstrip())))


def ends_of_revisions(body: bytes) -> set[int]:
    """Give the lengths at which a prefix of the body is a whole document: after each `%%EOF` and its white space."""
    found, position = set(), body.find(b"%%EOF")
    while position >= 0:
        end = position + 5
        found.add(end)
        while body[end : end + 1] and body[end : end + 1] in WHITESPACE:
            end += 1
            found.add(end)
        position = body.find(b"%%EOF", end)
    return found


@pytest.mark.parametrize("body", [WHOLE, UPDATED, UPDATED_BY_TABLE])
def test_a_prefix_is_whole_only_at_the_end_of_a_revision(body: bytes) -> None:
    """Every other strict prefix is at fault, also those cut shortly after an earlier revision's end."""
    whole = ends_of_revisions(body)
    assert {end for end in range(len(body) + 1) if fault_of(body[:end]) is None} == whole


def test_a_prefix_without_the_last_newline_is_whole() -> None:
    assert fault_of(WHOLE.rstrip()) is None


def test_no_prefix_of_a_linearised_document_is_whole() -> None:
    """Its first page ends in `%%EOF` too; the length in its head tells. Only its last newline may be stripped."""
    assert all(fault_of(LINEARISED[:end]) for end in range(len(LINEARISED) - 1))
    assert fault_of(LINEARISED.rstrip()) is None
    first = LINEARISED[: LINEARISED.find(b"%%EOF") + 6]
    assert fault_of(first) == f"cut off after {len(first)} bytes of the {len(LINEARISED)} that its own head states"


def test_two_bytes_of_white_space_at_a_linearised_documents_end_may_be_stripped() -> None:
    """A CR and a LF; a third missing byte is more than that."""
    assert fault_of(linearised(len(LINEARISED) + 2)) is None
    stated = f"cut off after {len(LINEARISED)} bytes of the {len(LINEARISED) + 3} that its own head states"
    assert fault_of(linearised(len(LINEARISED) + 3)) == stated


def test_a_linearised_document_that_was_updated_may_be_longer_than_it_states() -> None:
    assert fault_of(with_trailer(LINEARISED, b" /Prev 9 ")) is None


def test_the_first_page_of_a_linearised_document_is_not_all_of_it() -> None:
    """Its `startxref` is 0, which nothing else's is: a shorter file with a length to match is told by that."""
    first = LINEARISED[: LINEARISED.find(b"%%EOF") + 6]
    assert "byte 0, where no table can be" in str(fault_of(first, content_length=len(first)))


@pytest.mark.parametrize("dictionary", [b"<< /Linearized 1 >>", b"/Linearized /L 999999", b"<< /L 1 /Linearized 1 >>"])
def test_a_linearisation_without_a_greater_length_says_nothing(dictionary: bytes) -> None:
    assert fault_of(with_trailer(b"%PDF-1.7\n" + dictionary + b"\n")) is None


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (b"", "empty: not one byte came"),
        (b"<html>", "starts with b'<html>' instead of %PDF-"),
        (b"<html><body>" + b"x" * 90, "starts with b'<html><body>xxxxxxxxxxxx'… instead of %PDF-"),
        (b'{"success": false}', "starts with b'{\"success\": false}' instead of %PDF-"),
        (b"<!DOCTYPE html>1234567890", "starts with b'<!DOCTYPE html>123456789'… instead of %PDF-"),
        (b"<!DOCTYPE html>123456789", "starts with b'<!DOCTYPE html>123456789' instead of %PDF-"),
        (b"%PD", "starts with b'%PD' instead of %PDF-"),
        (b"\xef\xbb\xbf", "starts with b'\\xef\\xbb\\xbf' instead of %PDF-"),
        (b"\x1b" + WHOLE, f"starts with {(bytes([27]) + WHOLE)[:24]!r}… instead of %PDF-"),
        (b"%PDF-1.7\n" + b"x" * 1225, "ends without %%EOF: cut off after 1,234 bytes"),
        (b"%PDF-1.7\n%%EOF\n", "no startxref with an offset before %%EOF"),
        (b"%PDF-1.7\nstartxref\n%%EOF\n", "no startxref with an offset before %%EOF"),
        (b"%PDF-1.7\nstartxref9\n%%EOF\n", "no startxref with an offset before %%EOF"),
        (b"%PDF-1.7\nstartxref\n" + b"1" * 21 + b"\n%%EOF\n", "no startxref with an offset before %%EOF"),
        (b"%PDF-1.7\nstartxref\n9\n", "ends without %%EOF: cut off after 21 bytes"),
        (
            b"%PDF-1.7\nstartxref\n0\n%%EOF\n",
            "startxref points to byte 0, where no table can be: cut off after 27 bytes",
        ),
        (b"%PDF-1.7\nstartxref\n30\n%%EOF\n", "startxref points to byte 30 of 28: bytes are missing"),
        (WHOLE + b"4 0 ob", f"an update begun after %%EOF has no end: cut off after {len(WHOLE) + 6} bytes"),
        (WHOLE + b"xr", f"an update begun after %%EOF has no end: cut off after {len(WHOLE) + 2} bytes"),
    ],
)
def test_a_fault_is_said_in_one_line(body: bytes, fault: str) -> None:
    assert fault_of(body) == fault
    assert in_pieces(body, 1).fault() == fault


def test_an_offset_must_lie_before_the_end() -> None:
    """The last byte may be pointed to, the one behind it may not."""
    body = b"%PDF-1.7\nstartxref\n27\n%%EOF\n"
    assert fault_of(body) is None
    assert fault_of(body[:-1]) == "startxref points to byte 27 of 27: bytes are missing"


@pytest.mark.parametrize("difference", [-1, 1, 40_000])
def test_content_length_must_agree(difference: int) -> None:
    """A body that looks whole is at fault when it is shorter or longer than declared."""
    declared = len(WHOLE) + difference
    fault = f"{len(WHOLE):,} bytes came where Content-Length says {declared:,}"
    assert fault_of(WHOLE, content_length=declared) == fault
    assert in_pieces(WHOLE, 100).fault(content_length=declared) == fault


def test_a_wrong_start_is_named_before_a_wrong_length() -> None:
    """A login page is a login page, not a short document."""
    assert "<html>" in str(fault_of(b"<html>", content_length=42_137))


FILLER = (b"\n", b"\r\n", b"\0" * 900, b"\0" * 80_508, b" \n" * 5_000)
JUNK = (b"%%EOF\n", b"\n<!-- 0.2 s -->", b"y" * 1000, b"\x1a", b"0", b"20261126\n", b"\r\n0\r\n\r\n")
UNCLEAR = (b"1", b"x", b"%made by somebody\n", b"12 0 obj", b"xref\n0 1\n")


@pytest.mark.parametrize("behind", [*FILLER, *JUNK])
def test_filler_and_junk_after_the_end_are_let_through(behind: bytes) -> None:
    assert fault_of(WHOLE + behind) is None
    assert in_pieces(WHOLE + behind, 4096).fault() is None


@pytest.mark.parametrize("behind", UNCLEAR)
def test_what_may_be_a_revision_cut_off_is_kept_only_where_the_end_is_proved(behind: bytes) -> None:
    """A length that agrees or the transfer's framing proves that nothing is missing; nothing else does."""
    body = WHOLE + behind
    assert "no end" in str(fault_of(body))
    assert fault_of(body, content_length=len(body)) is None
    assert fault_of(body, framed=True) is None
    assert in_pieces(body, 9).fault(framed=True) is None


@pytest.mark.parametrize("behind", [b"startxref\nsoon", b"startxref\nstartxref\n", b"startxref%" * 3])
def test_the_last_startxref_that_has_an_offset_counts_where_the_end_is_proved(behind: bytes) -> None:
    """What a producer's comment says behind it does not make a whole document a broken one."""
    body = WHOLE + behind
    assert fault_of(body, content_length=len(body)) is None
    assert fault_of(body) == "no startxref with an offset before %%EOF"


def test_not_an_earlier_startxref_counts_where_the_last_one_has_an_offset() -> None:
    """An update whose table lies behind the end is not made whole by the revision before it."""
    body = WHOLE + b"startxref\n999999\n%%EOF\nstartxref\nsoon"
    assert "points to byte 999,999" in str(fault_of(body, content_length=len(body)))


def test_filler_before_an_update_that_was_begun_does_not_hide_it() -> None:
    """NUL as well as white space."""
    assert "no end" in str(fault_of(WHOLE + b"\0\n\0 4 0 ob"))


def test_what_a_head_states_is_not_asked_where_the_end_is_proved() -> None:
    """A producer may state a wrong length; the transfer says that nothing is missing."""
    body = linearised(len(LINEARISED) + 3)
    assert fault_of(body, framed=True) is None
    assert fault_of(body, content_length=len(body)) is None


def test_a_long_document_with_more_filler_than_the_window_is_whole() -> None:
    """The filler is counted over the whole body, and the document before it is longer than that."""
    body = WHOLE[:9] + b"%" + b"c" * 20_000 + b"\n" + WHOLE[9:] + bytes(TAIL_WINDOW + 1)
    assert fault_of(body) is None
    assert in_pieces(body, 1000).fault() is None


def test_startxref_must_stand_in_its_window() -> None:
    """In the last 8,192 bytes before the filler."""
    near, far = (b"%%PDF-1.7\n%sstartxref\n9\n%%%s\n%%%%EOF" % (b"x" * 99, b"c" * pad) for pad in (8173, 8174))
    assert len(near) - near.find(b"startxref") == TAIL_WINDOW
    assert fault_of(near) is None
    assert fault_of(near + bytes(100_000)) is None
    assert fault_of(far) == "no startxref with an offset before %%EOF"


@pytest.mark.parametrize("between", [b"\n", b" %here\n", b"\r\n%a\r%b\n", b"\n+"])
def test_a_comment_or_a_sign_may_stand_between_startxref_and_its_offset(between: bytes) -> None:
    assert fault_of(b"%PDF-1.7\nstartxref" + between + b"9\n%%EOF\n") is None


@pytest.mark.parametrize(
    "before",
    [b"\xef\xbb\xbf", b"\r\n", b"\xef\xbb\xbf" * 2 + b" \n\t", b"\0", b"\n\xef\xbb\xbf", b" " * (HEAD_WINDOW - 5)],
)
def test_white_space_and_byte_order_marks_may_stand_first(before: bytes) -> None:
    assert head_fault(before + WHOLE) is None
    assert fault_of(before + WHOLE) is None


@pytest.mark.parametrize("head", [b"", b"%", b"%PDF", b" ", b"\xef", b"\xef\xbb", b"\xef\xbb\xbf", b"\xef\xbb\xbf\n%P"])
def test_a_head_too_short_to_tell_is_no_fault_yet(head: bytes) -> None:
    assert head_fault(head) is None


@pytest.mark.parametrize(
    "head", [b"<", b"%!PS", b"x%PDF-1.7", b"\x1b%PDF-", b"\xef\xbbx", b" " * HEAD_WINDOW, b" " * 1020 + b"%PDF-1.7"]
)
def test_a_head_that_cannot_become_a_pdf_is_a_fault_at_once(head: bytes) -> None:
    assert str(head_fault(head)).endswith("instead of %PDF-")


@given(st.binary(max_size=12))
def test_a_faulty_head_stays_faulty(head: bytes) -> None:
    """What is refused on its first bytes is refused whole: the early check never refuses a good document."""
    if head_fault(head) is not None:
        assert fault_of(head + WHOLE) is not None


MUTATED = st.one_of(
    st.sampled_from([WHOLE, UPDATED, LINEARISED]).flatmap(
        lambda body: st.builds(
            lambda end, junk, filling: body[:9] + b"%" * filling + body[9:end] + junk,
            st.integers(0, len(body)),
            st.sampled_from([b"", b"\n", b"\0" * 1500, b"\0" * 9000 + b"y", b"5 0 obj", b"<html>", b" " * 8191 + b"z"]),
            st.sampled_from([0, 1, 1000, 5000]),
        )
    ),
    st.binary(max_size=64),
)


@given(body=MUTATED, sizes=st.lists(st.integers(1, 3000), min_size=1, max_size=8), declared=st.none() | st.just(700))
def test_any_chunking_gives_the_verdict_of_one_piece(body: bytes, sizes: list[int], declared: int | None) -> None:
    checker = in_pieces(body, *sizes)
    assert checker.fault(content_length=declared) == fault_of(body, content_length=declared)
    assert checker.size == len(body)
    assert checker.head == body[:200]


def test_memory_does_not_grow_with_the_body() -> None:
    """After 64 MiB only the two windows are kept, and the verdict still holds."""
    checker, block = PdfValidator(), bytes(1 << 20)
    checker.feed(b"%PDF-1.7\n")
    for _ in range(64):
        checker.feed(block)
    checker.feed(b"startxref\n9\n%%EOF")
    assert checker.fault() is None
    assert checker.size == (64 << 20) + 26
    assert len(checker._start) == HEAD_WINDOW
    assert len(checker._tail) <= TAIL_WINDOW
    assert len(checker._filler) <= TAIL_WINDOW


def test_an_empty_piece_changes_nothing() -> None:
    checker = in_pieces(WHOLE, 50)
    checker.feed(b"")
    assert checker.fault() is None
