"""Which request is which operation of the two services, and who may call it."""

from __future__ import annotations

import re
from collections.abc import Callable

from attrs import frozen

from ._answers import Reply
from ._einvoices import Einvoices
from ._orders import Orders
from ._shared import Call, Operation

__all__ = ["Endpoint", "endpoints"]


@frozen
class Endpoint:
    """One operation: where it is, who may call it, what a stranger is told, what it does."""

    operation: Operation
    method: str
    pattern: re.Pattern[str]
    objection: Callable[[Call], str]
    refuse: Callable[[Call], Reply]
    handle: Callable[[Call], Reply]


def endpoints(orders: Orders, invoices: Einvoices) -> tuple[Endpoint, ...]:
    """Return every operation of both services."""
    at = re.compile
    bearer = (invoices.objection, invoices.refuse)
    return (
        Endpoint(
            Operation.DOCUMENT,
            "POST",
            at(r"/partner/stores/orders/([^/]+)/documents/invoice"),
            orders.objection,
            orders.refuse,
            orders.document,
        ),
        Endpoint(
            Operation.TOKEN,
            "POST",
            at(r"/v2/oauth/token"),
            invoices.client_objection,
            invoices.refuse_client,
            invoices.token,
        ),
        Endpoint(Operation.SUBMIT, "POST", at(r"/v2/ob/invoices"), *bearer, invoices.submit),
        Endpoint(Operation.STATUS, "POST", at(r"/v2/ob/invoices/by-request-id/([^/]+)"), *bearer, invoices.status),
        Endpoint(Operation.EXPORT, "POST", at(r"/v2/ob/invoices/([^/]+)/export"), *bearer, invoices.export),
        Endpoint(
            Operation.FILE,
            "GET",
            at(r"(?:/.*)?/files/([^/]+)\.(pdf|xml)"),
            invoices.file_objection,
            invoices.refuse_file,
            invoices.file,
        ),
    )
