"""Order invoices as PDFs and e-invoices by the batch, for asyncio: never lost, never sent twice, never half-written.

`Session` carries every call; `OrderDocuments` saves the PDFs of marketplace orders, `AsyncInvoices` submits
e-invoices and awaits them. Errors are in `invoicing_async.errors`, what happens in `invoicing_async.events`.
"""

from __future__ import annotations

from ._disk import OnExisting
from ._naming import Layout
from ._signing import SigningRules
from ._wire import WireNames
from .auth import Auth, HmacAuth, OAuthClientCredentials, StaticToken
from .documents import DownloadOutcome, OpenDocument, OrderDocuments
from .errors import (
    ApiError,
    AuthenticationError,
    BatchStoppedError,
    DeadlineError,
    DraftError,
    ExportError,
    IncompleteDocumentError,
    InterruptedDocumentError,
    InvoicingError,
    OrderStatusError,
    OversizedDocumentError,
    PermissionDeniedError,
    PollTimeoutError,
    ProtocolError,
    RateLimitError,
    ResolutionTooEarlyError,
    ServiceUnavailableError,
    SessionError,
    SubmissionInDoubtError,
    TransportError,
)
from .invoices import AsyncInvoices, Endpoints, SubmitOutcome
from .models import (
    AuthorityStatus,
    Consumer,
    Deferred,
    Duplicate,
    Failed,
    InDoubt,
    Invalid,
    InvoiceData,
    InvoiceDraft,
    InvoiceLine,
    InvoiceRequest,
    NotSent,
    NotStarted,
    PaymentMethod,
    Rejected,
    RequestStatus,
    Saved,
    SavedDocument,
    Skipped,
    Submitted,
    SubmitToTax,
    Unsettled,
    VatRate,
)
from .policies import Limits, RetryPolicy, Timeouts
from .polling import Poller
from .session import Session

VERSION = "0.1.0"

__all__ = [
    "VERSION",
    "ApiError",
    "AsyncInvoices",
    "Auth",
    "AuthenticationError",
    "AuthorityStatus",
    "BatchStoppedError",
    "Consumer",
    "DeadlineError",
    "Deferred",
    "DownloadOutcome",
    "DraftError",
    "Duplicate",
    "Endpoints",
    "ExportError",
    "Failed",
    "HmacAuth",
    "InDoubt",
    "IncompleteDocumentError",
    "InterruptedDocumentError",
    "Invalid",
    "InvoiceData",
    "InvoiceDraft",
    "InvoiceLine",
    "InvoiceRequest",
    "InvoicingError",
    "Layout",
    "Limits",
    "NotSent",
    "NotStarted",
    "OAuthClientCredentials",
    "OnExisting",
    "OpenDocument",
    "OrderDocuments",
    "OrderStatusError",
    "OversizedDocumentError",
    "PaymentMethod",
    "PermissionDeniedError",
    "PollTimeoutError",
    "Poller",
    "ProtocolError",
    "RateLimitError",
    "Rejected",
    "RequestStatus",
    "ResolutionTooEarlyError",
    "RetryPolicy",
    "Saved",
    "SavedDocument",
    "ServiceUnavailableError",
    "Session",
    "SessionError",
    "SigningRules",
    "Skipped",
    "StaticToken",
    "SubmissionInDoubtError",
    "SubmitOutcome",
    "SubmitToTax",
    "Submitted",
    "Timeouts",
    "TransportError",
    "Unsettled",
    "VatRate",
    "WireNames",
]


def __getattr__(name: str) -> str:
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import version

    return version("invoicing-async")
