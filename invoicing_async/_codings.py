"""Content codings that nobody asked for, undone: gzip and deflate, piece by piece in bounded memory.

Every request asks for `identity`, and some caches and gateways compress all the same. A body that says it is
compressed and is not is given as it came.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator

__all__ = ["CodingError", "Decoder", "codings"]

PIECE = 2**18
"""The longest piece that is given at once, however well it was compressed."""

_KNOWN = {"gzip": "gzip", "x-gzip": "gzip", "deflate": "deflate"}
_GZIP = b"\x1f\x8b"
_GZIP_BITS, _ZLIB_BITS, _RAW_BITS = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS
_TEXT = re.compile(rb'[{\[][\s{\["]|%P|<|\xef\xbb')
"""How JSON, PDF and markup begin."""
_HEADER = 2
"""Bytes that tell a compressed body from a plain one."""


class CodingError(Exception):
    """A compressed body that is damaged or ends too early."""


def codings(header: str | None) -> tuple[str, ...]:
    """Give the codings that a Content-Encoding names and that can be undone, in the order of undoing.

    Nothing for a header that names one that cannot: its body is as it came.
    """
    if header is None:
        return ()
    names = [name for part in header.split(",") if (name := part.strip().lower()) not in {"", "identity"}]
    return tuple(_KNOWN[name] for name in reversed(names)) if all(name in _KNOWN for name in names) else ()


class Decoder:
    """Undoes codings one after the other."""

    def __init__(self, names: Iterable[str]) -> None:
        self._layers = [_Layer(name) for name in names]

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """Give what a piece of the body holds, in pieces of at most `PIECE`. Raises `CodingError`."""
        return self._through(iter((piece,)), self._layers)

    def end(self) -> Iterator[bytes]:
        """Give what is left now that the body has ended. Raises `CodingError` if it ended too early."""
        for number, layer in enumerate(self._layers):
            yield from self._through(layer.end(), self._layers[number + 1 :])

    def _through(self, pieces: Iterator[bytes], layers: list[_Layer]) -> Iterator[bytes]:
        for layer in layers:
            pieces = layer.decoded(pieces)
        return pieces


class _Layer:
    """One coding. What kind of stream it is shows in its first bytes."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._begun = b""
        self._stream: zlib._Decompress | None = None
        self._plain = False

    def decoded(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            yield from self._fed(piece)

    def _fed(self, piece: bytes) -> Iterator[bytes]:
        if self._stream is None and not self._plain:
            piece = self._begun + piece
            self._begun = piece if len(piece) < _HEADER else b""
            if self._begun or not piece:
                return
            self._stream = _stream(self._name, piece)
            self._plain = self._stream is None
        if self._plain:
            yield piece
        else:
            yield from self._inflated(piece)

    def _inflated(self, piece: bytes) -> Iterator[bytes]:
        full = False
        while (piece or full) and (stream := self._current(piece)) is not None:
            try:
                out = stream.decompress(piece, PIECE)
            except zlib.error as exc:
                raise CodingError(f"the {self._name} body is damaged: {exc}") from exc
            if out:
                yield out
            full = len(out) == PIECE and not stream.eof
            piece = stream.unused_data if stream.eof else stream.unconsumed_tail

    def _current(self, piece: bytes) -> zlib._Decompress | None:
        """Give the stream that takes the piece: a gzip body may have several members; other junk behind it has none."""
        stream = self._stream
        if stream is None or not stream.eof:
            return stream
        if self._name != "gzip" or piece[:1] != _GZIP[:1]:
            return None
        self._stream = zlib.decompressobj(_GZIP_BITS)
        return self._stream

    def end(self) -> Iterator[bytes]:
        if self._stream is not None and not self._stream.eof:
            raise CodingError(f"the {self._name} body ends before its end")
        if self._begun:
            yield self._begun


def _stream(name: str, start: bytes) -> zlib._Decompress | None:
    """Make what reads a body that begins so; None for one that is not compressed."""
    if name == "gzip":
        return zlib.decompressobj(_GZIP_BITS) if start.startswith(_GZIP) else None
    if start[0] & 0x0F == zlib.DEFLATED and int.from_bytes(start[:_HEADER], "big") % 31 == 0:
        return zlib.decompressobj(_ZLIB_BITS)
    # "deflate" means zlib's format; some send the bare stream, which has no mark of its own.
    if _TEXT.match(start):
        return None
    try:
        zlib.decompressobj(_RAW_BITS).decompress(start, PIECE)
    except zlib.error:
        return None
    return zlib.decompressobj(_RAW_BITS)
