"""Durable runs: a run file, the states of its items and its journal, and the work that is left of it.

- `address`: Where a run is kept, by the text that names it: a file, or a run on a database server.
- `answers`: What an answer of the service means for an item of a run.
- `checking`: Whether the files that a run recorded are still there and whole.
- `claims`: Which items of an open run are under way, so that several submissions of it at once send each one once.
- `database`: The run file itself: made, identified, locked, opened for writing or reading; SQLite's errors become ours
  here.
- `document_run`: The durable download of many documents: each order's outcome is recorded with path, size and hash.
- `doubts`: What people and programs say of items in doubt.
- `drafts`: Drafts as a run keeps them, and whether they are still what was taken in.
- `exporting`: The documents of a run's finished items.
- `fence`: What an event means that bears the attempt it is of: the fence (item, attempt) between two who send one item.
- `importing`: Carrying a run from its file to a server: keys, states, attempts and journal, all of it or nothing.
- `intake`: Importing order ids and drafts: which are new, which are known, which contradict what is known.
- `intake_parts`: What is taken in, whichever ledger takes it: ids batch by batch, and which drafts are new, known or
  contradict.
- `figures`: The figures of a run at one moment, as values: what a report of it says.
- `integrity`: Whether a run file is what it was left as: its write-ahead log is there, and its content agrees with
  itself.
- `invoice_run`: The durable submission of many drafts: `InvoiceRun`.
- `items`: The items of a run as its parts use them: read page by page, their files, one line for an error.
- `ledger`: The run file as a `Ledger`: what a run is recorded in, in SQLite.
- `ledgers`: Where a run is kept, as a ledger: the one place that knows which kinds of ledgers there are.
- `lock`: One process at a time: the lock on a run's database itself, and who holds it.
- `opening`: What is done when a run file is opened: look whether it is sound, and put what a crash left in doubt.
- `overview`: The state of a run, as any process sees it: its counts, who works on it, what is to be exported, the
  authority.
- `paced_run`: What every run keeps of how it is worked on: its settings, and limits for the sessions that do.
- `part`: A part of a run, as a ledger: what one worker does of it while others do the rest.
- `pauses`: When a run's calls waited because the service was down: heard of the session's lanes, and kept in the run
  file.
- `postgres`: A run on a PostgreSQL server: the ledger that many machines work on at once.
- `protocol`: What a run needs of the place where it is recorded, whatever that is: `LedgerReader` and `Ledger`.
- `queries`: What is read from a run file.
- `records`: What a run file holds, as values: items, drafts, changes, journal entries, pauses and holders; and its
  errors.
- `report_parts`: What the figures of a run are made of, in whichever ledger it is kept: the events and states that are
  looked at.
- `report_queries`: What a report says of a run file, read at one moment, also while another process works on it.
- `run_settings`: What a run keeps for whoever goes on with it: its pace, and where finished invoices are exported to.
- `schema`: The tables of a run file and its longer statements.
- `settlement`: Waiting for submitted items: the service is asked what became of each, and that is recorded.
- `sheet`: Invoices as a person knows them: what one is looked up by, and the sheet on which many are answered at once.
- `standing`: How a run on a server stands, as values: what an operator sees of it.
- `states`: What may happen to an item of a run: the table (state, event) -> state, and nothing else.
- `stop`: Stopping a run: what is in flight finishes, what waits begins nothing more.
- `streams`: Several sources of items read as one.
- `submission`: Submitting drafts: the intent of each is recorded before its first byte is sent, its answer after it
  came.
- `superseded`: Events that the fence refused, since somebody else had moved on: counted and told, and nothing ends by
  them.
- `timeline`: What happened when in a run: counts by time, cut into the stretches in which somebody was at work.
- `transaction`: What an operation works with inside the writer's thread: the connection, the time, the counts not yet
  written.
- `transitions`: Transitions of items: judged in memory, written together.
- `wal`: Whether the write-ahead log beside a run file still holds every transaction that was answered for.
- `writer`: The one thread that owns the connection and commits in groups what was queued meanwhile.
"""
