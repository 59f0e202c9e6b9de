"""What the services say to calls that can do no harm, and what to change if they refuse them.

- Service A is asked, signed as every call is, for the invoice of an order whose id is all zeros (README A.1): there is
  none, so nothing is made. If the signature is refused, the other readings of what the documents leave open
  (README A.2) are tried, and the one that passes is named.
- Service B is asked for a token (README B.4), and what became of a request whose id is all zeros (README B.2). Nothing
  is submitted, so the JSON names of a draft, which are open too, are not proved by it.

An answer that a service gives whether or not it looked at the credential (SYS_DEP_503, 429, 5xx) proves nothing: the
call is made again a few times, and what is still not proved then is not called right.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Literal, TypeAlias

from attrs import evolve

from ..auth import OAuthClientCredentials, SigningRules
from ..clock import RealClock
from ..documents import OrderDocuments
from ..errors import (
    ApiError,
    AuthenticationError,
    InvoicingError,
    OrderStatusError,
    PermissionDeniedError,
    RateLimitError,
    ServiceUnavailableError,
    TransportError,
    hints_of,
)
from ..policies import RetryPolicy
from ..transport import Transport
from ._checks import Finding, Grade
from ._settings import Settings
from ._variables import DOCUMENTS, INVOICES, Service

__all__ = ["NOBODYS", "call_documents", "call_invoices"]

_Call: TypeAlias = Literal["signed call", "token", "status call"]

NOBODYS = "00000000-0000-0000-0000-000000000000"
"""The id of no order and no request."""

ONCE = RetryPolicy(attempts=1, deadline=15)
_ABSENT = frozenset({404, 405, 410, 501})
"""Statuses that nobody may have said, if no code stands beside them."""
_LOOKED_FOR = frozenset({404, 409, 410, 422})
"""Statuses that, with a code beside them, are said of what was asked for, by one who looked for it."""
_BROKEN = range(500, 600)
"""Statuses of a service, or a gateway, that broke off."""
WAITS = (1.0, 2.0)
"""Seconds before a call is made again that was answered for the moment only."""
AGAIN = "Try again later: the credential may be right or wrong."
NOT_TOLD = "Try again later: whether another prefix or path is accepted could not be told, the service is down."
KEYS = (
    "No other prefix or path is known to be accepted, so look at the keys: compare "
    "INVOICING_DOCUMENTS_PARTNER_CLIENT_ID, SECRET_KEY, STORE_CLIENT_ID and STORE_TOKEN with what the service gave "
    "you, for this base URL; `invoicing-async sign` shows every stage of a signature for its support."
)

_clock = RealClock()


async def call_documents(settings: Settings, transport: Transport) -> list[Finding]:
    """Ask service A, signed, for the invoice of an order that cannot exist, and say what came of it."""
    rules = settings.rules()
    path = "full path" if rules.full_path else "path below the base URL"
    sent = f"POST …/orders/{NOBODYS}/documents/invoice, signed with the prefix {rules.prefix!r} and the {path}"
    error = await _settled("signed call", settings, transport)
    if not isinstance(error, AuthenticationError):
        return [_judged(DOCUMENTS, "signed call", sent, error)]
    untold = False
    for variables in _other_signatures(settings):
        other = evolve(settings, values={**settings.values, **variables})
        answer = await _settled("signed call", other, transport)
        untold |= _is_for_now(answer)
        if _passed(DOCUMENTS, answer):
            changes = " and ".join(f"{name}={value}" for name, value in variables.items())
            return [_refused(sent, error, f"Set {changes}: signed so, the same call passed.")]
    return [_refused(sent, error, NOT_TOLD if untold else KEYS)]


async def call_invoices(settings: Settings, transport: Transport) -> list[Finding]:
    """Ask service B for a token, and with it what became of a request that cannot exist; say what came of both."""
    found: list[Finding] = []
    if isinstance(settings.invoices().auth, OAuthClientCredentials):
        error = await _settled("token", settings, transport)
        if error is not None:
            return [_judged_token(error)]
        found.append(Finding(INVOICES.title, "token", "ok", "the client is accepted"))
    refusal = await _settled("status call", settings, transport)
    at = settings.endpoints()
    judged = _judged(INVOICES, "status call", f"{at.status_method} {at.status.format(NOBODYS)}", refusal)
    if judged.grade == "bad" and _is_nobodys(refusal):
        name = f"{INVOICES.prefix}ENDPOINTS"
        method = f"status_method={'GET' if at.status_method == 'POST' else 'POST'}"
        endpoints = ",".join(filter(None, (settings.values.get(name), method)))
        other = evolve(settings, values={**settings.values, name: endpoints})
        if _passed(INVOICES, await _settled("status call", other, transport)):
            judged = evolve(judged, hint=f"Set {name}={endpoints}: asked so, the same call passed.")
    note = "not proved by any call that changes nothing: submit one draft where it does no harm, and look at it there"
    return [*found, judged, Finding(INVOICES.title, "JSON names", "note", note)]


def _other_signatures(settings: Settings) -> Iterator[dict[str, str]]:
    """Yield the variables of the other readings of the documents, those that change one thing first."""
    names = (f"{DOCUMENTS.prefix}SIGNATURE_PREFIX", f"{DOCUMENTS.prefix}SIGN_FULL_PATH")
    rules = settings.rules()
    now = (rules.prefix, str(rules.full_path).lower())
    changes = (
        {name: value for name, value, old in zip(names, values, now, strict=True) if value != old}
        for values in product(dict.fromkeys((SigningRules().prefix, "")), ("false", "true"))
    )
    yield from sorted(filter(None, changes), key=len)


async def _settled(call: _Call, settings: Settings, transport: Transport) -> InvoicingError | None:
    """Make a call until its answer is one that will stay, a few times at most; return what was raised last, if any."""
    refusal = await _refusal(call, settings, transport)
    for wait in WAITS:
        if not _is_for_now(refusal):
            break
        await _clock.sleep(wait)
        refusal = await _refusal(call, settings, transport)
    return refusal


async def _refusal(call: _Call, settings: Settings, transport: Transport) -> InvoicingError | None:
    """Ask for the invoice of no order, for a token, or what became of no request; return what was raised, if any."""
    start = settings.documents if call == "signed call" else settings.invoices
    try:
        async with start(retry=ONCE, transport=transport) as session:
            if call == "token":
                await session.auth.prepare(session.call, _clock)
            elif call == "status call":
                await settings.e_invoices(session).status(NOBODYS)
            else:
                async with OrderDocuments(session).open(NOBODYS):
                    pass
    except InvoicingError as error:
        return error
    return None


def _is_nobodys(error: InvoicingError | None) -> bool:
    """Tell whether nobody is at the address: a status that a gateway or a web framework gives by itself."""
    return isinstance(error, ApiError) and error.status in _ABSENT and error.code is None


def _is_for_now(error: InvoicingError | None) -> bool:
    """Tell whether an answer may be another in a moment, and so says nothing of who was asking."""
    if isinstance(error, ServiceUnavailableError | RateLimitError):
        return True
    return isinstance(error, ApiError) and error.status in _BROKEN and not _is_nobodys(error)


def _judged(service: Service, subject: str, sent: str, error: InvoicingError | None) -> Finding:
    """Say what an answer to a call for something that is not there means for the settings."""
    if isinstance(error, AuthenticationError):
        return _refused(sent, error, f"Is the credential one for this {service.prefix}BASE_URL?", service, subject)
    if isinstance(error, ApiError):
        grade, means, hint = _meant(service, error)
    elif error is None:
        grade, means, hint = "ok", "accepted; it was answered as if there were such a thing", ""
    elif isinstance(error, TransportError):
        grade, means, hint = "bad", "no whole answer", " ".join(hints_of(error))
    else:
        grade, means = "bad", "not the service's answer"
        hint = f"Something else is at {service.prefix}BASE_URL, such as a sign-in page: look at it in a browser."
    said = "" if error is None else f" ({_said(error)})"
    return Finding(service.title, subject, grade, f"{means}{said}; sent: {sent}", hint=hint)


def _passed(service: Service, error: InvoicingError | None) -> bool:
    """Tell whether the service itself answered and knew the caller: no answer, or a gateway's, proves nothing."""
    if isinstance(error, PermissionDeniedError):
        return True
    if isinstance(error, AuthenticationError) or not (error is None or isinstance(error, ApiError)):
        return False
    return error is None or _meant(service, error)[0] == "ok"


def _meant(service: Service, error: ApiError) -> tuple[Grade, str, str]:
    """Return the grade of an error answer, what it means, and what to do."""
    if isinstance(error, PermissionDeniedError):
        return "bad", "known, but not allowed to do this", error.hint
    if _is_for_now(error):
        return "bad", _not_proved(error), AGAIN
    if _is_nobodys(error):
        begins = "/partner" if service is DOCUMENTS else "/v2"
        hint = f"{service.prefix}BASE_URL has the path up to where {begins} begins."
        rest = " INVOICING_INVOICES_ENDPOINTS changes the rest." if service is INVOICES else ""
        return "bad", "nobody is at that address", hint + rest
    if isinstance(error, OrderStatusError) or (error.code is not None and error.status in _LOOKED_FOR):
        return "ok", "accepted; what was asked for is not there, as it should be", ""
    hint = f"Is it for the id, which is of nothing, then ask for one that there is; else {service.prefix}… is wrong."
    return "note", "not proved, it was refused for another reason than the credential, which may come first", hint


def _not_proved(error: InvoicingError) -> str:
    """Say why an answer for the moment leaves open whether the credential is right."""
    return f"not proved, {'too many calls just now' if isinstance(error, RateLimitError) else 'the service is down'}"


def _refused(
    sent: str, error: InvoicingError, hint: str, service: Service = DOCUMENTS, subject: str = "signed call"
) -> Finding:
    return Finding(service.title, subject, "bad", f"refused ({_said(error)}); sent: {sent}", hint=hint)


def _said(error: InvoicingError) -> str:
    return f"it said: {error}" if isinstance(error, ApiError) else str(error)


def _judged_token(error: InvoicingError) -> Finding:
    """Say which of the variables the refusal of a token speaks of (README B.4, RFC 6749 5.2)."""
    prefix, status, text = INVOICES.prefix, getattr(error, "status", None), str(error)
    if _is_for_now(error):
        text, hint = f"{_not_proved(error)} ({_said(error)})", AGAIN
    elif status == 401:  # noqa: PLR2004 - Unauthorized
        hint = f"The client is not known: compare {prefix}CLIENT_ID and CLIENT_SECRET, and is this their BASE_URL?"
    elif status == 400:  # noqa: PLR2004 - Bad Request
        hint = f"The client is known and may not have this: compare {prefix}TENANT_CONNECTION_CODE and SCOPE."
    elif isinstance(error, TransportError):
        hint = " ".join(hints_of(error))
    else:
        hint = f"Nobody gives tokens there: {prefix}BASE_URL has the path up to where /v2 begins, TOKEN_PATH the rest."
    return Finding(INVOICES.title, "token", "bad", text, hint=hint)
