"""Values and pure rules below everything: no I/O, no clock, and no other package is imported from here.

- `adaptive_polling`: When to ask again, learned: where the next poll of an operation repays itself, from the polls
  before.
- `attempts`: What errors carry: the history of a call, and the faults of a draft.
- `cells`: Text in the cells of a CSV file that a spreadsheet opens: no cell is run as a formula, and each reads back
  as it was.
- `characters`: Characters that nobody sees, and where a text has one: keys, ids, codes, addresses and secrets must
  not.
- `checked`: Frozen values whose fields are converted and checked where they are made: each wrong type is a fault by its
  name.
- `digest_set`: Which ids a batch has met already, in 12 bytes each.
- `field_rules`: What a field of a draft may hold: one rule in the field's metadata, from which the limits, types and
  names follow.
- `ownership`: When what is sent once may be sent, and when it has arrived: the rules that keep two who send one thing
  apart.
- `moments`: How a moment is written for people, in the one form that tables, messages and pages share.
- `skew`: The words for two clocks that are apart: a signature is refused when this machine's time is too far off.
- `table`: Lines and rows of a file as people's programs write them: line ends, marks of the encoding, padding,
  delimiters.
- `text`: Text from outside made harmless: whatever a service says becomes text that every file, database and terminal
  takes.
- `validators`: What a setting may be, said in one form: `Class.field must be …, got …`.
"""
