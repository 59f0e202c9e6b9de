"""Waiting for requests: their polls, and where their ends are collected."""

from __future__ import annotations

import asyncio
import uuid
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Iterable
from typing import TypeAlias

from .._einvoices.poll_scheduler import Result, Schedule, Scheduler
from .._einvoices.rules import NO_UUID, UUID
from .._values.digest_set import DigestSet
from ..errors import PollTimeoutError
from ..events import OperationPolled, UnknownStatus
from ..models import InvoiceRequest, RequestStatus, Unsettled
from ..session import LAST_CALL, last_call
from ..session._internals import Internals

__all__ = ["AnyUuid", "Collector", "PollObserver", "Single", "checked_uuid"]

AnyUuid: TypeAlias = str | uuid.UUID
"""An id of the service's, as it gives it or as a database does."""


YIELD_EVERY = 500
"""Ids read in one go."""


class PollObserver:
    """Tells the log and the observer about the answers of polls."""

    def __init__(self, session: Internals) -> None:
        self._session = session
        self._unknown: set[str] = set()

    def on_answer(self, answer: InvoiceRequest, polls: int) -> None:
        """Tell of an answer; a status that no document names is logged once."""
        session = self._session
        if not isinstance(answer.status, RequestStatus) and answer.status not in self._unknown:
            self._unknown.add(answer.status)
            about = last_call() | {"status": answer.status}
            session.tell(UnknownStatus(**about, request_id=answer.request_id))
        if LAST_CALL.get() is not None:
            about = last_call() | {"status": str(answer.status)}
            session.tell(OperationPolled(**about, request_id=answer.request_id, polls=polls))


def checked_uuid(given: object, name: str) -> str:
    text = str(given) if isinstance(given, uuid.UUID) else given
    if not isinstance(text, str) or not UUID.fullmatch(text):
        raise ValueError(f"{name} {NO_UUID}, got {text!r}")
    return text


class Single:
    """One task that waits for one operation."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.future: asyncio.Future[InvoiceRequest] = asyncio.get_running_loop().create_future()

    def deliver(self, request_id: str, result: Result) -> None:
        if self.future.done():
            return
        if isinstance(result, Exception):
            self.future.set_exception(result)
        else:
            self.future.set_result(result)


class Collector:
    """Gathers the ends of many operations for one consumer."""

    def __init__(self, schedule: Schedule, scheduler: Scheduler) -> None:
        self.schedule = schedule
        self._scheduler = scheduler
        self._ready: deque[InvoiceRequest | Unsettled] = deque()
        self._outstanding = 0
        self._seen = DigestSet()
        self._news: asyncio.Future[None] | None = None

    def deliver(self, request_id: str, result: Result) -> None:
        self._outstanding -= 1
        if isinstance(result, Exception):
            last = result.last if isinstance(result, PollTimeoutError) else None
            status = last.status if isinstance(last, InvoiceRequest) else RequestStatus.NEW
            self._add(Unsettled(request_id, result, status))
        else:
            self._add(result)

    def _add(self, result: InvoiceRequest | Unsettled) -> None:
        self._ready.append(result)
        self._tell()

    def _tell(self, _: object = None) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    async def read(self, request_ids: Iterable[AnyUuid] | AsyncIterable[AnyUuid]) -> None:
        """Watch what is given, yielding to the loop every `YIELD_EVERY` ids."""
        if isinstance(request_ids, AsyncIterable):
            async for request_id in request_ids:
                self._watch(request_id)
            return
        for count, request_id in enumerate(request_ids, 1):
            self._watch(request_id)
            if count % YIELD_EVERY == 0:
                await asyncio.sleep(0)

    def _watch(self, request_id: AnyUuid) -> None:
        try:
            number = checked_uuid(request_id, "request_id")
        except ValueError as error:
            if not isinstance(request_id, str):
                raise
            self._add(Unsettled(request_id, error))
            return
        if self._seen.add(number):
            self._outstanding += 1
            self._scheduler.watch(number, self, spread=True)

    async def results(self, reader: asyncio.Task[None]) -> AsyncGenerator[InvoiceRequest | Unsettled]:
        """Yield what ends until the reader is through and nothing is outstanding. Raises what the reader raised."""
        reader.add_done_callback(self._tell)
        while self._ready or self._outstanding or not reader.done():
            if self._ready:
                yield self._ready.popleft()
            else:
                self._news = asyncio.get_running_loop().create_future()
                await self._news
        reader.result()

    async def leave(self, reader: asyncio.Task[None]) -> None:
        """Stop reading and watching."""
        reader.cancel()
        await asyncio.wait([reader])
        if not reader.cancelled():
            # Raised by `results` already, or nobody is left who could catch it.
            reader.exception()
        await self._scheduler.unwatch_all(self)
