"""Where documents lie below a folder, as a template."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path, PurePosixPath
from string import Formatter
from types import MappingProxyType

from attrs import field, frozen

from .names import LIMIT, TAG, child, cleaned, digest_of, file_name, room_for, safe_component, safe_name

__all__ = ["EXPORT", "Layout"]

_DIRECTIVES: Mapping[str, Callable[[date], str]] = MappingProxyType(
    {
        "Y": lambda day: f"{day.year:04}",
        "y": lambda day: f"{day.year % 100:02}",
        "m": lambda day: f"{day.month:02}",
        "d": lambda day: f"{day.day:02}",
        "j": lambda day: f"{day.timetuple().tm_yday:03}",
        "G": lambda day: f"{day.isocalendar().year:04}",
        "V": lambda day: f"{day.isocalendar().week:02}",
        "u": lambda day: f"{day.isoweekday()}",
    }
)
"""Only numbers, written here: names of months change with the locale, and a resumed run must find its files."""


_SHARDS: Mapping[str, slice] = MappingProxyType({"shard": slice(0, 2), "shard_below": slice(2, 4)})


_FIELDS: Mapping[str, str] = MappingProxyType({"shard": "{shard}", "shard2": "{shard}/{shard_below}"})


ORDER = ("order_id",)


EXPORT = ("key", "request_id", "invoice_id")
"""The fields that tell one document from another: of an order document, and of an exported invoice."""


_DIRECTIVE = re.compile(r"%(.?)", re.DOTALL)


_FIELD = re.compile(r"\{(\w+)\}")


@frozen
class Layout:
    """Where documents lie below their folder, as in `{date:%Y/%m}/{order_id}`.

    Fields: `{order_id}` (required); `{date}` or `{date:…}` with %Y %y %m %d %j %G %V %u (ISO 8601 without a
    format); `{shard}`, two hex digits of the id's SHA-256 (256 folders), and `{shard2}`, two levels of them
    (`ab/cd`, 65,536 folders). `/` separates components, also inside a date's format. A pattern whose result
    could leave the folder, or would have to be made safe, raises `ValueError`. `ids` are the fields that tell one
    document from another, of which the pattern has at least one; an id and its shards are the first one's.
    """

    pattern: str = "{order_id}"
    ids: tuple[str, ...] = field(default=ORDER, kw_only=True, repr=False)
    _components: tuple[str, ...] = field(init=False, eq=False, repr=False)
    _used: frozenset[str] = field(init=False, eq=False, repr=False)

    @_components.default
    def _parse(self) -> tuple[str, ...]:
        pattern = self.pattern
        try:
            parts = list(Formatter().parse(pattern))
        except ValueError as error:
            raise ValueError(f"pattern {pattern!r}: {error}") from None
        components = tuple("".join(_part(pattern, self.ids, *part) for part in parts).split("/"))
        for component in components:
            text = component.format_map(dict.fromkeys([*_DIRECTIVES, *_SHARDS, *self.ids], "00"))
            if not text or TAG in text or cleaned(text) != text or len(text.encode()) > LIMIT:
                raise ValueError(f"pattern {pattern!r}: {component!r} is not a safe path component below a folder")
        return components

    @_used.default
    def _find_used(self) -> frozenset[str]:
        used = frozenset(_FIELD.findall("/".join(self._components)))
        if used.isdisjoint(self.ids):
            needed = " or ".join(f"{{{name}}}" for name in self.ids)
            raise ValueError(f"pattern {self.pattern!r} must have {needed}, or all documents share one file")
        return used

    def relative(
        self,
        order_id: str,
        *,
        day: date,
        name: str | None = None,
        suffix: str = ".pdf",
        others: Mapping[str, str] = MappingProxyType({}),
    ) -> PurePosixPath:
        """Return the document's path below its folder, every component safe.

        `name`, such as the one in Content-Disposition, stands in place of the last component; `others` are the ids
        beside the first. Raises `ValueError` for an empty id or name.
        """
        parts = self._parts(order_id, day, name, suffix, others)
        made = PurePosixPath(*parts)
        if sys.version_info >= (3, 12) and sys.version_info < (3, 13):
            made._str, made._drv, made._root, made._tail_cached = "/".join(parts), "", "", parts  # noqa: SLF001 - see `child`
        return made

    def below(self, folder: Path, order_id: str, *, day: date, name: str | None = None) -> Path:
        """Return the path that `folder / relative(…)` is, without what a join leaves behind; see `child`."""
        for part in self._parts(order_id, day, name, ".pdf", {}):
            folder = child(folder, part)
        return folder

    def _parts(self, order_id: str, day: date, name: str | None, suffix: str, others: Mapping[str, str]) -> list[str]:
        values = self._values({self.ids[0]: order_id, **others}, day, suffix)
        folders = [_filled(component, values, LIMIT) for component in self._components[:-1]]
        if name is not None:
            return [*folders, safe_name(name, suffix=suffix)]
        # The pattern may spell the suffix; the id may not lose it: ids `a` and `a.pdf` are two documents.
        last = self._components[-1].removesuffix(suffix)
        return [*folders, _filled(last, values, room_for(suffix, LIMIT)) + suffix]

    def _values(self, given: Mapping[str, str], day: date, suffix: str) -> Mapping[str, str]:
        first, values = given[self.ids[0]], {}
        for used in self._used:
            if used in self.ids:
                values[used] = file_name(given[used], suffix=suffix).removesuffix(suffix)
            else:
                values[used] = digest_of(first)[_SHARDS[used]] if used in _SHARDS else _DIRECTIVES[used](day)
        return values


def _filled(component: str, values: Mapping[str, str], room: int) -> str:
    text = component.format_map(values)
    return safe_component(text, room, whole=text)


def _part(
    pattern: str, ids: tuple[str, ...], literal: str, name: str | None, spec: str | None, conversion: str | None
) -> str:
    """Return one part of a pattern with plain fields only: `{date:%Y/%m}` -> `{Y}/{m}`."""
    if "{" in literal + (spec or "") or "}" in literal:
        raise ValueError(f"pattern {pattern!r} must have no braces but around a field")
    if name is None:
        return literal
    if name == "date" and not conversion:
        wanted = spec or "%Y-%m-%d"
        for letter in _DIRECTIVE.findall(wanted):
            if letter not in _DIRECTIVES:
                raise ValueError(f"pattern {pattern!r}: a date has %{' %'.join(_DIRECTIVES)}, not %{letter}")
        return literal + _DIRECTIVE.sub(r"{\1}", wanted)
    if (name not in _FIELDS and name not in ids) or spec or conversion:
        named = ", ".join(f"{{{known}}}" for known in ids)
        raise ValueError(f"pattern {pattern!r}: fields are {named}, {{date:…}}, {{shard}} and {{shard2}}")
    return literal + _FIELDS.get(name, f"{{{name}}}")
