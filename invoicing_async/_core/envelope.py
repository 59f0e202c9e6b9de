"""What an answer says of an error: its envelope, its code, its Retry-After."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from math import isfinite
from typing import Any

from .._values.text import LINE_LIMIT
from ..errors import CODES, STATUSES, ApiError
from .answers import code_of, named_ids, says_submitted, shown, words_of
from .exact_json import json_or_none

__all__ = ["SECONDS", "WORD_LENGTH", "error_from", "retry_after"]

WORD_LENGTH = 100


SECONDS = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?")


def error_from(status: int, header: Callable[[str], str | None], body: bytes, *, now: float) -> ApiError | None:
    """Return the error that an answer declares, or None if it declares none (README A.1).

    An envelope with `"success": false` is that error whatever the HTTP status, 200 included: its class is chosen by
    the code, else by the status. A status of 400 or more without an envelope is an error too, with what it says; none
    of the documented codes counts there. A redirect is None too: it is not as documented, which is for the caller to
    say. `now` is epoch seconds, for a Retry-After that is a date. Never raises, whatever the bytes.
    """
    found = json_or_none(body)
    envelope = found if isinstance(found, dict) and found.get("success") is False else None
    if envelope is None and status < 400:  # noqa: PLR2004 - the first error status of HTTP
        return None
    declared = json_part(envelope or {}, "error")
    details = json_part(declared, "details")
    code, said = code_of(found), words_of(found, body)
    if code in CODES and code != declared.get("code"):
        # Only the envelope declares a code; the same word anywhere else may be a gateway's own.
        said, code = f"{code}: {said}", None
    date = http_date(header("Date") or "")
    kind = CODES.get(code or "") or STATUSES.get(status, ApiError)
    return kind(
        said or ("" if envelope is not None else f"the service answered {status} without an error envelope"),
        status=status,
        code=code,
        request_id=None if envelope is None else shown(envelope.get("requestId")),
        hint=shown(details.get("hint"), LINE_LIMIT),
        context=json_part(details, "context"),
        retry_after=retry_after(header, now=now),
        answer=body,
        request_ids=named_ids(body, found),
        submitted_before=says_submitted(found, said, code, body),
        bare=not isinstance(found, (dict, list)),
        clock_ahead=None if date is None else now - (date + 0.5),  # which is cut to whole seconds
    )


def json_part(owner: dict[str, Any], name: str) -> dict[str, Any]:
    value = owner.get(name)
    return value if isinstance(value, dict) else {}


def retry_after(header: Callable[[str], str | None], *, now: float) -> float | None:
    """Seconds that the answer asks to wait by its Retry-After, never below 0; None without one that can be read.

    A date is taken relative to the answer's own Date, so that this machine's clock does not matter; to `now`
    (epoch seconds) if there is none.
    """
    text = (header("Retry-After") or "").strip()
    if SECONDS.fullmatch(text):
        seconds = float(text)
        return max(0.0, seconds) if isfinite(seconds) else None
    until = http_date(text)
    if until is None:
        return None
    base = http_date(header("Date") or "")
    return max(0.0, until - (now if base is None else base))


def http_date(text: str) -> float | None:
    """Return the epoch seconds of an HTTP date in any of its three forms; a date without a zone is in UTC."""
    try:
        found: datetime = parsedate_to_datetime(text)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
