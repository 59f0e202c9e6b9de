"""Reports: outcomes as flat rows, and rows as CSV or JSON, by the file's ending, put in place whole at the end.

A CSV report is for spreadsheets: it begins with a byte order mark, and no cell of it is run as a formula.

    async with Report("result.csv", DOWNLOADS.columns) as report:
        async for outcome in documents.download_many(order_ids, "invoices"):
            await report.add(download_row(outcome))
        await report.publish()

`download_row`, `submission_row` and `request_row` make a row of an outcome, `bad_draft_row` and `repeated_draft_row` of
a draft that is not sent; `document_row`, `invoice_row` and `item_row` of an item of a run, `check_row` and
`refresh_row` of what its repair came to, `sheet_row` of what is looked up, `signature_row` of a signature. The
`RowType` of each has its columns and what the outcomes mean; `json_schema` says of each command what the lines are
that it prints with `--json`.

`write_run_page` writes a whole run as one page of HTML for people; `sparkline` is its time line as one line of text.
"""

from __future__ import annotations

from ._commands import answer_commands, command_line, doubt_commands, next_commands, retry_command
from ._filters import duration_words, moment_words
from ._page import RunPage, write_run_page
from ._report import Report
from ._row_types import (
    CHECKS,
    DOCUMENT_ITEMS,
    DOWNLOADS,
    INVOICE_ITEMS,
    REFRESHES,
    SHEETS,
    SUBMISSIONS,
    WAITS,
    Row,
    RowType,
)
from ._rows import (
    bad_draft_row,
    check_row,
    document_row,
    download_row,
    invoice_row,
    item_row,
    reason,
    refresh_row,
    refused_by_authority,
    repeated_draft_row,
    request_row,
    sheet_row,
    signature_row,
    submission_row,
    utc_time,
)
from ._schema import JSON_LINES, json_schema
from ._sparkline import sparkline
from ._tasks import Task, TaskItem, tasks_of

__all__ = [
    "CHECKS",
    "DOCUMENT_ITEMS",
    "DOWNLOADS",
    "INVOICE_ITEMS",
    "JSON_LINES",
    "REFRESHES",
    "SHEETS",
    "SUBMISSIONS",
    "WAITS",
    "Report",
    "Row",
    "RowType",
    "RunPage",
    "Task",
    "TaskItem",
    "answer_commands",
    "bad_draft_row",
    "check_row",
    "command_line",
    "document_row",
    "doubt_commands",
    "download_row",
    "duration_words",
    "invoice_row",
    "item_row",
    "json_schema",
    "moment_words",
    "next_commands",
    "reason",
    "refresh_row",
    "refused_by_authority",
    "repeated_draft_row",
    "request_row",
    "retry_command",
    "sheet_row",
    "signature_row",
    "sparkline",
    "submission_row",
    "tasks_of",
    "utc_time",
    "write_run_page",
]
