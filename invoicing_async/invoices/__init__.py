"""E-invoices (README B): submit drafts, await what becomes of them, fetch the finished documents."""

from __future__ import annotations

from .._core.outcomes import Fate, fate
from .._einvoices.shape import WireNames
from ._calls import Endpoints
from ._client import AsyncInvoices
from ._exports import ExportFormat
from ._submissions import SubmitOutcome

__all__ = ["AsyncInvoices", "Endpoints", "ExportFormat", "Fate", "SubmitOutcome", "WireNames", "fate"]
