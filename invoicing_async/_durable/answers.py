"""What an answer of the service means for an item of a run."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from attrs import frozen

from .._einvoices.decode import decode_request
from ..errors import ProtocolError
from ..models import InvoiceRequest, RequestStatus, Unsettled
from .records import Item
from .states import Event, State

__all__ = [
    "ACCEPTED",
    "End",
    "RecordedAnswer",
    "authority_status",
    "recorded_answer",
    "recorded_request",
    "result_text",
]

ACCEPTED: Mapping[str, Event] = {
    RequestStatus.SUCCESS: Event.ACCEPTED_SUCCESS,
    RequestStatus.FAILED: Event.ACCEPTED_FAILED,
}


End = InvoiceRequest | Unsettled

_AUTHORITY = re.compile(r'"authority_status":"([A-Za-z_]{1,40})"')
"""The tax authority's status in a recorded answer; inside a text of it the quotes would be escaped."""


def result_text(request: InvoiceRequest) -> str | None:
    """Return the service's last word as JSON text, numbers as text with their digits."""
    if not request.terminal:
        return None
    try:
        return json.dumps(dict(request.raw), ensure_ascii=False, default=str, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError):
        # Whatever it is, the request's id and status are known and must not be lost for it.
        return None


@frozen
class RecordedAnswer:
    """What a submission in doubt was answered: the status, the request ids that the answer names, and its head."""

    status: int | None = None
    request_ids: tuple[str, ...] = ()
    text: str | None = None


def recorded_answer(item: Item) -> RecordedAnswer:
    """Read the answer that left an item in doubt; an empty one if none came or the item is not in doubt."""
    try:
        found = json.loads(item.result or "null") if item.state in {State.IN_DOUBT, State.SENDING} else None
    except ValueError:  # not ours
        found = None
    if not isinstance(found, dict):
        return RecordedAnswer()
    status, ids, text = found.get("status"), found.get("request_ids"), found.get("answer")
    return RecordedAnswer(
        status if isinstance(status, int) else None,
        tuple(map(str, ids)) if isinstance(ids, list) else (),
        str(text) if text else None,
    )


def recorded_request(item: Item) -> InvoiceRequest | None:
    """Read what the service last said of an e-invoice; None where nothing is recorded, or it is in doubt."""
    if item.result is None or item.request_id is None or item.state in {State.IN_DOUBT, State.SENDING}:
        return None
    try:
        return decode_request(item.result.encode(), request_id=item.request_id)
    except ProtocolError:  # it was read once; the run file holds it whole
        return None


def authority_status(item: Item) -> str | None:
    """Return how a finished invoice stands with the tax authority, in a tenth of the time of reading its whole answer.

    None where the service did not say.
    """
    found = _AUTHORITY.findall(item.result or "")
    if len(found) <= 1:
        return found[0] if found else None
    request = recorded_request(item)
    status = None if request is None or request.data is None else request.data.authority_status
    return None if status is None else str(status)
