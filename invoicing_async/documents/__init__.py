"""Order documents (API.md A.1): an order's invoice as a PDF, streamed through or saved whole."""

from __future__ import annotations

from ._client import OrderDocuments
from ._opening import OpenDocument
from ._saving import DownloadOutcome, Saver, judged

__all__ = ["DownloadOutcome", "OpenDocument", "OrderDocuments", "Saver", "judged"]
