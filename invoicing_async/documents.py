"""Order documents (API.md A.1): an order's invoice as a PDF, streamed through or saved whole."""

from __future__ import annotations

import errno
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Iterable
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, date, datetime
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Self, TypeAlias

from attrs import field, frozen

from ._core.answers import shown
from ._core.batch import Careful, bounded
from ._core.causes import of_document
from ._core.http import Repeat, Request, Response, path
from ._core.order_ids import OrderId, as_text, texts
from ._core.ramp import Cause, Verdict
from ._files.body import Body, Place, Receiver
from ._files.disposition import content_disposition, from_content_disposition
from ._files.existing import Published, whole_document
from ._files.kinds import GENERIC, PDF_TYPES, Pdf
from ._files.layout import Layout
from ._files.names import child, file_name, safe_name
from ._files.pdf import Checker
from ._files.publish import OnExisting
from ._files.tempfile import prepare_folder, probe
from ._files.writer import DiskWriter
from ._values.digest_set import Seen
from .errors import InvoicingError, OrderStatusError
from .events import DocumentSaved
from .models import Deferred, Duplicate, Failed, NotStarted, Saved, SavedDocument, Skipped
from .session import WIDE, Session, Sleep

__all__ = ["DownloadOutcome", "OpenDocument", "OrderDocuments", "Saver", "judged"]

DownloadOutcome: TypeAlias = Saved | Skipped | Deferred | Failed | Duplicate[None] | NotStarted

AT_THE_DISK = 8
"""To so many calls of a wide session one document more is under way: at the disk it holds no place of the session."""

MAX_BYTES = 256 * 2**20
"""The largest document taken by default."""

PLAIN = Layout("{order_id}")

_HEADERS = {"Content-Type": "application/json", "Accept": "application/pdf"}

_JUDGED = "OrderDocuments(content_types=...) names the others that are judged by their bytes"

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


class OpenDocument:
    """An invoice on its way: `filename` is safe for a header or a folder, `size` in bytes or None if nobody knows.

    `chunks` is read once; of a large document it raises `IncompleteDocumentError` if what came is not one whole PDF.
    """

    def __init__(self, *, filename: str, size: int | None, chunks: AsyncIterator[bytes]) -> None:
        self.filename = filename
        self.size = size
        self.chunks = chunks

    @property
    def headers(self) -> dict[str, str]:
        """The headers of a response that passes this document on: type, name (RFC 6266) and length if declared."""
        named = {"Content-Type": "application/pdf", "Content-Disposition": content_disposition(self.filename)}
        return named if self.size is None else {**named, "Content-Length": str(self.size)}


class _Whole:
    """A document that is here, as the one chunk of itself."""

    def __init__(self, body: bytes) -> None:
        self._left: bytes | None = body

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        body, self._left = self._left, None
        if body is None:
            raise StopAsyncIteration
        return body


@frozen(kw_only=True)
class _Saving:
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
        """Give the place if it does not depend on the answer; `replace` is a file of ours that is to be replaced."""
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
        self, receiver: Receiver, disk: DiskWriter, saving: _Saving, order_id: str, place: Place | None
    ) -> None:
        self._receiver = receiver
        self._disk = disk
        self._saving = saving
        self._order_id = order_id
        self._place = place

    async def __call__(self, response: Response) -> _Received:
        place = self._place or self._saving.place(self._order_id, _served(response))
        body = await self._receiver.receive(response, self._disk, place)
        return _Received(body, place, shown(response.header("x-request-id")))


class _Counted:
    """A sleep that counts, so that a document knows how many attempts it took."""

    def __init__(self, sleep: Sleep) -> None:
        self._sleep = sleep
        self.attempts = 1

    async def __call__(self, seconds: float) -> None:
        self.attempts += 1
        await self._sleep(seconds)


@frozen
class _Fetching:
    """Saves one document: what stands there already, or what the service gives."""

    session: Session
    receiver: Receiver

    @property
    def disk(self) -> DiskWriter:
        return self.session.resource(DiskWriter)

    async def kept(self, order_id: str, saving: _Saving) -> SavedDocument | None:
        """Return the whole document that stands under the id's name; None if there is none."""
        target = saving.place(order_id).target
        found = await self.disk.run(lambda: whole_document(target))
        return None if found is None else _saved(order_id, found, attempts=0)

    async def fetched(
        self, order_id: str, request: Request, saving: _Saving, sleep: Sleep, *, replace: Path | None = None
    ) -> SavedDocument:
        """Ask for the document and save it."""
        disk = self.disk
        counted = _Counted(sleep)
        reading = _Reading(self.receiver, disk, saving, order_id, saving.known_place(order_id, replace))
        received = await self.session.call(request, reading, sleep=counted)
        published = received.body if isinstance(received.body, Published) else await _stored(received, disk)
        if published.kept:
            return _saved(order_id, published, attempts=0)
        document = _saved(order_id, published, attempts=counted.attempts, request_id=received.request_id)
        if self.session.on_event is not None:
            self.session.tell(DocumentSaved(order_id=order_id, path=document.path, size=document.size))
        return document


class OrderDocuments:
    """The invoices of marketplace orders. `max_bytes` is the largest document taken.

    `content_types` are the types, beside application/pdf and application/x-pdf, under which a document is judged by
    its bytes, "" for none at all: by default those that say nothing, as application/octet-stream. An answer of another
    type, as text/html, is refused whatever it holds; so is one of these that is no PDF.

    An order id is text, a UUID or an int, and is given back as text. Every method raises `ValueError` for anything
    else and for an id that is empty, `.` or `..`, before anything is sent.
    """

    def __init__(self, session: Session, *, max_bytes: int = MAX_BYTES, content_types: Iterable[str] = GENERIC) -> None:
        if max_bytes < 1:
            raise ValueError(f"max_bytes must be 1 or more, got {max_bytes!r}")
        self._session = session
        kind = Pdf(PDF_TYPES | _types(content_types), _JUDGED)
        self._fetching = _Fetching(session, Receiver(kind, session.clock, session.timeouts, max_bytes))

    @asynccontextmanager
    async def open(self, order_id: OrderId) -> AsyncIterator[OpenDocument]:
        """Pass an invoice through without touching the disk, for a web response.

        A document of up to 1 MiB, as nearly every one is, is read whole and proved before the block begins: every
        failure is retried and raised as for `download`, and the block holds nothing of the session. Of a larger one
        the block begins with its head; then nothing is repeated and `chunks` raises. Its place in
        `Limits.concurrency` is held only while `chunks` is waited for, and only that time counts for `Timeouts.floor`
        and `Timeouts.attempt`; when nobody has asked for more for `Timeouts.attempt` seconds, its connection is given
        up. Leaving the block gives everything back.
        """
        order_id = as_text(order_id)
        reading = partial(self._opened, order_id)
        async with self._session.hold(_request(order_id), reading) as ((filename, body), hold):
            if isinstance(body, bytes):
                await hold.release()
                yield OpenDocument(filename=filename, size=len(body), chunks=_Whole(body))
            else:
                hold.watch()
                yield OpenDocument(filename=filename, size=body.length, chunks=body.chunks(hold))

    async def _opened(self, order_id: str, response: Response) -> tuple[str, bytes | Body]:
        served = _served(response)
        return safe_name(served) if served else file_name(order_id), await self._fetching.receiver.open(response)

    async def download(
        self,
        order_id: OrderId,
        folder: str | PathLike[str],
        *,
        on_existing: OnExisting | str = OnExisting.KEEP,
        durable: bool = False,
        layout: Layout | str = PLAIN,
        served_name: bool = False,
        day: date | None = None,
    ) -> SavedDocument:
        """Save an invoice whole, or leave nothing.

        `on_existing` says what happens when the name is taken: "keep" keeps a whole PDF that stands there, also one
        that came meanwhile (`attempts` is then 0), and renames a broken file (`set_aside`); with `served_name` it
        keeps what has the very same content; "new name" takes the next free name, "replace" replaces it. `durable`
        returns only after file and folder are on the disk. `layout` names the file below `folder`, with
        `{order_id}`, `{date}` (which is `day`, by default today in UTC), `{shard}`; `served_name` takes the last
        part from the answer's Content-Disposition, made safe.

        Raises `OrderStatusError` (ORDER_021), `ServiceUnavailableError` (SYS_DEP_503 to the last attempt), the
        other errors of `errors`, and `OSError` for trouble with the disk.
        """
        order_id = as_text(order_id)
        request = _request(order_id)
        saving = self._saving(folder, on_existing, layout, durable=durable, served_name=served_name, day=day)
        if saving.looks_first:
            kept = await self._fetching.kept(order_id, saving)
            if kept is not None:
                return kept
        return await self._fetching.fetched(order_id, request, saving, self._session.clock.sleep)

    async def download_many(
        self,
        order_ids: Iterable[OrderId] | AsyncIterable[OrderId],
        folder: str | PathLike[str],
        *,
        concurrency: int | None = None,
        on_existing: OnExisting | str = OnExisting.KEEP,
        durable: bool = False,
        layout: Layout | str = PLAIN,
        served_name: bool = False,
        day: date | None = None,
    ) -> AsyncGenerator[DownloadOutcome]:
        """Save any number of invoices and give one outcome for each id, as they finish, in bounded memory.

        `order_ids` are texts, UUIDs or ints. One that is none of these is a `ValueError`: of a collection before
        anything is asked for; of an iterator when it is come to, which ends the input there: what was read before is
        finished and given, then the error is raised. An id that is empty, `.` or `..` is its own `Failed`.

        No more than `concurrency` ids are read ahead, and a slow consumer slows the reading down. By default it is the
        session's limit, and above 32 an eighth more: while some documents are at the disk, others are awaited. An id
        that comes again is given as `Duplicate`. The error of one document is its outcome; a refused credential or a
        full disk ends the batch: what was not finished is given as `NotStarted`, then the error is raised at once: of
        ids without a length, which may be endless, no more than come at once. So does one and the same trouble that
        meets the first `Limits.stop_after`, with a `BatchStoppedError`; a refusal that has a code and is about that
        order does not count. Leave early with `contextlib.aclosing`, or by `break`: what is in flight is cancelled.
        """
        ids = texts(order_ids)
        places = _places(self.concurrency if concurrency is None else concurrency)
        saving = self._saving(folder, on_existing, layout, durable=durable, served_name=served_name, day=day)
        saver = await self._saver(saving, Seen())
        outcomes = bounded(
            ids,
            saver.outcome,
            concurrency=places,
            sleep=self._session.clock.sleep,
            abandoned=NotStarted,
            careful=Careful(judged, self.stop_after),
        )
        async with aclosing(outcomes):
            async for outcome in outcomes:
                yield outcome

    async def saver(
        self,
        folder: str | PathLike[str],
        *,
        on_existing: OnExisting | str = OnExisting.KEEP,
        durable: bool = False,
        layout: Layout | str = PLAIN,
        served_name: bool = False,
        day: date | None = None,
    ) -> Saver:
        """Prepare the folder and give what saves one id after the other: the inside of `download_many`."""
        saving = self._saving(folder, on_existing, layout, durable=durable, served_name=served_name, day=day)
        return await self._saver(saving, None)

    async def _saver(self, saving: _Saving, seen: Seen | None) -> Saver:
        fresh = await self.disk.run(lambda: prepare_folder(saving.folder, durable=saving.durable))
        return Saver(self._fetching, saving, seen, looks_first=saving.looks_first and not fresh)

    @property
    def concurrency(self) -> int:
        """How many documents a batch has under way by default: as many as calls, of more than 32 an eighth more."""
        calls = self._session.limits.concurrency
        return calls + calls // AT_THE_DISK if calls > WIDE else calls

    @property
    def stop_after(self) -> int | None:
        """How many of one cause end a batch, as the session's limits say."""
        return self._session.limits.stop_after

    @property
    def sleep(self) -> Sleep:
        """How the session waits."""
        return self._session.clock.sleep

    def ends_batch(self, error: BaseException) -> bool:
        """Tell whether the next call would meet `error` too; see `Session.ends_batch`."""
        return self._session.ends_batch(error)

    @property
    def disk(self) -> DiskWriter:
        """The session's writer."""
        return self._session.resource(DiskWriter)

    def _saving(
        self,
        folder: str | PathLike[str],
        on_existing: OnExisting | str,
        layout: Layout | str,
        *,
        durable: bool,
        served_name: bool,
        day: date | None,
    ) -> _Saving:
        self._session.check_usable()
        return _Saving(
            folder=Path(folder),
            on_existing=OnExisting(on_existing),
            durable=durable,
            layout=layout if isinstance(layout, Layout) else Layout(layout),
            served_name=served_name,
            day=day or datetime.fromtimestamp(self._session.clock.now(), UTC).date(),
        )


@frozen
class Saver:
    """Decides the fate of one id of a batch after the other."""

    _fetching: _Fetching
    _saving: _Saving
    _seen: Seen | None
    _looks_first: bool = field(kw_only=True)

    async def outcome(self, order_id: str, sleep: Sleep, *, replace: Path | None = None) -> DownloadOutcome:
        """Give the id's outcome; raise only what ends the batch.

        `sleep` waits between attempts; `replace` is a file of this id that is missing or broken.
        """
        fetching, saving = self._fetching, self._saving
        try:
            request = _request(order_id)
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


def _types(content_types: Iterable[str]) -> frozenset[str]:
    if isinstance(content_types, (str, bytes)):
        raise ValueError("content_types must be several types, not one text")
    return frozenset(name.strip().lower() for name in content_types)


def _places(concurrency: int) -> int:
    if concurrency < 1:
        raise ValueError(f"concurrency must be 1 or more, got {concurrency!r}")
    return concurrency


def _request(order_id: str) -> Request:
    return Request(
        method="POST",
        path="/partner/stores/orders" + path(order_id) + "/documents/invoice",
        headers=_HEADERS,
        repeat=Repeat.ALWAYS,
        operation="generate_invoice",
    )


def _served(response: Response) -> str | None:
    return from_content_disposition(response.header("Content-Disposition")) or None


def _stored(received: _Received, disk: DiskWriter) -> Awaitable[Published]:
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


def _saved(order_id: str, found: Published, *, attempts: int, request_id: str | None = None) -> SavedDocument:
    return SavedDocument(
        order_id=order_id,
        path=found.path,
        size=found.size,
        sha256=found.sha256,
        attempts=attempts,
        request_id=request_id,
        set_aside=found.set_aside,
    )
