"""Whether an XML body is one whole e-invoice: well formed to its end, and no page or error that only is XML too.

An exporting service writes what its authority and its customers ask for (`HDon`, `TDiep`, UBL's
`Invoice`, or a root of its own), so what is right cannot be listed. What comes in its place when something went wrong
can: sign-in pages, the errors of object stores, gateways and frameworks. `verdict` is that list.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from xml.parsers import expat

from attrs import define

__all__ = ["Outline", "XmlValidator", "verdict"]

PAGES = frozenset({"html", "xhtml", "head", "body", "frameset", "wml", "svg", "rss", "feed", "urlset", "sitemapindex"})
"""Roots of what a browser or a reader shows: sign-in pages, notices of maintenance."""

LISTINGS = frozenset({"listbucketresult", "listallmybucketsresult", "enumerationresults", "multistatus", "oai-pmh"})
"""Roots of what a store answers when it was asked for no object."""

FAILURES = frozenset(
    {"error", "errors", "fault", "exception", "failure", "problem", "errorresponse", "errorresult", "errormessage",
     "exceptionreport", "parsererror"}
)  # fmt: skip
"""Elements that say what went wrong, as a root or in an envelope."""

_FAILURE = re.compile(
    r".*(?:Error|Errors|Fault|Exception|Failure|Problem|ErrorResponse|ErrorResult|ExceptionReport)|.*[._-]error",
    re.DOTALL,
)
"""Longer names that end in one of them, as in `ServiceException`; `default` is none."""

ENVELOPES = frozenset(
    {"envelope", "response", "result", "reply", "root", "xml", "data", "map", "hashmap", "linkedhashmap", "object",
     "apiresponse", "apiresult", "status", "message", "output", "return", "resp", "ret"}
)  # fmt: skip
"""Roots that are only wrapped around an answer: what is in them decides."""

_NO = frozenset({"false", "0", "no"})
_FAILED = frozenset({"error", "fail", "failed", "failure", "unauthorized", "forbidden", "401", "403", "404", "500"})
_FLAGS = {
    "success": _NO,
    "issuccess": _NO,
    "succeeded": _NO,
    "ok": _NO,
    "status": _FAILED,
    "stat": _FAILED,
    "result": _FAILED,
}
"""What an envelope's own fields say when it wraps no invoice."""

MOST_OUTLINED = 64
"""Elements of the outline that are kept: an envelope says at its beginning what it is."""

MOST_TEXT = 32
DEPTH = 2
"""Levels below the root that the outline has: an envelope, its body, and what is in that."""

_UNEVENTFUL = frozenset({"", "0", "00", "false", "no", "none", "null", "ok", "success"})
"""How a field that is always there says that nothing went wrong."""


@define
class Outline:
    """An element near the root: how deep it lies, its name without namespace, and how all that is in it begins.

    An attribute of the root counts as an element below it.
    """

    depth: int
    name: str
    text: str = ""


def verdict(outline: Sequence[Outline]) -> str | None:
    """Say why a well-formed document that begins so is no invoice; None if it may be one.

    The namespace does not matter, and neither does the content type.
    """
    root = outline[0].name if outline else ""
    name = root.lower()
    if name in PAGES:
        return f"an XML page ({root}) instead of an invoice"
    if name in LISTINGS or _tells_a_failure(root):
        return f"an XML error ({root[:40]}) instead of an invoice"
    if name not in ENVELOPES:
        return None
    return next((f"{fault} in an XML envelope ({root})" for fault in map(_spoken, outline[1:]) if fault), None)


def _tells_a_failure(name: str) -> bool:
    return name.lower() in FAILURES or _FAILURE.fullmatch(name) is not None


def _spoken(element: Outline) -> str | None:
    said = element.text.strip().lower()
    if element.depth == 1 and said in _FLAGS.get(element.name.lower(), ()):
        return f"{element.name} {said}"
    # SOAP has a Fault only if there is one; other envelopes have a field for it always.
    if _tells_a_failure(element.name) and (element.name == "Fault" or said not in _UNEVENTFUL):
        return element.name[:40]
    return None


class XmlValidator:
    """Feeds an expat parser, which is done only after the root element is closed, and keeps the outline."""

    def __init__(self) -> None:
        self._parser = expat.ParserCreate(namespace_separator=" ")
        self._parser.buffer_text = True
        self._parser.StartElementHandler = self._started
        self._parser.EndElementHandler = self._ended
        self._parser.CharacterDataHandler = self._said
        self._size = 0
        self._open: list[Outline] = []
        self._depth = 0
        self._outline: list[Outline] = []
        self._fault: str | None = None

    def feed(self, chunk: bytes) -> None:
        """Take the next piece of the body."""
        self._size += len(chunk)
        self._parse(chunk, final=False)

    def fault(self, *, content_length: int | None = None, framed: bool = False) -> str | None:
        """Say in one line what is wrong with the body, now that all of it was fed; None when it is an invoice."""
        if content_length is not None and self._size != content_length:
            return f"{self._size:,} bytes came where Content-Length says {content_length:,}"
        self._parse(b"", final=True)
        return self._fault or verdict(self._outline)

    def _parse(self, chunk: bytes, *, final: bool) -> None:
        if self._fault is None:
            try:
                self._parser.Parse(chunk, final)
            except (expat.ExpatError, ValueError, LookupError) as exc:
                self._fault = f"not a whole XML document: {exc}"

    def _started(self, name: str, attributes: dict[str, str]) -> None:
        element = Outline(self._depth, name.rpartition(" ")[2])
        self._depth += 1
        if element.depth > DEPTH:
            return
        self._outline.append(element)
        self._open.append(element)
        if element.depth:
            self._said("".join(attributes.values()))
        else:
            self._outline += [Outline(1, key.rpartition(" ")[2], said) for key, said in attributes.items()]
        is_wrapped = element.depth or element.name.lower() in ENVELOPES
        if not is_wrapped or len(self._outline) >= MOST_OUTLINED:
            # All that is left to prove is the form.
            self._parser.StartElementHandler = None
            self._parser.EndElementHandler = None
            self._parser.CharacterDataHandler = None

    def _ended(self, _: str) -> None:
        self._depth -= 1
        if self._depth <= DEPTH:
            self._open.pop()

    def _said(self, text: str) -> None:
        for element in self._open:
            if len(element.text) < MOST_TEXT:
                element.text += text.strip()[:MOST_TEXT]
