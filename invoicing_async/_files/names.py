"""Safe names for files: one name for one id, whatever the id and the file system."""

from __future__ import annotations

import os
import re
import sys
import unicodedata
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

from attrs import frozen

__all__ = [
    "LIMIT",
    "NOBODY",
    "TAG",
    "TempOwner",
    "child",
    "cleaned",
    "digest_of",
    "file_name",
    "is_temp",
    "marked",
    "numbered",
    "parsed",
    "room_for",
    "safe_component",
    "safe_name",
    "temp_name",
    "temp_owner",
    "worker_label",
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
"""What is kept as it is: ASCII letters, digits, `_`, `-` and single dots, and no device's name."""


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
    """Return an order id's file name: the id itself if it is plain, else made safe and tagged with its digest.

    Plain is lower-case ASCII letters, digits, `_`, `-` and single dots; capital letters are kept, with a shorter tag.
    Raises `ValueError` for an empty id, a suffix that
    is not empty or like `.pdf`, or a limit outside 32 to 255 bytes.
    """
    room = room_for(suffix, limit)
    if _PLAIN.fullmatch(order_id) and len(order_id) <= room:
        if order_id == order_id.lower():
            return order_id + suffix
        if len(order_id) < room - CASE_DIGITS:
            return f"{order_id}{TAG}{digest_of(order_id)[:CASE_DIGITS]}{suffix}"
    if not order_id:
        raise ValueError("order_id must not be empty")
    return _tagged(order_id, room, whole=order_id) + suffix


def safe_name(text: str, *, suffix: str = ".pdf", limit: int = LIMIT) -> str:
    """Return any text, such as a served file name, as a safe name that ends in `suffix`.

    Text that is safe is kept as it is, spaces and letters of any script included; else it is tagged. An ending
    that is the suffix in any case is kept. Raises `ValueError` for an empty text, and as `file_name` does.
    """
    if not text:
        raise ValueError("text must not be empty")
    room = room_for(suffix, limit)
    stem, ending = _split(text, suffix)
    return (_tagged(stem, room, whole=text) if TAG in stem else safe_component(stem, room, whole=text)) + ending


def numbered(name: str, n: int, *, limit: int = LIMIT) -> str:
    """Return the n-th other name beside a safe one: `invoice.pdf`, 2 -> `invoice (2).pdf`; a long stem is cut."""
    if n < 1:
        raise ValueError(f"n must be 1 or more, got {n}")
    return marked(name, str(n), limit=limit)


def marked(name: str, mark: str, *, limit: int = LIMIT) -> str:
    """Return a name with a mark before its ending: `invoice.pdf`, `broken` -> `invoice (broken).pdf`."""
    extension = _EXTENSION.search(name)
    ending = f" ({mark}){extension.group() if extension else ''}"
    stem = name[: extension.start()] if extension else name
    return _cut(stem, _checked(limit) - len(ending)) + ending


def _split(text: str, suffix: str) -> tuple[str, str]:
    ending = text[len(text) - len(suffix) :]
    kept = ending.isascii() and ending.lower() == suffix.lower()
    return (text[: len(text) - len(suffix)], ending) if kept else (text, suffix)


@lru_cache(maxsize=32)
def room_for(suffix: str, limit: int) -> int:
    """Bytes that a stem may have."""
    if not _SUFFIX.fullmatch(suffix):
        raise ValueError(f"suffix must be empty or a dot and 1 to 9 ASCII letters or digits, got {suffix!r}")
    return _checked(limit) - len(suffix)


def _checked(limit: int) -> int:
    if not LEAST_LIMIT <= limit <= MOST_LIMIT:
        raise ValueError(f"limit must be {LEAST_LIMIT} to {MOST_LIMIT} bytes, got {limit}")
    return limit


def safe_component(text: str, room: int, *, whole: str) -> str:
    """Return `text` as it is if that is safe, else made safe and tagged with the digest of `whole`."""
    if len(text) <= room and cleaned(text) == text and len(text.encode()) <= room:
        return text
    return _tagged(text, room, whole=whole)


def _tagged(text: str, room: int, *, whole: str) -> str:
    tag = TAG + digest_of(whole)[:DIGEST_DIGITS]
    # Cut before the work: an id of a megabyte must not cost more than a name of it.
    return _cut(cleaned(text[: 4 * room]), room - len(tag)) + tag


def digest_of(text: str) -> str:
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _cut(text: str, room: int) -> str:
    """Cut to so many bytes between two characters, and take off what must not end a name; a lone surrogate goes."""
    return text.encode("utf-8", "surrogatepass")[:room].decode("utf-8", "ignore").rstrip(" .")


def cleaned(text: str) -> str:
    """Return the text without anything a file system, a terminal or a path could take for something else."""
    if _PLAIN.fullmatch(text):
        return text
    name = _RESERVED.sub("_", unicodedata.normalize("NFC", text))
    if not name.isascii():
        name = "".join(map(_safe_character, name))
    name = _DOTS.sub(".", name).rstrip(" .").lstrip(" .-~")
    # Windows opens a device whatever its extension, and for `COM` with a superscript too.
    is_device = unicodedata.normalize("NFKD", name.partition(".")[0]).rstrip(" ").upper() in _DEVICES
    return f"_{name}" if not name or unicodedata.combining(name[0]) or is_device else name


def _safe_character(character: str) -> str:
    """Replace what is invisible, or what some systems fold into a reserved character (full-width forms)."""
    if character.isascii():
        return character
    if not character.isprintable() or character in _SLASHES or _UNSEEN.match(character):
        return "_"
    return "_" if _RESERVED_WHEN_FOLDED.search(unicodedata.normalize("NFKD", character)) else character


def child(folder: Path, name: str) -> Path:
    """Return `folder / name` for a name that is one safe component.

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


_folder = lru_cache(maxsize=64)(Path)


_TEMP = re.compile(
    r"\.invoicing-(?P<host>[0-9a-z]{1,16})-(?P<worker>[0-9a-z]{1,32})-(?P<token>[0-9a-z]{1,64})-(?:0|[1-9][0-9]{0,17})\.part"
)


@frozen
class TempOwner:
    """Whose a temporary file is: the host it was made on, the worker that made it, and the token of its process."""

    host: str
    worker: str
    token: str


NOBODY = "0"
"""The worker of a process that is none of a run's."""


def temp_name(token: str, number: int, *, host: str, worker: str = NOBODY) -> str:
    """Return the temporary name of a writer's n-th file: `.invoicing-<host>-<worker>-<token>-<n>.part`.

    It starts with a dot, so no document's name can be one. Raises `ValueError` for a token of more or less than 1 to 64
    lowercase ASCII letters and digits, a host of more than 16 or a worker of more than 32 of them, or a number outside
    0 to 10**18 - 1.
    """
    name = f".invoicing-{host}-{worker}-{token}-{number}.part"
    if not _TEMP.fullmatch(name):
        raise ValueError(
            "a temporary name needs a host, a worker and a token of lowercase letters and digits and a number, "
            f"got {host!r}, {worker!r}, {token!r}, {number}"
        )
    return name


def worker_label(ledger: str, number: int) -> str:
    """Return what temporary files bear of a worker: its number, and which ledger of all it is a worker of."""
    return f"{digest_of(ledger)[:12]}w{number}"


def temp_owner(name: str) -> TempOwner | None:
    """Return whose temporary file this is; None for any other file's name."""
    match = _TEMP.fullmatch(name)
    return TempOwner(**match.groupdict()) if match else None


def is_temp(name: str) -> bool:
    """Tell whether a file's name is one of `temp_name`'s."""
    return _TEMP.fullmatch(name) is not None
