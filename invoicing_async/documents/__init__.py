"""Order documents (README A.1): an order's invoice as a PDF, streamed through or saved whole."""

from __future__ import annotations

from ._client import OrderDocuments, work_of
from ._opening import OpenDocument
from ._saving import BatchSaver, DownloadOutcome, judged

__all__ = ["BatchSaver", "DownloadOutcome", "OpenDocument", "OrderDocuments", "judged", "work_of"]
