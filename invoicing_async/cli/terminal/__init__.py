"""What a command shows: streams, progress, rows, reports.

- `output`: Where a command writes: outcomes and tables to stdout, progress and trouble to stderr.
- `progress`: What is seen while a batch runs: how many are done, how fast, how often tried again, and how the service
  is.
- `report`: The report of a batch as CSV or JSON, by its file's ending: written as outcomes come, published whole at
  the end.
- `rows`: One outcome as one flat row: the columns and values that JSON lines, reports and tables share.
- `times`: How moments and durations are written, for programs and for people.
"""
