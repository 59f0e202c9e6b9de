"""JSON read exactly: numbers as decimals, no name twice, no NaN."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Any, NoReturn

from .._values.text import one_line
from ..errors import ProtocolError
from .answers import named_ids, read_answer, words_of

__all__ = [
    "JSON_NUMBER",
    "json_object",
    "json_or_none",
    "json_reader",
    "json_text",
    "parse_json",
    "quote",
    "unexpected",
]

JSON_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,6})?")


quote = json.JSONEncoder(ensure_ascii=False).encode


def json_text(value: object) -> str:
    """Write one value. Not `json.dumps`: that has no exact way for a `Decimal`."""
    if isinstance(value, str):
        return quote(value)
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, (dict, MappingProxyType, Mapping)):
        return "{" + ",".join(f"{quote(name)}:{json_text(item)}" for name, item in sorted(value.items())) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(json_text, value)) + "]"
    if value is None or isinstance(value, (bool, int)):
        return quote(value)
    raise TypeError(f"{type(value).__name__} has no exact form in JSON")


def _constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


def json_reader(**options: Any) -> Callable[[str], Any]:
    return json.JSONDecoder(parse_float=Decimal, parse_int=Decimal, parse_constant=_constant, **options).decode


# `json.loads` makes a new decoder for every text when it is given options, which costs more than a short text.
read_json = json_reader()


def parse_json(data: bytes | str, read: Callable[[str], Any] = read_json) -> Any:
    """Read JSON with every number as `Decimal`. Raises `ValueError` for anything else, whatever the bytes."""
    try:
        if isinstance(data, bytes):
            data = data.decode(json.detect_encoding(data), "surrogatepass")
        elif data.startswith("\ufeff"):
            raise ValueError("begins with a byte order mark")
        return read(data)
    except (ArithmeticError, RecursionError) as error:
        raise ValueError(f"holds a number or a nesting out of all bounds ({type(error).__name__})") from None


def json_object(body: bytes) -> dict[str, Any] | None:
    """The JSON object that an answer is, or None. No cause is kept: a parser's error holds the whole body."""
    found = json_or_none(body)
    return found if isinstance(found, dict) else None


def unexpected(text: str, body: bytes, status: int | None, found: object = None) -> ProtocolError:
    """Return the error for an answer that is not as documented, with what it says and the ids that it names."""
    if found is None:
        found = json_object(body)
    said = words_of(found, body)
    ids = named_ids(body, found)
    return ProtocolError(one_line(f"{text}: {said}") if said else text, head=body, status=status, request_ids=ids)


def json_or_none(body: bytes) -> Any:
    try:
        return read_answer(body)
    except ValueError:
        return None
