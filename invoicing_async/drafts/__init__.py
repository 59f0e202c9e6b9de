"""Drafts from files: JSONL, one draft a line, and CSV, one invoice line a row; every fault of a file at once."""

from __future__ import annotations

from .._einvoices.spreadsheet import DecimalMark
from .._values.table import LineFault
from ._csv_cells import COLUMNS
from ._files import read_csv, read_jsonl
from ._records import DraftAt, DraftsFileError

__all__ = ["COLUMNS", "DecimalMark", "DraftAt", "DraftsFileError", "LineFault", "read_csv", "read_jsonl"]
