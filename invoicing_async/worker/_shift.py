"""What a worker does from when it may work until it must not: the chunks that it takes on, in one stream.

A pause ends a shift, and the next one begins after it. An item of a chunk has ended when it has come to rest, or cannot
be gone on with now, as when `InvoiceRun.run` yields it.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Collection
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
from ..events import Event, Superseded
from ..invoices import AsyncInvoices
from ..models import Deferred, Failed, NotStarted
from ._feed import LedgerFeed, Pages
from ._outlook import Chunk

__all__ = ["DocumentShift", "InvoiceShift", "InvoiceWay", "Shift", "ShiftOverError"]

T = TypeVar("T")


class ShiftOverError(Exception):
    """The shift ended before the chunk was worked through; there may be another one."""


@define(eq=False)
class Taken:
    """A chunk that is being worked on: how many of its items have not ended, and the open ones that have.

    `unsent` are those that are to be sent and have not come back of that; `on_sent` is called when there is none.
    """

    left: int
    unsent: int
    on_sent: Callable[[], None]
    tried: set[str] = field(factory=set)
    ended: asyncio.Future[None] = field(factory=lambda: asyncio.get_running_loop().create_future())


class Shift(ABC, Generic[T]):
    """The stream of what is done with the chunks that are taken on until `end`, or until an error."""

    def __init__(self, ledger: Ledger, tell: Callable[[Event], None]) -> None:
        self._ledger = ledger
        self._feed = LedgerFeed(
            ledger,
            is_end_awaited=lambda: bool(self._unsent),
            on_superseded=lambda error: tell(Superseded(key=error.key, error=error)),
        )
        self._taken: dict[str, Taken] = {}
        self._unsent: set[str] = set()
        """What was given out to be sent and has not come back of that."""

    @abstractmethod
    def stream(self) -> AsyncGenerator[T]:
        """Yield what is done with what is fed, until the feed ends."""

    @abstractmethod
    async def open_items(self, part: Ledger, size: int) -> list[tuple[Item, Pages]]:
        """Return what a chunk has to do, and where that is fed."""

    @abstractmethod
    def key_of(self, result: T) -> str:
        """Return whose result it is."""

    @abstractmethod
    def stays_open(self, result: T) -> bool:
        """Tell whether there will be something to do on it at another time."""

    @abstractmethod
    def stop(self) -> None:
        """Let what is in flight finish, and begin nothing more."""

    @property
    def exports(self) -> bool:
        """Whether finished items without a file are something to do."""
        return False

    @property
    def is_over(self) -> bool:
        """Whether it takes on nothing more."""
        return self._feed.to_send.is_closed

    def end(self) -> None:
        """Take on nothing more; what was taken on is done."""
        self._feed.to_send.close()

    async def work(self, chunk: Chunk, besides: Collection[str], on_sent: Callable[[], None]) -> set[str] | None:
        """Work through a chunk but for some of its keys, and return which of its items ended and are still open.

        `on_sent` is called when nothing of it is to be sent any more, and the rest is only awaited. None if there was
        nothing to do. Raises `ShiftOverError` if the shift ends before.
        """
        lo, hi = chunk
        found = await self.open_items(LedgerPart(self._ledger, lo, hi), hi - lo + 1)
        if self.is_over:
            raise ShiftOverError
        known = self._taken.keys() | besides
        new = {item.key: (item, pages) for item, pages in found if item.key not in known}
        if not new:
            return None
        to_send = [key for key, (_, pages) in new.items() if pages is self._feed.to_send]
        taken = Taken(len(new), len(to_send), on_sent)
        self._taken |= dict.fromkeys(new, taken)
        self._unsent.update(to_send)
        for item, pages in new.values():
            pages.put([item])
        if not to_send:
            on_sent()
        await taken.ended
        return taken.tried

    async def results(self) -> AsyncGenerator[T]:
        """Yield what is done, each item when it has ended; an item has ended for its chunk once it was taken here."""
        try:
            async with aclosing(self.stream()) as results:
                async for result in results:
                    yield result
                    self._end(result)
        finally:
            self.end()
            for taken in {id(taken): taken for taken in self._taken.values()}.values():
                if not taken.ended.done():
                    taken.ended.set_exception(ShiftOverError())
                    taken.ended.exception()  # a chunk whose job left hears nothing

    def _has_come_back(self, key: str) -> None:
        """Note that an item is not to be sent any more."""
        if key in self._unsent:
            self._unsent.remove(key)
            taken = self._taken.get(key)
            if taken is not None:
                taken.unsent -= 1
                if not taken.unsent:
                    taken.on_sent()

    def _end(self, result: T) -> None:
        key = self.key_of(result)
        self._has_come_back(key)
        taken = self._taken.pop(key, None)
        if taken is None:
            return  # its chunk was given up
        if self.stays_open(result):
            taken.tried.add(key)
        taken.left -= 1
        if not taken.left and not taken.ended.done():
            taken.ended.set_result(None)


@frozen(kw_only=True)
class InvoiceWay:
    """How e-invoices are worked on: `export` says where finished ones are saved, None for nowhere.

    With `goes_on` trouble with the exports is raised when all the rest has come to rest, without it at once.
    """

    concurrency: int | None = None
    poller: Schedule | None = None
    export: ExportTo | None = None
    goes_on: bool = True


class InvoiceShift(Shift[Item]):
    """A shift of e-invoices: submitted, awaited, and exported if the run is to be."""

    def __init__(self, ledger: Ledger, tell: Callable[[Event], None], invoices: AsyncInvoices, way: InvoiceWay) -> None:
        super().__init__(ledger, tell)
        self._invoices = invoices
        self._way = way
        self._run = InvoiceRun(self._feed)
        self._exporting = way.export is not None
        self._finished: dict[str, Item] = {}
        """What is to be exported, as it finished."""

    @property
    def exports(self) -> bool:
        """Whether finished items without a file are something to do."""
        return self._exporting

    def stop(self) -> None:
        """Let what is in flight finish, and begin nothing more; what is awaited stays submitted."""
        self._run.stop()
        for pages in (self._feed.to_send, self._feed.to_settle, self._feed.to_export):
            pages.close()
        self.end()

    async def open_items(self, part: Ledger, size: int) -> list[tuple[Item, Pages]]:
        feed = self._feed
        found = [(item, feed.to_send) for item in await part.pending(limit=size)]
        found += [(item, feed.to_settle) for item in await part.rows((State.SUBMITTED,), limit=size)]
        if self._exporting:
            finished = [item for item in await part.rows((State.SUCCESS,), limit=size) if item.path is None]
            self._finished |= {item.key: item for item in finished}
            found += [(item, feed.to_export) for item in finished]
        return found

    async def stream(self) -> AsyncGenerator[Item]:
        sources = [self.submitted(), self.settled()]
        if self._exporting:
            sources.append(self.exported())
        trouble: Exception | None = None
        try:
            async with aclosing(merge_sources(*sources)) as items:
                async for item in items:
                    yield item
        except Exception as error:  # noqa: BLE001 - it is raised below
            trouble = error
        for item in self.given_up():
            yield item
        if trouble is not None:
            raise trouble

    def given_up(self) -> list[Item]:
        """Return what finished and is to be exported at another time."""
        items = [*self._finished.values()]
        self._finished.clear()
        return items

    async def submitted(self) -> AsyncGenerator[Item]:
        feed = self._feed
        try:
            async with aclosing(self._run.submit(self._invoices, concurrency=self._way.concurrency)) as items:
                async for item in items:
                    self._has_come_back(item.key)
                    if item.state == State.SUBMITTED:
                        feed.to_settle.put([item])
                    elif not await self.is_to_be_exported(item):
                        yield item
        finally:
            self.end()
            feed.to_settle.close()

    async def settled(self) -> AsyncGenerator[Item]:
        try:
            async with aclosing(self._run.settle(self._invoices, poller=self._way.poller)) as items:
                async for item in items:
                    if not await self.is_to_be_exported(item):
                        yield item
        finally:
            self.end()
            self._feed.to_export.close()

    async def is_to_be_exported(self, item: Item) -> bool:
        """Hand on what is to be exported, as it is recorded: that says when it was sent, which its name may hold."""
        if not self._exporting or item.state != State.SUCCESS or self._feed.to_export.is_closed:
            return False
        recorded = await self._ledger.get(item.seq) or item
        if recorded.path is not None or not self._exporting:
            return False
        self._finished[item.key] = recorded
        self._feed.to_export.put([recorded])
        return True

    async def exported(self) -> AsyncGenerator[Item]:
        to = self._way.export
        assert to is not None  # noqa: S101 - it is exporting; for the type checker
        exporting = self._run.export(
            self._invoices, to.folder, format=to.format, layout=to.layout, poller=self._way.poller
        )
        try:
            async with aclosing(exporting) as items:
                async for item in items:
                    self._finished.pop(item.key, None)
                    yield item
        except Exception:
            self._exporting = False
            if not self._way.goes_on:
                self.end()
            for item in self.given_up():
                yield item
            raise

    def key_of(self, result: Item) -> str:
        return result.key

    def stays_open(self, result: Item) -> bool:
        is_finished = result.state == State.SUCCESS and result.path is None
        return result.state in {*SENDABLE, State.SUBMITTED} or is_finished


class DocumentShift(Shift[DownloadOutcome]):
    """A shift of order documents."""

    def __init__(
        self,
        ledger: Ledger,
        tell: Callable[[Event], None],
        documents: OrderDocuments,
        *,
        concurrency: int | None = None,
    ) -> None:
        super().__init__(ledger, tell)
        self._documents = documents
        self._concurrency = concurrency
        self._run = DocumentRun(self._feed)

    def stop(self) -> None:
        """Let what is in flight finish, and begin nothing more."""
        self._run.stop()
        self.end()

    async def open_items(self, part: Ledger, size: int) -> list[tuple[Item, Pages]]:
        return [(item, self._feed.to_send) for item in await part.pending(limit=size)]

    async def stream(self) -> AsyncGenerator[DownloadOutcome]:
        outcomes = self._run.download(self._documents, concurrency=self._concurrency, verify=False)
        async with aclosing(outcomes):
            async for outcome in outcomes:
                if not isinstance(outcome, NotStarted):  # it is as it was
                    yield outcome

    def key_of(self, result: DownloadOutcome) -> str:
        return str(result.order_id)

    def stays_open(self, result: DownloadOutcome) -> bool:
        return isinstance(result, (Deferred, Failed))
