"""The client of service A."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, date, datetime
from functools import partial
from os import PathLike
from pathlib import Path

from .._core.http import Response
from .._core.order_ids import OrderId, as_text, texts
from .._files.body import Body, DocumentReader
from .._files.kinds import GENERIC, PDF_TYPES, Pdf
from .._files.layout import Layout
from .._files.names import file_name, safe_name
from .._files.publish import OnExisting
from .._files.tempfile import prepare_folder
from .._files.writer import DiskWriter
from .._values.digest_set import DigestSet
from .._values.validators import at_least_one
from ..models import NotStarted, SavedDocument
from ..session import WIDE, Feature, Session
from ._opening import OpenDocument, Whole
from ._saving import PLAIN, BatchSaver, DownloadOutcome, Fetching, SaveOptions, invoice_request, judged, served_filename

__all__ = ["OrderDocuments"]

AT_THE_DISK = 8
"""To so many calls of a wide session one document more is under way: at the disk it holds no place of the session."""


MAX_BYTES = 256 * 2**20
"""The largest document taken by default."""


_JUDGED = "OrderDocuments(content_types=...) names the others that are judged by their bytes"


class OrderDocuments(Feature):
    """The invoices of marketplace orders. `max_bytes` is the largest document taken.

    `content_types` are the types, beside application/pdf and application/x-pdf, under which a document is judged by
    its bytes, "" for none at all: by default those that say nothing, as application/octet-stream. An answer of another
    type, as text/html, is refused whatever it holds; so is one of these that is no PDF.

    An order id is text, a UUID or an int, and is given back as text. Every method raises `ValueError` for anything
    else and for an id that is empty, `.` or `..`, before anything is sent.
    """

    def __init__(self, session: Session, *, max_bytes: int = MAX_BYTES, content_types: Iterable[str] = GENERIC) -> None:
        at_least_one("max_bytes", max_bytes)
        if isinstance(content_types, (str, bytes)):
            raise ValueError("content_types must be several types, not one text")
        judged_types = PDF_TYPES | {name.strip().lower() for name in content_types}
        self._session = session
        kind = Pdf(judged_types, _JUDGED)
        self._fetching = Fetching(session, DocumentReader(kind, session.clock, session.timeouts, max_bytes))

    @asynccontextmanager
    async def open(self, order_id: OrderId) -> AsyncIterator[OpenDocument]:
        """Pass an invoice through without touching the disk, for a web response.

        A document of up to 1 MiB, as nearly every one is, is read whole and checked before the block begins: every
        failure is retried and raised as for `download`, and the block holds nothing of the session. Of a larger one
        the block begins with its head; then nothing is repeated and `chunks` raises. Its place in
        `Limits.concurrency` is held only while `chunks` is waited for, and only that time counts for `Timeouts.floor`
        and `Timeouts.attempt`; when nobody has asked for more for `Timeouts.attempt` seconds, its connection is given
        up. Leaving the block gives everything back.
        """
        order_id = as_text(order_id)
        reading = partial(self._opened, order_id)
        async with self._session.hold(invoice_request(order_id), reading) as ((filename, body), hold):
            if isinstance(body, bytes):
                await hold.release()
                yield OpenDocument(filename=filename, size=len(body), chunks=Whole(body))
            else:
                hold.watch()
                yield OpenDocument(filename=filename, size=body.length, chunks=body.chunks(hold))

    async def _opened(self, order_id: str, response: Response) -> tuple[str, bytes | Body]:
        served = served_filename(response)
        return safe_name(served) if served else file_name(order_id), await self._fetching.reader.open(response)

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

        `on_existing` says what happens when the name is taken: "keep" keeps a whole PDF that is there, also one
        that came meanwhile (`attempts` is then 0), and renames a broken file (`set_aside`); with `served_name` it
        keeps what has the very same content; "new name" takes the next free name, "replace" replaces it. `durable`
        returns only after file and folder are on the disk. `layout` names the file below `folder`, with
        `{order_id}`, `{date}` (which is `day`, by default today in UTC), `{shard}`; `served_name` takes the last
        part from the answer's Content-Disposition, made safe.

        Raises `OrderStatusError` (ORDER_021), `ServiceUnavailableError` (SYS_DEP_503 to the last attempt), the
        other errors of `errors`, and `OSError` for trouble with the disk.
        """
        order_id = as_text(order_id)
        request = invoice_request(order_id)
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
        places = self.places(concurrency)
        saving = self._saving(folder, on_existing, layout, durable=durable, served_name=served_name, day=day)
        saver = await self._saver(saving, DigestSet())
        outcomes = self.each(ids, saver.outcome, concurrency=places, on_not_started=NotStarted, judge=judged)
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
    ) -> BatchSaver:
        """Prepare the folder and return what saves one id after the other, as `download_many` does."""
        saving = self._saving(folder, on_existing, layout, durable=durable, served_name=served_name, day=day)
        return await self._saver(saving, None)

    async def _saver(self, saving: SaveOptions, seen: DigestSet | None) -> BatchSaver:
        fresh = await saving.disk.run(lambda: prepare_folder(saving.folder, durable=saving.durable))
        return BatchSaver(self._fetching, saving, seen, looks_first=saving.looks_first and not fresh)

    @property
    def concurrency(self) -> int:
        """How many documents a batch has under way by default: as many as calls, of more than 32 an eighth more."""
        calls = self._session.limits.concurrency
        return calls + calls // AT_THE_DISK if calls > WIDE else calls

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
    ) -> SaveOptions:
        self._session.check_usable()
        return SaveOptions(
            folder=Path(folder),
            on_existing=OnExisting(on_existing),
            durable=durable,
            layout=layout if isinstance(layout, Layout) else Layout(layout),
            served_name=served_name,
            disk=self.disk,
            day=day or datetime.fromtimestamp(self._session.clock.now(), UTC).date(),
        )
