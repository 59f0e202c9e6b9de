"""Bodies that were compressed though nobody asked: every coding, every cut, every damage, and the bound."""

from __future__ import annotations

import gzip
import random
import zlib
from collections.abc import Callable

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from invoicing_async._core.codings import PIECE, CodingError, DecodedSizeError, Decoder, codings, decoder, is_coded

LIMIT = 2**24


def raw(body: bytes) -> bytes:
    coder = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return coder.compress(body) + coder.flush()


def plain(body: bytes) -> bytes:
    return body


CODINGS: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("gzip", gzip.compress),
    ("x-gzip", gzip.compress),
    (" GZip ", gzip.compress),
    ("deflate", zlib.compress),
    ("deflate", raw),
    ("gzip, aws-chunked", gzip.compress),
    ("gzip, gzip", lambda body: gzip.compress(gzip.compress(body))),
    ("deflate,gzip", lambda body: gzip.compress(zlib.compress(body))),
    ("gzip, deflate", lambda body: zlib.compress(gzip.compress(body))),
    ("", plain),
    ("identity", plain),
    ("UTF-8", plain),
    ("aws-chunked", plain),
]
CODED = [pair for pair in CODINGS if pair[1] is not plain]


def fed(header: str | None, sent: bytes, *, step: int, limit: int | None = LIMIT) -> bytes:
    decode = decoder(header, limit=limit)
    given = [piece for at in range(0, len(sent), step) for piece in decode.feed(sent[at : at + step])]
    given += decode.end()
    assert all(0 < len(piece) <= max(PIECE, step) for piece in given)
    return b"".join(given)


def reads_as_text(sent: bytes) -> bool:
    """A few bytes of a bare deflate stream that begin as text does: nothing tells them apart."""
    return sent[:1] in {b"{", b"[", b"<", b"%", b"\xef"}


@given(coding=st.sampled_from(CODINGS), body=st.binary(max_size=2000), step=st.integers(1, 700))
def test_what_was_encoded_comes_out_however_it_is_cut(
    coding: tuple[str, Callable[[bytes], bytes]], body: bytes, step: int
) -> None:
    """Every coding gives the body back, whatever pieces it arrives in."""
    name, encode = coding
    sent = encode(body)
    assume(encode is not raw or len(sent) >= 64 or not reads_as_text(sent))
    assert fed(name, sent, step=step) == body
    known = Decoder(codings(name))
    assert b"".join([*known.feed(sent), *known.end()]) == body


@given(coding=st.sampled_from(CODED), body=st.binary(min_size=1, max_size=2000), cut=st.floats(0, 0.999))
def test_a_cut_is_never_taken_for_the_end(
    coding: tuple[str, Callable[[bytes], bytes]], body: bytes, cut: float
) -> None:
    """A stream that lacks any of its bytes has no end; fewer than two bytes are no stream at all."""
    name, encode = coding
    sent = encode(body)
    kept = sent[: int(len(sent) * cut)]
    assume(encode is not raw or len(kept) >= 64 or not reads_as_text(sent))
    if len(kept) >= 2:
        with pytest.raises(CodingError):
            fed(name, kept, step=64)


@given(body=st.binary(min_size=1, max_size=500), at=st.integers(10, 10_000), bit=st.integers(0, 7))
def test_a_damaged_gzip_gives_no_other_body(body: bytes, at: int, bit: int) -> None:
    """Whatever bit behind the head is turned, the checksum tells."""
    sent = bytearray(gzip.compress(body))
    sent[10 + at % (len(sent) - 10)] ^= 1 << bit
    try:
        given = fed("gzip", bytes(sent), step=100)
    except CodingError:
        return
    assert given == body


@given(parts=st.lists(st.binary(max_size=300), min_size=1, max_size=4), junk=st.sampled_from([b"", b"\0" * 9, b"x"]))
def test_gzip_members_follow_each_other_and_filling_is_ignored(parts: list[bytes], junk: bytes) -> None:
    """Several members are one body (RFC 1952), in any pieces; what follows the last is not of it."""
    sent = b"".join(map(gzip.compress, parts)) + junk
    for step in (1, 7, len(sent)):
        assert fed("gzip", sent, step=step) == b"".join(parts)


PAGE = b"<!doctype html><html><head><title>Sign in</title></head><body>" + b"<p>Please sign in again.</p>" * 20
JSON = b'{"success": false, "error": {"code": "SYS_DEP_503", "message": "Service temporarily unavailable"}}' * 3


@pytest.mark.parametrize("header", ["gzip", "deflate"])
@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"%PDF-1.7 ...", b'{"status": "DONE"}', b"<html>", b"%PDF-1.7\n" + b"x" * 999, b"[{}]", PAGE, JSON],
)
def test_a_body_that_was_decoded_on_the_way_stands_as_it_is(header: str, body: bytes) -> None:
    """A proxy that decodes and leaves the header makes no answer unreadable."""
    for step in (1, 5, 100, 4096):
        assert fed(header, body, step=step) == body


def test_a_bare_deflate_stream_may_begin_as_text_does() -> None:
    """Its first bytes are any: what reads as a stream for longer than a few bytes is one."""
    generator, met = random.Random(3), 0
    for _ in range(4000):
        body = b"%PDF-1.7\n" + bytes(generator.choices(b"0123456789 obj\n", k=generator.randrange(300, 700)))
        sent = raw(body)
        met += reads_as_text(sent)
        assert fed("deflate", sent, step=4096) == body
    assert met > 10


@pytest.mark.parametrize("coding", ["br", "zstd", "compress", "gzip, br", "gzip,gzip,gzip,gzip,gzip", "br\x1b[2J"])
def test_a_coding_that_is_not_known_is_refused_by_name(coding: str) -> None:
    """What cannot be decoded is said, by a name that cannot write on a terminal; a transport leaves it as it is."""
    with pytest.raises(CodingError) as caught:
        decoder(coding, limit=LIMIT)
    assert str(caught.value).isprintable()
    assert is_coded(coding)
    assert codings(coding) == ()


def test_only_a_coding_that_changes_bytes_is_one() -> None:
    """What a store was told in place of none counts as none."""
    for header in (None, "", "identity", "aws-chunked", "utf-8, identity"):
        assert not is_coded(header)
        assert codings(header) == ()


def test_a_bomb_is_stopped_at_the_limit_piece_by_piece() -> None:
    """A thousandfold body is never whole in memory: a piece is bounded, and so is all that is given."""
    sent = gzip.compress(gzip.compress(bytes(2**26)))
    decode = decoder("gzip, gzip", limit=2**21)
    given: list[int] = []
    with pytest.raises(DecodedSizeError, match="2,097,152 bytes"):
        given.extend(map(len, decode.feed(sent)))
    assert max(given) <= PIECE
    assert sum(given) <= 2**21


def test_without_a_limit_a_bomb_still_comes_in_pieces() -> None:
    assert len(next(Decoder(("gzip",)).feed(gzip.compress(bytes(50 * 2**20))))) <= PIECE


def test_a_long_body_comes_out_whole() -> None:
    """Bodies of many pieces, in chunks as they come from a socket."""
    body = random.Random(7).randbytes(3 * PIECE) + bytes(3 * PIECE)
    for name, encode in CODED:
        assert fed(name, encode(body), step=65_536) == body
