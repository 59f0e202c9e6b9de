"""What service B reads and says (README B), the rules of a draft, and when to poll.

- `checks`: Checks of one value each: text, numbers, addresses, and JSON of the user's own.
- `decode`: What service B answers, as values.
- `draft_json`: Drafts from JSON, strictly: every fault with its path; the only user of cattrs.
- `encode`: A draft as the JSON that the service takes, and as the JSON that a run file keeps.
- `limits`: The limits of one model's fields (README B.1), made of the rules in its metadata, and their faults.
- `links`: URLs: the base URL that a user gives, and download links (README B.3), where they and their redirects lead.
  Pure.
- `operation`: One operation that is awaited: who waits for it, how long, and what the end of a poll means for each of
  them.
- `poll_errors`: What the failure of a poll means for the wait: one table and pure functions.
- `poll_scheduler`: One scheduler for any number of operations that are awaited: a heap of due times and one timer.
- `poll_timer`: The timer of the scheduler of polls, and its tasks that were cancelled and have not ended yet.
- `rules`: The limits of README B.1, as a table and pure functions: every fault of a draft at once, each with its
  path.
- `schedules`: What the scheduler of polls asks of those who wait: their schedule, and to take what came of it.
- `shape`: The service's own shape of a draft: the names its document leaves open, and an object of it in the model's
  names.
- `spreadsheet`: What a cell of a spreadsheet means: numbers, tax rates, addresses, and what a spreadsheet does to a
  code.
"""
