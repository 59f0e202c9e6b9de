"""Waiting for requests: their polls, and where their ends are collected."""

from __future__ import annotations

import asyncio
import uuid
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import TypeAlias

from .._einvoices.poll_scheduler import Result, Schedule, Scheduler
from .._einvoices.rules import NO_UUID, UUID
from .._values.digest_set import DigestSet
from ..errors import PollTimeoutError
from ..events import OperationPolled, UnknownStatus, WaitEnded, WaitStarted
from ..models import InvoiceRequest, RequestStatus, Unsettled
from ..session import LAST_CALL, last_call
from ..session._internals import Internals
from ._calls import STATUS

__all__ = ["AnyUuid", "Collector", "PollObserver", "Single", "Told", "checked_uuid"]

AnyUuid: TypeAlias = str | uuid.UUID
"""An id of the service's, as it gives it or as a database does."""


_WAITS = count(1)
"""The numbers of the waits of which there is an event."""

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


class Told:
    """The waits of one watcher of which somebody was told that they began, and is to be told that they ended."""

    def __init__(self, session: Internals) -> None:
        self._session = session
        self._begun: dict[str, tuple[int, float]] = {}

    @classmethod
    def if_heard(cls, session: Internals) -> Told | None:
        """Return one if somebody listens."""
        return cls(session) if session.hears() else None

    @classmethod
    @contextmanager
    def waiting(cls, session: Internals, request_id: str) -> Iterator[Told | None]:
        """Tell, if somebody listens, that a wait begins, and in the end that it ended, if it was not told before."""
        told = cls.if_heard(session)
        if told is not None:
            told.begin(request_id)
        try:
            yield told
        finally:
            if told is not None:
                told.end_all()

    def begin(self, request_id: str) -> None:
        session, wait_id = self._session, next(_WAITS)
        self._begun[request_id] = wait_id, session.clock.monotonic()
        session.tell(WaitStarted(operation=STATUS, store=session.store, wait_id=wait_id, request_id=request_id))

    def end(self, request_id: str, result: Result | None) -> None:
        """Tell how a wait ended, once; None stands for one that was left."""
        if request_id not in self._begun:
            return
        session, (wait_id, begun) = self._session, self._begun.pop(request_id)
        known = result.last if isinstance(result, PollTimeoutError) else result
        event = WaitEnded(
            operation=STATUS,
            store=session.store,
            wait_id=wait_id,
            request_id=request_id,
            status=str(known.status) if isinstance(known, InvoiceRequest) else "",
            elapsed=session.clock.monotonic() - begun,
            error=result if isinstance(result, Exception) else None,
        )
        session.tell(event)

    def end_all(self) -> None:
        """Tell of what is left that nobody waits for it any more."""
        for request_id in tuple(self._begun):
            self.end(request_id, None)


class Single:
    """One task that waits for one operation."""

    def __init__(self, schedule: Schedule, told: Told | None = None) -> None:
        self.schedule = schedule
        self.told = told
        self.future: asyncio.Future[InvoiceRequest] = asyncio.get_running_loop().create_future()

    def deliver(self, request_id: str, result: Result) -> None:
        if self.told is not None:
            self.told.end(request_id, result)
        if self.future.done():
            return
        if isinstance(result, Exception):
            self.future.set_exception(result)
        else:
            self.future.set_result(result)


class Collector:
    """Gathers the ends of many operations for one consumer."""

    def __init__(self, schedule: Schedule, scheduler: Scheduler, told: Told | None = None) -> None:
        self.schedule = schedule
        self._told = told
        self._scheduler = scheduler
        self._ready: deque[InvoiceRequest | Unsettled] = deque()
        self._outstanding = 0
        self._seen = DigestSet()
        self._news: asyncio.Future[None] | None = None

    def deliver(self, request_id: str, result: Result) -> None:
        self._outstanding -= 1
        if self._told is not None:
            self._told.end(request_id, result)
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
        for number, request_id in enumerate(request_ids, 1):
            self._watch(request_id)
            if number % YIELD_EVERY == 0:
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
            if self._told is not None:
                self._told.begin(number)
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
        try:
            await self._scheduler.unwatch_all(self)
        finally:
            if self._told is not None:
                self._told.end_all()
