"""Content codings (RFC 9110, 8.4.1) that nobody asked for, undone: gzip and deflate, piece by piece within a bound.

Every request asks for `identity`, and some caches, gateways and object stores compress all the same. What a decoder
gives is proved whole by the coding's own end and checksum; what grows beyond its limit is stopped before it is in
memory. A body that only says that it is compressed is given as it came: something on the way has decoded it.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator

__all__ = ["CodingError", "DecodedSizeError", "Decoder", "codings", "decoder", "is_coded"]

PIECE = 2**18
"""The longest piece that is given at once: a few bytes of gzip may stand for a thousand times as many."""

MOST_CODINGS = 4
"""Codings upon each other; nobody means more, and each multiplies the work."""

SURE = 64
"""Bytes that read as a bare deflate stream to the last bit are one, even if they begin as text does."""

_GZIP = b"\x1f\x8b"
_GZIP_BITS, _ZLIB_BITS, _RAW_BITS = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS
_ZLIB_MULTIPLE = 31
_HEADER = 2
"""Bytes of the shortest beginning of a stream; fewer are none."""
_TEXT = re.compile(rb'[{\[][\s{\["]|%P|<[!?/A-Za-z]|\xef\xbb')
"""How JSON, PDF and markup begin."""

_NAMES = {"gzip": "gzip", "x-gzip": "gzip", "deflate": "deflate"}
_ENOUGH = {"gzip": _HEADER, "deflate": SURE}
"""Bytes of its beginning that tell what kind of stream a coding is."""

_NOTHING = frozenset({"", "identity", "none", "utf-8", "utf8", "aws-chunked", "binary"})
"""Codings that change no byte: what stores are told in place of none, and a framing that is gone by then."""


class CodingError(ValueError):
    """A body that its coding cannot be taken off: another coding, damaged, or cut off."""


class DecodedSizeError(CodingError):
    """A body that is longer than the limit once its coding is taken off."""


def is_coded(header: str | None) -> bool:
    """Tell whether a Content-Encoding names anything that changes a byte, known here or not."""
    return header is not None and bool(_named(header))


def codings(header: str | None) -> tuple[str, ...]:
    """Return what a Content-Encoding names, in the order of undoing; nothing if there is one that cannot be undone."""
    if header is None:  # nearly every answer
        return ()
    names = _named(header)
    return tuple(reversed(names)) if len(names) <= MOST_CODINGS and all(name in _NAMES for name in names) else ()


def decoder(header: str | None, *, limit: int | None = None) -> Decoder:
    """Return what undoes a Content-Encoding. Raises `CodingError` for one that names what cannot be undone."""
    names = _named(header)
    for name in names:
        if name not in _NAMES:
            raise CodingError(f"content coding {name[:40]!r} is none of gzip, deflate and identity")
    if len(names) > MOST_CODINGS:
        raise CodingError(f"{len(names)} content codings upon each other; at most {MOST_CODINGS} are read")
    return Decoder(reversed(names), limit=limit)


def _named(header: str | None) -> list[str]:
    if header is None:
        return []
    return [name for part in header.split(",") if (name := part.strip().lower()) not in _NOTHING]


class Decoder:
    """Undoes codings one after the other; `limit` bounds the bytes that it gives."""

    __slots__ = ("_layers", "_limit", "_size")

    def __init__(self, names: Iterable[str], *, limit: int | None = None) -> None:
        self._layers = [_Layer(_NAMES[name]) for name in names]
        self._limit = limit
        self._size = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Return what the next bytes stand for, at most `PIECE` at once. Raises `CodingError`."""
        return self._bounded(self._through(iter((data,)), self._layers))

    def end(self) -> Iterator[bytes]:
        """Return what was kept back, at the end of the body. Raises `CodingError` if it ended too early."""
        for number, layer in enumerate(self._layers, 1):
            yield from self._bounded(self._through(layer.end(), self._layers[number:]))

    def _through(self, pieces: Iterator[bytes], layers: list[_Layer]) -> Iterator[bytes]:
        for layer in layers:
            pieces = layer.decoded(pieces)
        return pieces

    def _bounded(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            self._size += len(piece)
            if self._limit is not None and self._size > self._limit:
                raise DecodedSizeError(f"longer than the limit of {self._limit:,} bytes once decoded")
            if piece:
                yield piece


class _Layer:
    """One coding. What kind of stream it is shows in its first bytes; a further gzip member may follow the first."""

    __slots__ = ("_members", "_name", "_passes", "_start", "_stream")

    def __init__(self, name: str) -> None:
        self._name = name
        self._start = b""
        self._members = 0
        self._passes: bool | None = None
        """True if what comes is given as it is, False if it is dropped, None while it is a stream or nobody knows."""
        self._stream: zlib._Decompress | None = None

    def decoded(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            yield from self._fed(piece)

    def end(self) -> Iterator[bytes]:
        """Return what was kept back. Raises `CodingError` for a stream without its end."""
        if self._start and not self._members:
            self._choose(self._start)
            yield from self._fed(b"")
        if self._stream is not None:
            raise CodingError(f"the {self._name} body is cut off: its coding has no end")

    def _fed(self, data: bytes) -> Iterator[bytes]:
        data, self._start = self._start + data, b""
        while data and self._passes is None:
            if self._stream is None:
                if len(data) < (_HEADER if self._members else _ENOUGH[self._name]):
                    self._start = data
                    return
                self._choose(data)
            if self._stream is not None:
                stream = self._stream
                yield from self._inflated(stream, data)
                data = b""
                if stream.eof:
                    data, self._stream = stream.unused_data, None
                    self._members += 1
        if data and self._passes:
            yield data

    def _choose(self, begun: bytes) -> None:
        bits = _window_bits(self._name, begun)
        if bits is not None and (not self._members or begun.startswith(_GZIP)):
            self._stream = zlib.decompressobj(bits)
        else:
            # Behind the last member there may be filling, which readers ignore.
            self._passes = not self._members

    def _inflated(self, stream: zlib._Decompress, data: bytes) -> Iterator[bytes]:
        while True:
            try:
                piece = stream.decompress(data, PIECE)
            except zlib.error as exc:
                raise CodingError(f"the {self._name} body is damaged: {exc}") from None
            if piece:
                yield piece
            data = stream.unconsumed_tail
            if stream.eof or (not data and len(piece) < PIECE):
                return


def _window_bits(name: str, begun: bytes) -> int | None:
    """Return the `wbits` with which zlib reads a stream that begins so; None for no stream at all.

    Under the name of deflate some servers send RFC 1950 and some the bare RFC 1951; and both names are given to text.
    """
    if name == "gzip":
        return _GZIP_BITS if begun.startswith(_GZIP) else None
    if len(begun) < _HEADER:
        return None
    if begun[0] & 0x0F == zlib.DEFLATED and int.from_bytes(begun[:_HEADER], "big") % _ZLIB_MULTIPLE == 0:
        return _ZLIB_BITS
    trial = zlib.decompressobj(_RAW_BITS)
    try:
        trial.decompress(begun, PIECE)
    except zlib.error:
        return None
    is_text = _TEXT.match(begun) and (len(begun) < SURE or trial.unused_data)
    return None if is_text else _RAW_BITS
