"""Types of document: what each must be, and what checks that one is whole."""

from __future__ import annotations

from typing import Protocol

from attrs import frozen

from . import pdf
from .existing import Validator
from .xml import XmlValidator

__all__ = ["GENERIC", "PDF_TYPES", "DocumentType", "Pdf", "Xml"]

GENERIC = frozenset(
    {"", "application/octet-stream", "binary/octet-stream", "application/x-download", "application/force-download",
     "application/download", "application/gzip", "application/x-gzip"}
)  # fmt: skip
"""Content types that say nothing, or that a browser is to save the bytes: the bytes decide."""


PDF_TYPES = frozenset({"application/pdf", "application/x-pdf"})


class DocumentType(Protocol):
    """What a document must be."""

    @property
    def documented(self) -> str:
        """The documented content type, in the words of an error."""

    @property
    def content_types(self) -> frozenset[str]:
        """The content types whose bytes are judged; what has another is not looked at. Lower case, "" for none."""

    def head_fault(self, head: bytes) -> str | None:
        """Say what is wrong with a body that begins so; None while nothing is."""

    def fault_of(self, body: bytes, *, content_length: int | None, framed: bool = False) -> str | None:
        """Say what is wrong with a whole body, None if nothing."""

    def validator(self) -> Validator: ...


@frozen
class Pdf:
    """A PDF, checked by its head and its tail. `setting` is what a user may say to have other content types judged."""

    content_types: frozenset[str] = PDF_TYPES
    setting: str = ""

    @property
    def documented(self) -> str:
        return "application/pdf is documented" + (f"; {self.setting}" if self.setting else "")

    head_fault = staticmethod(pdf.head_fault)
    fault_of = staticmethod(pdf.fault_of)
    validator = pdf.PdfValidator


@frozen
class Xml:
    """An XML invoice, checked by a parser that reaches its end and by what is known not to be one."""

    content_types: frozenset[str] = frozenset({"application/xml", "text/xml"})

    @property
    def documented(self) -> str:
        return "application/xml or text/xml is documented"

    def head_fault(self, head: bytes) -> str | None:
        return None

    def fault_of(self, body: bytes, *, content_length: int | None, framed: bool = False) -> str | None:
        validator = self.validator()
        validator.feed(body)
        return validator.fault(content_length=content_length)

    def validator(self) -> Validator:
        return XmlValidator()
