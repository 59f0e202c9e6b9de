"""What a command reads: ids, drafts, options.

- `drafts`: Drafts from a file or from stdin, read as options say, before anything is sent.
- `exports`: The export of a run's finished e-invoices, as options ask for it.
- `ids`: Ids from a file or from stdin, and what is wrong with them in terms of options.
- `options`: The options that commands share, as values that cyclopts fills in.
"""
