"""Order invoices as PDFs and e-invoices by the batch, for asyncio: never lost, never sent twice, never half-written.

`Session` carries every call; `OrderDocuments` saves the PDFs of marketplace orders, `AsyncInvoices` submits
e-invoices and awaits them. Errors are in `invoicing_async.errors`, what happens in `invoicing_async.events`.

Importing the package imports none of its modules: each name brings its own when it is first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._core.signing import SigningRules
    from ._einvoices.shape import WireNames
    from ._files.layout import Layout
    from ._files.publish import OnExisting
    from .auth import Auth, HmacAuth, OAuthClientCredentials, ProvidedAuth, StaticToken
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
        ServiceDownError,
        ServiceUnavailableError,
        SessionError,
        SubmissionInDoubtError,
        TransportError,
    )
    from .health import Health, LaneHealth, LaneState
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
    from .policies import Limits, OutagePolicy, RetryPolicy, Timeouts
    from .polling import Poller
    from .session import Session, SharedLimits
    from .settings import Settings, SettingsError

    __version__: str

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
    "Health",
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
    "LaneHealth",
    "LaneState",
    "Layout",
    "Limits",
    "NotSent",
    "NotStarted",
    "OAuthClientCredentials",
    "OnExisting",
    "OpenDocument",
    "OrderDocuments",
    "OrderStatusError",
    "OutagePolicy",
    "OversizedDocumentError",
    "PaymentMethod",
    "PermissionDeniedError",
    "PollTimeoutError",
    "Poller",
    "ProtocolError",
    "ProvidedAuth",
    "RateLimitError",
    "Rejected",
    "RequestStatus",
    "ResolutionTooEarlyError",
    "RetryPolicy",
    "Saved",
    "SavedDocument",
    "ServiceDownError",
    "ServiceUnavailableError",
    "Session",
    "SessionError",
    "Settings",
    "SettingsError",
    "SharedLimits",
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

_NAMES = {
    "_files.publish": "OnExisting",
    "_files.layout": "Layout",
    "_core.signing": "SigningRules",
    "_einvoices.shape": "WireNames",
    "auth": "Auth HmacAuth OAuthClientCredentials ProvidedAuth StaticToken",
    "documents": "DownloadOutcome OpenDocument OrderDocuments",
    "errors": (
        "ApiError AuthenticationError BatchStoppedError DeadlineError DraftError ExportError "
        "IncompleteDocumentError InterruptedDocumentError InvoicingError OrderStatusError "
        "OversizedDocumentError PermissionDeniedError PollTimeoutError ProtocolError RateLimitError "
        "ResolutionTooEarlyError ServiceDownError ServiceUnavailableError SessionError SubmissionInDoubtError "
        "TransportError"
    ),
    "health": "Health LaneHealth LaneState",
    "invoices": "AsyncInvoices Endpoints SubmitOutcome",
    "models": (
        "AuthorityStatus Consumer Deferred Duplicate Failed InDoubt Invalid InvoiceData InvoiceDraft "
        "InvoiceLine InvoiceRequest NotSent NotStarted PaymentMethod Rejected RequestStatus Saved "
        "SavedDocument Skipped Submitted SubmitToTax Unsettled VatRate"
    ),
    "policies": "Limits OutagePolicy RetryPolicy Timeouts",
    "polling": "Poller",
    "session": "Session SharedLimits",
    "settings": "Settings SettingsError",
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names.split()}
"""The module that each public name is from."""


if not TYPE_CHECKING:  # a type checker is to know the names above and no others

    def __getattr__(name: str) -> object:
        """Import a public name's module, or a public module itself, when it is first asked for."""
        if name in _HOMES:
            found = getattr(import_module(f".{_HOMES[name]}", __name__), name)
        elif name == "__version__":
            from importlib.metadata import version

            found = version("invoicing-async")
        else:
            from importlib.util import find_spec

            if not name.isidentifier() or name[0] == "_" or find_spec(f".{name}", __name__) is None:
                raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
            found = import_module(f".{name}", __name__)
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
