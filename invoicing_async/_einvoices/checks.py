"""Checks of one value each: text, numbers, addresses, and JSON of the user's own."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from reprlib import repr as short_repr
from typing import Any

from .._values.characters import unseen
from ..errors import Fault

__all__ = [
    "CONTROL",
    "DEPTH",
    "MONEY_DIGITS",
    "email_faults",
    "is_a",
    "kind",
    "mapping_faults",
    "not_text",
    "number_fault",
    "shown",
    "step",
    "text_faults",
]

MONEY_DIGITS = 30
"""Digits a number may have when it is written out. Undocumented; far above any amount of money."""


DEPTH = 16
"""Levels of nesting in `extra`."""


CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


_NO_ADDRESS = ',;:<>()[]"\\'
"""What stands between or around e-mail addresses, never in one."""


_LABEL = rf"[^\s@.{re.escape(_NO_ADDRESS)}]+"


_EMAIL = re.compile(rf"[^\s@{re.escape(_NO_ADDRESS)}]+@{_LABEL}(?:\.{_LABEL})*")


_SHOWN = 80


_SURROGATE = "holds a lone surrogate, which UTF-8 cannot carry"


def step(where: str, name: str) -> str:
    """Return the path of field `name` below `where`, which is empty or ends in a dot; a foreign name is tamed."""
    return where + (name if name.isprintable() and 0 < len(name) <= _SHOWN else shown(name))


def is_a(found: list[Fault], where: str, value: object, model: type) -> bool:
    """Tell whether a part is the model it should be; record the fault if it is something else."""
    if isinstance(value, model):
        return True
    article = "an" if model.__name__.startswith("I") else "a"
    found.append(Fault(where, f"must be {article} {model.__name__}, not {kind(value)}"))
    return False


def text_faults(value: object, limit: int, *, required: bool) -> Iterable[str]:
    """Say what is wrong with a text; nothing if it is sound."""
    if not isinstance(value, str):
        return (not_text(value),)
    if len(value) <= limit and value.isascii() and (value.strip() or not required):
        return ()
    found = []
    if len(value) > limit:
        found.append(f"has {len(value)} characters, at most {limit} are allowed")
    if required and not value.strip():
        found.append("must not be empty or blank")
    if not _encodable(value):
        found.append(_SURROGATE)
    return found


def not_text(value: object) -> str:
    return "is required" if value is None else f"must be text, not {kind(value)}"


def _encodable(value: str) -> bool:
    try:
        return value.isascii() or bool(value.encode())
    except UnicodeEncodeError:
        return False


def number_fault(value: object) -> str:
    """Say what is wrong with a number; empty if nothing is."""
    if not isinstance(value, Decimal):
        return _not_a_number(value)
    _, digits, exponent = value.as_tuple()
    if isinstance(exponent, str):
        return "must be finite, not an infinity or NaN"
    written = len(digits) + exponent if exponent > 0 else max(len(digits), 1 - exponent)
    return f"has {written} digits, at most {MONEY_DIGITS} are allowed" if written > MONEY_DIGITS else ""


def _not_a_number(value: object) -> str:
    got = shown(value) if isinstance(value, str) else kind(value)
    why = ": floats are not exact" if isinstance(value, float) else ""
    return f"must be a Decimal, an int or digits in text, not {got}{why}"


def email_faults(found: list[Fault], where: str, emails: object) -> None:
    """Check that each is one bare e-mail address."""
    if not isinstance(emails, tuple):
        found.append(Fault(where, f"must be a list of text, not {kind(emails)}"))
        return
    for index, email in enumerate(emails):
        path = f"{where}[{index}]"
        if not isinstance(email, str):
            found.append(Fault(path, not_text(email)))
        elif hidden := unseen(email.replace("\u00a0", " ")):
            found.append(Fault(path, f"must be an e-mail address, without {hidden}"))
        elif not _EMAIL.fullmatch(email) or not _encodable(email):
            foreign = next((character for character in email if character in _NO_ADDRESS), None)
            alone = f", alone and without {foreign!r}" if foreign else ""
            found.append(Fault(path, f"must be an e-mail address{alone}"))


def _json_faults(where: str, value: object, above: tuple[int, ...]) -> Iterable[Fault]:
    """Yield what keeps a value from being JSON; `above` are the identities of the containers that hold it."""
    if value is None or isinstance(value, (str, int, float, Decimal)):
        if message := _scalar_fault(value):
            yield Fault(where, message)
    elif id(value) in above:
        yield Fault(where, "holds itself")
    elif len(above) >= DEPTH:
        yield Fault(where, f"is nested deeper than the {DEPTH} levels that are allowed")
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _json_faults(f"{where}[{index}]", item, (*above, id(value)))
    elif isinstance(value, Mapping):
        yield from mapping_faults(where, value, (*above, id(value)))
    else:
        yield Fault(where, f"must be something JSON can say, not {kind(value)}")


def mapping_faults(where: str, value: Mapping[Any, Any], above: tuple[int, ...]) -> Iterable[Fault]:
    for key, item in value.items():
        if isinstance(key, str) and _encodable(key):
            yield from _json_faults(step(f"{where}.", key), item, above)
        else:
            yield Fault(where, f"has the key {shown(key)}; keys must be text that UTF-8 can carry")


def _scalar_fault(value: object) -> str:
    if isinstance(value, str):
        return "" if _encodable(value) else _SURROGATE
    if value is None or isinstance(value, bool):
        return ""
    if isinstance(value, int):
        return "" if abs(value) < 10**MONEY_DIGITS else f"has more than the {MONEY_DIGITS} digits that are allowed"
    return number_fault(value)


def shown(value: object) -> str:
    """A short repr; the type's name where there is none, as for an int of thousands of digits."""
    try:
        return short_repr(value)
    except Exception:  # noqa: BLE001 - a foreign repr may raise anything, and a fault must not
        return kind(value)


def kind(value: object) -> str:
    return type(value).__name__
