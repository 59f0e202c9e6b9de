"""One order's document saved: where to, whether one is there already, and its outcome."""

from __future__ import annotations

import errno
from datetime import date
from pathlib import Path
from typing import TypeAlias

from attrs import Factory, define, field, frozen

from .._core.answers import shown
from .._core.causes import of_document
from .._core.http import Repeat, Request, Response, path
from .._core.ramp import Cause, Verdict
from .._files.body import DocumentReader
from .._files.disposition import from_content_disposition
from .._files.existing import Published
from .._files.layout import Layout
from .._files.names import child, file_name
from .._files.pdf import PdfValidator
from .._files.places import Place
from .._files.publish import Destination, OnExisting
from .._values.digest_set import DigestSet
from ..errors import InvoicingError, OrderStatusError
from ..events import DocumentSaved
from ..models import Deferred, Duplicate, Failed, NotStarted, Saved, SavedDocument, Skipped
from ..session import LAST_CALL, Sleep
from ..session._internals import Internals

__all__ = [
    "PLAIN",
    "BatchSaver",
    "DownloadOutcome",
    "Fetching",
    "SaveOptions",
    "invoice_request",
    "judged",
    "served_filename",
]

DownloadOutcome: TypeAlias = Saved | Skipped | Deferred | Failed | Duplicate[None] | NotStarted


PLAIN = Layout("{order_id}")


_HEADERS = {"Content-Type": "application/json", "Accept": "application/pdf"}


_FATAL = frozenset(
    {
        errno.EACCES,
        errno.EDQUOT,
        errno.EIO,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENODEV,
        errno.ENOSPC,
        errno.ENOSYS,
        errno.ENOTDIR,
        errno.ENOTSUP,
        errno.EPERM,
        errno.EROFS,
        errno.ESTALE,
    }
)
"""Troubles with the disk that the next document may meet too: a probe tells."""


@frozen(kw_only=True)
class SaveOptions:
    """How documents are saved: the arguments of `download`, checked."""

    place: Place
    on_existing: OnExisting
    durable: bool
    layout: Layout
    served_name: bool
    day: date
    shared: bool = False
    folder: Path = field(default=Factory(lambda self: self.place.base, takes_self=True), init=False)

    def replacing(self, target: Path) -> Destination:
        """Return the destination of a document whose file of before is missing or broken: its place."""
        on_existing = OnExisting.REPLACE if self.place.replaces else OnExisting.NEW_NAME
        folder, durable, shared = self.folder, self.durable, self.shared
        return Destination(folder=folder, target=target, on_existing=on_existing, durable=durable, shared=shared)

    def destination(self, order_id: str, served: str | None = None) -> Destination:
        if served is None and self.layout is PLAIN:
            target = child(self.folder, file_name(order_id))
        else:
            target = self.layout.below(self.folder, order_id, day=self.day, name=served)
        return Destination(
            folder=self.folder,
            target=target,
            on_existing=self.on_existing,
            # What the service calls a document may be what it calls another one.
            validator=None if self.served_name else PdfValidator,
            durable=self.durable,
            shared=self.shared,
        )

    @property
    def looks_first(self) -> bool:
        return self.on_existing is OnExisting.KEEP and not self.served_name


@frozen
class _Received:
    """A whole document: its bytes, or where a large one was published already."""

    body: bytes | Published
    destination: Destination
    request_id: str | None


@define(eq=False)
class _Attempts:
    """The attempts at one document: how each answer is read, and how many there were.

    No closures: a batch makes a million, and cells are work for the collector.
    """

    _reader: DocumentReader
    _saving: SaveOptions
    _order_id: str
    _destination: Destination | None
    """None if it depends on the answer."""
    _sleep: Sleep
    number: int = field(default=1, init=False)

    async def read(self, response: Response) -> _Received:
        destination = self._destination or self._saving.destination(self._order_id, served_filename(response))
        body = await self._reader.receive(response, self._saving.place, destination)
        return _Received(body, destination, shown(response.header("x-request-id")))

    async def sleep(self, seconds: float) -> None:
        self.number += 1
        await self._sleep(seconds)


@frozen
class Fetching:
    """Saves one document, or returns the one that is there already."""

    session: Internals
    reader: DocumentReader

    async def kept(self, order_id: str, saving: SaveOptions) -> SavedDocument | None:
        """Return the whole document that has the id's name already; None if there is none."""
        target = saving.destination(order_id).target
        found = await saving.place.kept(target, PdfValidator)
        return None if found is None else saved_document(order_id, found, saving.place, attempts=0)

    async def fetched(
        self, order_id: str, request: Request, saving: SaveOptions, sleep: Sleep, *, replace: Path | None = None
    ) -> SavedDocument:
        """Ask for the document and save it; `replace` is a file of ours that is to be replaced."""
        if replace is None:
            known = None if saving.served_name else saving.destination(order_id)
        else:
            known = saving.replacing(replace)
        attempts = _Attempts(self.reader, saving, order_id, known, sleep)
        received = await self.session.call(request, attempts.read, sleep=attempts.sleep)
        published = received.body
        if isinstance(published, bytes):
            published = await saving.place.store(received.destination, published)
        if published.kept and not published.same:
            return saved_document(order_id, published, saving.place, attempts=0)
        number, request_id = attempts.number, received.request_id
        document = saved_document(order_id, published, saving.place, attempts=number, request_id=request_id)
        about = LAST_CALL.get()
        if about is not None:
            event = DocumentSaved(
                **about,
                order_id=order_id,
                path=document.path,
                size=document.size,
                store=document.store,
                name_taken=document.name_taken,
            )
            self.session.tell(event)
        return document


@frozen
class BatchSaver:
    """Saves one id of a batch after the other and returns its outcome."""

    _fetching: Fetching
    _saving: SaveOptions
    _seen: DigestSet | None
    _looks_first: bool = field(kw_only=True)

    async def outcome(self, order_id: str, sleep: Sleep, *, replace: Path | None = None) -> DownloadOutcome:
        """Return the id's outcome; raise only what ends the batch.

        `sleep` waits between attempts; `replace` is a file of this id that is missing or broken.
        """
        fetching, saving = self._fetching, self._saving
        try:
            request = invoice_request(order_id)
            if self._seen is not None and not self._seen.add(order_id):
                return Duplicate(order_id, None)
            if self._looks_first and replace is None:
                kept = await fetching.kept(order_id, saving)
                if kept is not None:
                    return Skipped(order_id, kept)
            fetched = await fetching.fetched(order_id, request, saving, sleep, replace=replace)
            # Somebody else's was there when it came; what has the very same content is its own, whoever put it.
            return Saved(order_id, fetched) if fetched.attempts else Skipped(order_id, fetched)
        except OrderStatusError as error:
            return Deferred(order_id, error)
        except InvoicingError as error:
            if fetching.session.ends_batch(error):
                raise
            return Failed(order_id, error)
        except OSError as error:
            if error.errno in _FATAL and await self._is_for_all(error):
                raise
            return Failed(order_id, error)
        except ValueError as error:
            return Failed(order_id, error)

    async def _is_for_all(self, error: OSError) -> bool:
        """Tell whether the next document would meet this trouble too."""
        try:
            await self._saving.place.probe(error)
        except OSError:
            return True
        return False


def judged(outcome: DownloadOutcome) -> Cause | Verdict:
    """Tell what an outcome says of the service's state."""
    match outcome:
        case Saved():
            return Verdict.WELL
        case Failed(_, error):
            return of_document(error)
        case Skipped() | Deferred():
            return Verdict.ANSWERED
        case _:
            return Verdict.SILENT


def invoice_request(order_id: str) -> Request:
    return Request(
        method="POST",
        path="/partner/stores/orders" + path(order_id) + "/documents/invoice",
        headers=_HEADERS,
        repeat=Repeat.ALWAYS,
        operation="generate_invoice",
        subject=order_id,
    )


def served_filename(response: Response) -> str | None:
    return from_content_disposition(response.header("Content-Disposition")) or None


def saved_document(
    order_id: str, found: Published, place: Place, *, attempts: int, request_id: str | None = None
) -> SavedDocument:
    return SavedDocument(
        order_id=order_id,
        path=found.path,
        size=found.size,
        sha256=found.sha256,
        attempts=attempts,
        request_id=request_id,
        set_aside=found.set_aside,
        store=place.address,
        name_taken=found.name_taken,
    )
