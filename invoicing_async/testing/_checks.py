"""What the assertions of a `RecordingSandbox` find, as lines for people; nothing found is nothing wrong."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ..sandbox import CREDENTIAL_HEADERS, Created, Operation
from ._requests import FINAL, RecordedRequest

__all__ = ["content_of", "duplicates", "named", "unsettled", "unsigned"]

MOST_LISTED = 20


def listed(lines: Iterable[str]) -> str:
    """Show some lines below each other, and how many more there are."""
    found = list(lines)
    more = [f"and {len(found) - MOST_LISTED:,} more"] if len(found) > MOST_LISTED else []
    return "".join(f"\n  {line}" for line in [*found[:MOST_LISTED], *more])


def unsigned(requests: Sequence[RecordedRequest]) -> list[str]:
    """Return a line for each request whose credential was not accepted, and each credential that went astray.

    A refusal that the same request did not meet again is none: a token was renewed, or a clock set right.
    """
    accepted = {_same(request): number for number, request in enumerate(requests) if not request.objection}
    refused = [
        f"{request} ({request.objection})"
        for number, request in enumerate(requests)
        if request.objection and accepted.get(_same(request), -1) < number
    ]
    astray = [
        f"{request} (a download link got {', '.join(found)})"
        for request in requests
        if request.operation is Operation.FILE
        if (found := [name for name in CREDENTIAL_HEADERS if name in request.headers])
    ]
    return refused + astray


def _same(request: RecordedRequest) -> tuple[object, ...]:
    return request.operation, request.method, request.path, request.query, request.body


def content_of(invoice: Created) -> object:
    """Return the content of a draft as a value that is the same for the same content, and can be looked up."""
    return _fixed(invoice.content)


def _fixed(value: Any) -> object:
    if isinstance(value, Mapping):
        return frozenset((name, _fixed(each)) for name, each in value.items())
    if isinstance(value, list | tuple):
        return tuple(map(_fixed, value))
    return type(value) is bool, value  # True is 1 to Python, and not in JSON


def duplicates(created: Iterable[Created], key: Callable[[Created], object]) -> list[str]:
    """Return a line for each draft of which several e-invoices were made."""
    made: defaultdict[object, list[Created]] = defaultdict(list)
    for invoice in created:
        made[key(invoice)].append(invoice)
    return [
        f"{named(invoices[0])}: {len(invoices)} e-invoices, requests {', '.join(each.request_id for each in invoices)}"
        for invoices in made.values()
        if len(invoices) > 1
    ]


def unsettled(created: Mapping[str, Created], requests: Iterable[RecordedRequest]) -> list[str]:
    """Return a line for each e-invoice whose end its caller was not told."""
    told: dict[str, str] = {}
    for request in requests:
        if request.told and told.get(request.told[0]) not in FINAL:
            told[request.told[0]] = request.told[1]
    return [
        f"{named(invoice)}: request {request_id} {_so_far(told.get(request_id))}"
        for request_id, invoice in created.items()
        if told.get(request_id) not in FINAL
    ]


def _so_far(status: str | None) -> str:
    if status is None:
        return "was made, but no answer named it: the submission is in doubt"
    return f"was last told to be {status}: nobody waited for its end"


def named(invoice: Created) -> str:
    """Name an e-invoice by what its draft says of the buyer and the lines."""
    content = invoice.content.get("invoice_data", {})
    consumer: Mapping[str, Any] = content.get("consumer") or {}
    buyer = next((consumer[name] for name in ("code", "name", "buyer_name", "tax_code") if consumer.get(name)), None)
    lines = [str(line.get("name")) for line in content.get("invoice_lines", ())]
    return f"the draft for {buyer or 'no named buyer'} ({', '.join(lines[:3])})"
