"""What the client of service B is inside: its calls, its waits and its exports, for itself and for runs."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterable
from decimal import Decimal
from pathlib import PurePath

from .._einvoices.poll_scheduler import Schedule, Scheduler
from .._einvoices.rules import rounding_unit
from .._einvoices.shape import WireNames
from .._files.names import file_name, parsed
from .._files.places import Place, Stores, Where, place_of
from .._files.publish import Destination, OnExisting
from .._files.writer import DiskWriter
from ..models import InvoiceRequest, SavedDocument
from ..session import Sleep
from ..session._feature import Feature
from ..session._internals import Internals
from ._calls import Calls, Endpoints
from ._exports import KINDS, Exporting
from ._kept import beside, saved_export
from ._waiting import AnyUuid, PollObserver, checked_uuid
from ._waits import schedule_of

__all__ = ["InvoiceWork"]


class InvoiceWork(Feature):
    """The inside of `AsyncInvoices`."""

    def __init__(
        self,
        session: Internals,
        *,
        names: WireNames | None,
        endpoints: Endpoints | None,
        max_bytes: int,
        rounding: Decimal | None,
    ) -> None:
        super().__init__(session)
        names, endpoints = names or session.preset(WireNames), endpoints or session.preset(Endpoints)
        self.calls = Calls(session, names=names, endpoints=endpoints, rounding=rounding_unit(rounding))
        self._max_bytes = max_bytes
        self.scheduler = Scheduler(
            self.calls.status,
            clock=session.clock,
            concurrency=session.limits.concurrency,
            fatal=session.ends_batch,
            on_answer=PollObserver(session).on_answer,
            age_now=self.calls.age_now,
            sleep=session.sleep,
        )

    async def submit_dumped(
        self,
        dump: str,
        key: str,
        *,
        sleep: Sleep,
        before: Callable[[], Awaitable[None]],
        leaves: Callable[[], None],
    ) -> InvoiceRequest:
        """Do as `AsyncInvoices.submit` with a draft without faults, given as the text that `dump_draft` wrote of it.

        `before` is awaited before each attempt's first byte and `leaves` called when that is about to leave; `sleep`
        replaces the wait between attempts.
        """
        return await self.calls.submit(self.calls.encode_dumped(dump), key, sleep, before, leaves)

    async def export(
        self,
        invoice_id: AnyUuid,
        folder: Where,
        *,
        format: str,  # noqa: A002 - the service's own name
        poller: Schedule | Iterable[float] | None,
        on_existing: OnExisting | str,
        durable: bool,
        name: str | PurePath | None,
        since: float | None,
        shared: bool = False,
        sleep: Sleep | None = None,
    ) -> SavedDocument:
        """Do as `AsyncInvoices.export`; `sleep` replaces every wait, what is `shared` is never taken back."""
        if format not in KINDS:
            raise ValueError(f"format must be one of {', '.join(KINDS)}, got {format!r}")
        number = checked_uuid(invoice_id, "invoice_id")
        below = file_name(number, suffix=f".{format}") if name is None else name
        place, existing = self._place(folder), OnExisting(on_existing)
        if existing is OnExisting.REPLACE and not place.replaces:
            raise ValueError(f"on_existing must be 'keep' or 'new name': nothing is replaced at {place.address}")
        target = parsed(os.path.join(place.base, below))  # noqa: PTH118 - a join of paths is what `parsed` avoids
        to = Destination(folder=place.base, target=target, on_existing=existing, durable=durable, shared=shared)
        if existing is OnExisting.KEEP:
            kept = await place.kept(target, KINDS[format].validator, since)
            if kept is not None:
                return saved_export(number, kept, place, attempts=0)
        exporting = Exporting(
            session=self.session,
            invoice_id=number,
            format=format,
            request=self.calls.exportation(number, format),
            read=self.calls.read_export,
            place=place,
            to=beside(to),
            max_bytes=self._max_bytes,
            sleep=sleep or self.session.sleep,
        )
        return saved_export(number, await exporting.saved(schedule_of(poller)), place, attempts=1)

    def _place(self, where: Where) -> Place:
        return place_of(where, self.session.resource(DiskWriter), self.session.resource(Stores))
