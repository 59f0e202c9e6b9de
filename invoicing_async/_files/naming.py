"""Safe names for files: from an order id, from Content-Disposition, and where they lie below a folder.

A name made here is one path component on every common file system: no separator, control, format or reserved
character, no leading dot, no trailing dot or space, no Windows device, at most `limit` bytes of UTF-8, NFC. An id
or text that cannot stand as it is gets `~` and 16 hex digits of its SHA-256; `~` stands in no other name, so two
different ids never share one. (64 bits, not fewer: a million over-long ids may be cut to the same stem.)

Some file systems ignore case, and two ids that differ only by it would meet there. So an id with a capital letter
gets `~` and 8 digits of its digest too; one of lower-case letters and digits, as a UUID is, stands as it is.
"""

from __future__ import annotations

import os
import re
import sys
import unicodedata
from collections.abc import Callable, Mapping
from datetime import date
from functools import lru_cache
from hashlib import sha256
from pathlib import Path, PurePosixPath
from string import Formatter
from types import MappingProxyType
from urllib.parse import quote, unquote_to_bytes

from attrs import field, frozen

__all__ = [
    "EXPORT",
    "Layout",
    "child",
    "content_disposition",
    "file_name",
    "from_content_disposition",
    "is_temp",
    "marked",
    "numbered",
    "parsed",
    "safe_name",
    "temp_name",
    "temp_token",
]

LIMIT = 200
"""Bytes of a name by default: below every file system's 255, with room for what tools append."""

LEAST_LIMIT, MOST_LIMIT = 32, 255
DIGEST_DIGITS = 16
CASE_DIGITS = 8
"""Digits that tell ids apart which differ only by case: few ids, which are chosen by nobody."""

TAG = "~"

_PLAIN = re.compile(
    r"(?!(?i:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\.|\Z))[A-Za-z0-9_][A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]+)*"
)
"""What stands as it is: ASCII letters, digits, `_`, `-` and single dots, and no device's name."""

_SUFFIX = re.compile(r"(?:\.[A-Za-z0-9]{1,9})?")
_EXTENSION = re.compile(r"(?<=.)\.[A-Za-z0-9]{1,9}\Z", re.DOTALL)

_RESERVED = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f]')
_RESERVED_WHEN_FOLDED = re.compile(r'[<>:"/\\|?*.]')
_UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
_SLASHES = frozenset("\u2044\u2215\u2216\u29f5\u29f8\u29f9")
_DOTS = re.compile(r"\.{2,}")

_DEVICES = frozenset(
    ["CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$", "CLOCK$"]
    + [f"{port}{digit}" for port in ("COM", "LPT") for digit in "0123456789"]
)


def file_name(order_id: str, *, suffix: str = ".pdf", limit: int = LIMIT) -> str:
    """Give an order id's file name: the id itself if it is plain, else made safe and tagged with its digest.

    Plain is lower-case ASCII letters, digits, `_`, `-` and single dots; capital letters are kept, with a shorter tag.
    Raises `ValueError` for an empty id, a suffix that
    is not empty or like `.pdf`, or a limit outside 32 to 255 bytes.
    """
    room = _room(suffix, limit)
    if _PLAIN.fullmatch(order_id) and len(order_id) <= room:
        if order_id == order_id.lower():
            return order_id + suffix
        if len(order_id) < room - CASE_DIGITS:
            return f"{order_id}{TAG}{_hex(order_id)[:CASE_DIGITS]}{suffix}"
    if not order_id:
        raise ValueError("order_id must not be empty")
    return _tagged(order_id, room, whole=order_id) + suffix


def safe_name(text: str, *, suffix: str = ".pdf", limit: int = LIMIT) -> str:
    """Give any text, such as a served file name, as a safe name that ends in `suffix`.

    Text that is safe stands as it is, spaces and letters of any script included; else it is tagged. An ending
    that is the suffix in any case is kept. Raises `ValueError` for an empty text, and as `file_name` does.
    """
    if not text:
        raise ValueError("text must not be empty")
    room = _room(suffix, limit)
    stem, ending = _split(text, suffix)
    return (_tagged(stem, room, whole=text) if TAG in stem else _component(stem, room, whole=text)) + ending


def numbered(name: str, n: int, *, limit: int = LIMIT) -> str:
    """Give the n-th other name beside a safe one: `invoice.pdf`, 2 -> `invoice (2).pdf`; a long stem is cut."""
    if n < 1:
        raise ValueError(f"n must be 1 or more, got {n}")
    return marked(name, str(n), limit=limit)


def marked(name: str, mark: str, *, limit: int = LIMIT) -> str:
    """Give a name with a mark before its ending: `invoice.pdf`, `broken` -> `invoice (broken).pdf`."""
    extension = _EXTENSION.search(name)
    ending = f" ({mark}){extension.group() if extension else ''}"
    stem = name[: extension.start()] if extension else name
    return _cut(stem, _checked(limit) - len(ending)) + ending


def _split(text: str, suffix: str) -> tuple[str, str]:
    ending = text[len(text) - len(suffix) :]
    kept = ending.isascii() and ending.lower() == suffix.lower()
    return (text[: len(text) - len(suffix)], ending) if kept else (text, suffix)


@lru_cache(maxsize=32)
def _room(suffix: str, limit: int) -> int:
    """Bytes that a stem may have."""
    if not _SUFFIX.fullmatch(suffix):
        raise ValueError(f"suffix must be empty or a dot and 1 to 9 ASCII letters or digits, got {suffix!r}")
    return _checked(limit) - len(suffix)


def _checked(limit: int) -> int:
    if not LEAST_LIMIT <= limit <= MOST_LIMIT:
        raise ValueError(f"limit must be {LEAST_LIMIT} to {MOST_LIMIT} bytes, got {limit}")
    return limit


def _component(text: str, room: int, *, whole: str) -> str:
    """Give `text` as it is if that is safe, else made safe and tagged with the digest of `whole`."""
    if len(text) <= room and _clean(text) == text and len(text.encode()) <= room:
        return text
    return _tagged(text, room, whole=whole)


def _tagged(text: str, room: int, *, whole: str) -> str:
    tag = TAG + _hex(whole)[:DIGEST_DIGITS]
    # Cut before the work: an id of a megabyte must not cost more than a name of it.
    return _cut(_clean(text[: 4 * room]), room - len(tag)) + tag


def _hex(text: str) -> str:
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _cut(text: str, room: int) -> str:
    """Cut to so many bytes between two characters, and take off what must not end a name; a lone surrogate goes."""
    return text.encode("utf-8", "surrogatepass")[:room].decode("utf-8", "ignore").rstrip(" .")


def _clean(text: str) -> str:
    """Give the text without anything a file system, a terminal or a path could take for something else."""
    if _PLAIN.fullmatch(text):
        return text
    name = _RESERVED.sub("_", unicodedata.normalize("NFC", text))
    if not name.isascii():
        name = "".join(map(_safe_character, name))
    name = _DOTS.sub(".", name).rstrip(" .").lstrip(" .-~")
    return f"_{name}" if not name or unicodedata.combining(name[0]) or _is_device(name) else name


def _safe_character(character: str) -> str:
    """Replace what is unseen, or what some systems fold into a reserved character (full-width forms)."""
    if character.isascii():
        return character
    if not character.isprintable() or character in _SLASHES or _UNSEEN.match(character):
        return "_"
    return "_" if _RESERVED_WHEN_FOLDED.search(unicodedata.normalize("NFKD", character)) else character


def _is_device(name: str) -> bool:
    """Tell whether Windows would open a device, as it does with any extension and for `COM` with a superscript."""
    return unicodedata.normalize("NFKD", name.partition(".")[0]).rstrip(" ").upper() in _DEVICES


# Content-Disposition: RFC 6266, with ext-values of RFC 8187.

_PIECE = re.compile(r'(?>[^;"]+|"(?:[^"\\]|\\.)*+"?)++', re.DOTALL)
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*+)"', re.DOTALL)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_EXT_VALUE = re.compile(r"([A-Za-z0-9-]+)'[A-Za-z0-9-]*'((?:[^%]|%[0-9A-Fa-f]{2})+)", re.ASCII | re.DOTALL)
_CHARSETS = frozenset({"utf-8", "iso-8859-1"})


def content_disposition(name: str) -> str:
    """Give the header that offers a file under a name: RFC 6266, with the extended form for what is not ASCII."""
    plain = name.encode("ascii", "replace").decode().replace("\\", "_").replace('"', "_").replace("?", "_")
    if plain == name:
        return f'attachment; filename="{name}"'
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


def from_content_disposition(value: str | None) -> str | None:
    """Read the file name out of a Content-Disposition header (RFC 6266); None if it names none that can be read.

    `filename*` goes before `filename` where it is well formed. The text is as the service sent it, path and all:
    give it to `safe_name` before it comes near a disk.
    """
    parameters = _parameters(value or "")
    name = _extended(parameters.get("filename*", "")) or parameters.get("filename", "")
    return name if name.strip() else None


def _parameters(value: str) -> Mapping[str, str]:
    found: dict[str, str] = {}
    for piece in _PIECE.findall(value):
        name, equals, text = piece.partition("=")
        if equals:
            found.setdefault(name.strip().lower(), _unquoted(text.strip()))
    return found


def _unquoted(text: str) -> str:
    """Give a token or a quoted string's text; empty for a broken one."""
    quoted = _QUOTED.fullmatch(text)
    if quoted:
        return _ESCAPE.sub(r"\1", quoted[1])
    return "" if '"' in text else text


def _extended(text: str) -> str:
    """Decode `charset'language'percent-encoded`; empty for a broken one or another charset."""
    match = _EXT_VALUE.fullmatch(text)
    if not match or not text.isascii() or match[1].lower() not in _CHARSETS:
        return ""
    try:
        return unquote_to_bytes(match[2]).decode(match[1])
    except UnicodeDecodeError:
        return ""


# Sub-folders.

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
        components = tuple(_simplified(self.pattern, self.ids).split("/"))
        for component in components:
            _check_component(self.pattern, component, self.ids)
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
        """Give the document's path below its folder, every component safe.

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
        return [*folders, _filled(last, values, _room(suffix, LIMIT)) + suffix]

    def _values(self, given: Mapping[str, str], day: date, suffix: str) -> Mapping[str, str]:
        first, values = given[self.ids[0]], {}
        for used in self._used:
            if used in self.ids:
                values[used] = file_name(given[used], suffix=suffix).removesuffix(suffix)
            else:
                values[used] = _hex(first)[_SHARDS[used]] if used in _SHARDS else _DIRECTIVES[used](day)
        return values


def _filled(component: str, values: Mapping[str, str], room: int) -> str:
    text = component.format_map(values)
    return _component(text, room, whole=text)


def _simplified(pattern: str, ids: tuple[str, ...]) -> str:
    """Give the pattern with plain fields only: `{date:%Y/%m}` -> `{Y}/{m}`."""
    try:
        parts = list(Formatter().parse(pattern))
    except ValueError as error:
        raise ValueError(f"pattern {pattern!r}: {error}") from None
    return "".join(_part(pattern, ids, *part) for part in parts)


def _part(
    pattern: str, ids: tuple[str, ...], literal: str, name: str | None, spec: str | None, conversion: str | None
) -> str:
    if "{" in literal + (spec or "") or "}" in literal:
        raise ValueError(f"pattern {pattern!r} must have no braces but around a field")
    if name is None:
        return literal
    if name == "date" and not conversion:
        return literal + _DIRECTIVE.sub(lambda match: _directive(pattern, match[1]), spec or "%Y-%m-%d")
    if (name not in _FIELDS and name not in ids) or spec or conversion:
        named = ", ".join(f"{{{known}}}" for known in ids)
        raise ValueError(f"pattern {pattern!r}: fields are {named}, {{date:…}}, {{shard}} and {{shard2}}")
    return literal + _FIELDS.get(name, f"{{{name}}}")


def _directive(pattern: str, letter: str) -> str:
    if letter not in _DIRECTIVES:
        raise ValueError(f"pattern {pattern!r}: a date has %{' %'.join(_DIRECTIVES)}, not %{letter}")
    return f"{{{letter}}}"


def _check_component(pattern: str, component: str, ids: tuple[str, ...]) -> None:
    text = component.format_map(dict.fromkeys([*_DIRECTIVES, *_SHARDS, *ids], "00"))
    if not text or TAG in text or _clean(text) != text or len(text.encode()) > LIMIT:
        raise ValueError(f"pattern {pattern!r}: {component!r} is not a safe path component below a folder")


# Paths.


def child(folder: Path, name: str) -> Path:
    """Give `folder / name` for a name that is one safe component.

    Before 3.13 a join interns every part, which a million names that come and go pay for: in 3.11 the table of
    interned strings is left so full of holes that looking into it costs more than a signature, in 3.12 nothing
    that was interned is ever freed.
    """
    if sys.version_info >= (3, 13) or not folder.name:
        return folder / name
    if sys.version_info >= (3, 12):
        made = folder.with_segments(folder, name)
        made._str = f"{folder}{os.sep}{name}"  # noqa: SLF001 - what parsing would find; 3.12 changes no more
        made._drv, made._root, made._tail_cached = folder.drive, folder.root, [*folder._tail, name]  # noqa: SLF001 - as above
        return made
    made: Path = folder._make_child_relpath(name)  # type: ignore[attr-defined]  # noqa: SLF001 - 3.11 changes no more
    return made


def parsed(text: str) -> Path:
    """Return the path of a file by its text, without what parsing leaves behind; see `child`."""
    folder, name = os.path.split(text)
    return Path(text) if name in {"", os.curdir, os.pardir} else child(_folder(folder), name)


@lru_cache(maxsize=64)
def _folder(text: str) -> Path:
    return Path(text)


# Temporary files.

_TEMP = re.compile(r"\.invoicing-([0-9a-z]{1,64})-(?:0|[1-9][0-9]{0,17})\.part")


def temp_name(token: str, number: int) -> str:
    """Give the temporary name of a writer's n-th file: `.invoicing-<token>-<n>.part`.

    It starts with a dot, so no document's name can be one. Raises `ValueError` for a token that is not 1 to 64
    lowercase ASCII letters and digits, or a number outside 0 to 10**18 - 1.
    """
    name = f".invoicing-{token}-{number}.part"
    if not _TEMP.fullmatch(name):
        raise ValueError(f"a temporary name needs a lowercase alphanumeric token and a number, got {token!r}, {number}")
    return name


def temp_token(name: str) -> str | None:
    """Give the token of the writer that made this temporary file; None for any other file's name."""
    match = _TEMP.fullmatch(name)
    return match[1] if match else None


def is_temp(name: str) -> bool:
    """Tell whether a file's name is one that `temp_name` gives."""
    return _TEMP.fullmatch(name) is not None
