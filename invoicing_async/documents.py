"""Order documents (API.md A.1): an order's invoice as a PDF, streamed through or saved whole."""

from __future__ import annotations

from .documents._client import OrderDocuments
from .documents._opening import OpenDocument
from .documents._saving import DownloadOutcome, Saver, judged

__all__ = ["DownloadOutcome", "OpenDocument", "OrderDocuments", "Saver", "judged"]
