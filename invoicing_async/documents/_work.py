"""What the client of service A is inside: how it saves, for itself and for a run that goes through it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime

from .._files.body import DocumentReader
from .._files.kinds import PDF_TYPES, Pdf
from .._files.layout import Layout
from .._files.places import Place, Stores, Where, place_of
from .._files.publish import OnExisting
from .._files.writer import DiskWriter
from .._values.digest_set import DigestSet
from .._values.validators import at_least_one
from ..session import WIDE
from ..session._feature import Feature
from ..session._internals import Internals
from ._saving import BatchSaver, Fetching, SaveOptions

__all__ = ["DocumentWork"]

AT_THE_DISK = 8
"""To so many calls of a wide session one document more is under way: at the disk it holds no place of the session."""

_JUDGED = "OrderDocuments(content_types=...) names the others that are judged by their bytes"


class DocumentWork(Feature):
    """The inside of `OrderDocuments`."""

    def __init__(self, session: Internals, *, max_bytes: int, content_types: Iterable[str]) -> None:
        super().__init__(session)
        at_least_one("max_bytes", max_bytes)
        if isinstance(content_types, (str, bytes)):
            raise ValueError("content_types must be several types, not one text")
        kind = Pdf(PDF_TYPES | {name.strip().lower() for name in content_types}, _JUDGED)
        self.fetching = Fetching(session, DocumentReader(kind, session.clock, session.timeouts, max_bytes))

    @property
    def concurrency(self) -> int:
        """How many documents a batch has under way by default: as many as calls, of more than 32 an eighth more."""
        calls = self.session.limits.concurrency
        return calls + calls // AT_THE_DISK if calls > WIDE else calls

    @property
    def disk(self) -> DiskWriter:
        """The session's writer."""
        return self.session.resource(DiskWriter)

    @property
    def stores(self) -> Stores:
        """The session's object stores."""
        return self.session.resource(Stores)

    async def saver(
        self,
        folder: Where,
        *,
        on_existing: OnExisting | str,
        durable: bool,
        layout: Layout | str,
        served_name: bool,
        day: date | None,
        seen: DigestSet | None = None,
        shared: bool = False,
    ) -> BatchSaver:
        """Prepare the folder and return what saves one id after the other, as `OrderDocuments.download_many` does.

        The arguments are those of that method; `seen` are the ids of before, None if one may come again. What is
        `shared` may be found by another process as soon as it has its name, and is not taken back.
        """
        saving = self.saving(
            folder, on_existing, layout, durable=durable, served_name=served_name, day=day, shared=shared
        )
        fresh = await saving.place.prepare(durable=durable, shared=shared)
        return BatchSaver(self.fetching, saving, seen, looks_first=saving.looks_first and not fresh)

    def saving(
        self,
        folder: Where,
        on_existing: OnExisting | str,
        layout: Layout | str,
        *,
        durable: bool,
        served_name: bool,
        day: date | None,
        shared: bool = False,
    ) -> SaveOptions:
        """Return how documents are saved: the arguments of `OrderDocuments.download`, checked."""
        self.session.check_usable()
        place, existing = self._place(folder), OnExisting(on_existing)
        if existing is OnExisting.REPLACE and not place.replaces:
            raise ValueError(f"on_existing must be 'keep' or 'new name': nothing is replaced at {place.address}")
        return SaveOptions(
            place=place,
            on_existing=existing,
            shared=shared,
            durable=durable,
            layout=layout if isinstance(layout, Layout) else Layout(layout),
            served_name=served_name,
            day=day or datetime.fromtimestamp(self.session.clock.now(), UTC).date(),
        )

    def _place(self, where: Where) -> Place:
        return place_of(where, self.disk, self.stores)
