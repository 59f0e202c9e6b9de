"""Ids from a file, from stdin, from a CSV column or a JSONL field: one after the other, in bounded memory."""

from __future__ import annotations

import asyncio
import csv
import json
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from threading import Semaphore, Thread
from typing import BinaryIO, Generic, Self, TypeVar

from attrs import frozen

from .exits import CommandError
from .options import Picking
from .stop import Stop

__all__ = ["Feed", "Ids", "lines", "open_ids", "opened", "picked", "raw_lines"]

T = TypeVar("T")
STDIN = "-"
LINE_LIMIT = 2**20
"""Bytes of the longest line that is read."""

READ_SIZE = 2**20
ROOM = 1024
"""Items of a stream that are read ahead."""

DELIMITERS = ",;\t|"


@frozen
class Ids:
    """The ids of one input; `about` is how many there are, for a progress bar, None if that is not known."""

    items: Iterable[str] | AsyncIterator[str]
    about: int | None = None


@contextmanager
def open_ids(where: str, picking: Picking, stop: Stop) -> Iterator[Ids]:
    """Open the ids of a file, or of stdin for `-`. Raises `CommandError` for a file that cannot be read.

    A stream may be slow, so it is read in a thread of its own, which closes it: what is in flight does not wait.
    """
    if picking.column is not None and picking.field is not None:
        raise CommandError("--column and --field exclude each other: the input is CSV or JSONL")
    file = opened(where)
    items = picked(file, where, picking)
    if where == STDIN or not Path(where).is_file():
        yield Ids(Feed(items, stop))
        return
    header = 0 if picking.column is None else 1
    with file:
        yield Ids(items, max(0, _line_count(Path(where)) - header))


def opened(where: str) -> BinaryIO:
    """Open a file for reading in binary; stdin by its number, so that no lock of `sys.stdin` is held at the end."""
    try:
        return open(0, "rb", closefd=False) if where == STDIN else Path(where).open("rb")
    except OSError as error:
        raise CommandError(f"cannot read {where}: {error.strerror or error}") from None


def _line_count(path: Path) -> int:
    with path.open("rb") as file:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(READ_SIZE), b""))


def lines(file: BinaryIO, name: str) -> Iterator[tuple[int, str]]:
    """Give each line with its number, its end included. Raises `CommandError` naming the line that is no text."""
    for number, raw in enumerate(raw_lines(file, name), 1):
        yield number, _text(raw, f"{name} line {number}", "utf-8-sig" if number == 1 else "utf-8")


def raw_lines(file: BinaryIO, name: str) -> Iterator[bytes]:
    """Give each line, its end included, and close the file. Raises `CommandError` for one that has no end."""
    with file:
        for number in count(1):
            raw = file.readline(LINE_LIMIT + 1)
            if not raw:
                return
            if len(raw) > LINE_LIMIT:
                raise CommandError(f"{name} line {number}: longer than {LINE_LIMIT:,} bytes")
            yield raw


def _text(raw: bytes, where: str, encoding: str) -> str:
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError as error:
        raise CommandError(f"{where}: not UTF-8 text (byte {error.start + 1})") from None


def picked(file: BinaryIO, name: str, picking: Picking) -> Iterator[str]:
    """Give the ids in a file. Blank lines do not count; every other must hold an id."""
    if picking.column is not None:
        return _from_csv(lines(file, name), name, picking.column)
    if picking.field is not None:
        field = picking.field
        return _from_lines(lines(file, name), lambda text, where: _from_json(text, where, field), name)
    return _from_lines(lines(file, name), lambda text, _: text, name)


def _from_lines(numbered: Iterable[tuple[int, str]], pick: Callable[[str, str], str], name: str) -> Iterator[str]:
    for number, line in numbered:
        text = line.strip()
        if text:
            yield pick(text, f"{name} line {number}")


def _from_json(text: str, where: str, field: str) -> str:
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        raise CommandError(f"{where}: not JSON") from None
    value = record.get(field) if isinstance(record, dict) else None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not value:
        raise CommandError(f"{where}: the field {field} must be there, as text that is not empty")
    return value


def _from_csv(numbered: Iterator[tuple[int, str]], name: str, column: str) -> Iterator[str]:
    number, header = next(numbered, (1, ""))
    delimiter, index = _column(header, column, f"{name} line {number}")
    reader = csv.reader((line for _, line in numbered), delimiter=delimiter)
    try:
        for row in reader:
            if row:
                yield _cell(row, index, f"{name} line {reader.line_num + 1}: the column {column}")
    except csv.Error as error:
        raise CommandError(f"{name} line {reader.line_num + 1}: {error}") from None


def _column(header: str, column: str, where: str) -> tuple[str, int]:
    """Find the column, and by it which delimiter the file has."""
    for delimiter in DELIMITERS:
        names = [name.strip() for name in next(csv.reader([header.strip("\r\n")], delimiter=delimiter), [])]
        if column in names:
            return delimiter, names.index(column)
    raise CommandError(f"{where}: the header has no column {column}")


def _cell(row: list[str], index: int, where: str) -> str:
    value = row[index].strip() if index < len(row) else ""
    if not value:
        raise CommandError(f"{where} is empty")
    return value


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
