"""Content-Disposition (RFC 6266), written and read."""

from __future__ import annotations

import re
from urllib.parse import quote, unquote_to_bytes

__all__ = ["content_disposition", "from_content_disposition"]

_PIECE = re.compile(r'(?>[^;"]+|"(?:[^"\\]|\\.)*+"?)++', re.DOTALL)


_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*+)"', re.DOTALL)


_ESCAPE = re.compile(r"\\(.)", re.DOTALL)


_EXT_VALUE = re.compile(r"([A-Za-z0-9-]+)'[A-Za-z0-9-]*'((?:[^%]|%[0-9A-Fa-f]{2})+)", re.ASCII | re.DOTALL)


_CHARSETS = frozenset({"utf-8", "iso-8859-1"})


def content_disposition(name: str) -> str:
    """Return the header that offers a file under a name: RFC 6266, with the extended form for what is not ASCII."""
    plain = name.encode("ascii", "replace").decode().replace("\\", "_").replace('"', "_").replace("?", "_")
    if plain == name:
        return f'attachment; filename="{name}"'
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


def from_content_disposition(value: str | None) -> str | None:
    """Read the file name out of a Content-Disposition header (RFC 6266); None if it names none that can be read.

    `filename*` goes before `filename` where it is well formed. The text is as the service sent it, path and all:
    give it to `safe_name` before it comes near a disk.
    """
    parameters: dict[str, str] = {}
    for piece in _PIECE.findall(value or ""):
        key, equals, text = piece.partition("=")
        if equals:
            parameters.setdefault(key.strip().lower(), _unquoted(text.strip()))
    name = _extended(parameters.get("filename*", "")) or parameters.get("filename", "")
    return name if name.strip() else None


def _unquoted(text: str) -> str:
    """Return a token or a quoted string's text; empty for a broken one."""
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
