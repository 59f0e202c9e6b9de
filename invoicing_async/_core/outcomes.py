"""What every answer to a submission means: one table, read from above, and the few rules that follow from it.

The service has no idempotency key (README B.1), so the table errs to one side: only what the documents declare, and
the statuses by which HTTP itself says that a request was not carried out, prove that no invoice was made. Whether a
request left this machine at all is not asked here: that is `error.sent`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import Enum

from attrs import frozen

from ..errors import (
    CODES,
    ApiError,
    IncompleteDocumentError,
    InvoicingError,
    OversizedDocumentError,
    ServiceUnavailableError,
    TransportError,
)
from .http import Repeat

__all__ = ["OUTCOMES", "Fate", "Outcome", "Shape", "fate", "may_repeat", "outcome", "table"]


class Fate(Enum):
    """What a failed submission means for the invoice."""

    NOT_SENT = "not sent"
    """Its first byte never left: no invoice, safe to send again."""
    REFUSED_FOR_NOW = "refused for now"
    """The service declared that it did not take it this time: no invoice, safe to send again."""
    REJECTED = "rejected"
    """The service declared the draft itself at fault: no invoice, sending it again changes nothing."""
    IN_DOUBT = "in doubt"
    """It may exist: never to be sent again before that is settled."""


class Shape(Enum):
    """What the body of an answer to a submission is, as far as its meaning depends on it."""

    SUCCESS = "the documented success"
    """It names a request id and, if any, a status (README B.1)."""
    KNOWN = "names a request, or says that it was submitted before"
    """It is no success, but somebody knows this invoice already."""
    BARE = "no JSON"
    """A page of a gateway, a few words, nothing: it says nothing of the draft."""
    OTHER = "anything else"
    """An error envelope, or JSON of any kind."""


@frozen(kw_only=True)
class Outcome:
    """One row: the answers that it is for, what they mean, and why.

    None for `statuses` or `code` matches any. `fate` is None where the invoice was accepted; `again` is true if the
    library itself sends the draft again, as its retry policy says. `answer`, `reason` and `human` are for people.
    """

    answer: str
    fate: Fate | None
    reason: str
    human: str
    statuses: frozenset[int] | None = None
    code: str | None = None
    shapes: frozenset[Shape] = frozenset(Shape)
    again: bool = False

    def matches(self, status: int, code: str | None, shape: Shape) -> bool:
        """Tell whether the row is for such an answer."""
        if self.statuses is not None and status not in self.statuses:
            return False
        return (self.code is None or self.code == code) and shape in self.shapes


_TEMPORARY = next(code for code, kind in CODES.items() if kind is ServiceUnavailableError)
_CORRECT = "correct the draft, then `runs retry`"
_SETTINGS = "correct the setting, then `runs retry`"
_LOOK = "look the invoice up at the service, then `runs resolve`"


def _refusal(status: int, name: str, reason: str, human: str) -> Outcome:
    return Outcome(
        answer=f"{status} {name}", fate=Fate.REJECTED, reason=reason, human=human, statuses=frozenset({status})
    )


def _doubt(answer: str, statuses: Iterable[int] | None, reason: str, human: str = _LOOK) -> Outcome:
    found = None if statuses is None else frozenset(statuses)
    return Outcome(answer=answer, fate=Fate.IN_DOUBT, reason=reason, human=human, statuses=found)


OUTCOMES: tuple[Outcome, ...] = (
    Outcome(
        answer="2xx with the documented success: a `request_id` that is a UUID, its `status` known, unknown or missing",
        fate=None,
        reason="the request is known by its id; without a status it counts as NEW, and polling tells",
        human="nothing",
        statuses=frozenset(range(200, 300)),
        shapes=frozenset({Shape.SUCCESS}),
    ),
    Outcome(
        answer=f"the error envelope with code `{_TEMPORARY}`, whatever the status",
        fate=Fate.REFUSED_FOR_NOW,
        reason="the documents declare it: a dependency is down, nothing was made, try again",
        human="nothing; when the retries are spent, `runs resume` later",
        code=_TEMPORARY,
        again=True,
    ),
    Outcome(
        answer="429 Too Many Requests",
        fate=Fate.REFUSED_FOR_NOW,
        reason="turned away at the door because of its pace, and `Retry-After` says when to come back",
        human="nothing; when the retries are spent, `runs resume` later, with a lower pace",
        statuses=frozenset({429}),
        again=True,
    ),
    Outcome(
        answer="401 Unauthorized",
        fate=Fate.REFUSED_FOR_NOW,
        reason="the credential was not accepted, so nothing was carried out; it is renewed and tried once more",
        human="check the credential, then `runs resume`",
        statuses=frozenset({401}),
    ),
    Outcome(
        answer="any other answer that names a request, or says that the invoice was submitted before",
        fate=Fate.IN_DOUBT,
        reason="the invoice may be the one that the answer speaks of; the id it named and its words are kept",
        human="look that id up (`invoices status ID`), then `runs resolve` with it",
        shapes=frozenset({Shape.KNOWN, Shape.SUCCESS}),
    ),
    Outcome(
        answer="403, 404, 405, 410 bare: a page, a few words or nothing, no JSON",
        fate=Fate.REFUSED_FOR_NOW,
        reason="nobody took it, and not for anything in the draft: the address or a right is at fault, or an outage",
        human="correct the setting or wait, then `runs resume`",
        statuses=frozenset({403, 404, 405, 410}),
        shapes=frozenset({Shape.BARE}),
    ),
    _refusal(400, "Bad Request", "the service judged the draft and did not take it", _CORRECT),
    _refusal(
        403,
        "Forbidden",
        "the credential may not do this, so nothing was carried out",
        "get the right, then `runs retry`",
    ),
    _refusal(404, "Not Found", "nobody is at that address, so nobody took it", _SETTINGS),
    _refusal(405, "Method Not Allowed", "the address takes no submissions, so nobody took it", _SETTINGS),
    _refusal(410, "Gone", "the address is given up, so nobody took it", _SETTINGS),
    _refusal(411, "Length Required", "refused before the body was read", "ask who runs the gateway, then `runs retry`"),
    _refusal(
        413, "Content Too Large", "refused for its length, before it was read", "split the invoice, or ask for more"
    ),
    _refusal(414, "URI Too Long", "refused for its address, before it was read", _SETTINGS),
    _refusal(415, "Unsupported Media Type", "refused for its kind, before it was read", _SETTINGS),
    _refusal(422, "Unprocessable Content", "the service read the draft and did not take it", _CORRECT),
    _refusal(431, "Request Header Fields Too Large", "refused for its headers, before it was read", _SETTINGS),
    _doubt(
        "any other 2xx: an error envelope with another code or none, a page, no JSON, no request id, nothing",
        range(200, 300),
        "something took it and did not say what became of it",
    ),
    _doubt("3xx", range(300, 400), "a redirect is not documented and says nothing of what was done before it"),
    _doubt("408 Request Timeout", {408}, "a gateway's words for having waited too long; the service may have it"),
    _doubt("409 Conflict", {409}, "it may be there already", "look the invoice up: it is likely there; `runs resolve`"),
    _doubt("421, 425", {421, 425}, "a gateway asks for another attempt without saying what became of this one"),
    _doubt(
        "499 and other statuses of proxies (444, 460)",
        {444, 460, 499},
        "a proxy saw this side go; the service may have it",
    ),
    _doubt("any other 4xx", range(400, 500), "no document says that nothing was made"),
    _doubt(
        "502, 503, 504 bare, as a page, or with any other code",
        {502, 503, 504},
        "a gateway gave up waiting; the service behind it may have gone on",
    ),
    _doubt("any other 5xx, with or without an envelope", range(500, 600), "the service broke off, nobody knows where"),
    _doubt(
        "no whole answer (silence, a cut connection, a time-out once the first byte left), or an unknown status",
        None,
        "it left, and nothing says what became of it",
    ),
)
"""Every answer, the first row that matches counts."""


def outcome(status: int, code: str | None, shape: Shape) -> Outcome:
    """Return the row for an answer to a submission: its HTTP status, its envelope's code and its body's shape."""
    return next(row for row in OUTCOMES if row.matches(status, code, shape))


def of_error(error: ApiError) -> Outcome:
    """Return the row for an answer that became an error."""
    shape = Shape.KNOWN if error.submitted_before else Shape.BARE if error.bare else Shape.OTHER
    return outcome(error.status, error.code, shape)


def fate(error: InvoicingError) -> Fate:
    """Tell what the failure of a submission means: pure, and the one place where it is decided (README B.1).

    What provably never left was not sent; what an answer means stands in `OUTCOMES`. Silence, and an answer that is
    not as documented, leave the invoice in doubt.
    """
    if error.sent == "no":
        return Fate.NOT_SENT
    if isinstance(error, ApiError):
        return of_error(error).fate or Fate.IN_DOUBT
    return Fate.IN_DOUBT


REPEATABLE = frozenset({408, 421, 425, 429, 500, 502, 503, 504, 507, *range(520, 525), 529, 530})
"""The statuses after which a request that does no harm twice is sent again: each says that another time may be well."""


def may_repeat(error: BaseException, repeat: Repeat) -> bool:
    """Tell whether the request that ended in `error` may be sent again: the retry rule, pure.

    A request that may always be repeated is, after a lost or broken answer and while the service or its gateway is
    unwell. One that may not is only after a failure that provably came before its first byte, or after an answer
    whose row in `OUTCOMES` says so. A document beyond `max_bytes` would be as long again.
    """
    always = repeat is Repeat.ALWAYS
    match error:
        case ApiError():
            return of_error(error).again or (always and error.status in REPEATABLE and not error.declared)
        case OversizedDocumentError():
            return False
        case TransportError():
            return always or error.sent == "no"
        case IncompleteDocumentError():
            return always
        case _:
            return False


_HAPPENS = {
    None: "**accepted**",
    Fate.NOT_SENT: "**not sent**: no invoice",
    Fate.REFUSED_FOR_NOW: "**refused for now**: no invoice",
    Fate.REJECTED: "**rejected**: no invoice",
    Fate.IN_DOUBT: "**in doubt**: never sent again by itself",
}


def table() -> str:
    """Render `OUTCOMES` as a table in Markdown, for the README."""
    return "\n".join(_rows())


def _rows() -> Iterator[str]:
    yield "| answer | what it means | why | what you do |"
    yield "|---|---|---|---|"
    not_sent = "it provably never left: no connection, no name, no credential"
    yield f"| none | {_HAPPENS[Fate.NOT_SENT]}; sent again | {not_sent} | nothing, or `runs resume` |"
    for row in OUTCOMES:
        again = "; sent again" if row.again else ""
        yield f"| {row.answer} | {_HAPPENS[row.fate]}{again} | {row.reason} | {row.human} |"
