"""Content codings (RFC 9110, 8.4.1): a compressed body as it arrives, decoded piece by piece within a bound.

A service or an object store sends gzip whatever Accept-Encoding says. What a decoder gives is proved whole by the
coding's own end and checksum; what grows beyond its limit is stopped before it is in memory.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

__all__ = ["DecodedSizeError", "Decoder", "EncodingError", "decoder", "is_coded"]

PIECE = 2**18
"""Bytes that a decoder gives at once, at most: a few bytes of gzip may stand for a thousand times as many."""

MOST_CODINGS = 4
"""Codings upon each other; nobody means more, and each multiplies the work."""

_GZIP = b"\x1f\x8b"
_MAGIC = 2
_ZLIB_METHOD, _ZLIB_MULTIPLE = 8, 31

_GZIPPED = frozenset({"gzip", "x-gzip"})
_DEFLATED = frozenset({"deflate"})
_NOTHING = frozenset({"", "identity", "none", "utf-8", "utf8", "aws-chunked", "binary"})
"""Codings that change no byte: what stores are told in place of none, and a framing that is gone by then."""


class EncodingError(ValueError):
    """A body that its coding cannot be taken off: another coding, damaged, or cut off."""


class DecodedSizeError(EncodingError):
    """A body that is longer than the limit once its coding is taken off."""


class Decoder(Protocol):
    """Takes a coding off a body as it arrives."""

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """Give what the next bytes stand for, at most `PIECE` at once. Raises `EncodingError`."""

    def feed(self, data: bytes) -> bytes:
        """Give what the next bytes stand for, in one. Raises `EncodingError`."""

    def finish(self) -> bytes:
        """Hear that all of the body was fed, and give what was kept back. Raises `EncodingError` without an end."""


def decoder(content_encoding: str | None, *, limit: int) -> Decoder:
    """Give the decoder of a body by its Content-Encoding: gzip, deflate, several, or none.

    `limit` bounds the bytes it gives. A body that does not begin as gzip, though it is said to be, stands as it is:
    something on the way has decoded it. Raises `EncodingError` for a coding that is not known here.
    """
    return _Bounded([_CODERS[name]() for name in reversed(_codings(content_encoding))], limit)


def is_coded(content_encoding: str | None) -> bool:
    """Tell whether a Content-Encoding names anything that changes a byte, known here or not."""
    return bool(_named(content_encoding))


def _named(content_encoding: str | None) -> list[str]:
    names = [name.strip().lower() for name in (content_encoding or "").split(",")]
    return [name for name in names if name not in _NOTHING]


def _codings(content_encoding: str | None) -> list[str]:
    names = _named(content_encoding)
    for name in names:
        if name not in _CODERS:
            raise EncodingError(f"content coding {name[:40]!r} is none of gzip, deflate and identity")
    if len(names) > MOST_CODINGS:
        raise EncodingError(f"{len(names)} content codings upon each other; at most {MOST_CODINGS} are read")
    return names


class _Coder(Protocol):
    def pieces(self, data: bytes) -> Iterator[bytes]: ...

    def finish(self) -> bytes: ...


class _Inflating:
    """A stream of zlib's, its kind chosen by its first two bytes; a further gzip member may follow the first."""

    __slots__ = ("_begin", "_inflate", "_members", "_passes", "_start")

    def __init__(self, begin: Callable[[bytes], int | None]) -> None:
        self._begin = begin
        self._start = b""
        self._members = 0
        self._passes: bool | None = None
        """True if what comes is given as it is, False if it is dropped, None while neither is known."""
        self._inflate: zlib._Decompress | None = None

    def pieces(self, data: bytes) -> Iterator[bytes]:
        while data and self._passes is None:
            if self._inflate is None:
                data = self._begun(data)
            if self._inflate is not None:
                yield from self._inflated(self._inflate, data)
                data = self._after(self._inflate)
        if data and self._passes:
            yield data

    def _begun(self, data: bytes) -> bytes:
        """Choose how to go on once two bytes are there; give what is to be gone on with."""
        data, self._start = self._start + data, b""
        if len(data) < _MAGIC:
            self._start = data
            return b""
        bits = self._begin(data[:_MAGIC])
        if bits is not None and (not self._members or data.startswith(_GZIP)):
            self._inflate = zlib.decompressobj(bits)
        else:
            # Behind the last member there may be filling, which readers ignore.
            self._passes = not self._members
        return data

    def _inflated(self, inflate: zlib._Decompress, data: bytes) -> Iterator[bytes]:
        while True:
            try:
                piece = inflate.decompress(data, PIECE)
            except zlib.error as exc:
                raise EncodingError(f"the compressed body is damaged: {exc}") from None
            if piece:
                yield piece
            data = inflate.unconsumed_tail
            if inflate.eof or (not data and len(piece) < PIECE):
                return

    def _after(self, inflate: zlib._Decompress) -> bytes:
        """Give what follows the end of a stream; nothing while that has not come."""
        if not inflate.eof:
            return b""
        self._inflate = None
        self._members += 1
        return inflate.unused_data

    def finish(self) -> bytes:
        """Give what was kept back: a body of one byte is no stream. Raises `EncodingError` without an end."""
        if self._inflate is not None:
            raise EncodingError("the compressed body is cut off: its coding has no end")
        return b"" if self._members else self._start


_GZIP_BITS = 16 + zlib.MAX_WBITS


def _gzip_or_plain(magic: bytes) -> int | None:
    return _GZIP_BITS if magic == _GZIP else None


def _zlib_or_raw(magic: bytes) -> int | None:
    """Tell RFC 1950 from the bare RFC 1951 that some servers send under the same name."""
    is_zlib = magic[0] & 0x0F == _ZLIB_METHOD and int.from_bytes(magic, "big") % _ZLIB_MULTIPLE == 0
    return zlib.MAX_WBITS if is_zlib else -zlib.MAX_WBITS


_CODERS: dict[str, Callable[[], _Inflating]] = {
    **dict.fromkeys(_GZIPPED, lambda: _Inflating(_gzip_or_plain)),
    **dict.fromkeys(_DEFLATED, lambda: _Inflating(_zlib_or_raw)),
}


class _Bounded:
    """Decoders one upon the other, and the bound on what the last one gives."""

    __slots__ = ("_coders", "_limit", "_size")

    def __init__(self, coders: Iterable[_Coder], limit: int) -> None:
        self._coders = tuple(coders)
        self._limit = limit
        self._size = 0

    def pieces(self, data: bytes) -> Iterator[bytes]:
        for piece in self._through(data, 0):
            self._size += len(piece)
            if self._size > self._limit:
                raise DecodedSizeError(f"longer than the limit of {self._limit:,} bytes once decoded")
            yield piece

    def _through(self, data: bytes, stage: int) -> Iterator[bytes]:
        if stage == len(self._coders):
            if data:
                yield data
            return
        for piece in self._coders[stage].pieces(data):
            yield from self._through(piece, stage + 1)

    def feed(self, data: bytes) -> bytes:
        return b"".join(self.pieces(data))

    def finish(self) -> bytes:
        rest = b""
        for coder in self._coders:
            rest = b"".join(coder.pieces(rest)) + coder.finish()
        return rest
