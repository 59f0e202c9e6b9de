"""The ids that a command is given: from a file, or from stdin for `-`; what is wrong with them, in terms of options."""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from typing import BinaryIO

from attrs import frozen

from ...ids import Feed, InputError, read_ids
from ..exits import CommandError
from ..stop import Stop
from .options import SOURCE, STREAM, IdSource

__all__ = ["SOURCE", "Ids", "check_form", "open_ids", "opened", "picked", "readable_input"]


@frozen
class Ids:
    """The ids of one input; `about` is how many there are, for a progress bar, None if that is not known."""

    items: Iterable[str] | AsyncIterator[str]
    about: int | None = None


def check_form(where: str, id_source: IdSource) -> None:
    """Raise `CommandError` for a file that is no list of ids, where no column or field of it is picked."""
    if id_source == IdSource() and Path(where).is_file():
        ids = picked(opened(where), where, id_source)
        next(ids, None)
        ids.close()


@contextmanager
def open_ids(where: str, id_source: IdSource, stop: Stop) -> Iterator[Ids]:
    """Open the ids of a file, or of stdin for `-`. Raises `CommandError` for a file that cannot be read.

    A file is read through once before, so that nothing is asked for if one of its lines holds no id. A stream may be
    slow, so it is read in a thread of its own, which closes it: what is in flight does not wait.
    """
    if id_source.column is not None and id_source.field is not None:
        raise CommandError("--column and --field exclude each other: the input is CSV or JSONL")
    if where == STREAM or not Path(where).is_file():
        feed = Feed(picked(opened(where), where, id_source))
        stop.then(feed.end)
        yield Ids(feed)
        return
    about = sum(1 for _ in picked(opened(where), where, id_source))
    file = opened(where)
    with file:
        yield Ids(picked(file, where, id_source), about)


def opened(where: str) -> BinaryIO:
    """Open a file for reading in binary; stdin by its number, so that no lock of `sys.stdin` is held at the end."""
    try:
        return open(0, "rb", closefd=False) if where == STREAM else Path(where).open("rb")
    except OSError as error:
        raise CommandError(f"cannot read {where}: {error.strerror or error}") from None


def picked(file: BinaryIO, name: str, id_source: IdSource) -> Generator[str]:
    """Yield the ids in a file. Raises `CommandError` as `read_ids` raises `InputError`."""
    with readable_input(name):
        yield from read_ids(file, name=name, column=id_source.column, field=id_source.field)


@contextmanager
def readable_input(name: str) -> Iterator[None]:
    """Turn an `InputError` about the file of this name into the `CommandError` that says which option helps."""
    try:
        yield
    except InputError as error:
        hint, pick = error.hint, ""
        if error.column is not None or error.field is not None:
            option, value = ("--column", error.column) if error.column is not None else ("--field", error.field)
            pick = f"{option} {quote(value or '')}"
            hint = f"Say which one has the ids: {pick}"
        if error.may_be_list:
            hint = f"For ids alone, one a line, end its name in .txt, or give - < {quote(name)}"
            hint = f"Write {pick}. If that is an id and not the column's name: {hint}" if pick else hint
        raise CommandError(str(error), hint=hint) from None
