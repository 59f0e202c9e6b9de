"""Files of whole documents: their names, the check that one is whole, and the thread that writes them.

- `body`: An answer's body: a small one in memory, a large one on disk, checked at its end.
- `disposition`: Content-Disposition (RFC 6266), written and read.
- `existing`: What a name is taken by: a whole document, a broken one, or something that is no file.
- `folders`: Folders of documents: made, made durable, and tried.
- `kinds`: Types of document: what each must be, and what checks that one is whole.
- `layout`: Where documents lie below a folder, as a template.
- `names`: Safe names for files: one name for one id, whatever the id and the file system.
- `pdf`: Whether a PDF body is whole: its head, its tail and its length, checked while it arrives.
- `publish`: How a whole file gets its name, without replacing another's.
- `tempfile`: Temporary files: nameless where the file system can, locked while they live, swept when their process is
  gone.
- `verify`: What an answer's head declares of its body, and the refusal of what is no document.
- `writer`: The adapter to the file system: one writer thread that publishes whole documents.
- `xml`: Whether an XML body is one whole e-invoice: well formed to its end, and no page or error that only is XML
  too.
"""
