"""The lines of a file, of which none is too long and each is text; and the error for what cannot be read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

__all__ = ["LINE_LIMIT", "InputError", "lines", "raw_lines"]

LINE_LIMIT = 2**20
"""Bytes of the longest line that is read."""


class InputError(ValueError):
    """An input does not hold what it must. The message names the input and the line; `hint` says what to do.

    Of a table or of records that were read as a list, `column` or `field` is the first one that can be asked for.
    `may_be_list` tells that it is a list all the same if its reader says so, by a name that ends in .txt.
    """

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        column: str | None = None,
        field: str | None = None,
        may_be_list: bool = False,
    ) -> None:
        super().__init__(message)
        self.column: str | None = column
        self.field: str | None = field
        self.may_be_list: bool = may_be_list
        picks = [f"{name}={value!r}" for name, value in {"column": column, "field": field}.items() if value is not None]
        ways = [*picks, *(["a name that ends in .txt, for ids alone, one a line"] if may_be_list else [])]
        self.hint: str = hint or (f"Give {', or '.join(ways)}." if ways else "")


def lines(file: BinaryIO, name: str) -> Iterator[tuple[int, str]]:
    """Yield each line with its number, its end included. Raises `InputError` naming the line that is no text."""
    for number, raw in enumerate(raw_lines(file, name), 1):
        try:
            yield number, raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"{name} line {number}: not UTF-8 text (byte {error.start + 1})") from None


def raw_lines(file: BinaryIO, name: str) -> Iterator[bytes]:
    """Yield each line of `file` as bytes, its end (LF, CR LF or CR) included, and close the file.

    Raises `InputError` for a line of more than 1 MiB; it begins with `name`.
    """
    with file:
        for number, raw in enumerate(_cut(file), 1):
            if len(raw) > LINE_LIMIT:
                raise InputError(f"{name} line {number}: longer than {LINE_LIMIT:,} bytes")
            yield raw


def _cut(file: BinaryIO) -> Iterator[bytes]:
    """Cut a file into lines; one that is too long comes as far as it was read."""
    rest = b""
    while chunk := file.readline(LINE_LIMIT + 1):
        pieces = (rest + chunk).splitlines(keepends=True)
        # What does not end here, or in a CR that a LF may follow, is read on.
        rest = b"" if pieces[-1].endswith(b"\n") or len(pieces[-1]) > LINE_LIMIT else pieces.pop()
        yield from pieces
    if rest:
        yield rest
