"""Arrays as PostgreSQL reads them: one text for each, which costs a fraction of what a value each would."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

__all__ = ["array", "storable"]


def storable(text: str) -> str:
    """Return a text as PostgreSQL can keep it: it knows no NUL and no half of a surrogate pair."""
    text = text.replace("\x00", "\N{REPLACEMENT CHARACTER}")
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def array(values: Sequence[str | int | None]) -> str:
    """Return an array; an empty one where there is no value, which `unnest` fills up with NULL."""
    if not any(value is not None for value in values):
        return "{}"
    return f"{{{','.join(_elements(values))}}}"


def _elements(values: Iterable[str | int | None]) -> Iterable[str]:
    for value in values:
        if value is None:
            yield "NULL"
        elif isinstance(value, int):
            yield str(value)
        else:
            escaped = storable(value).replace("\\", "\\\\").replace('"', '\\"')
            yield f'"{escaped}"'
