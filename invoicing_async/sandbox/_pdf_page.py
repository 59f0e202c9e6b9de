"""The sandbox's PDF page: one invoice on one sheet, drawn with fpdf2 (extras `sandbox` and `cli`).

The same `Sheet` gives the same bytes at any time and on any machine with the same fpdf2. Drawing takes some
milliseconds, so a sandbox that serves thousands draws a sheet once and stamps each number on it.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from decimal import Context, Decimal
from functools import lru_cache, reduce
from importlib.util import find_spec
from typing import TYPE_CHECKING
from unicodedata import normalize

from attrs import evolve, field, frozen

if TYPE_CHECKING:
    from fpdf import FPDF

__all__ = ["Party", "Sheet", "SheetLine", "check_installed", "money", "render", "stamp"]

_EXACT = Context(prec=1000)
KEPT_SHEETS = 512
NUMBER_LIMIT = 48
"""Characters of a number that fit on the page beside each other; the rest is cut."""
_BLANK = "@" * (2 * NUMBER_LIMIT)
_MARKS = (0x300, 0x36F)
"""The block of combining marks that NFKD sets apart from their letters."""
INK = (33, 37, 41)
WHITE = (255, 255, 255)
BRAND = (22, 78, 99)
SHADE = (236, 244, 247)
PALE = (120, 130, 138)
COLUMNS = ((84.0, "L"), (20.0, "R"), (38.0, "R"), (38.0, "R"))
"""Width in millimetres and alignment of description, quantity, price and amount."""


@frozen
class Party:
    """Seller or buyer: a name and the lines of an address."""

    name: str
    lines: tuple[str, ...] = ()


@frozen
class SheetLine:
    """One row of the table."""

    text: str
    quantity: Decimal
    price: Decimal
    amount: Decimal


@frozen(kw_only=True, cache_hash=True)
class Sheet:
    """What the page says. Amounts are in `currency`; the total is the lines' sum plus `tax`."""

    number: str
    issued: datetime
    seller: Party
    buyer: Party
    lines: tuple[SheetLine, ...]
    tax: Decimal = Decimal(0)
    currency: str = "IDR"
    facts: tuple[tuple[str, str], ...] = field(default=())

    @property
    def net(self) -> Decimal:
        """The sum of the lines, exactly."""
        return reduce(_EXACT.add, (line.amount for line in self.lines), Decimal(0))


def check_installed() -> None:
    """Raise `ImportError`, which names the extra, where fpdf2 is not installed."""
    if find_spec("fpdf") is None:
        raise ImportError("the sandbox draws its PDFs with fpdf2; install invoicing-async[sandbox]")


@lru_cache(maxsize=KEPT_SHEETS)
def render(sheet: Sheet, *, compress: bool = True) -> bytes:
    """Draw the sheet as one whole PDF. Raises `ImportError` naming the extra if fpdf2 is missing."""
    check_installed()
    from fpdf import FPDF

    pdf = FPDF()
    pdf.set_compression(compress)
    pdf.set_creation_date(sheet.issued)
    pdf.set_title("Invoice")
    pdf.set_auto_page_break(True, margin=25)
    pdf.add_page()
    for draw in (_head, _parties, _table):
        draw(pdf, sheet)
    pdf.ln(4)
    for name, value in (("Net", sheet.net), ("Tax", sheet.tax)):
        _row(pdf, ("", "", name, money(value)), height=7)
    pdf.set_font("Helvetica", "B", 11)
    _row(pdf, ("", "", f"Total {sheet.currency}", money(_EXACT.add(sheet.net, sheet.tax))), height=10)
    pdf.set_auto_page_break(False)
    pdf.set_xy(15, -20)
    _write(pdf, "Made by the invoicing-async sandbox. Not a tax document.", size=8, color=PALE)
    return bytes(pdf.output())


def stamp(sheet: Sheet, number: str) -> bytes:
    """Return the sheet with another number, drawing it only the first time.

    The number takes the place of a blank of the same length in an uncompressed page, so every offset in the
    file stays right.
    """
    plain = "".join(char if char.isprintable() else "?" for char in _latin(number)[:NUMBER_LIMIT])
    # As it stands inside a PDF string (ISO 32000-1, 7.3.4.2).
    escaped = plain.replace("\\", "\\\\").replace("(", "\\(").replace(")", "\\)")
    return escaped.ljust(len(_BLANK)).encode("latin-1").join(_parts(sheet))


@lru_cache(maxsize=KEPT_SHEETS)
def _parts(sheet: Sheet) -> tuple[bytes, ...]:
    return tuple(render(evolve(sheet, number=_BLANK), compress=False).split(_BLANK.encode()))


def money(value: Decimal) -> str:
    """Show an amount with thousands set apart and at least two decimals, never rounded."""
    exponent = value.as_tuple().exponent
    places = max(2, -exponent) if isinstance(exponent, int) else 2
    return f"{value:,.{places}f}"


def _latin(text: str) -> str:
    """Keep what the PDF's built-in fonts can draw: letters lose their marks, the rest becomes `?`."""
    try:
        text.encode("latin-1")
    except UnicodeEncodeError:
        plain = "".join(char for char in normalize("NFKD", text) if not _MARKS[0] <= ord(char) <= _MARKS[1])
        return plain.replace("đ", "d").replace("Đ", "D").encode("latin-1", "replace").decode("latin-1")
    return text


def _write(pdf: FPDF, text: str, *, size: float, bold: bool = False, color: tuple[int, int, int] = INK) -> None:
    pdf.set_font("Helvetica", "B" if bold else "", size)
    pdf.set_text_color(*color)
    pdf.cell(0, size * 0.5, _latin(text), new_x="LEFT", new_y="NEXT")


def _head(pdf: FPDF, sheet: Sheet) -> None:
    pdf.set_fill_color(*BRAND)
    pdf.rect(0, 0, pdf.w, 34, style="F")
    pdf.set_xy(15, 9)
    _write(pdf, "INVOICE", size=24, bold=True, color=WHITE)
    _write(pdf, sheet.number, size=10, color=WHITE)
    pdf.set_xy(15, 42)
    for name, value in (("Issued", f"{sheet.issued:%Y-%m-%d}"), *sheet.facts):
        _write(pdf, f"{name}: {value}", size=9, color=PALE)


def _parties(pdf: FPDF, sheet: Sheet) -> None:
    top = pdf.get_y() + 6
    lowest = top
    for left, title, party in ((15.0, "SELLER", sheet.seller), (110.0, "BUYER", sheet.buyer)):
        pdf.set_xy(left, top)
        _write(pdf, title, size=8, bold=True, color=PALE)
        _write(pdf, party.name, size=12, bold=True)
        for line in party.lines:
            _write(pdf, line, size=10)
        lowest = max(lowest, pdf.get_y())
    pdf.set_xy(15, lowest + 10)


def _row(pdf: FPDF, texts: Iterable[str], *, height: float = 8, fill: bool = False) -> None:
    pdf.set_x(15)
    for text, (width, align) in zip(texts, COLUMNS, strict=True):
        fitting = _latin(text)
        while fitting and pdf.get_string_width(fitting) > width - 2:
            fitting = fitting[: int(len(fitting) * 0.9)]
        pdf.cell(width, height, fitting, align=align, fill=fill)
    pdf.ln(height)


def _table(pdf: FPDF, sheet: Sheet) -> None:
    pdf.set_font("Helvetica", "B", 9)
    pdf.set_fill_color(*BRAND)
    pdf.set_text_color(*WHITE)
    _row(pdf, ("Description", "Quantity", f"Price ({sheet.currency})", f"Amount ({sheet.currency})"), fill=True)
    pdf.set_font("Helvetica", "", 9)
    pdf.set_fill_color(*SHADE)
    pdf.set_text_color(*INK)
    for position, line in enumerate(sheet.lines):
        texts = (line.text, f"{line.quantity:,f}", money(line.price), money(line.amount))
        _row(pdf, texts, fill=position % 2 == 1)
