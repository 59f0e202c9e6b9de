"""Order documents (README A.1): an order's invoice as a PDF, streamed through or saved whole."""

from __future__ import annotations

from ._client import OrderDocuments
from ._opening import OpenDocument
from ._saving import DownloadOutcome

__all__ = ["DownloadOutcome", "OpenDocument", "OrderDocuments"]
