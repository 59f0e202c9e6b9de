"""Characters that nobody sees, and where a text has one: keys, ids, codes, addresses and secrets must not.

Two texts that look the same and differ are two invoices, a file nobody finds, or a credential that is refused. Unseen
is what Unicode gives no glyph of its own: controls, format characters (zero-width, bidirectional, soft hyphen, byte
order mark, the joiners of emoji), line and paragraph separators, the ignorable letters, and blanks other than U+0020.
"""

from __future__ import annotations

import re
import unicodedata

from attrs import frozen

__all__ = ["Place", "blank_end", "named", "spelled_out", "stuck", "unseen"]

_IGNORABLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2065\u2800\u3164\ufe00-\ufe0f\uffa0\ufff0-\ufffb\U000e0000-\U000e0fff]"
)
"""Without a glyph, though their category is not one of the invisible: fillers, variation selectors, tags."""

_UNSEEN_CATEGORIES = frozenset({"Cc", "Cf", "Zl", "Zp", "Zs"})


@frozen
class Place:
    """One character of a text by its code point and its place, counted from 1."""

    character: str
    position: int

    def __str__(self) -> str:
        return f"{named(self.character)} at character {self.position}"


def named(character: str) -> str:
    """Return a character's code point and name, as `U+200B ZERO WIDTH SPACE`."""
    name = unicodedata.name(character, "") or _CONTROLS.get(character, "")
    return f"U+{ord(character):04X} {name}".rstrip()


_CONTROLS = {"\x00": "NULL", "\t": "TAB", "\n": "LINE FEED", "\r": "CARRIAGE RETURN", "\x85": "NEXT LINE"}
"""The controls that Unicode gives no name."""


def unseen(text: str) -> Place | None:
    """Return the first character that nobody sees, ordinary blanks (U+0020) apart; None if there is none."""
    if text.isascii() and text.isprintable():
        return None
    return next(
        (
            Place(character, position)
            for position, character in enumerate(text, 1)
            if character != " "
            and (unicodedata.category(character) in _UNSEEN_CATEGORIES or _IGNORABLE.match(character))
        ),
        None,
    )


def spelled_out(text: str) -> str:
    """Return a text whose invisible characters, blanks apart, are written as Python escapes."""
    if text.isprintable():
        return text
    return "".join(
        each
        if each.isprintable() or unicodedata.category(each) == "Zs"
        else each.encode("unicode_escape").decode("ascii")
        for each in text
    )


def blank_end(text: str) -> Place | None:
    """Return the blank with which a text begins, else the one with which it ends; None if there is none."""
    if text[:1].isspace():
        return Place(text[0], 1)
    return Place(text[-1], len(text)) if text[-1:].isspace() else None


def stuck(secret: str) -> str:
    """Say what is stuck to a credential, or hidden in it, without a character of its own; empty if nothing is.

    A secret read from a file has its line end, one copied from a page a zero-width character.
    """
    end = blank_end(secret)
    if end is not None:
        return f"{'begins' if end.position == 1 else 'ends'} with white space ({named(end.character)})"
    hidden = unseen(secret)
    return f"holds an invisible character ({hidden})" if hidden else ""
