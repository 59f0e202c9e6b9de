r"""Text from outside made harmless: whatever a service says becomes text that every file, database and terminal takes.

A lone surrogate (half an emoji, `\ud83d`) can be written to no file and no database; an escape sequence moves a
terminal's cursor; a NUL ends a line for half of all tools. None of it gets past here.
"""

from __future__ import annotations

import re

__all__ = ["LINE_LIMIT", "MESSAGE_LIMIT", "bounded", "harmless", "harmless_tree", "one_line"]

LINE_LIMIT = 300
"""Characters of a service's own words that an error keeps."""

MESSAGE_LIMIT = 2_000
"""Characters of an error's text, whatever went into it: a log and a report hold one line for each."""

REPLACEMENT = "\ufffd"

_ESCAPE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # colours, cursor movements
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"  # titles, links
    r"|\x1b[ -/]*[0-~]?"
)
_HARMFUL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]")
_DROPPED = {ord(char): None for char in "\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"}


def harmless(text: str) -> str:
    """Return valid Unicode that moves no cursor: escape sequences go, what is left of the kind becomes U+FFFD.

    Line ends and tabs stay, since they are part of what was said. Text that is printable is returned as it is.
    """
    if text.isprintable() or not _HARMFUL.search(text):
        return text
    return _HARMFUL.sub(REPLACEMENT, _ESCAPE.sub("", text))


def one_line(text: str, limit: int = LINE_LIMIT) -> str:
    """Return the start of a text as one printable line without outer blanks, `limit` characters at most."""
    line = text[: 4 * limit]
    if not line.isprintable():
        line = harmless(line).translate(_DROPPED)
        line = "".join(char if char.isprintable() else " " for char in line)
    line = " ".join(line.split())
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


def bounded(text: str) -> str:
    """Return the text of an error as one printable line of `MESSAGE_LIMIT` characters at most."""
    # Nearly every text is fit already, and its blanks may be those of a name.
    return text if len(text) <= MESSAGE_LIMIT and text.isprintable() else one_line(text, MESSAGE_LIMIT)


def harmless_tree(value: object) -> object:
    """Do as `harmless` with every text of a JSON value, names included; nothing else changes."""
    if isinstance(value, str):
        return harmless(value)
    if isinstance(value, dict):
        return {harmless(name): harmless_tree(item) for name, item in value.items()}
    if isinstance(value, list):
        return [harmless_tree(item) for item in value]
    return value
