"""Whole documents or none: their names, the proof that one is whole, and the thread that writes them.

- `body`: One body on its way: small ones in memory, large ones on disk, proved at its end.
- `disposition`: Content-Disposition (RFC 6266), written and read.
- `existing`: What stands under a name already: a whole document, a broken one, or something that is no file.
- `folders`: Folders of documents: made, made durable, and tried.
- `kinds`: Kinds of document: what each must be, and its proof.
- `layout`: Where documents lie below a folder, as a template.
- `names`: Safe names for files: one name for one id, whatever the id and the file system.
- `pdf`: Whether a PDF body is whole: its head, its tail and its length, checked while it arrives.
- `publish`: How a whole file gets its name: never over another's, never half.
- `tempfile`: Temporary files: nameless where the file system can, locked while they live, swept when their process is
  gone.
- `verify`: What an answer's head declares of its body, and the refusal of what is no document.
- `writer`: The door to files: one writer thread that makes whole documents appear and nothing else.
- `xml`: Whether an XML body is one whole e-invoice: well formed to its end, and no page or error that only is XML
  too.
"""
