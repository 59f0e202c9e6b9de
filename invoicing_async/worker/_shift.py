"""What a worker does from when it may work until it must not: the chunks that it takes on, in one stream.

A pause ends a shift, and the next one begins after it. An item of a chunk has ended when it has come to rest, or cannot
be gone on with now, as when `InvoiceRun.run` yields it.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Collection, Iterable
from contextlib import aclosing
from typing import Generic, TypeVar

from attrs import define, field, frozen

from .._durable.document_run import DocumentRun
from .._durable.invoice_run import InvoiceRun
from .._durable.part import LedgerPart
from .._durable.protocol import Ledger
from .._durable.records import Item
from .._durable.run_settings import ExportTo
from .._durable.states import SENDABLE, State
from .._durable.streams import merge_sources
from .._einvoices.poll_scheduler import Schedule
from ..documents import DownloadOutcome, OrderDocuments
from ..invoices import AsyncInvoices
from ..models import Deferred, Failed, NotStarted
from ._feed import LedgerFeed, Pages
from ._queue_types import Chunk

__all__ = ["DocumentShift", "InvoiceShift", "InvoiceWay", "Shift", "ShiftOverError"]

T = TypeVar("T")


class ShiftOverError(Exception):
    """The shift ended before the chunk was worked through; there may be another one."""


@define(eq=False)
class Taken:
    """A chunk that is being worked on: how many of its items have not ended, and the open ones that have."""

    left: int
    tried: set[str] = field(factory=set)
    ended: asyncio.Future[None] = field(factory=lambda: asyncio.get_running_loop().create_future())


class Shift(ABC, Generic[T]):
    """The stream of what is done with the chunks that are taken on until `end`, or until an error."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._feed = LedgerFeed(ledger)
        self._taken: dict[str, Taken] = {}
        self._is_over = False

    @abstractmethod
    def _results(self) -> AsyncGenerator[T]:
        """Yield what is done with what is fed, until the feed ends."""

    @abstractmethod
    async def _open_items(self, part: Ledger, size: int) -> list[tuple[Item, Pages]]:
        """Return what a chunk has to do, and where that is fed."""

    @abstractmethod
    def _key(self, result: T) -> str:
        """Return whose result it is."""

    @abstractmethod
    def _is_open(self, result: T) -> bool:
        """Tell whether there will be something to do on it at another time."""

    @abstractmethod
    def stop(self) -> None:
        """Let what is in flight finish, and begin nothing more."""

    def end(self) -> None:
        """Take on nothing more; what was taken on is done."""
        self._is_over = True
        self._feed.to_send.close()

    async def work(self, chunk: Chunk, besides: Collection[str]) -> set[str]:
        """Work through a chunk but for some of its keys, and return which of its items ended and are still open.

        Raises `ShiftOverError` if the shift ends before.
        """
        lo, hi = chunk
        found = await self._open_items(LedgerPart(self._ledger, lo, hi), hi - lo + 1)
        if self._is_over:
            raise ShiftOverError
        new = {item.key: (item, pages) for item, pages in found if item.key not in besides | self._taken.keys()}
        if not new:
            return set()
        taken = Taken(len(new))
        self._taken |= dict.fromkeys(new, taken)
        for item, pages in new.values():
            pages.put([item])
        await taken.ended
        return taken.tried

    async def results(self) -> AsyncGenerator[T]:
        """Yield what is done, each item when it has ended; an item has ended for its chunk once it was taken here."""
        try:
            async with aclosing(self._results()) as results:
                async for result in results:
                    yield result
                    self._end(result)
        finally:
            self._is_over = True
            for taken in {id(taken): taken for taken in self._taken.values()}.values():
                if not taken.ended.done():
                    taken.ended.set_exception(ShiftOverError())
                    taken.ended.exception()  # a chunk whose job left hears nothing

    def _end(self, result: T) -> None:
        key = self._key(result)
        taken = self._taken.pop(key, None)
        if taken is None:
            return  # its chunk was given up
        if self._is_open(result):
            taken.tried.add(key)
        taken.left -= 1
        if not taken.left and not taken.ended.done():
            taken.ended.set_result(None)


@frozen(kw_only=True)
class InvoiceWay:
    """How e-invoices are worked on: `export` says where finished ones are saved, None for nowhere."""

    concurrency: int | None = None
    poller: Schedule | None = None
    export: ExportTo | None = None


class InvoiceShift(Shift[Item]):
    """A shift of e-invoices: submitted, awaited, and exported if the run is to be."""

    def __init__(self, ledger: Ledger, invoices: AsyncInvoices, way: InvoiceWay) -> None:
        super().__init__(ledger)
        self._invoices = invoices
        self._way = way
        self._run = InvoiceRun(self._feed)
        self._exporting = way.export is not None
        self._finished: dict[str, Item] = {}
        """What is to be exported, as it finished."""

    def stop(self) -> None:
        """Let what is in flight finish, and begin nothing more; what is awaited stays submitted."""
        self._run.stop()
        self.end()
        self._feed.to_settle.close()
        self._feed.to_export.close()

    async def _open_items(self, part: Ledger, size: int) -> list[tuple[Item, Pages]]:
        feed = self._feed
        found = [(item, feed.to_send) for item in await part.pending(limit=size)]
        found += [(item, feed.to_settle) for item in await part.rows((State.SUBMITTED,), limit=size)]
        if self._exporting:
            finished = [item for item in await part.rows((State.SUCCESS,), limit=size) if item.path is None]
            self._finished |= {item.key: item for item in finished}
            found += [(item, feed.to_export) for item in finished]
        return found

    async def _results(self) -> AsyncGenerator[Item]:
        sources = [self._submitted(), self._settled()]
        if self._exporting:
            sources.append(self._exported())
        async with aclosing(merge_sources(*sources)) as items:
            async for item in items:
                yield item
        for item in [*self._finished.values()]:
            yield item  # made, and to be exported at another time

    async def _submitted(self) -> AsyncGenerator[Item]:
        items = self._run.submit(self._invoices, concurrency=self._way.concurrency)
        async for item in self._passed_on(items, self._feed.to_settle):
            if item.state != State.SUBMITTED or self._feed.to_settle.is_closed:
                yield item
            else:
                self._feed.to_settle.put([item])

    async def _settled(self) -> AsyncGenerator[Item]:
        items = self._run.settle(self._invoices, poller=self._way.poller)
        async for item in self._passed_on(items, self._feed.to_export):
            yield item

    async def _passed_on(self, items: AsyncGenerator[Item], then: Pages) -> AsyncGenerator[Item]:
        """Yield what comes to rest, and hand on what is to be exported; at the end what comes next has its end too."""
        try:
            async with aclosing(items):
                async for item in items:
                    if item.state != State.SUCCESS or not self._exporting:
                        yield item
                    elif (finished := await self._to_export(item)) is not None:
                        yield finished
        finally:
            self.end()
            then.close()

    async def _to_export(self, item: Item) -> Item | None:
        """Hand on an item as it is recorded, with when it was sent; return it if there is nothing to export of it."""
        recorded = await self._ledger.get(item.seq) or item
        if recorded.path is not None or self._feed.to_export.is_closed:
            return recorded
        self._finished[item.key] = recorded
        self._feed.to_export.put([recorded])
        return None

    async def _exported(self) -> AsyncGenerator[Item]:
        to = self._way.export
        assert to is not None  # noqa: S101 - it is exporting; for the type checker
        items = self._run.export(
            self._invoices, to.folder, format=to.format, layout=to.layout, poller=self._way.poller
        )
        try:
            async with aclosing(items):
                async for item in items:
                    self._finished.pop(item.key, None)
                    yield item
        finally:
            self._exporting = False
            for item in [*self._finished.values()]:
                del self._finished[item.key]
                yield item

    def _key(self, result: Item) -> str:
        return result.key

    def _is_open(self, result: Item) -> bool:
        is_finished = result.state == State.SUCCESS and result.path is None
        return result.state in {*SENDABLE, State.SUBMITTED} or is_finished


class DocumentShift(Shift[DownloadOutcome]):
    """A shift of order documents."""

    def __init__(self, ledger: Ledger, documents: OrderDocuments, *, concurrency: int | None = None) -> None:
        super().__init__(ledger)
        self._documents = documents
        self._concurrency = concurrency
        self._run = DocumentRun(self._feed)

    def stop(self) -> None:
        """Let what is in flight finish, and begin nothing more."""
        self._run.stop()
        self.end()

    async def _open_items(self, part: Ledger, size: int) -> list[tuple[Item, Pages]]:
        return [(item, self._feed.to_send) for item in await part.pending(limit=size)]

    async def _results(self) -> AsyncGenerator[DownloadOutcome]:
        outcomes = self._run.download(self._documents, concurrency=self._concurrency, verify=False)
        async with aclosing(outcomes):
            async for outcome in outcomes:
                if not isinstance(outcome, NotStarted):  # it is as it was
                    yield outcome

    def _key(self, result: DownloadOutcome) -> str:
        return str(result.order_id)

    def _is_open(self, result: DownloadOutcome) -> bool:
        return isinstance(result, (Deferred, Failed))


def keys_of(items: Iterable[Item]) -> set[str]:
    return {item.key for item in items}
