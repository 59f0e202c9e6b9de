"""Drafts from a file or from stdin, read as options say, before anything is sent."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Annotated

from attrs import frozen
from cyclopts import Group, Parameter

from ...drafts import COLUMNS, DecimalMark, Drafts, Format, WireNames, load_drafts, rounding_unit
from ...ids import raw_lines
from ..exits import CommandError, checked
from .ids import opened, readable_input

__all__ = ["DRAFTS_HELP", "Reading", "read_drafts"]

DRAFTS_HELP = (
    "A file of drafts, or - for stdin: JSONL, one draft a line, as `invoices example` shows, or the service's own "
    'object with a key beside it ({"key": …, "invoice_data": …}); or CSV, one invoice line a row, the rows of one key '
    f"together, as `invoices example --format csv` shows. Columns of a CSV: {', '.join(COLUMNS)}, extra_NAME."
)


@Parameter(name="*", group=Group("Drafts", sort_key=5))
@frozen(kw_only=True)
class Reading:
    """How a file of drafts is to be read."""

    form: Annotated[
        Format | None,
        Parameter(name="--format", help="What the file is; without it, CSV if its name ends so, else JSONL."),
    ] = None
    decimal_mark: Annotated[
        DecimalMark | None,
        Parameter(
            help="What stands before the decimals in a CSV: with a comma, 240.000 is 240000 and 1.234,5 is 1234.5."
        ),
    ] = None
    rounding: Annotated[
        Decimal | None,
        Parameter(help="The unit to which line amounts may have been rounded: 1 for whole dong. Exact without it."),
    ] = None


def read_drafts(where: str, names: WireNames, reading: Reading | None = None) -> Drafts:
    """Read all drafts of a file, or of stdin for `-`: CSV by the name's ending or as `reading` says, else JSONL.

    Raises `CommandError` for a file that cannot be read, and for settings that do not go with it.
    """
    reading = reading or Reading()
    form = reading.form or ("csv" if Path(where).suffix.lower() == ".csv" else "jsonl")
    if reading.decimal_mark is not None and form != "csv":
        raise CommandError("--decimal-mark is for CSV: numbers in JSON have a decimal point")
    checked(lambda: rounding_unit(reading.rounding), "--rounding")
    with readable_input(where):
        lines = list(raw_lines(opened(where), where))
    return load_drafts(lines, form, names=names, rounding=reading.rounding, decimal_mark=reading.decimal_mark)
