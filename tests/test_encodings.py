"""The decoder of compressed bodies: every coding, every cut, every damage, and the bound."""

from __future__ import annotations

import gzip
import random
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from invoicing_async._encodings import PIECE, DecodedSizeError, EncodingError, decoder, is_coded

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
    ("", plain),
    ("identity", plain),
    ("UTF-8", plain),
    ("aws-chunked", plain),
]


def fed(coding: str | None, sent: bytes, *, step: int, limit: int = LIMIT) -> bytes:
    decode = decoder(coding, limit=limit)
    given = [decode.feed(sent[at : at + step]) for at in range(0, len(sent), step)]
    return b"".join(given) + decode.finish()


@given(coding=st.sampled_from(CODINGS), body=st.binary(max_size=2000), step=st.integers(1, 700))
def test_what_was_encoded_comes_out_however_it_is_cut(
    coding: tuple[str, Callable[[bytes], bytes]], body: bytes, step: int
) -> None:
    """Every coding gives the body back, whatever pieces it arrives in."""
    name, encode = coding
    assert fed(name, encode(body), step=step) == body


@given(coding=st.sampled_from(CODINGS[:8]), body=st.binary(min_size=1, max_size=2000), cut=st.floats(0, 0.999))
def test_a_cut_is_never_taken_for_the_end(
    coding: tuple[str, Callable[[bytes], bytes]], body: bytes, cut: float
) -> None:
    """A stream that lacks any of its bytes has no end; fewer than two bytes are no stream at all."""
    name, encode = coding
    sent = encode(body)
    kept = sent[: int(len(sent) * cut)]
    if len(kept) >= 2:
        with pytest.raises(EncodingError):
            fed(name, kept, step=64)


@given(body=st.binary(min_size=1, max_size=500), at=st.integers(10, 10_000), bit=st.integers(0, 7))
def test_a_damaged_gzip_gives_no_other_body(body: bytes, at: int, bit: int) -> None:
    """Whatever bit behind the head is turned, the checksum tells."""
    sent = bytearray(gzip.compress(body))
    sent[10 + at % (len(sent) - 10)] ^= 1 << bit
    try:
        given = fed("gzip", bytes(sent), step=100)
    except EncodingError:
        return
    assert given == body


@given(parts=st.lists(st.binary(max_size=300), min_size=1, max_size=4), junk=st.sampled_from([b"", b"\0" * 9, b"x"]))
def test_gzip_members_follow_each_other_and_filling_is_ignored(parts: list[bytes], junk: bytes) -> None:
    """Several members are one body (RFC 1952), in any pieces; what follows the last is not of it."""
    sent = b"".join(map(gzip.compress, parts)) + junk
    for step in (1, 7, len(sent)):
        assert fed("gzip", sent, step=step) == b"".join(parts)


@pytest.mark.parametrize("body", [b"", b"{", b"%PDF-1.7 ...", b'{"status": "DONE"}'])
def test_a_body_that_was_decoded_on_the_way_stands_as_it_is(body: bytes) -> None:
    """A proxy that decodes and leaves the header makes no answer unreadable."""
    for step in (1, 5, 100):
        assert fed("gzip", body, step=step) == body


@pytest.mark.parametrize("coding", ["br", "zstd", "compress", "gzip, br", "gzip,gzip,gzip,gzip,gzip", "br\x1b[2J"])
def test_a_coding_that_is_not_known_is_refused_by_name(coding: str) -> None:
    """What cannot be decoded is said at once; the name cannot write on a terminal."""
    with pytest.raises(EncodingError) as caught:
        decoder(coding, limit=LIMIT)
    assert str(caught.value).isprintable()
    assert is_coded(coding)


def test_only_a_coding_that_changes_bytes_is_one() -> None:
    """What a store was told in place of none counts as none."""
    assert not any(map(is_coded, (None, "", "identity", "aws-chunked", "utf-8, identity")))


def test_a_bomb_is_stopped_at_the_limit_piece_by_piece() -> None:
    """A thousandfold body is never whole in memory: a piece is bounded, and so is all that is given."""
    sent = gzip.compress(gzip.compress(bytes(2**26)))
    decode = decoder("gzip, gzip", limit=2**21)
    given: list[int] = []
    with pytest.raises(DecodedSizeError, match="2,097,152 bytes"):
        given.extend(map(len, decode.pieces(sent)))
    assert max(given) <= PIECE
    assert sum(given) <= 2**21


def test_a_long_body_comes_out_whole() -> None:
    """Bodies of many pieces, in chunks as they come from a socket."""
    body = random.Random(7).randbytes(3 * PIECE) + bytes(3 * PIECE)
    for name, encode in CODINGS[:8]:
        assert fed(name, encode(body), step=65_536) == body
