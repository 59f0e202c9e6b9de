"""What a command reads: ids, drafts, settings, options.

- `drafts`: Drafts from a file: the sendable ones with their lines, and every fault of the rest, before anything is
  sent.
- `exports`: The export of a run's finished e-invoices, as options ask for it.
- `id_files`: Whether a file is a list of ids as it stands, or a table or records in which `--column` or `--field`
  finds them.
- `ids`: Ids from a file, from stdin, from a CSV column or a JSONL field: one after the other, in bounded memory.
- `options`: The options that commands share, as values that cyclopts fills in.
- `settings`: Settings and credentials from the environment, or from a file of `NAME=VALUE` lines; never from an
  argument.
"""
