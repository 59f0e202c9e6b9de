"""Bodies that were compressed though nobody asked: undone whole, in bounded pieces, or refused as damaged."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from invoicing_async._codings import PIECE, CodingError, Decoder, codings


def raw_deflate(body: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(body) + packer.flush()


def packed(body: bytes) -> bytes:
    return zlib.compress(body)


PACKED: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": packed,
}


def pieces(body: bytes, size: int) -> Iterator[bytes]:
    return (body[at : at + size] for at in range(0, len(body), size))


def decoded(header: str, body: bytes, size: int = 2**16) -> bytes:
    decoder = Decoder(codings(header))
    found = [out for piece in pieces(body, size) for out in decoder.feed(piece)]
    assert all(len(out) <= max(PIECE, size) for out in found)
    return b"".join([*found, *decoder.end()])


@given(body=st.binary(max_size=3_000), header=st.sampled_from(sorted(PACKED)), size=st.integers(1, 400))
def test_what_was_compressed_comes_out_as_it_was(body: bytes, header: str, size: int) -> None:
    assert decoded(header, PACKED[header](body), size) == body


@given(body=st.binary(min_size=1, max_size=500), size=st.integers(1, 50))
def test_several_codings_and_several_members(body: bytes, size: int) -> None:
    assert decoded("gzip, deflate", zlib.compress(gzip.compress(body)), size) == body
    assert decoded("gzip", gzip.compress(body) + gzip.compress(body), size) == body * 2
    assert decoded("gzip", gzip.compress(body) + b"\0" * 9, size) == body


def test_the_bare_stream_that_some_call_deflate() -> None:
    body = b"%PDF-1.7 " * 99
    assert decoded("deflate", raw_deflate(body)) == body


@pytest.mark.parametrize("header", ["gzip", "deflate"])
@pytest.mark.parametrize("body", [b"", b"{", b'{"request_id": 1}', b"%PDF-1.7\n", b"<html>"])
def test_a_body_that_only_says_so_is_given_as_it_came(header: str, body: bytes) -> None:
    assert decoded(header, body) == body


@given(cut=st.integers(3, 60), header=st.sampled_from(["gzip", "deflate"]))
def test_a_body_that_ends_too_early_is_refused(cut: int, header: str) -> None:
    packed = PACKED[header](bytes(range(256)))
    with pytest.raises(CodingError):
        decoded(header, packed[: min(cut, len(packed) - 1)])


def test_a_damaged_body_is_refused() -> None:
    packed = bytearray(gzip.compress(b"x" * 1000))
    packed[12] ^= 0xFF
    with pytest.raises(CodingError):
        decoded("gzip", bytes(packed))


def test_a_bomb_comes_in_pieces() -> None:
    decoder = Decoder(("gzip",))
    out = decoder.feed(gzip.compress(bytes(50 * 2**20)))
    assert len(next(out)) <= PIECE


@pytest.mark.parametrize("header", [None, "", "identity", "br", "gzip, br", "zstd"])
def test_what_cannot_be_undone_is_left(header: str | None) -> None:
    assert codings(header) == ()
