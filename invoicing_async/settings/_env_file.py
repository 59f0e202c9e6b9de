"""A file of settings, as shells and service managers read them too.

- UTF-8, with a byte order mark or without; one `NAME=VALUE` a line, `export` and white space before it allowed. Lines
  end with LF, CR or both, and with nothing else. The names of others may have dots and hyphens.
- A line that is empty or begins with `#` says nothing.
- A value in single or double quotes is taken as it stands, `#` and white space included: no escapes, no `$NAME`.
  It goes on over as many lines as it takes until the quote is closed; behind that only a comment may stand.
- A value without quotes ends before white space and `#`, and at the end of the line.
- Of a name that stands there twice the last one counts, as in a shell.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from attrs import field, frozen

from ._variables import SettingsError

__all__ = ["Line", "read_env_file"]

_LINE = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_.-]*)\s*=(.*)", re.DOTALL)
_COMMENT = re.compile(r"\s+#.*", re.DOTALL)


@frozen
class Line:
    """What one line of the file sets."""

    number: int
    value: str = field(repr=False)


def read_env_file(file: Path) -> dict[str, Line]:
    """Read what the file sets, by name. Raises `SettingsError` with every line that is wrong, and shows none of it."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise SettingsError(f"cannot read the settings of {file}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"the settings of {file} are not UTF-8 text") from None
    found: dict[str, Line] = {}
    faults: list[str] = []
    lines = enumerate(text.split("\n"), 1)  # not at what else `splitlines` takes for an end: a value may hold it
    for number, line in ((number, line.strip()) for number, line in lines):
        if not line or line.startswith("#"):
            continue
        if (parts := _LINE.fullmatch(line)) is None:
            faults.append(f"{file} line {number}: must be NAME=VALUE or a comment that begins with #")
            continue
        try:
            found[parts[1]] = Line(number, _unquoted(parts[2], (more for _, more in lines)))
        except ValueError as error:
            faults.append(f"{file} line {number}: {error}")
    if faults:
        raise SettingsError(*faults)
    return found


def _unquoted(value: str, more: Iterator[str]) -> str:
    """Take off one pair of quotes, or a comment behind a value without quotes; `more` are the lines that follow.

    Raises `ValueError` for a quote that is never closed, and for text behind one that is.
    """
    begun = value.lstrip()
    quote = begun[:1]
    if quote not in {'"', "'"}:
        return _COMMENT.sub("", value, count=1).strip()
    text = begun[1:]
    while quote not in text:
        following = next(more, None)
        if following is None:
            raise ValueError(f"the value begins with {quote} and it is never closed")
        text += f"\n{following}"
    inside, _, rest = text.partition(quote)
    if rest.strip() and not rest.strip().startswith("#"):
        raise ValueError("behind the closing quote only a comment may stand")
    return inside
