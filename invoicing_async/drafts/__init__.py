"""Drafts from files: JSONL, one draft a line, and CSV, one invoice line a row; every fault of a file at once.

`read_jsonl` and `read_csv` read them, `load_drafts` puts the faults of each draft together; `example_draft` makes one
up, `dump_draft` writes one as a line of JSONL, `WireNames` holds the service's own field names. For tables of other
things, as lists of ids: `Numbered` gives the lines of a file as text, `head_of` finds the row of column names, and
`code_fault` says what a spreadsheet did to a key or an id.
"""

from __future__ import annotations

from .._einvoices.encode import dump_draft
from .._einvoices.rules import rounding_unit
from .._einvoices.shape import WireNames
from .._einvoices.spreadsheet import DecimalMark, code_fault
from .._values.table import Head, LineFault, Numbered, head_of
from ._csv_cells import COLUMNS
from ._examples import example_csv, example_draft
from ._files import read_csv, read_jsonl
from ._loading import BadDraft, Drafts, Format, load_drafts
from ._records import DraftAt, DraftsFileError

__all__ = [
    "COLUMNS",
    "BadDraft",
    "DecimalMark",
    "DraftAt",
    "Drafts",
    "DraftsFileError",
    "Format",
    "Head",
    "LineFault",
    "Numbered",
    "WireNames",
    "code_fault",
    "dump_draft",
    "example_csv",
    "example_draft",
    "head_of",
    "load_drafts",
    "read_csv",
    "read_jsonl",
    "rounding_unit",
]
