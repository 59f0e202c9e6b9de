"""Values and pure rules below everything: no I/O, no clock, and no other room is imported from here.

- `adaptive_polling`: When to ask again, learned: where the next poll of an operation repays itself, from the polls
  before.
- `cells`: Text in the cells of a CSV file that a spreadsheet opens: no cell is run as a formula, and each reads back
  as it was.
- `characters`: Characters that nobody sees, and where a text has one: keys, ids, codes, addresses and secrets must
  not.
- `digest_set`: Which ids a batch has met already, in 12 bytes each.
- `table`: Lines and rows of a file as people's programs write them: line ends, marks of the encoding, padding,
  delimiters.
- `text`: The door for text from outside: whatever a service says becomes text that every file, database and terminal
  takes.
"""
