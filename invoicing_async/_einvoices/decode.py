"""What service B answers, as values."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from enum import StrEnum
from math import isfinite
from typing import Any, TypeVar

from attrs import field, frozen

from .._core.answers import canonical_id, code_of, read_answer, speaks_against, words_of
from .._core.envelope import SECONDS, WORD_LENGTH
from .._core.exact_json import json_object, unexpected
from .._values.text import one_line
from .._values.validators import HEADER_TEXT
from ..errors import ProtocolError
from ..models import AuthorityStatus, InvoiceData, InvoiceRequest, RequestStatus

__all__ = ["Export", "Token", "decode_export", "decode_request", "decode_token"]

_Enum = TypeVar("_Enum", bound=StrEnum)


def _answer(body: bytes, status: int | None) -> dict[str, Any]:
    """The object that an answer is, or the only one in a list. Raises `ProtocolError`."""
    try:
        found = read_answer(body)
    except ValueError as error:
        reason = f" ({error})" if "twice" in str(error) else ""
        raise unexpected(f"the answer is not a JSON object{reason}", body, status) from None
    if isinstance(found, list) and len(found) == 1:
        found = found[0]
    if not isinstance(found, dict):
        raise unexpected("the answer is not a JSON object", body, status, found)
    return found


def decode_request(body: bytes, *, request_id: str | None = None, status: int = 200) -> InvoiceRequest:
    """Read the answer of a submission (README B.1) or, with the `request_id` asked for, of a status call (B.2).

    A submission's answer must name its request id, a UUID in any spelling, and may leave out its status: it then
    counts as NEW. A status answer may leave both out: then `data` being there means SUCCESS and its absence NEW.
    Either may stand in the `data` of an envelope, or alone in a list. `data` must name the invoice's id where that is
    what makes the answer useful: in a status answer that says SUCCESS. Other fields of `data` with an unexpected
    type count as absent; `raw` keeps everything. Raises `ProtocolError` with the head of the body and the ids in it.
    """
    answer = _answer(body, status)
    try:
        return _request(answer, request_id)
    except ValueError as error:
        raise unexpected(str(error), body, status, answer) from None


def _request(whole: dict[str, Any], asked: str | None) -> InvoiceRequest:
    if str(whole.get("success")).strip().lower() in {"false", "0"}:
        raise ValueError("the answer is an error envelope")
    answer, inner = whole, whole.get("data")
    if isinstance(inner, dict) and "request_id" in inner and "request_id" not in whole:
        # An envelope around the answer; in a status answer only if the status, too, is within.
        answer = inner if asked is None or ("status" in inner and "status" not in whole) else whole
    said, number, data = answer.get("status"), answer.get("request_id"), answer.get("data")
    if asked is None and said is None and speaks_against(whole):
        raise ValueError("the answer gives no status and speaks of an error")
    # What nearly every answer says is told here; the functions know the rest. An id was judged when it was asked for.
    status: RequestStatus | str | None = _STATUSES.get(said) if isinstance(said, str) else None
    if status is None:
        status = _status(said, known=asked is not None and data is not None)
    required = asked is not None and status == RequestStatus.SUCCESS
    failed = status == RequestStatus.FAILED
    return InvoiceRequest(
        status=status,
        data=None if data is None else _data(data, required=required),
        request_id=_request_id(number, asked) if asked is None or number not in (None, asked) else asked,
        reason=(words_of(whole) or None) if failed else None,
        code=(code_of(whole) or code_of(answer)) if failed else None,
        raw=whole,
    )


_STATUSES: Mapping[str, RequestStatus] = RequestStatus.__members__


def _request_id(found: object, asked: str | None) -> str:
    number = canonical_id(found)
    if number is None:
        raise ValueError("the answer's request_id must be a UUID (8-4-4-4-12 hex digits)")
    if asked is not None and number != canonical_id(asked):
        raise ValueError("the answer is that of another request_id")
    return asked or number


def _status(found: object, *, known: bool) -> RequestStatus | str:
    """Read a status in any case; where none is said, `known` tells that the invoice is there."""
    if found is None:
        return RequestStatus.SUCCESS if known else RequestStatus.NEW
    said = one_line(found, WORD_LENGTH) if isinstance(found, str) else ""
    if not said:
        raise ValueError("the answer's status must be text that is not empty")
    return _member(RequestStatus, said)


def _member(kind: type[_Enum], text: str) -> _Enum | str:
    """The member of that name in any case, or else the text as it is."""
    return kind.__members__.get(text.upper(), text)


def _data(found: object, *, required: bool) -> InvoiceData | None:
    number = canonical_id(found.get("id")) if isinstance(found, dict) else None
    if not isinstance(found, dict) or number is None:
        if required:
            raise ValueError("the answer's data must be an object whose id is a UUID (8-4-4-4-12 hex digits)")
        return None
    texts = {name: one_line(value) for name, value in found.items() if isinstance(value, str)}
    authority = texts.get("authority_status")
    return InvoiceData(
        id=number,
        authority_status=None if authority is None else _member(AuthorityStatus, authority),
        code=texts.get("code"),
        serial_number=texts.get("serial_number"),
        created_date=texts.get("created_date"),
        date_of_issue=texts.get("date_of_issue"),
        raw=found,
    )


@frozen(kw_only=True)
class Export:
    """Where an exported invoice stands (README B.3): NEW, BUILDING, DONE or FAIL, or a status we do not know.

    `download_url` is what the service said, if it was text: `_einvoices.links` judges it.
    """

    download_url: str | None
    status: str


def decode_export(body: bytes) -> Export:
    """Read the answer of an export call (README B.3). Raises `ProtocolError` with the head of the body."""
    answer = _answer(body, None)
    status, url = answer.get("status"), answer.get("download_url")
    if not isinstance(status, str) or not status:
        raise unexpected("the export's status must be text that is not empty", body, None, answer)
    return Export(download_url=url if isinstance(url, str) and url.strip() else None, status=status)


@frozen(kw_only=True)
class Token:
    """A bearer token; `expires_in` is its lifetime in seconds, None if the service does not say (README B.4)."""

    access_token: str = field(repr=False)
    expires_in: float | None = None


def decode_token(body: bytes) -> Token:
    """Read the answer of a token call (README B.4); `token_type` is ignored.

    Raises `ProtocolError` without any part of the body, for it may hold a secret.
    """
    answer = json_object(body)
    token = answer.get("access_token") if answer else None
    if answer is None or not isinstance(token, str) or not HEADER_TEXT.fullmatch(token):
        raise ProtocolError("the token answer must be a JSON object with an access_token that fits a header")
    return Token(access_token=token, expires_in=_lifetime(answer.get("expires_in")))


def _lifetime(value: object) -> float | None:
    """Seconds from a number or from digits in text, which some token services send; None for anything else."""
    if isinstance(value, str) and not SECONDS.fullmatch(value):
        return None
    if not isinstance(value, (Decimal, str)):
        return None
    seconds = float(value)
    return seconds if isfinite(seconds) and seconds >= 0 else None
