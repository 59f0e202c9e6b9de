"""What a command shows: streams, progress, reports.

- `output`: Where a command writes: outcomes and tables to stdout, progress and trouble to stderr.
- `progress`: What is seen while a batch runs: how many are done, how fast, how often tried again, and how the service
  is.
- `report`: The report of a batch as CSV or JSON, by its file's ending: written as outcomes come, published whole at
  the end.
- `times`: How moments and durations are written for people.
"""
