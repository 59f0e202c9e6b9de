"""What stands already where a finished invoice's document is to be saved."""

from __future__ import annotations

from attrs import evolve

from .._files.existing import Published
from .._files.places import Place
from .._files.publish import Destination, OnExisting
from ..models import SavedDocument

__all__ = ["MAX_BYTES", "beside", "saved_export"]

MAX_BYTES = 256 * 2**20


def beside(place: Destination) -> Destination:
    """Return the place for what is not kept: another file of that name stays, and a free name is taken."""
    return evolve(place, on_existing=OnExisting.NEW_NAME) if place.on_existing is OnExisting.KEEP else place


def saved_export(invoice_id: str, found: Published, place: Place, *, attempts: int) -> SavedDocument:
    return SavedDocument(
        order_id=invoice_id,
        path=found.path,
        size=found.size,
        sha256=found.sha256,
        attempts=attempts,
        store=place.address,
        name_taken=found.name_taken,
    )
