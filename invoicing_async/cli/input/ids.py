"""Ids from a file, from stdin, from a CSV column or a JSONL field: one after the other, in bounded memory.

An id is text without blanks at its ends and without a character that nobody sees; a spreadsheet's formula, error or
shortened number is none. Quotes around a whole line are no part of an id.
"""

from __future__ import annotations

import asyncio
import csv
import json
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from itertools import chain
from pathlib import Path
from threading import Semaphore, Thread
from typing import Any, BinaryIO, Generic, Self, TypeVar

from attrs import frozen
from cyclopts import Parameter

from ...drafts import Head, Numbered, code_fault, head_of
from ..exits import CommandError
from ..stop import Stop
from .id_files import Form, looked_at
from .options import IdSource

__all__ = ["SOURCE", "Feed", "Ids", "check_form", "lines", "open_ids", "opened", "picked", "raw_lines", "until_none"]

T = TypeVar("T")
STDIN = "-"


def _no_option(_: object, where: str | None) -> None:
    """Refuse an option where a file must be."""
    if where is not None and where.startswith("-") and where != STDIN:
        raise ValueError("It is an option or, as ./NAME, a file.")


SOURCE = Parameter(allow_leading_hyphen=True, validator=_no_option)
"""A file that is read, or - for stdin."""

LINE_LIMIT = 2**20
"""Bytes of the longest line that is read."""

ROOM = 1024
"""Items of a stream that are read ahead."""


@frozen
class Ids:
    """The ids of one input; `about` is how many there are, for a progress bar, None if that is not known."""

    items: Iterable[str] | AsyncIterator[str]
    about: int | None = None


def check_form(where: str, id_source: IdSource) -> None:
    """Raise `CommandError` for a file that is no list of ids, where no column or field of it is picked."""
    if id_source == IdSource() and Path(where).is_file():
        with opened(where) as file:
            looked_at(lines(file, where), where)


@contextmanager
def open_ids(where: str, id_source: IdSource, stop: Stop) -> Iterator[Ids]:
    """Open the ids of a file, or of stdin for `-`. Raises `CommandError` for a file that cannot be read.

    A file is read through once before, so that nothing is asked for if one of its lines holds no id. A stream may be
    slow, so it is read in a thread of its own, which closes it: what is in flight does not wait.
    """
    if id_source.column is not None and id_source.field is not None:
        raise CommandError("--column and --field exclude each other: the input is CSV or JSONL")
    if where == STDIN or not Path(where).is_file():
        yield Ids(Feed(picked(opened(where), where, id_source), stop))
        return
    about = sum(1 for _ in picked(opened(where), where, id_source))
    file = opened(where)
    with file:
        yield Ids(picked(file, where, id_source), about)


def opened(where: str) -> BinaryIO:
    """Open a file for reading in binary; stdin by its number, so that no lock of `sys.stdin` is held at the end."""
    try:
        return open(0, "rb", closefd=False) if where == STDIN else Path(where).open("rb")
    except OSError as error:
        raise CommandError(f"cannot read {where}: {error.strerror or error}") from None


def lines(file: BinaryIO, name: str) -> Iterator[tuple[int, str]]:
    """Yield each line with its number, its end included. Raises `CommandError` naming the line that is no text."""
    for number, raw in enumerate(raw_lines(file, name), 1):
        try:
            yield number, raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise CommandError(f"{name} line {number}: not UTF-8 text (byte {error.start + 1})") from None


def raw_lines(file: BinaryIO, name: str) -> Iterator[bytes]:
    """Yield each line, its end (LF, CR LF or CR) included, and close the file.

    Raises `CommandError` for one that has no end.
    """
    with file:
        for number, raw in enumerate(_cut(file), 1):
            if len(raw) > LINE_LIMIT:
                raise CommandError(f"{name} line {number}: longer than {LINE_LIMIT:,} bytes")
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


def picked(file: BinaryIO, name: str, id_source: IdSource) -> Iterator[str]:
    """Return the ids in a file. Blank lines do not count; every other must hold an id."""
    if id_source.column is not None:
        return _from_csv(file, name, id_source.column)
    if id_source.field is not None:
        return _from_lines(lines(file, name), partial(_in_json, field=id_source.field), name)
    return _from_list(lines(file, name), name)


def _from_list(numbered: Iterator[tuple[int, str]], name: str) -> Iterator[str]:
    """Yield the ids of a list. Raises `CommandError` for what is no list: a table, or records."""
    with _left(numbered):
        form, read = looked_at(numbered, name)
        yield from _from_lines(chain(read, numbered), _PICKS[form], name)


def _from_lines(numbered: Iterator[tuple[int, str]], pick: Callable[[str, str], str], name: str) -> Iterator[str]:
    with _left(numbered):
        for number, line in numbered:
            text = line.strip()
            if text:
                where = f"{name} line {number}"
                yield _checked(pick(text, where), where)


@contextmanager
def _left(lines: Iterator[Any]) -> Iterator[None]:
    """Leave a generator that reads a file, and so close the file, whatever ends the reading."""
    try:
        yield
    finally:
        if isinstance(lines, Generator):
            lines.close()


def _checked(text: str, where: str) -> str:
    """Return the id. Raises `CommandError` for what nobody can see in it, or what a spreadsheet made of it."""
    if fault := code_fault(text):
        raise CommandError(f"{where}: the id {fault}")
    return text


def _unquoted(text: str, where: str) -> str:
    """Take the quotes off a whole line, as CSV writes them. Raises `CommandError` for one that has no partner."""
    if not text.startswith('"'):
        return text
    inner = text[1:-1].replace('""', "")
    if len(text) < 3 or not text.endswith('"') or '"' in inner or not text[1:-1].strip():  # noqa: PLR2004 - two quotes, and one character
        raise CommandError(f"{where}: a quote at the beginning must have one at the end, with an id between them")
    return text[1:-1].replace('""', '"').strip()


def _in_json(text: str, where: str, *, field: str | None = None) -> str:
    """Return the id that a line of JSON is, or that is in a field of it."""
    try:
        value: Any = json.loads(text)
    except (ValueError, RecursionError):
        raise CommandError(f"{where}: not JSON") from None
    if field is not None:
        value = value.get(field) if isinstance(value, dict) else None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not value:
        what = "an id" if field is None else f"the field {field}"
        raise CommandError(f"{where}: {what} must be there, as text that is not empty")
    return value


_PICKS: Mapping[Form, Callable[[str, str], str]] = {Form.PLAIN: _unquoted, Form.JSON: _in_json}


def _from_csv(file: BinaryIO, name: str, column: str) -> Iterator[str]:
    texts = (text for _, text in lines(file, name))
    with _left(texts):
        source = Numbered(texts)
        head = head_of(source)
        if not isinstance(head, Head):
            raise CommandError(f"{name} line {head.line}: the header has no column {column}: {head.message}")
        index = _column(head, column, f"{name} line {head.line}")
        reader = csv.reader(source, delimiter=head.delimiter, strict=True)
        while True:
            where = f"{name} line {source.number + 1}"
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                raise CommandError(f"{where}: {error}; is a quote not closed or not doubled?") from None
            if any(cell.strip() for cell in row):
                if not (value := row[index].strip() if index < len(row) else ""):
                    raise CommandError(f"{where}: the column {column} is empty")
                yield _checked(value, where)


def _column(head: Head, column: str, where: str) -> int:
    """Find the column by its name, written as it is or in another case."""
    for names, wanted in ((head.names, column), ([name.lower() for name in head.names], column.lower())):
        if wanted in names:
            return names.index(wanted)
    raise CommandError(f"{where}: the header has no column {column}")


async def until_none(queue: asyncio.Queue[T | None]) -> AsyncIterator[T]:
    """Yield what is put in a queue, until that is None."""
    while (item := await queue.get()) is not None:
        yield item


class Feed(Generic[T]):
    """A blocking iterator, read in a thread and taken from the loop; ends early when a stop is asked for."""

    def __init__(self, items: Iterator[T], stop: Stop, *, room: int = ROOM) -> None:
        self._items = items
        self._stop = stop
        self._loop = asyncio.get_running_loop()
        self._room = Semaphore(room)
        self._ready: deque[T] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._ended = False
        self._error: Exception | None = None
        stop.then(self._wake)
        # A daemon: it may be waiting for a line that never comes when the command ends.
        Thread(target=self._read, name="invoicing-input", daemon=True).start()

    def _read(self) -> None:
        try:
            for item in self._items:
                self._room.acquire()
                self._ready.append(item)
                self._tell()
        except Exception as error:  # noqa: BLE001 - raised again where the items are taken
            self._error = error
        self._ended = True
        self._tell()

    def _tell(self) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody takes any more
            self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        while not self._stop.asked:
            ended = self._ended
            if self._ready:
                self._room.release()
                return self._ready.popleft()
            if ended:
                break
            self._waiter = self._loop.create_future()
            await self._waiter
        if self._error is not None:
            raise self._error
        raise StopAsyncIteration
