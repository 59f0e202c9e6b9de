"""Ids of orders and of requests from lists, tables and records: `read_ids`; from a pipe, through a `Feed`.

An id is text without blanks at its ends and without a character that nobody sees; a spreadsheet's formula, error or
shortened number is none. Quotes around a whole line are no part of an id.

Whether a file is a list of ids as it stands, or a table or records of which a column or a field must be named:

| the name ends in | the first line | what it is |
|---|---|---|
| .csv, .tsv, .tab | several columns | a table |
| | one cell that must be an id: a UUID, or digits where the next line has digits and all else alike | ids |
| | any other cell | a table of one column |
| .jsonl, .ndjson, .json | an object | records |
| | a text or a whole number | ids in JSON |
| | anything else | neither |
| anything else, and no name | an object that has fields | records |
| | anything else | ids |

A header that passes for an id is asked for like one. So what may be a header is none, and who means it as an id says so
by a name that ends in .txt, or by none.
"""

from __future__ import annotations

from ._feed import Feed
from ._lines import InputError, raw_lines
from ._reading import read_ids

__all__ = ["Feed", "InputError", "raw_lines", "read_ids"]
