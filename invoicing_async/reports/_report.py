"""Rows as CSV or JSON, written as they come and put in place whole at the end."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from os import PathLike
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Protocol, Self

from .._files.publish import Destination, OnExisting
from .._files.writer import DiskWriter, Spool
from .._values.cells import BOM, csv_line
from ._spared import spare_runs

__all__ = ["Report"]

PIECE = 2**16
"""Characters that are kept before they are written."""


class Report:
    """One report file with these columns. Enter it before the work begins; without `publish` nothing is left of it.

    Raises `ValueError` for an ending that is neither `.csv` nor `.json`; entering it raises `OSError` for a place that
    cannot be written, or where a run file is.
    """

    def __init__(self, path: str | PathLike[str], columns: Sequence[str]) -> None:
        self.path: Path = Path(path)
        forms: Mapping[str, Callable[[Sequence[str]], _Form]] = {".csv": _Csv, ".json": _Json}
        if self.path.suffix.lower() not in forms:
            raise ValueError(f"the report must end in .csv or .json, got {path}")
        self._form = forms[self.path.suffix.lower()](columns)
        self._kept: list[str] = [self._form.head()]
        self._size = 0
        self._disk: DiskWriter
        self._spool: Spool

    async def __aenter__(self) -> Self:
        self._disk = DiskWriter()
        try:
            await self._disk.run(partial(spare_runs, self.path))
            self._spool = await self._disk.spool(self.path.parent)
        except BaseException:
            await self._disk.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._spool.discard()
        finally:
            await self._disk.close()

    async def add(self, row: Mapping[str, object]) -> None:
        """Append one row: what it has of the columns. Raises `OSError`."""
        text = self._form.row(row)
        self._kept.append(text)
        self._size += len(text)
        if self._size >= PIECE:
            await self._flush()

    async def publish(self, totals: Mapping[str, object] = MappingProxyType({})) -> None:
        """Append the totals where the form has a place for them, and put the report in its place."""
        self._kept.append(self._form.tail(totals))
        await self._flush()
        await self._disk.run(partial(spare_runs, self.path))  # it may have been made meanwhile
        to = Destination(target=self.path, on_existing=OnExisting.REPLACE, durable=True)
        await self._spool.publish(to)

    async def _flush(self) -> None:
        pieces, self._kept, self._size = self._kept, [], 0
        await self._spool.write([piece.encode("utf-8", "backslashreplace") for piece in pieces])


class _Form(Protocol):
    """How rows become text."""

    def head(self) -> str: ...

    def row(self, row: Mapping[str, object]) -> str: ...

    def tail(self, totals: Mapping[str, object]) -> str: ...


class _Csv:
    def __init__(self, columns: Sequence[str]) -> None:
        self._columns = columns

    def head(self) -> str:
        return BOM + csv_line(self._columns)

    def row(self, row: Mapping[str, object]) -> str:
        return csv_line(row.get(name) for name in self._columns)

    def tail(self, totals: Mapping[str, object]) -> str:
        return ""


class _Json:
    def __init__(self, columns: Sequence[str]) -> None:
        self._columns = columns
        self._between = "\n"

    def head(self) -> str:
        return '{"items": ['

    def row(self, row: Mapping[str, object]) -> str:
        between, self._between = self._between, ",\n"
        return between + json.dumps({name: row.get(name) for name in self._columns}, ensure_ascii=False)

    def tail(self, totals: Mapping[str, object]) -> str:
        return ("\n],\n" + json.dumps(dict(totals))[1:-1] if totals else "\n]") + "}\n"
