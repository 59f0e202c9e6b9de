"""One order's document saved: where to, whether one stands there, and what became of it."""

from __future__ import annotations

import errno
from collections.abc import Awaitable
from datetime import date
from functools import partial
from pathlib import Path
from typing import TypeAlias

from attrs import field, frozen

from .._core.answers import shown
from .._core.causes import of_document
from .._core.http import Repeat, Request, Response, path
from .._core.ramp import Cause, Verdict
from .._files.body import DocumentReader, Place
from .._files.disposition import from_content_disposition
from .._files.existing import Published, whole_document
from .._files.layout import Layout
from .._files.names import child, file_name
from .._files.pdf import Checker
from .._files.publish import OnExisting
from .._files.tempfile import probe
from .._files.writer import DiskWriter
from .._values.digest_set import DigestSet
from ..errors import InvoicingError, OrderStatusError
from ..events import DocumentSaved
from ..models import Deferred, Duplicate, Failed, NotStarted, Saved, SavedDocument, Skipped
from ..session import Session, Sleep, last_call

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

    folder: Path
    on_existing: OnExisting
    durable: bool
    layout: Layout
    served_name: bool
    day: date

    def place(self, order_id: str, served: str | None = None) -> Place:
        return Place(
            folder=self.folder,
            target=self._target(order_id, served),
            on_existing=self.on_existing,
            # What the service calls a document may be what it calls another one.
            proof=None if self.served_name else Checker,
            durable=self.durable,
        )

    def known_place(self, order_id: str, replace: Path | None) -> Place | None:
        """Return the place if it does not depend on the answer; `replace` is a file of ours that is to be replaced."""
        if replace is not None:
            return Place(folder=self.folder, target=replace, on_existing=OnExisting.REPLACE, durable=self.durable)
        return None if self.served_name else self.place(order_id)

    def _target(self, order_id: str, served: str | None) -> Path:
        if served is None and self.layout is PLAIN:
            return child(self.folder, file_name(order_id))
        return self.layout.below(self.folder, order_id, day=self.day, name=served)

    @property
    def looks_first(self) -> bool:
        return self.on_existing is OnExisting.KEEP and not self.served_name


@frozen
class _Received:
    """A whole document: its bytes, or where a large one was published already."""

    body: bytes | Published
    place: Place
    request_id: str | None


class _Reading:
    """Reads one answer to a document. No closure: a batch makes a million, and cells are work for the collector."""

    __slots__ = ("_disk", "_order_id", "_place", "_receiver", "_saving")

    def __init__(
        self, receiver: DocumentReader, disk: DiskWriter, saving: SaveOptions, order_id: str, place: Place | None
    ) -> None:
        self._receiver = receiver
        self._disk = disk
        self._saving = saving
        self._order_id = order_id
        self._place = place

    async def __call__(self, response: Response) -> _Received:
        place = self._place or self._saving.place(self._order_id, served_filename(response))
        body = await self._receiver.receive(response, self._disk, place)
        return _Received(body, place, shown(response.header("x-request-id")))


class CountedSleep:
    """A sleep that counts, so that a document knows how many attempts it took."""

    def __init__(self, sleep: Sleep) -> None:
        self._sleep = sleep
        self.attempts = 1

    async def __call__(self, seconds: float) -> None:
        self.attempts += 1
        await self._sleep(seconds)


@frozen
class Fetching:
    """Saves one document: what stands there already, or what the service gives."""

    session: Session
    receiver: DocumentReader

    @property
    def disk(self) -> DiskWriter:
        return self.session.resource(DiskWriter)

    async def kept(self, order_id: str, saving: SaveOptions) -> SavedDocument | None:
        """Return the whole document that stands under the id's name; None if there is none."""
        target = saving.place(order_id).target
        found = await self.disk.run(lambda: whole_document(target))
        return None if found is None else saved_document(order_id, found, attempts=0)

    async def fetched(
        self, order_id: str, request: Request, saving: SaveOptions, sleep: Sleep, *, replace: Path | None = None
    ) -> SavedDocument:
        """Ask for the document and save it."""
        disk = self.disk
        counted = CountedSleep(sleep)
        reading = _Reading(self.receiver, disk, saving, order_id, saving.known_place(order_id, replace))
        received = await self.session.call(request, reading, sleep=counted)
        published = received.body if isinstance(received.body, Published) else await store_body(received, disk)
        if published.kept:
            return saved_document(order_id, published, attempts=0)
        document = saved_document(order_id, published, attempts=counted.attempts, request_id=received.request_id)
        if self.session.hears():
            event = DocumentSaved(**last_call(), order_id=order_id, path=document.path, size=document.size)
            self.session.tell(event)
        return document


@frozen
class BatchSaver:
    """Decides the fate of one id of a batch after the other."""

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
            # Somebody else's stood there when it came.
            return Saved(order_id, fetched) if fetched.attempts else Skipped(order_id, fetched)
        except OrderStatusError as error:
            return Deferred(order_id, error)
        except InvoicingError as error:
            if fetching.session.ends_batch(error):
                raise
            return Failed(order_id, error)
        except OSError as error:
            if error.errno in _FATAL and await self._is_for_all():
                raise
            return Failed(order_id, error)
        except ValueError as error:
            return Failed(order_id, error)

    async def _is_for_all(self) -> bool:
        """Tell whether the next document would meet this trouble too, by saving one for a moment."""
        try:
            await self._fetching.disk.run(partial(probe, self._saving.folder))
        except OSError:
            return True
        return False


def judged(outcome: DownloadOutcome) -> Cause | Verdict:
    """Tell what an outcome says of the service."""
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
    )


def served_filename(response: Response) -> str | None:
    return from_content_disposition(response.header("Content-Disposition")) or None


def store_body(received: _Received, disk: DiskWriter) -> Awaitable[Published]:
    body, place = received.body, received.place
    assert isinstance(body, bytes)  # noqa: S101 - what is not published yet is in memory; for the type checker
    return disk.store(
        place.folder,
        place.target,
        body,
        on_existing=place.on_existing,
        proof=place.proof,
        durable=place.durable,
    )


def saved_document(order_id: str, found: Published, *, attempts: int, request_id: str | None = None) -> SavedDocument:
    return SavedDocument(
        order_id=order_id,
        path=found.path,
        size=found.size,
        sha256=found.sha256,
        attempts=attempts,
        request_id=request_id,
        set_aside=found.set_aside,
    )
