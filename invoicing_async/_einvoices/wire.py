"""JSON in and out: what the services read and say, as values of this library; the only user of cattrs.

Numbers never pass through float: they are read as `Decimal` and written with the same digits. Whatever a service
answers becomes a value, a declared `ApiError` or a `ProtocolError`. The names that the service's document leaves
open (API.md B.1) stand in one table, `WireNames` (`_shape`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from email.utils import parsedate_to_datetime
from enum import StrEnum
from math import isfinite
from types import MappingProxyType, NoneType
from typing import Any, NoReturn, TypeAlias, TypeVar

from attrs import NOTHING, field, fields_dict, frozen
from attrs import has as is_attrs
from cattrs import (
    ClassValidationError,
    Converter,
    ForbiddenExtraKeysError,
    IterableValidationError,
    IterableValidationNote,
)
from cattrs.gen import make_dict_structure_fn

from .._core.answers import (
    canonical_id,
    code_of,
    named_ids,
    read_answer,
    says_submitted,
    shown,
    speaks_against,
    words_of,
)
from .._values.text import LINE_LIMIT, one_line
from ..errors import CODES, STATUSES, ApiError, DraftError, Fault, ProtocolError
from ..models import (
    AuthorityStatus,
    Consumer,
    InvoiceData,
    InvoiceDraft,
    InvoiceLine,
    InvoiceRequest,
    PaymentMethod,
    RequestStatus,
    SubmitToTax,
    VatRate,
    unchecked,
)
from . import rules
from .shape import INVOICE_DATA, SUBMIT_TO_TAX, WireNames, modelled, wire_path

__all__ = [
    "Export",
    "Token",
    "WireNames",
    "decode_export",
    "decode_request",
    "decode_token",
    "dump_draft",
    "encode_draft",
    "error_from",
    "load_draft",
    "retry_after",
    "unexpected",
]

_Enum = TypeVar("_Enum", bound=StrEnum)
_Hook: TypeAlias = Callable[[Any, Any], Any]

_CONSUMER = tuple(fields_dict(Consumer))
_LINE = tuple(fields_dict(InvoiceLine))
_WORD_LENGTH = 100
_HEADER_TEXT = re.compile(r"[\x21-\x7e]+")
_SECONDS = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?")
_JSON_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,6})?")
_LINE_ENDS = {0x85: "\\u0085", 0x2028: "\\u2028", 0x2029: "\\u2029"}


_NAMES = WireNames()
_MODEL_NAMES = WireNames(send_mail="send_mail", automatic="automatic")


# --- out ----------------------------------------------------------------------------------------------------------


def encode_draft(draft: InvoiceDraft, *, names: WireNames = _NAMES, rounding: Decimal | None = None) -> bytes:
    """Give the body of `POST /v2/ob/invoices` (API.md B.1): compact UTF-8 JSON with sorted names.

    What is None is left out, `key` is not sent, `extra` stands in `invoice_data`, and every number has exactly
    the digits of its `Decimal`. `rounding` is the unit to which amounts may have been rounded. Raises `DraftError`
    with every fault of the draft.
    """
    rules.check(draft, reserved=names.reserved, rounding=rounding)
    invoice: dict[str, Any] = {
        "consumer": None if draft.consumer is None else _present(draft.consumer, _CONSUMER),
        "invoice_lines": [_wire_line(line, names) for line in draft.lines],
        "invoice_template_id": draft.invoice_template_id,
        names.has_tax_authority_code: draft.has_tax_authority_code,
        names.payment_method: draft.payment_method,
    }
    submit = {SUBMIT_TO_TAX: draft.submit_to_tax and _wire_submit_to_tax(draft.submit_to_tax, names)}
    inside, beside = (submit, {}) if names.nested_submit_to_tax else ({}, submit)
    body = {"invoice_data": {**draft.extra, **_given(invoice | inside)}, **_given(beside)}
    return _json(body).encode()


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _wire_line(line: InvoiceLine, names: WireNames) -> dict[str, Any]:
    found = _present(line, _LINE)
    if "is_promotion" in found:
        found[names.is_promotion] = found.pop("is_promotion")
    return found


def _wire_submit_to_tax(submit: SubmitToTax, names: WireNames) -> dict[str, Any]:
    return _given(
        {
            names.emails: submit.emails or None,
            names.send_mail: submit.send_mail,
            names.automatic: submit.automatic,
        }
    )


def dump_draft(draft: InvoiceDraft) -> str:
    """Give a draft as one line of JSON under the model's own field names, `key` included; `load_draft` reads it.

    Equal digits and equal keys (`rules.canonical_key`) give equal text (names are sorted, what is None or empty is
    left out), so a digest of it identifies the content.
    The draft must be without faults (`rules.check`); `TypeError` for what JSON cannot say.
    """
    parts: dict[str, Any] = {
        "key": rules.canonical_key(draft.key),
        "invoice_template_id": draft.invoice_template_id,
        "lines": [_present(line, _LINE) for line in draft.lines],
        "consumer": None if draft.consumer is None else _present(draft.consumer, _CONSUMER),
        "payment_method": draft.payment_method,
        "has_tax_authority_code": draft.has_tax_authority_code,
        "submit_to_tax": draft.submit_to_tax and _wire_submit_to_tax(draft.submit_to_tax, _MODEL_NAMES),
        "extra": draft.extra or None,
    }
    return _json(_given(parts)).translate(_LINE_ENDS)


def encode_dumped(dump: str, *, names: WireNames = _NAMES) -> bytes | None:
    """Give the body of a draft without faults from the text that `dump_draft` wrote of it, in a tenth of the time.

    The members' texts are put under the wire's names unread, so every digit stays. None for a draft whose members
    would have to be changed for that.
    """
    members = _members(dump)
    if "extra" in members or "submit_to_tax" in members or names.is_promotion != _NAMES.is_promotion:
        return None
    wire = {
        "lines": "invoice_lines",
        "has_tax_authority_code": names.has_tax_authority_code,
        "payment_method": names.payment_method,
    }
    named = sorted([(wire.get(name, name), text) for name, text in members.items() if name != "key"])
    return f'{{"invoice_data":{{{",".join([f"{_quote(name)}:{text}" for name, text in named])}}}}}'.encode()


_read_at = json.JSONDecoder().raw_decode


def _members(dump: str) -> dict[str, str]:
    """Cut a draft's text into the texts of its members, whose names are all plain."""
    found: dict[str, str] = {}
    at = 0
    while dump[at] != "}":
        colon = dump.index(":", at)
        _, end = _read_at(dump, colon + 1)
        found[dump[at + 2 : colon - 1]] = dump[colon + 1 : end]
        at = end
    return found


def _present(owner: object, names: Iterable[str]) -> dict[str, Any]:
    return {name: value for name in names if (value := getattr(owner, name)) is not None}


_quote = json.JSONEncoder(ensure_ascii=False).encode


def _json(value: object) -> str:
    """Write one value. Not `json.dumps`: that has no exact way for a `Decimal`."""
    if isinstance(value, str):
        return _quote(value)
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, (dict, MappingProxyType, Mapping)):
        return "{" + ",".join(f"{_quote(name)}:{_json(item)}" for name, item in sorted(value.items())) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(_json, value)) + "]"
    if value is None or isinstance(value, (bool, int)):
        return _quote(value)
    raise TypeError(f"{type(value).__name__} has no exact form in JSON")


# --- in -----------------------------------------------------------------------------------------------------------


def _constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


def _reader(**options: Any) -> Callable[[str], Any]:
    return json.JSONDecoder(parse_float=Decimal, parse_int=Decimal, parse_constant=_constant, **options).decode


# `json.loads` makes a new decoder for every text when it is given options, which costs more than a short text.
_read = _reader()


def _parse(data: bytes | str, read: Callable[[str], Any] = _read) -> Any:
    """Read JSON with every number as `Decimal`. Raises `ValueError` for anything else, whatever the bytes."""
    try:
        if isinstance(data, bytes):
            data = data.decode(json.detect_encoding(data), "surrogatepass")
        elif data.startswith("\ufeff"):
            raise ValueError("begins with a byte order mark")
        return read(data)
    except (ArithmeticError, RecursionError) as error:
        raise ValueError(f"holds a number or a nesting out of all bounds ({type(error).__name__})") from None


def _object(body: bytes) -> dict[str, Any] | None:
    """The JSON object that an answer is, or None. No cause is kept: a parser's error holds the whole body."""
    found = _json_or_none(body)
    return found if isinstance(found, dict) else None


def unexpected(text: str, body: bytes, status: int | None, found: object = None) -> ProtocolError:
    """Give the error for an answer that is not as documented, with what it says and the ids that it names."""
    if found is None:
        found = _object(body)
    said = words_of(found, body)
    ids = named_ids(body, found)
    return ProtocolError(one_line(f"{text}: {said}") if said else text, head=body, status=status, request_ids=ids)


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
    """Read the answer of a submission (API.md B.1) or, with the `request_id` asked for, of a status call (B.2).

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


def _unwrapped(answer: dict[str, Any], asked: str | None) -> dict[str, Any]:
    """Look through an envelope around the answer itself, whose `data` names a request; an invoice names none."""
    data = answer.get("data")
    if not isinstance(data, dict) or "request_id" in answer or "request_id" not in data:
        return answer
    # The status of an answer about a request is that of the request, not of an envelope.
    return data if asked is None or ("status" in data and "status" not in answer) else answer


def _request(whole: dict[str, Any], asked: str | None) -> InvoiceRequest:
    if str(whole.get("success")).strip().lower() in {"false", "0"}:
        raise ValueError("the answer is an error envelope")
    answer = _unwrapped(whole, asked)
    if asked is None and answer.get("status") is None and speaks_against(whole):
        raise ValueError("the answer gives no status and speaks of an error")
    status = _status(answer, asked)
    data = _data(answer.get("data"), required=asked is not None and status == RequestStatus.SUCCESS)
    failed = status == RequestStatus.FAILED
    return InvoiceRequest(
        request_id=_request_id(answer, asked),
        status=status,
        data=data,
        reason=(words_of(whole) or None) if failed else None,
        code=(code_of(whole) or code_of(answer)) if failed else None,
        raw=whole,
    )


def _request_id(answer: dict[str, Any], asked: str | None) -> str:
    found = answer.get("request_id")
    if asked is not None and (found is None or found == asked):
        return asked  # it was judged when it was asked for
    number = canonical_id(found)
    if number is None:
        raise ValueError("the answer's request_id must be a UUID (8-4-4-4-12 hex digits)")
    if asked is not None and number != canonical_id(asked):
        raise ValueError("the answer is that of another request_id")
    return asked or number


def _status(answer: dict[str, Any], asked: str | None) -> RequestStatus | str:
    found = answer.get("status")
    if found is None:
        known = asked is not None and answer.get("data") is not None
        return RequestStatus.SUCCESS if known else RequestStatus.NEW
    said = one_line(found, _WORD_LENGTH) if isinstance(found, str) else ""
    if not said:
        raise ValueError("the answer's status must be text that is not empty")
    return _member(RequestStatus, said)


def _member(kind: type[_Enum], text: str) -> _Enum | str:
    """The member of that name in any case, or else the text as it is."""
    return kind.__members__.get(text.upper(), text)


def _data(found: object, *, required: bool) -> InvoiceData | None:
    if found is None:
        return None
    if isinstance(found, dict) and (number := canonical_id(found.get("id"))):
        return _invoice_data(number, found)
    if required:
        raise ValueError("the answer's data must be an object whose id is a UUID (8-4-4-4-12 hex digits)")
    return None


def _invoice_data(number: str, found: dict[str, Any]) -> InvoiceData:
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
    """Where an exported invoice stands (API.md B.3): NEW, BUILDING, DONE or FAIL, or a status we do not know.

    `download_url` is what the service said, if it was text: `_links` judges it.
    """

    download_url: str | None
    status: str


def decode_export(body: bytes) -> Export:
    """Read the answer of an export call (API.md B.3). Raises `ProtocolError` with the head of the body."""
    answer = _answer(body, None)
    status, url = answer.get("status"), answer.get("download_url")
    if not isinstance(status, str) or not status:
        raise unexpected("the export's status must be text that is not empty", body, None, answer)
    return Export(download_url=url if isinstance(url, str) and url.strip() else None, status=status)


@frozen(kw_only=True)
class Token:
    """A bearer token; `expires_in` is its lifetime in seconds, None if the service does not say (API.md B.4)."""

    access_token: str = field(repr=False)
    expires_in: float | None = None


def decode_token(body: bytes) -> Token:
    """Read the answer of a token call (API.md B.4); `token_type` is ignored.

    Raises `ProtocolError` without any part of the body, for it may hold a secret.
    """
    answer = _object(body)
    token = answer.get("access_token") if answer else None
    if answer is None or not isinstance(token, str) or not _HEADER_TEXT.fullmatch(token):
        raise ProtocolError("the token answer must be a JSON object with an access_token that fits a header")
    return Token(access_token=token, expires_in=_lifetime(answer.get("expires_in")))


def _lifetime(value: object) -> float | None:
    """Seconds from a number or from digits in text, which some token services send; None for anything else."""
    if isinstance(value, str) and not _SECONDS.fullmatch(value):
        return None
    if not isinstance(value, (Decimal, str)):
        return None
    seconds = float(value)
    return seconds if isfinite(seconds) and seconds >= 0 else None


# --- what an answer says of an error --------------------------------------------------------------------------------


def error_from(status: int, header: Callable[[str], str | None], body: bytes, *, now: float) -> ApiError | None:
    """Give the error that an answer declares, or None if it declares none (API.md A.1).

    An envelope with `"success": false` is that error whatever the HTTP status, 200 included: its class is chosen by
    the code, else by the status. A status of 400 or more without an envelope is an error too, with what it says; none
    of the documented codes counts there. A redirect is None too: it is not as documented, which is for the caller to
    say. `now` is epoch seconds, for a Retry-After that is a date. Never raises, whatever the bytes.
    """
    found = _json_or_none(body)
    envelope = found if isinstance(found, dict) and found.get("success") is False else None
    if envelope is None and status < 400:  # noqa: PLR2004 - the first error status of HTTP
        return None
    declared = _part(envelope or {}, "error")
    details = _part(declared, "details")
    code, said = code_of(found), words_of(found, body)
    if code in CODES and code != declared.get("code"):
        # Only the envelope declares a code; the same word anywhere else may be a gateway's own.
        said, code = f"{code}: {said}", None
    kind = CODES.get(code or "") or STATUSES.get(status, ApiError)
    return kind(
        said or ("" if envelope is not None else f"the service answered {status} without an error envelope"),
        status=status,
        code=code,
        request_id=None if envelope is None else shown(envelope.get("requestId")),
        hint=shown(details.get("hint"), LINE_LIMIT),
        context=_part(details, "context"),
        retry_after=retry_after(header, now=now),
        answer=body,
        request_ids=named_ids(body, found),
        submitted_before=says_submitted(found, said, code, body),
        bare=not isinstance(found, (dict, list)),
        clock_ahead=_clock_ahead(header, now),
    )


def _json_or_none(body: bytes) -> Any:
    try:
        return read_answer(body)
    except ValueError:
        return None


def _part(owner: dict[str, Any], name: str) -> dict[str, Any]:
    value = owner.get(name)
    return value if isinstance(value, dict) else {}


def retry_after(header: Callable[[str], str | None], *, now: float) -> float | None:
    """Seconds that the answer asks to wait by its Retry-After, never below 0; None without one that can be read.

    A date is taken relative to the answer's own Date, so that this machine's clock does not matter; to `now`
    (epoch seconds) if there is none.
    """
    text = (header("Retry-After") or "").strip()
    if _SECONDS.fullmatch(text):
        seconds = float(text)
        return max(0.0, seconds) if isfinite(seconds) else None
    until = _epoch(text)
    if until is None:
        return None
    base = _epoch(header("Date") or "")
    return max(0.0, until - (now if base is None else base))


def _clock_ahead(header: Callable[[str], str | None], now: float) -> float | None:
    """Seconds by which `now` is ahead of the answer's Date, which is cut to whole seconds; None without one."""
    date = _epoch(header("Date") or "")
    return None if date is None else now - (date + 0.5)


def _epoch(text: str) -> float | None:
    """Epoch seconds of an HTTP date in any of its three forms; a date without a zone is in UTC."""
    try:
        found: datetime = parsedate_to_datetime(text)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


# --- drafts as JSON ---------------------------------------------------------------------------------------------------

_KINDS: Mapping[type, str] = {
    NoneType: "null",
    bool: "true or false",
    str: "text",
    Decimal: "a number",
    list: "a list",
    dict: "an object",
}
"""Everything `_parse` can give, in the words of JSON."""


def _wrong(needed: str, value: object) -> TypeError:
    return TypeError(f"must be {needed}, not {_KINDS[type(value)]}")


def _exactly(kind: type) -> _Hook:
    """Make a hook that takes one JSON type and converts nothing: cattrs of itself would make text of null."""

    def hook(value: Any, _: Any) -> Any:
        if type(value) is not kind:
            raise _wrong(_KINDS[kind], value)
        return value

    return hook


def _exact_number(value: Any, _: Any) -> Decimal:
    if isinstance(value, str) and _JSON_NUMBER.fullmatch(value):
        return Decimal(value)
    if not isinstance(value, Decimal):
        raise _wrong("a number, or one written as text", value)
    return value


def _one_of(kind: type[StrEnum]) -> _Hook:
    def hook(value: Any, _: Any) -> StrEnum:
        if not isinstance(value, str) or value not in kind.__members__:
            shown = repr(value[:40]) if isinstance(value, str) else _KINDS[type(value)]
            raise TypeError(f"must be one of {', '.join(kind)}, not {shown}")
        return kind[value]

    return hook


def _list_of(items: Any, converter: Converter) -> _Hook:
    def hook(value: Any, _: Any) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise _wrong("a list", value)
        return tuple(converter.structure(value, items))

    return hook


def _model(kind: Any, converter: Converter) -> _Hook:
    structure: _Hook = make_dict_structure_fn(
        kind, converter, _cattrs_forbid_extra_keys=True, _cattrs_detailed_validation=True
    )

    def hook(value: Any, expected: Any) -> Any:
        if not isinstance(value, dict):
            raise _wrong("an object", value)
        return structure(value, expected)

    return hook


def _strict_converter() -> Converter:
    converter = Converter(detailed_validation=True, forbid_extra_keys=True)
    classes: dict[type, _Hook] = {
        str: _exactly(str),
        bool: _exactly(bool),
        Decimal: _exact_number,
        VatRate: _one_of(VatRate),
        PaymentMethod: _one_of(PaymentMethod),
    }
    for kind, hook in classes.items():
        converter.register_structure_hook(kind, hook)
    generics: dict[Any, _Hook] = {
        tuple[str, ...]: _list_of(list[str], converter),
        tuple[InvoiceLine, ...]: _list_of(list[InvoiceLine], converter),
        Mapping[str, Any]: _exactly(dict),
    }
    converter.register_structure_hook_factory(lambda kind: kind in generics, lambda kind: generics[kind])
    converter.register_structure_hook_factory(is_attrs, lambda kind: _model(kind, converter))
    return converter


_STRICT = _strict_converter()


def load_draft(
    data: bytes | str, *, path: str = "", names: WireNames = _NAMES, rounding: Decimal | None = None
) -> InvoiceDraft:
    """Read a draft from JSON: one object under the model's field names; `invoice_lines` may stand for `lines`.

    An object with `invoice_data` is read as the service's own (API.md B.1), with `key` and `submit_to_tax_request`
    beside it, under the wire's `names`; fields of `invoice_data` that the library does not know go to `extra`.
    Numbers are exact and may be written as text. An unknown or repeated field, a wrong type and a broken limit
    are faults; they are reported together, each with its path below `path`, such as `[12].lines[0].price`.
    `rounding` is the unit to which amounts may have been rounded. Raises `DraftError`.
    """
    document = _document(data, path)
    if INVOICE_DATA in document:
        return _load_wire(document, path, names, rounding)
    if "invoice_lines" in document and "lines" not in document:
        document["lines"] = document.pop("invoice_lines")
    draft, found = _structured(document, path, names, rounding)
    if draft is None or found:
        raise _draft_error(document, found)
    return draft


def _structured(
    document: dict[str, Any], path: str, names: WireNames, rounding: Decimal | None
) -> tuple[InvoiceDraft | None, tuple[Fault, ...]]:
    """Give the draft, unless a type is wrong, and every fault."""
    try:
        draft: InvoiceDraft = _STRICT.structure(document, InvoiceDraft)
    except ClassValidationError as error:
        types = tuple(_type_faults(error, path))
        loose = _loose_draft(document)
        limits = rules.faults(loose, prefix=path, reserved=names.reserved, rounding=rounding)
        return None, (*types, *_not_below(limits, types))
    return draft, rules.faults(draft, prefix=path, reserved=names.reserved, rounding=rounding)


def _draft_error(document: dict[str, Any], faults: tuple[Fault, ...]) -> DraftError:
    key = document.get("key")
    return DraftError(faults, key=key if isinstance(key, str) else "")


def _document(data: bytes | str, path: str) -> dict[str, Any]:
    try:
        document = _parse(data, _read_once)
    except ValueError as error:
        raise DraftError((Fault(path or "draft", f"is not JSON: {error}"),)) from None
    if not isinstance(document, dict):
        raise DraftError((Fault(path or "draft", str(_wrong("an object", document))),))
    return document


def _load_wire(document: dict[str, Any], path: str, names: WireNames, rounding: Decimal | None) -> InvoiceDraft:
    """Read the service's own object with a key beside it. Raises `DraftError` with the paths of that object."""
    where = f"{path}." if path else ""
    strange = sorted({*document} - {"key", INVOICE_DATA, SUBMIT_TO_TAX})
    found = [Fault(rules.step(where, name), "is not a field that is known here") for name in strange]
    if not isinstance(document[INVOICE_DATA], dict):
        found.append(Fault(where + INVOICE_DATA, str(_wrong("an object", document[INVOICE_DATA]))))
        raise _draft_error(document, tuple(found))
    if names.nested_submit_to_tax and SUBMIT_TO_TAX in document:
        found.append(Fault(where + SUBMIT_TO_TAX, "must stand in invoice_data (nested_submit_to_tax)"))
    draft, faults = _structured(modelled(document, names), "", names, rounding)
    found += [Fault(where + wire_path(fault.path, names), fault.message) for fault in faults]
    if draft is None or found:
        raise _draft_error(document, tuple(found))
    return draft


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse an object that has one name twice: parsers disagree about which of the two counts."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the field {rules.step('', twice)} stands twice in one object")
    return found


_read_once = _reader(object_pairs_hook=_once)


def _type_faults(error: ClassValidationError | IterableValidationError, path: str) -> Iterator[Fault]:
    """Walk cattrs' tree of errors and give each leaf with its path."""
    noted, others = error.group_exceptions()
    for inner, note in noted:
        yield from _leaf(inner, _below(path, note))
    unknown = {name for inner in others if isinstance(inner, ForbiddenExtraKeysError) for name in inner.extra_fields}
    for name in sorted(unknown):
        yield Fault(rules.step(f"{path}." if path else "", name), "is not a field that is known here")


def _below(path: str, note: Any) -> str:
    if isinstance(note, IterableValidationNote):
        return f"{path}[{note.index}]"
    return f"{path}.{note.name}" if path else str(note.name)


def _leaf(error: Exception, path: str) -> Iterator[Fault]:
    if isinstance(error, (ClassValidationError, IterableValidationError)):
        yield from _type_faults(error, path)
    else:
        yield Fault(path, "is required" if isinstance(error, KeyError) else str(error))


def _loose_draft(document: dict[str, Any]) -> InvoiceDraft:
    """Build a draft from what is there, wrong types included, so that the limits of the rest can be checked."""
    known: dict[str, Any] = _known(InvoiceDraft, document)
    known["consumer"] = _loose(Consumer, known.get("consumer"))
    known["submit_to_tax"] = _loose(SubmitToTax, known.get("submit_to_tax"))
    if isinstance(lines := known["lines"], list):
        known["lines"] = [_loose(InvoiceLine, line) for line in lines]
    return unchecked(InvoiceDraft, **known)


def _loose(kind: type[Any], value: Any) -> Any:
    return unchecked(kind, **_known(kind, value)) if isinstance(value, dict) else value


def _known(kind: type, value: dict[str, Any]) -> dict[str, Any]:
    """The fields of a model that an object has, with None for a required one that it lacks."""
    names = fields_dict(kind)
    required = {name: None for name, attribute in names.items() if attribute.default is NOTHING}
    return required | {name: value[name] for name in names if name in value}


def _not_below(faults: Iterable[Fault], known: Iterable[Fault]) -> Iterator[Fault]:
    """Leave out what a type fault explains already: the same path, or one inside it."""
    above = tuple(fault.path for fault in known)
    for fault in faults:
        if not any(fault.path == path or fault.path.startswith((f"{path}.", f"{path}[")) for path in above):
            yield fault
