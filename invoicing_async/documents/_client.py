"""The client of service A."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable
from contextlib import aclosing, asynccontextmanager
from datetime import date
from functools import partial

from .._core.http import Response
from .._core.order_ids import OrderId, as_text, texts
from .._files.body import Body
from .._files.kinds import GENERIC
from .._files.layout import Layout
from .._files.names import file_name, safe_name
from .._files.places import Where
from .._files.publish import OnExisting
from .._values.digest_set import DigestSet
from ..models import NotStarted, SavedDocument
from ..session import Session
from ..session._session import internals_of
from ._opening import OpenDocument, Whole
from ._saving import PLAIN, DownloadOutcome, invoice_request, judged, served_filename
from ._work import DocumentWork

__all__ = ["OrderDocuments", "work_of"]

MAX_BYTES = 256 * 2**20
"""The largest document taken by default."""


class OrderDocuments:
    """The invoices of marketplace orders. `max_bytes` is the largest document taken.

    `content_types` are the types, beside application/pdf and application/x-pdf, under which a document is judged by
    its bytes, "" for none at all: by default those that say nothing, as application/octet-stream. An answer of another
    type, as text/html, is refused whatever it holds; so is one of these that is no PDF.

    An order id is text, a UUID or an int, and is given back as text. Every method raises `ValueError` for anything
    else and for an id that is empty, `.` or `..`, before anything is sent.
    """

    def __init__(self, session: Session, *, max_bytes: int = MAX_BYTES, content_types: Iterable[str] = GENERIC) -> None:
        self._work = DocumentWork(internals_of(session), max_bytes=max_bytes, content_types=content_types)

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
        async with self._work.session.hold(invoice_request(order_id), reading) as ((filename, body), hold):
            if isinstance(body, bytes):
                await hold.release()
                yield OpenDocument(filename=filename, size=len(body), chunks=Whole(body))
            else:
                hold.watch()
                yield OpenDocument(filename=filename, size=body.length, chunks=body.chunks(hold))

    async def _opened(self, order_id: str, response: Response) -> tuple[str, bytes | Body]:
        served = served_filename(response)
        return safe_name(served) if served else file_name(order_id), await self._work.fetching.reader.open(response)

    async def download(
        self,
        order_id: OrderId,
        folder: Where,
        *,
        on_existing: OnExisting | str = OnExisting.KEEP,
        durable: bool = False,
        layout: Layout | str = PLAIN,
        served_name: bool = False,
        day: date | None = None,
    ) -> SavedDocument:
        """Save an invoice whole, or leave nothing.

        `folder` may be the address of an object store, as `s3://bucket/prefix`, or a `stores.Store`; then "replace" is
        refused, and a broken object stays, with this one beside it. `on_existing` says what happens when the name is
        taken: "keep" keeps a whole PDF that is there, also one that came meanwhile (`attempts` is then 0), and renames
        a broken file (`set_aside`); with `served_name` it keeps what has the very same content; "new name" takes the
        next free name (`name_taken`), "replace" replaces it. What came meanwhile, or with "new name" was there, and is
        the very same, byte for byte, is this document, whoever put it there. `durable` returns only after file and
        folder are on the disk; an object always is. `layout` names the file below `folder`, with
        `{order_id}`, `{date}` (which is `day`, by default today in UTC), `{shard}`; `served_name` takes the last
        part from the answer's Content-Disposition, made safe.

        Raises `OrderStatusError` (ORDER_021), `ServiceUnavailableError` (SYS_DEP_503 to the last attempt), the
        other errors of `errors`, `OSError` for trouble with the disk or the store, and `ValueError` for an address that
        is none or holds what may be a secret.
        """
        order_id = as_text(order_id)
        request, work = invoice_request(order_id), self._work
        saving = work.saving(folder, on_existing, layout, durable=durable, served_name=served_name, day=day)
        if saving.looks_first:
            kept = await work.fetching.kept(order_id, saving)
            if kept is not None:
                return kept
        return await work.fetching.fetched(order_id, request, saving, work.sleep)

    async def download_many(
        self,
        order_ids: Iterable[OrderId] | AsyncIterable[OrderId],
        folder: Where,
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
        work = self._work
        places = work.places(concurrency)
        saver = await work.saver(
            folder,
            on_existing=on_existing,
            durable=durable,
            layout=layout,
            served_name=served_name,
            day=day,
            seen=DigestSet(),
        )
        outcomes = work.each(ids, saver.outcome, concurrency=places, on_not_started=NotStarted, judge=judged)
        async with aclosing(outcomes):
            async for outcome in outcomes:
                yield outcome


def work_of(documents: OrderDocuments) -> DocumentWork:
    """Return what a run goes through; users have the methods of `OrderDocuments`."""
    return documents._work  # noqa: SLF001 - the one door to it
