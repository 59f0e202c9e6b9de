"""A document that is passed on without touching the disk."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Self

from .._files.disposition import content_disposition

__all__ = ["OpenDocument", "Whole"]


class OpenDocument:
    """An invoice that is passed on: `filename` is safe for a header or a folder, `size` in bytes or None if unknown.

    `chunks` is read once; of a large document it raises `IncompleteDocumentError` if what came is not one whole PDF.
    """

    def __init__(self, *, filename: str, size: int | None, chunks: AsyncIterator[bytes]) -> None:
        self.filename = filename
        self.size = size
        self.chunks = chunks

    @property
    def headers(self) -> dict[str, str]:
        """The headers of a response that passes this document on: type, name (RFC 6266) and length if declared."""
        named = {"Content-Type": "application/pdf", "Content-Disposition": content_disposition(self.filename)}
        return named if self.size is None else {**named, "Content-Length": str(self.size)}


class Whole:
    """A document in memory, as an iterator of one chunk."""

    def __init__(self, body: bytes) -> None:
        self._left: bytes | None = body

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        body, self._left = self._left, None
        if body is None:
            raise StopAsyncIteration
        return body
