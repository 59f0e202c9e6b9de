"""A file of settings, as shells and service managers read them too.

- UTF-8, with a byte order mark or without; one `NAME=VALUE` a line, `export` and white space before it allowed.
- A line that is empty or begins with `#` says nothing.
- A value in single or double quotes is taken as it stands, `#` and white space included: no escapes, no `$NAME`.
  Behind the closing quote only a comment may stand. A quote that is never closed belongs to the value.
- A value without quotes ends before white space and `#`, and at the end of the line.
- Of a name that stands there twice the last one counts, as in a shell.
"""

from __future__ import annotations

import re
from pathlib import Path

from attrs import field, frozen

from ._variables import SettingsError

__all__ = ["Line", "read_env_file"]

_LINE = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*)")
_COMMENT = re.compile(r"\s+#")


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
    for number, line in enumerate(map(str.strip, text.splitlines()), 1):
        if not line or line.startswith("#"):
            continue
        if (parts := _LINE.fullmatch(line)) is None:
            faults.append(f"{file} line {number}: must be NAME=VALUE or a comment that begins with #")
        elif (value := _unquoted(parts[2])) is None:
            faults.append(f"{file} line {number}: behind the closing quote only a comment may stand")
        else:
            found[parts[1]] = Line(number, value)
    if faults:
        raise SettingsError(*faults)
    return found


def _unquoted(value: str) -> str | None:
    """Take off one pair of quotes, or a comment behind a value without quotes; None for text behind the quotes."""
    if value[:1] in {'"', "'"} and (end := value.find(value[0], 1)) > 0:
        rest = value[end + 1 :].strip()
        return value[1:end] if not rest or rest.startswith("#") else None
    return _COMMENT.split(value, maxsplit=1)[0].strip()
