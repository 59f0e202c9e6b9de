"""Heads of answers that are a little off the grammar: repaired if their framing is certain, refused if it is not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from invoicing_async._transport.heads import repaired as parted

BODY = b'{"request_id": 1}'
LENGTH = b"Content-Length: %d" % len(BODY)


def raw(*lines: bytes, status: bytes = b"HTTP/1.1 200 OK", end: bytes = b"\r\n") -> bytes:
    return end.join([status, *lines, b"", BODY])


def repaired(raw: bytes) -> bytes | None:
    found = parted(raw)
    return None if found is None else b"".join(found)


GOOD = b"HTTP/1.1 200 OK\r\n%s\r\nConnection: close\r\n\r\n" % LENGTH + BODY


@pytest.mark.parametrize(
    "odd",
    [
        raw(b"Content-Length : %d" % len(BODY)),
        raw(b" Content-Length: %d" % len(BODY)),
        raw(b"Content-Length:%d  " % len(BODY)),
        raw(LENGTH, LENGTH),
        raw(b"Content-Length: %d, %d" % (len(BODY), len(BODY))),
        raw(LENGTH, b"Connection: keep-alive"),
        raw(LENGTH, b"X Odd: 1"),
        raw(LENGTH, b"no colon"),
        raw(LENGTH, b"Transfer-Encoding: identity"),
        raw(LENGTH, status=b"  HTTP/1.1  200\tOK "),
        raw(LENGTH, end=b"\n"),
    ],
)
def test_odd_white_space_and_repeated_lengths_are_repaired(odd: bytes) -> None:
    assert repaired(odd) == GOOD


def test_chunks_win_over_a_length() -> None:
    found = repaired(raw(b"Content-Length: 3", b"Transfer-Encoding: chunked"))
    assert found == b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n" + BODY


def test_a_folded_field_and_controls_in_a_value() -> None:
    found = repaired(raw(b"X: a,", b"\tb\x01c", LENGTH))
    assert found == GOOD.replace(b"OK\r\n", b"OK\r\nX: a, b c\r\n")


def test_an_interim_answer_stays_before_the_answer() -> None:
    found = repaired(b"HTTP/1.1 103 Hints\r\nLink : x\r\n\r\n" + raw(LENGTH))
    assert found is not None
    assert found.startswith(b"HTTP/1.1 103 Hints\r\nLink: x\r\n")
    assert found.endswith(GOOD)


@pytest.mark.parametrize(
    "hopeless",
    [
        raw(b"Content-Length: 3", b"Content-Length: 4"),
        raw(b"Content-Length: 3, 4"),
        raw(b"Content-Length: +3"),
        raw(b"Content-Length: x"),
        raw(LENGTH, status=b"HTTP/1.1 abc OK"),
        raw(LENGTH, status=b"HTTP/1.1 2000 OK"),
        b"SSH-2.0-x\r\n\r\n",
        b"\x15\x03\x01",
    ],
)
def test_what_contradicts_itself_or_is_no_head_is_refused(hopeless: bytes) -> None:
    assert repaired(hopeless) is None


@given(cut=st.integers(0, len(GOOD) - len(BODY) - 1))
def test_a_head_that_has_not_ended_is_waited_for(cut: int) -> None:
    assert repaired(GOOD[:cut]) == b""


@given(cut=st.integers(0, len(BODY)))
def test_what_was_repaired_is_right_and_stays(cut: int) -> None:
    whole = GOOD[: len(GOOD) - cut]
    assert repaired(whole) == whole


@given(st.binary(max_size=300))
def test_nothing_makes_it_fail(junk: bytes) -> None:
    assert repaired(b"HTTP/1.1 200 OK\r\n" + junk + b"\r\n\r\n") is not None or b"ength" in junk.lower()
