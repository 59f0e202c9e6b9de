"""What an answer's head declares of its body, and the refusal of what is no document."""

from __future__ import annotations

from .._core.envelope import error_from
from .._core.error_bodies import error_body
from .._core.http import Response
from .._values.text import one_line
from ..errors import IncompleteDocumentError, ProtocolError
from .kinds import DocumentType

__all__ = ["framing", "is_declared", "raise_unless_document"]

PARTIAL = 206


NOT_WHOLE = frozenset({204, 205, PARTIAL})
"""What is a success and no document: no content, or a part."""


TYPE_LIMIT = 100
"""Characters of another content type that an error shows."""


def framing(response: Response) -> tuple[int | None, bool]:
    """Return the Content-Length of an answer, None for no number, and whether the transfer itself marks its end.

    A body whose transfer does is complete when it has ended, and no Content-Length counts (RFC 9112, 6.3 and 7.1).
    """
    if (response.header("Transfer-Encoding") or "").strip().lower().endswith("chunked"):
        return None, True
    value = response.header("Content-Length")
    return int(value) if value and value.isascii() and value.isdigit() else None, False


def _content_type(response: Response) -> str:
    return (response.header("Content-Type") or "").partition(";")[0].strip().lower()


def is_declared(response: Response, kind: DocumentType) -> bool:
    """Tell whether a 2xx answer says that it is a whole document of this kind, or may be one for all that it says."""
    if response.status in NOT_WHOLE:
        return False
    named, known = _content_type(response), kind.content_types
    if "," not in named:
        return named in known
    # A header that was sent twice comes as one.
    several = list(filter(None, map(str.strip, named.split(","))))
    return bool(several) and known.issuperset(several)


async def raise_unless_document(response: Response, kind: DocumentType, *, now: float) -> None:
    """Raise what a 2xx answer says instead of a document: its error envelope, or `ProtocolError`."""
    if is_declared(response, kind):
        return
    if response.status == PARTIAL:
        raise IncompleteDocumentError("206: a part of a document, which nobody asked for", status=PARTIAL)
    content_type = _content_type(response)
    body = await error_body(response.chunks())
    error = error_from(response.status, response.header, body, now=now)
    if error is not None:
        raise error
    if response.status in NOT_WHOLE:
        raise ProtocolError(f"{response.status}: an answer that has no content", status=response.status)
    shown = one_line(content_type, TYPE_LIMIT) or "none"
    text = f"the answer has content type {shown!r} where {kind.documented}"
    raise ProtocolError(text, head=body, status=response.status)
