"""What an answer says, however it says it: its JSON, the service's own words, its code, the ids that it names.

Every text that is read here is harmless (`_values.text`), so nothing that is recorded or shown later can fail on it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from .._values.text import harmless, harmless_tree, one_line
from ..errors import HEAD_LIMIT

__all__ = [
    "canonical_id",
    "code_of",
    "named_ids",
    "read_answer",
    "says_submitted",
    "shown",
    "speaks_against",
    "words_of",
]

IDS_LIMIT = 10
"""Ids that are kept of one answer."""

ID_LENGTH = 100
SCANNED = 65_536
"""Characters of a text that are searched for ids and words."""

_SUSPECT = re.compile(r"[\\\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_DECIDING = ("status", "request_id", "success")
_UUID = re.compile(r"(?<![0-9A-Za-z-])[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}(?![0-9A-Za-z-])")
_HEX = re.compile(r"[0-9a-f]{32}")
_FIELD = re.compile(r'"request_?id"\s*:\s*"([^"\\]{1,100})"', re.IGNORECASE)
_TITLE = re.compile(r"<title[^>]*>([^<]+)</title", re.IGNORECASE)
_BEFORE = re.compile(
    r"already[ _-]+(?:been[ _-]+)?(?:exist|submitted|created|issued|sent|processed|received|accepted)"
    r"|\bduplicated?[ _-]+(?:invoice|request|submission|order|document)"
    r"|(?:invoice|request|submission|order|document)[ _-]+(?:already|exists|duplicated?)\b"
    r"|đã (?:tồn tại|được (?:gửi|tạo|phát hành|lập))",
    re.IGNORECASE,
)


def _consistent(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse an object that says what decides its meaning twice, and not the same."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in _DECIDING and name in found and found[name] != value:
            raise ValueError(f"it says {name!r} twice, and not the same")
        found[name] = value
    return found


def _reader(**options: Any) -> json.JSONDecoder:
    # What is not JSON but can be read is: NaN as null, a line end inside a text.
    return json.JSONDecoder(
        parse_float=Decimal, parse_int=Decimal, parse_constant=lambda _: None, strict=False, **options
    )


_read = _reader().decode
_read_consistent = _reader(object_pairs_hook=_consistent).decode


def text_of(body: bytes) -> str:
    """Return the text of a body in UTF-8, UTF-16 or UTF-32, with or without a byte order mark; never fails."""
    return body.decode(json.detect_encoding(body), "replace").strip("\ufeff\0 \t\r\n")


def read_answer(body: bytes) -> Any:
    """Read the JSON of an answer, with every number as `Decimal` and every text harmless.

    Raises `ValueError` for what is no JSON, is out of all bounds, or contradicts itself.
    """
    text = text_of(body)
    twice = any(text.count(f'"{name}"') > 1 for name in _DECIDING)
    try:
        found = (_read_consistent if twice else _read)(text)
        return harmless_tree(found) if _SUSPECT.search(text) else found
    except json.JSONDecodeError as error:
        fault = f"is no JSON ({error.msg} at character {error.pos + 1:,})"
    except (ArithmeticError, RecursionError) as error:
        fault = f"holds a number or a nesting out of all bounds ({type(error).__name__})"
    # Out here, so that no error brings the parser's, which holds the whole text.
    raise ValueError(fault)


def canonical_id(found: object) -> str | None:
    """Return a UUID in its canonical form, 8-4-4-4-12 in lower case; None for anything else.

    It may come in upper case, with blanks around it, or as 32 hex digits: it is the same id.
    """
    if not isinstance(found, str):
        return None
    text = found.strip().lower()
    digits = text.replace("-", "")
    if not _HEX.fullmatch(digits):
        return None
    made = f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
    return made if text in {made, digits} else None


def named_ids(body: bytes, found: object = None) -> tuple[str, ...]:
    """Return the ids that an answer names, those of a field `request_id` first; UUIDs in canonical form.

    `found` is the answer as it was read, None if it could not be. The id that an error envelope gives of the call
    itself, and those of templates and traces, name no invoice.
    """
    if found is None:
        text = text_of(body[:SCANNED])
        named = [canonical_id(match[1]) or one_line(match[1], ID_LENGTH) for match in _FIELD.finditer(text)]
        named += [match[0].lower() for match in _UUID.finditer(text)]
    else:
        if isinstance(found, dict) and found.get("success") is False:
            found = {name: value for name, value in found.items() if name != "requestId"}
        fields = [(name, value) for name, value in _fields(found) if isinstance(value, (str, Decimal))]
        texts = [one_line(str(value), ID_LENGTH) for name, value in fields if name == "requestid"]
        named = [canonical_id(text) or text for text in texts if text]
        for name, value in fields:
            if isinstance(value, str) and not any(word in name for word in ("template", "trace", "correlation")):
                named += [match[0].lower() for match in _UUID.finditer(value[:SCANNED])]
    return tuple(dict.fromkeys(named))[:IDS_LIMIT]


def _fields(found: object, name: str = "") -> Iterator[tuple[str, object]]:
    """Walk every leaf of a JSON value with its name in one spelling; what is in a list goes by the list's name."""
    open_ = [(name, found)]
    while open_:
        name, value = open_.pop()
        if isinstance(value, dict):
            below = [(re.sub("[^0-9a-z]", "", key.lower()), item) for key, item in value.items()]
            open_ += reversed(below)
        elif isinstance(value, list):
            open_ += [(name, item) for item in reversed(value)]
        else:
            yield name, value


def speaks_against(found: dict[str, Any]) -> bool:
    """Tell whether an answer that gives no status speaks of an error, or of something submitted before."""
    named = any(found.get(name) not in (None, "", [], {}) for name in ("error", "errors", *_CODES[:-1]))
    return named or bool(_BEFORE.search(words_of(found)))


def says_submitted(found: object, words: str, code: str | None, body: bytes = b"") -> bool:
    """Tell whether an answer names a request in the documented field, or says that this was submitted before.

    What broke off (`found` is None) is judged by the text that came.
    """
    if found is None and (text := text_of(body[:SCANNED])).startswith(("{", "[")):
        named = (match for match in _FIELD.finditer(text) if match[0].startswith('"request_id"'))
        return any(canonical_id(match[1]) for match in named) or bool(_BEFORE.search(text))
    holders = [found, found.get("data")] if isinstance(found, dict) else found if isinstance(found, list) else []
    if any(isinstance(holder, dict) and canonical_id(holder.get("request_id")) for holder in holders):
        return True
    return bool(_BEFORE.search(words) or _BEFORE.search((code or "").replace("_", " ")))


_WORDS = (
    "message",
    "msg",
    "error_description",
    "error_message",
    "errorMessage",
    "failed_reason",
    "failure_reason",
    "reason",
    "detail",
    "error",
    "errors",
    "violations",
    "details",
    "data",
)
_WEAK = ("error", "title")
"""Names of what is often no more than the status in words: heard only where nothing else is said."""

_PLACES = ("field", "path", "property", "propertyPath", "param", "name", "loc")
_CODES = ("error_code", "errorCode", "failed_code", "code")
_DEPTH = 6
_PARTS = 10


def words_of(found: object, body: bytes = b"") -> str:
    """Return what an answer says in the service's own words, as one line; "" if it says nothing.

    Read are messages and reasons, lists of them, and lists of faults with their fields; of a page its title, of
    plain text (`found` is None) its start.
    """
    if found is None:
        text = text_of(body[:SCANNED])
        title = _TITLE.search(text)
        if text.startswith("<"):
            return one_line(title[1]) if title else ""
        # Bytes that are no text say nothing.
        binary = "\0" in text or text.count("\ufffd") * _PARTS > len(text)
        nothing = binary or text.startswith(("{", "[", "%PDF"))
        return "" if nothing else one_line(text_of(body[:HEAD_LIMIT]).rstrip("\ufffd"))
    parts = dict.fromkeys(part for part in map(one_line, _parts(found)) if part)
    return one_line("; ".join(list(parts)[:_PARTS]))


def _parts(found: object, depth: int = 0, *, free: bool = False) -> Iterator[str]:
    """Walk what is said. `free`: the names of an object are those of the draft's fields, not ours."""
    if isinstance(found, str):
        yield found
    elif isinstance(found, list) and depth < _DEPTH:
        for item in found[:_PARTS]:
            yield from _parts(item, depth + 1, free=free)
    elif isinstance(found, dict) and depth < _DEPTH:
        yield from _said(found, depth, free=free)


def _said(found: dict[str, Any], depth: int, *, free: bool) -> Iterator[str]:
    place = next((_place(found[name]) for name in _PLACES if name in found), "") if depth else ""
    heard = False
    for name in _WORDS:
        if name in found and not (name == "error" and isinstance(found[name], str)):
            for part in _parts(found[name], depth + 1, free=name in {"errors", "violations"}):
                heard = heard or bool(part.strip())
                yield f"{place}: {part}" if place and part.strip() else part
    if heard:
        return
    for name in found if free else _WEAK:
        for part in _parts(found.get(name), depth + 1):
            yield f"{name}: {part}" if free else part


def _place(found: object) -> str:
    if isinstance(found, list):
        return ".".join(str(step) for step in found[:_PARTS])
    return found if isinstance(found, str) else ""


def code_of(found: object) -> str | None:
    """Return the code that an answer gives for its error, None if it gives none."""
    if not isinstance(found, dict):
        return None
    inner = found.get("error")
    code = shown(inner.get("code")) if isinstance(inner, dict) else None
    return code or next((code for name in _CODES if (code := shown(found.get(name)))), None)


def shown(value: object, limit: int = ID_LENGTH) -> str | None:
    """Return text, or a whole number in digits, as one line; None for anything else and for blanks."""
    if isinstance(value, Decimal) and value == value.to_integral_value() and abs(value) < 10**18:
        value = f"{value:.0f}"
    return (one_line(harmless(value), limit) or None) if isinstance(value, str) else None
