"""Real files of six producers, mended and broken in sixty ways, judged by qpdf: nothing it opens as it is is refused.

What is refused all the same, and what is accepted though qpdf has to repair it, is listed here and nothing else is.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from io import BytesIO

import pikepdf
import pypdfium2
import pytest
from fpdf import FPDF
from PIL import Image
from pypdf import PdfWriter
from reportlab.pdfgen import canvas

from invoicing_async._files.pdf import fault_of


def by_fpdf() -> bytes:
    document = FPDF()
    document.add_page()
    document.set_font("helvetica", size=12)
    document.cell(text="Invoice 1")
    return bytes(document.output())


def by_reportlab() -> bytes:
    out = BytesIO()
    page = canvas.Canvas(out, invariant=True)
    page.drawString(10, 10, "Invoice 1")
    page.showPage()
    page.save()
    return out.getvalue()


def by_pypdf() -> bytes:
    out = BytesIO()
    writer = PdfWriter()
    writer.add_blank_page(200, 200)
    writer.write(out)
    return out.getvalue()


def by_pillow() -> bytes:
    out = BytesIO()
    Image.new("RGB", (20, 20), "white").save(out, "PDF")
    return out.getvalue()


def by_pdfium() -> bytes:
    out = BytesIO()
    with pypdfium2.PdfDocument.new() as document:
        document.new_page(200, 200).close()
        document.save(out)
    return out.getvalue()


def saved(body: bytes, **how: object) -> bytes:
    out = BytesIO()
    with pikepdf.open(BytesIO(body)) as document:
        document.save(out, **how)  # type: ignore[arg-type] # settings of one call, in one table
    return out.getvalue()


def by_qpdf() -> bytes:
    return saved(by_fpdf())


def by_qpdf_linearised() -> bytes:
    return saved(by_reportlab(), linearize=True)


def by_qpdf_with_streams() -> bytes:
    """Cross-references in a stream, objects in streams: there is no `xref` table."""
    return saved(by_pypdf(), object_stream_mode=pikepdf.ObjectStreamMode.generate)


def updated(body: bytes, lead: bytes = b"") -> bytes:
    """Append a revision, as a signature or a stamp does."""
    before = re.findall(rb"startxref\s+(\d+)", body)[-1]
    size = max(map(int, re.findall(rb"/Size (\d+)", body)))
    root = re.findall(rb"/Root (\d+ \d+ R)", body)[-1]
    base = body + lead
    added = b"%d 0 obj\n<</Producer(x)>>\nendobj\n" % size
    table = b"xref\n%d 1\n%010d 00000 n \n" % (size, len(base))
    trailer = b"trailer\n<</Size %d/Root %s/Prev %s>>\n" % (size + 1, root, before)
    return base + added + table + trailer + b"startxref\n%d\n%%%%EOF\n" % (len(base) + len(added))


def by_reportlab_updated() -> bytes:
    return updated(by_reportlab())


PRODUCERS: tuple[Callable[[], bytes], ...] = (
    by_fpdf,
    by_reportlab,
    by_pypdf,
    by_pillow,
    by_pdfium,
    by_qpdf,
    by_qpdf_linearised,
    by_qpdf_with_streams,
    by_reportlab_updated,
)


@cache
def made(producer: Callable[[], bytes]) -> bytes:
    return producer()


def at_startxref(form: bytes) -> Callable[[bytes], bytes]:
    """Write the end of a file another way; `N` is its offset."""
    end = re.compile(rb"startxref\s+(\d+)\s+%%EOF\s*\Z")
    return lambda body: end.sub(lambda match: form.replace(b"N", match[1]), body)


def behind(*junk: bytes) -> dict[str, Callable[[bytes], bytes]]:
    return {f"+{junk[:12]!r} ({len(junk):,})": (lambda body, junk=junk: body + junk) for junk in junk}  # type: ignore[misc] # a default binds the loop's variable


def before(*junk: bytes) -> dict[str, Callable[[bytes], bytes]]:
    return {f"{junk[:12]!r}+": (lambda body, junk=junk: junk + body) for junk in junk}  # type: ignore[misc] # as above


MUTATIONS: dict[str, Callable[[bytes], bytes]] = {
    "as it is": lambda body: body,
    "no last newline": lambda body: body.rstrip(),
    "one byte of the last newline": lambda body: body[:-1],
    "padded to 512": lambda body: body + bytes(-len(body) % 512),
    "padded to 4096": lambda body: body + bytes(-len(body) % 4096),
    "CR at the end": lambda body: body.rstrip() + b"\r",
    "CRLF at the end": lambda body: body.rstrip() + b"\r\n",
    "startxref, comment": at_startxref(b"startxref %here\nN\n%%EOF\n"),
    "startxref, signed": at_startxref(b"startxref\n+N\n%%EOF\n"),
    "startxref, blanks": at_startxref(b"startxref   \r\n  N  \r\n%%EOF\r\n"),
    "startxref, CR": at_startxref(b"startxref\rN\r%%EOF\r"),
    "startxref, zeros": at_startxref(b"startxref\n00000N\n%%EOF\n"),
    "a comment before the end": at_startxref(b"startxref\nN\n%done\n%%EOF\n"),
    "a long comment before the end": at_startxref(b"startxref\nN\n%" + b"c" * 900 + b"\n%%EOF\n"),
    "no %%EOF": at_startxref(b"startxref\nN\n"),
    "half an %%EOF": at_startxref(b"startxref\nN\n%%E"),
    "beyond the end": at_startxref(b"startxref\n99999999\n%%EOF\n"),
    "before the start": at_startxref(b"startxref\n-1\n%%EOF\n"),
    "no number": at_startxref(b"startxref\n%%EOF\n"),
    "updated": updated,
    "updated twice": lambda body: updated(updated(body)),
    "updated after a comment": lambda body: updated(body, b"%signed\n"),
    "updated after filler": lambda body: updated(body, bytes(600)),
    "another length in its head": lambda body: re.sub(rb"/L (\d+)", lambda found: b"/L %d" % (int(found[1]) + 9), body),
    **behind(b"\0", bytes(511), bytes(1000), bytes(1019), bytes(1020), bytes(2048), bytes(4096), bytes(80_508)),
    **behind(b" " * 1500, b"\n" * 4096, b"\r\n\r\n", b"\x1a", b"%%EOF\n", b"%made by somebody\n"),
    **behind(b"0", b"1", b"x", b"\n20261126\n", b"\r\n0\r\n\r\n", b"976", b"7 0 ob", b"xref", b"trailer"),
    **behind(b"\n<!-- served in 0.1 s -->\n", b"\n<!--" + b"x" * 900 + b"-->", b"-----BEGIN PKCS7-----\n" + b"A" * 800),
    **before(b"\n", b"\r\n\r\n", b"\xef\xbb\xbf", b"\xef\xbb\xbf" * 2, b"\n\xef\xbb\xbf", b"\0", b" " * 500),
    **before(b"<br />\n<b>Warning</b>: x in y\n", b"Content-Type: application/pdf\r\n\r\n"),
    **before(b"\x1b%-12345X@PJL\r\n", b'{"a":1}'),
    "half of it": lambda body: body[: len(body) // 2],
    "nine tenths of it": lambda body: body[: len(body) * 9 // 10],
    "its first page": lambda body: body[: body.find(b"%%EOF") + 6],
    "all but its table": lambda body: body[: body.rfind(b"startxref")],
    "all but a digit": lambda body: body[: re.search(rb"startxref\s+\d+", body).end() - 1],  # type: ignore[union-attr] # each has one
}  # fmt: skip

ERROR_PAGES = ("b'<br", "b'Content", "b'\\x1b", "b'{")
"""What a body begins with that is an error page with a document behind it: refused though qpdf looks past it."""


def opens(body: bytes) -> bool:
    """True if qpdf opens the file and finds its page without repairing anything."""
    try:
        with pikepdf.open(BytesIO(body), attempt_recovery=False) as document:
            return len(document.pages) > 0
    except (pikepdf.PdfError, RuntimeError):
        return False


CASES = [(producer, name) for producer in PRODUCERS for name in MUTATIONS]


def test_there_are_enough_of_both() -> None:
    """Nine shapes of six producers, at least sixty mutations."""
    assert len(PRODUCERS) >= 6
    assert len(MUTATIONS) >= 60
    assert all(opens(made(producer)) for producer in PRODUCERS)


@pytest.mark.parametrize("producer", PRODUCERS, ids=lambda producer: producer.__name__)
def test_what_opens_without_repair_is_whole(producer: Callable[[], bytes]) -> None:
    """With a length that agrees nothing that qpdf opens is refused, but for what an error page begins with."""
    refused = {}
    for name, mutate in MUTATIONS.items():
        body = mutate(made(producer))
        fault = fault_of(body, content_length=len(body))
        if fault is not None and opens(body) and not name.startswith(ERROR_PAGES):
            refused[name] = fault
    assert refused == {}


UNPROVED = {
    "+b'1' (1)",
    "+b'x' (1)",
    "+b'976' (3)",
    "+b'7 0 ob' (6)",
    "+b'xref' (4)",
    "+b'%made by som' (18)",
    "no %%EOF",
    "half an %%EOF",
    "another length in its head",
    "one byte of the last newline",  # Pillow ends without a newline: it is half an %%EOF
    "no number",
    "all but its table",  # of an update: the revision before it is whole
}
"""What is refused only where nothing proves the end: it cannot be told from a file that was cut off."""


@pytest.mark.parametrize("producer", PRODUCERS, ids=lambda producer: producer.__name__)
def test_without_a_proof_only_what_may_have_been_cut_is_refused(producer: Callable[[], bytes]) -> None:
    refused = set()
    for name, mutate in MUTATIONS.items():
        body = mutate(made(producer))
        if fault_of(body) is not None and opens(body) and not name.startswith(ERROR_PAGES):
            refused.add(name)
    assert refused <= UNPROVED


REPAIRED = {
    "+b'\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00' (2,048)",
    "+b'\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00' (4,096)",
    "+b'\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00' (80,508)",
    "+b'            ' (1,500)",
    "+b'\\n\\n\\n\\n\\n\\n\\n\\n\\n\\n\\n\\n' (4,096)",
    "padded to 4096",
}
"""Accepted though qpdf, which looks for the end in the last 1,054 bytes, has to search: only filler stands behind."""


@pytest.mark.parametrize("producer", PRODUCERS, ids=lambda producer: producer.__name__)
def test_what_needs_repair_is_accepted_only_where_it_is_listed(producer: Callable[[], bytes]) -> None:
    accepted = set()
    for name, mutate in MUTATIONS.items():
        body = mutate(made(producer))
        if fault_of(body, content_length=len(body)) is None and not opens(body):
            accepted.add(name)
    assert accepted <= REPAIRED


@pytest.mark.parametrize("producer", PRODUCERS, ids=lambda producer: producer.__name__)
def test_a_file_that_was_cut_anywhere_is_refused_unless_a_revision_ends_there(producer: Callable[[], bytes]) -> None:
    """Every strict prefix, with nothing to prove its end."""
    body = made(producer)
    for end in range(len(body.rstrip())):
        if fault_of(body[:end]) is None:
            assert opens(body[:end]), f"{end} of {len(body)} bytes were taken for all"
            assert body[:end].rstrip().endswith(b"%%EOF")


def test_an_update_cut_after_a_comment_is_refused() -> None:
    """At every point but the end of the revision before it."""
    whole, body = made(by_reportlab), updated(made(by_reportlab), b"%signed\n")
    accepted = [end for end in range(len(whole) + 1, len(body.rstrip())) if fault_of(body[:end]) is None]
    assert accepted == []
