"""What an answer of the service means for an item of a run."""

from __future__ import annotations

import json

from ..models import InvoiceRequest, RequestStatus, Unsettled
from .states import Event

__all__ = ["ACCEPTED", "End", "result_text", "status_of"]

ACCEPTED = {RequestStatus.SUCCESS: Event.ACCEPTED_SUCCESS, RequestStatus.FAILED: Event.ACCEPTED_FAILED}


End = InvoiceRequest | Unsettled


def status_of(request: End) -> RequestStatus:
    return request.status if isinstance(request.status, RequestStatus) else RequestStatus.NEW


def result_text(request: InvoiceRequest) -> str | None:
    """The service's last word, numbers as text with their digits."""
    if not request.terminal:
        return None
    try:
        return json.dumps(dict(request.raw), ensure_ascii=False, default=str, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError):
        # Whatever it is, the request's id and status are known and must not be lost for it.
        return None
