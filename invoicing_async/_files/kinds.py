"""Kinds of document: what each must be, and its proof."""

from __future__ import annotations

from typing import Protocol

from attrs import frozen

from . import pdf
from .existing import Proof
from .xml import XmlProof

__all__ = ["GENERIC", "PDF_TYPES", "Kind", "Pdf", "Xml"]

GENERIC = frozenset(
    {"", "application/octet-stream", "binary/octet-stream", "application/x-download", "application/force-download",
     "application/download", "application/gzip", "application/x-gzip"}
)  # fmt: skip
"""What is said of bytes that nobody knows anything about, or that a browser is to save: the bytes decide."""


PDF_TYPES = frozenset({"application/pdf", "application/x-pdf"})


class Kind(Protocol):
    """What a document must be."""

    @property
    def documented(self) -> str:
        """What the content type of one is, in the words of an error."""

    @property
    def content_types(self) -> frozenset[str]:
        """The content types whose bytes are judged; what has another is not looked at. Lower case, "" for none."""

    def head_fault(self, head: bytes) -> str | None:
        """Say what is wrong with a body that begins so; None while nothing is."""

    def fault_of(self, body: bytes, *, content_length: int | None, framed: bool = False) -> str | None:
        """Say what is wrong with a whole body, None if nothing."""

    def proof(self) -> Proof: ...


@frozen
class Pdf:
    """A PDF, proved by its head and its tail. `setting` is what a user may say to have other content types judged."""

    content_types: frozenset[str] = PDF_TYPES
    setting: str = ""

    @property
    def documented(self) -> str:
        return "application/pdf is documented" + (f"; {self.setting}" if self.setting else "")

    head_fault = staticmethod(pdf.head_fault)
    fault_of = staticmethod(pdf.fault_of)
    proof = pdf.Checker


@frozen
class Xml:
    """An XML invoice, proved by a parser that reaches its end and by what is known not to be one."""

    content_types: frozenset[str] = frozenset({"application/xml", "text/xml"})

    @property
    def documented(self) -> str:
        return "application/xml or text/xml is documented"

    def head_fault(self, head: bytes) -> str | None:
        return None

    def fault_of(self, body: bytes, *, content_length: int | None, framed: bool = False) -> str | None:
        proof = self.proof()
        proof.feed(body)
        return proof.fault(content_length=content_length)

    def proof(self) -> Proof:
        return XmlProof()
