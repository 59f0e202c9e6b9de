"""What stands already where a finished invoice's document is to be saved."""

from __future__ import annotations

from pathlib import Path

from attrs import evolve

from .._files.existing import Published, whole_document
from .._files.kinds import DocumentType
from .._files.publish import Destination, OnExisting
from ..models import SavedDocument

__all__ = ["MAX_BYTES", "beside", "kept_document", "saved_export"]

MAX_BYTES = 256 * 2**20


CLOCKS_APART = 120.0
"""Seconds by which the clock of a file server may be behind this machine's."""


def kept_document(target: Path, kind: DocumentType, since: float | None) -> Published | None:
    """Return the whole document that stands there, unless it is too old to be the one that is asked for."""
    found = whole_document(target, kind.validator())
    is_older = found is not None and since is not None and target.stat().st_mtime < since - CLOCKS_APART
    return None if is_older else found


def beside(place: Destination) -> Destination:
    """Return the place for what is not kept: another file of that name stays, and a free name is taken."""
    return evolve(place, on_existing=OnExisting.NEW_NAME) if place.on_existing is OnExisting.KEEP else place


def saved_export(invoice_id: str, found: Published, *, attempts: int) -> SavedDocument:
    return SavedDocument(order_id=invoice_id, path=found.path, size=found.size, sha256=found.sha256, attempts=attempts)
